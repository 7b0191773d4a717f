"""The questions of one process: see :mod:`socksproxy.helpers.process`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from socksproxy.helpers.lines import HelperAnswer, HelperVerdict
from socksproxy.helpers.process import MOST_BYTES, HelperProcess
from socksproxy.values.helpers import HelperSettings


class Pipes:
    """Stands for the transport of a process."""

    pid = 1

    def __init__(self) -> None:
        self.written = b""
        self.killed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def signalProcess(self, name: str) -> None:
        self.killed = True

    def closeStdin(self) -> None:
        self.killed = True


class Asked:
    """A question."""

    def __init__(self, *words: bytes) -> None:
        self.words: tuple[bytes | None, ...] = words
        self.answers: list[HelperAnswer] = []

    def answered(self, answer: HelperAnswer) -> None:
        self.answers.append(answer)


class Owner:
    """A process, and what its owner is told."""

    def __init__(self, concurrency: int) -> None:
        self.free: list[HelperProcess] = []
        self.left: list[Any] = []
        self.complaints: list[str] = []
        settings = HelperSettings(command="/bin/sh", concurrency=concurrency)
        self.process = HelperProcess(
            settings,
            Clock(),
            self.free.append,
            lambda _, left: self.left.append(left),
            self.complaints.append,
        )
        self.pipes = self.process.transport = Pipes()


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
    assert (process.room, process.busy, len(owner.free)) == (3, False, 4)


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
    assert (owner.pipes.killed, owner.left) == (True, [[] if answered else [asked]])
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
