"""Questions between supervisor and workers: see :mod:`socksproxy.workers.questions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from socksproxy.admin.answers import ProcessAnswer
from socksproxy.admin.control import Gathered
from socksproxy.admin.errors import RequestRefused
from socksproxy.workers.questions import ANSWER_WITHIN, Answering, Questions, WorkersAsker

from ..support.logs import heard


class Worker:
    """Both ends of a way, and answers that a test chooses."""

    def __init__(self, clock: Clock) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.answer: Deferred[ProcessAnswer] = Deferred()
        self.here, self.there = StringTransport(), StringTransport()
        answers: Any = self
        self.questions, self.answering = Questions(clock), Answering(answers)
        self.questions.makeConnection(self.here)
        self.answering.makeConnection(self.there)

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[ProcessAnswer]:
        self.asked.append((question, arguments))
        return self.answer

    def exchange(self) -> None:
        self.answering.dataReceived(self.here.value())
        self.here.clear()
        self.questions.dataReceived(self.there.value())
        self.there.clear()

    def end(self) -> None:
        self.questions.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workers(clock: Clock) -> dict[int, Worker]:
    return {1: Worker(clock), 2: Worker(clock)}


@pytest.fixture
def asker(workers: dict[int, Worker]) -> WorkersAsker:
    return WorkersAsker(lambda: {number: worker.questions for number, worker in workers.items()})


def test_all(clock: Clock, workers: dict[int, Worker], asker: WorkersAsker) -> None:
    """Each worker's answer comes with its parts, whatever bytes these have."""
    gathered: list[Gathered] = []
    asker.ask("sessions", {"limit": 3}).addCallback(gathered.append)
    for number, worker in workers.items():
        worker.exchange()
        assert worker.asked == [("sessions", {"limit": 3})]
        worker.answer.callback(ProcessAnswer({"of": number}, [b"a\nb", b"", bytes([number])]))
        worker.exchange()
    assert gathered[0].missing == []
    assert gathered[0].answers == [
        ProcessAnswer({"of": 1}, [b"a\nb", b"", b"\x01"]),
        ProcessAnswer({"of": 2}, [b"a\nb", b"", b"\x02"]),
    ]
    assert not clock.getDelayedCalls()


def test_late(clock: Clock, workers: dict[int, Worker], asker: WorkersAsker) -> None:
    """A worker that hangs is named after a second; what it says later is nobody's answer."""
    gathered: list[Gathered] = []
    asker.ask("counts", {}).addCallback(gathered.append)
    workers[1].exchange()
    workers[1].answer.callback(ProcessAnswer(1, []))
    workers[1].exchange()
    clock.advance(ANSWER_WITHIN - 0.01)
    assert not gathered
    clock.advance(0.02)
    assert gathered == [Gathered([ProcessAnswer(1, [])], [2])]
    workers[2].exchange()
    workers[2].answer.callback(ProcessAnswer(2, [b"late"]))
    workers[2].exchange()
    workers[2].answer = succeed(ProcessAnswer(2, [b"late"]))
    asker.ask("counts", {}, 2).addCallback(gathered.append)
    workers[2].exchange()
    assert gathered[1] == Gathered([ProcessAnswer(2, [b"late"])], [])


def test_death(workers: dict[int, Worker], asker: WorkersAsker) -> None:
    """A worker that dies is named at once, and so is one that is dead already."""
    gathered: list[Gathered] = []
    asker.ask("counts", {}, 1).addCallback(gathered.append)
    workers[1].end()
    asker.ask("counts", {}, 1).addCallback(gathered.append)
    assert gathered == [Gathered([], [1])] * 2


def test_refused(workers: dict[int, Worker], asker: WorkersAsker) -> None:
    """What a worker refuses is refused; a fault of a worker counts as no answer, and its log has it."""
    workers[1].answer = fail(RequestRefused(400, "words"))
    workers[2].answer = fail(KeyError("x"))
    failures: list[Failure] = []
    gathered: list[Gathered] = []
    asker.ask("counts", {}, 1).addErrback(failures.append)
    workers[1].exchange()
    problem: Any = failures[0].value
    assert (problem.status, problem.words) == (400, "words")
    asker.ask("counts", {}, 2).addCallback(gathered.append)
    with heard() as lines:
        workers[2].exchange()
        assert any("a question of the supervisor fails" in line for line in lines)
    assert gathered == [Gathered([], [2])]


def test_long(workers: dict[int, Worker], asker: WorkersAsker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools may have many members. What is too long is not sent, and costs no other answer."""
    gathered: list[Gathered] = []
    workers[1].answer = succeed(ProcessAnswer("x" * (2 << 20), []))
    asker.ask("upstreams", {}, 1).addCallback(gathered.append)
    workers[1].exchange()
    assert [len(value) for value in gathered[0].values] == [2 << 20]
    monkeypatch.setattr(Answering, "MAX_LENGTH", 1 << 10)
    asker.ask("upstreams", {}, 1).addCallback(gathered.append)
    with heard() as lines:
        workers[1].exchange()
        assert any("a question of the supervisor fails" in line for line in lines)
    assert gathered[1] == Gathered([], [1])
    workers[1].answer = succeed(ProcessAnswer(1, []))
    asker.ask("counts", {}, 1).addCallback(gathered.append)
    workers[1].exchange()
    assert gathered[2].values == [1]


def test_unknown_worker(asker: WorkersAsker) -> None:
    failures: list[Failure] = []
    asker.ask("counts", {}, 3).addErrback(failures.append)
    problem: Any = failures[0].value
    assert problem.status == 404
    gathered: list[Gathered] = []
    asker.ask_each("end", {3: {}}).addCallback(gathered.append)
    assert gathered == [Gathered([], [3])]


def test_nonsense(workers: dict[int, Worker], asker: WorkersAsker) -> None:
    """A message that makes no sense costs itself alone."""
    workers[1].answer = succeed(ProcessAnswer(1, []))
    with heard() as lines:
        workers[1].questions.stringReceived(b"nonsense\n")
        workers[1].answering.stringReceived(b"[1]\n")
        assert any("between supervisor and worker" in line for line in lines)
    gathered: list[Gathered] = []
    asker.ask("counts", {}, 1).addCallback(gathered.append)
    workers[1].exchange()
    assert gathered[0].values == [1]
