"""The questions of one process: see :mod:`socksproxy.helpers.process`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import ProcessDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from socksproxy.helpers.lines import HelperAnswer, HelperVerdict
from socksproxy.helpers.process import ENDS_WITHIN, MOST_BYTES, HelperProcess, HelperQuestion
from socksproxy.values.helpers import HelperSettings


class Pipes:
    """Stands for the transport of a process."""

    pid = 1

    def __init__(self) -> None:
        self.written = b""
        self.signals: list[str] = []

    def write(self, data: bytes) -> None:
        self.written += data

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def closeStdin(self) -> None:
        self.signals.append("end of input")


class Asked:
    """A question."""

    def __init__(self, *words: bytes) -> None:
        self.words: tuple[bytes | None, ...] = words
        self.answers: list[HelperAnswer] = []

    def answered(self, answer: HelperAnswer) -> None:
        self.answers.append(answer)


class Owner:
    """The owner of a process, and what it is told."""

    def __init__(self, concurrency: int) -> None:
        self.answers = 0
        self.left: list[Any] = []
        self.ends = 0
        self.complaints: list[str] = []
        self.clock = Clock()
        settings = HelperSettings(command="/bin/sh", concurrency=concurrency)
        self.process = HelperProcess(settings, self.clock, self)
        self.pipes = self.process.transport = Pipes()

    def free(self, process: HelperProcess) -> None:
        self.answers += 1

    def gone(self, process: HelperProcess, left: list[HelperQuestion]) -> None:
        self.left.append(left)

    def ended(self, process: HelperProcess) -> None:
        self.ends += 1

    def complain(self, what: str) -> None:
        self.complaints.append(what)


def test_channels() -> None:
    """Answers come in any order and in any pieces; a channel number is free again after its answer."""
    owner = Owner(3)
    process, asked = owner.process, [Asked(b"a"), Asked(b"b"), Asked(b"c"), Asked(b"d")]
    for each in asked[:3]:
        process.ask(each)
    assert (owner.pipes.written, process.room) == (b"0 a\n1 b\n2 c\n", 0)
    for piece in (b"1 O", b"K\n2 ER", b"R\n"):
        process.outReceived(piece)
    assert [len(each.answers) for each in asked[:3]] == [0, 1, 1]
    process.ask(asked[3])
    assert owner.pipes.written.endswith(b"\n1 d\n")
    process.outReceived(b"1 OK\n0 BH\n")
    assert [each.answers[0].verdict for each in asked] == [
        HelperVerdict.BROKEN,
        HelperVerdict.YES,
        HelperVerdict.NO,
        HelperVerdict.YES,
    ]
    assert (process.room, process.busy, owner.answers) == (3, False, 4)


def test_one_at_a_time() -> None:
    owner = Owner(0)
    assert owner.process.room == 1
    owner.process.ask(Asked(b"a", b"b"))
    assert (owner.process.room, owner.pipes.written) == (0, b"a b\n")


@pytest.mark.parametrize("concurrency", [0, 2])
@pytest.mark.parametrize("data", [b"maybe\n", b"x" * (MOST_BYTES + 1), b"1 OK\n", b"\n", b"OK\nOK\n"])
def test_breaks_the_protocol(concurrency: int, data: bytes) -> None:
    """The process is killed, its question goes back, and nothing that comes after that counts."""
    owner = Owner(concurrency)
    asked = Asked(b"a")
    owner.process.ask(asked)
    owner.process.outReceived(data)
    answered = concurrency == 0 and data.startswith(b"OK")
    assert (owner.pipes.signals, owner.left) == (["KILL"], [[] if answered else [asked]])
    assert len(owner.complaints) == 1
    owner.process.outReceived(b"0 OK\nOK\n")
    assert (len(asked.answers), owner.process.room) == (int(answered), 0)


def test_owes_all_answers() -> None:
    """A process for whose answers nothing waits keeps no channel; if all are taken, it is not asked again."""
    owner = Owner(2)
    process, asked = owner.process, [Asked(b"a"), Asked(b"b"), Asked(b"c")]
    process.ask(asked[0])
    assert process.give_up(asked[0])
    process.ask(asked[1])
    process.outReceived(b"0 OK\n")
    process.ask(asked[2])
    assert process.give_up(asked[1])
    assert not process.give_up(asked[2])


def test_gone_once() -> None:
    """The owner hears once that a process is gone."""
    owner = Owner(1)
    owner.process.close()
    owner.process.kill()
    assert owner.left == [[]]


def test_does_not_end() -> None:
    """The end of its input, then SIGTERM, then SIGKILL; sooner where the server ends meanwhile."""
    owner = Owner(1)
    owner.process.close()
    for expected in (["end of input"], ["end of input", "TERM"], ["end of input", "TERM", "KILL"]):
        assert owner.pipes.signals == expected
        owner.clock.advance(ENDS_WITHIN)
    owner = Owner(1)
    owner.process.close()
    owner.clock.advance(1)
    owner.process.close(0.2)
    owner.clock.pump([0.2, 0.2])
    assert owner.pipes.signals == ["end of input", "TERM", "KILL"]
    owner.process.processEnded(Failure(ProcessDone(0)))
    assert owner.ends == 1
    assert owner.clock.getDelayedCalls() == []
