"""Jobs that go on at once, and clients who take turns."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from socksproxy.runtime.pool import QueueFull
from socksproxy.runtime.turns import Turns


class Jobs:
    """:ivar running: those that go on, by name."""

    def __init__(self, at_once: int = 4, waiting: int = 100, per_share: int = 2) -> None:
        self.turns = Turns(at_once, waiting, per_share)
        self.running: dict[str, Deferred[Any]] = {}

    def run(self, name: str, share: str | None = None) -> tuple[Deferred[Any], list[Any]]:
        def start() -> Deferred[Any]:
            self.running[name] = Deferred(lambda _: self.running.__delitem__(name))
            return self.running[name]

        results: list[Any] = []
        answer = self.turns.run(start, share)
        answer.addCallbacks(results.append, lambda failure: results.append(failure.type))
        return answer, results

    def end(self, name: str, result: Any = None) -> None:
        self.running.pop(name).callback(result)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def test_results(jobs: Jobs) -> None:
    results = [jobs.run(name)[1] for name in "ab"]
    jobs.end("b", 2)
    jobs.running.pop("a").errback(ZeroDivisionError())
    assert results == [[ZeroDivisionError], [2]]


def test_at_once(jobs: Jobs) -> None:
    for name in "abcdef":
        jobs.run(name)
    assert list(jobs.running) == ["a", "b", "c", "d"]
    jobs.end("c")
    assert list(jobs.running) == ["a", "b", "d", "e"]


def test_shares(jobs: Jobs) -> None:
    """A client has a part of the turns, and delays itself only."""
    for name in "abcdef":
        jobs.run(name, "one")
    assert list(jobs.running) == ["a", "b"]
    for name in "xyz":
        jobs.run(name, "two")
    assert list(jobs.running) == ["a", "b", "x", "y"]
    jobs.run("p", "three")
    for name in "axb":
        jobs.end(name)
    assert set(jobs.running) == {"y", "c", "z", "p"}


def test_cancelled(jobs: Jobs) -> None:
    """A job that waits leaves the queue; one that goes on is cancelled, and another one has its turn."""
    answers = {name: jobs.run(name) for name in "abcdefg"}
    for name in "ea":
        answers[name][0].cancel()
        assert answers[name][1] == [CancelledError]
    assert list(jobs.running) == ["b", "c", "d", "f"]
    for name in "bcdfg":
        answers[name][0].cancel()
    assert jobs.running == {}
    assert jobs.run("z")[1] == []
    assert list(jobs.running) == ["z"]


def test_full() -> None:
    """The client who has most loses what it asked for last."""
    jobs = Jobs(at_once=1, waiting=3)
    flood = [jobs.run(f"a{number}", "one")[1] for number in range(4)]
    other = jobs.run("b", "two")[1]
    assert [*flood, other] == [[], [], [], [QueueFull], []]
    assert jobs.run("a9", "one")[1] == [QueueFull]


def test_jobs_that_end_at_once(jobs: Jobs) -> None:
    """However many there are, and one that cannot begin has failed."""
    results: list[Any] = []
    for number in range(1000):
        jobs.turns.run(partial(succeed, number), "one").addCallback(results.append)
    assert results == list(range(1000))

    def broken() -> Deferred[Any]:
        raise ZeroDivisionError

    jobs.turns.run(broken).addErrback(lambda failure: results.append(failure.type))
    assert results[-1] is ZeroDivisionError
