"""Work in slices: see :mod:`socksproxy.runtime.slices`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from socksproxy.runtime.slices import in_slices


class Turns:
    """A reactor that turns when it is told to."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []

    def callLater(self, delay: float, call: Callable[[], object]) -> None:
        self._calls.append(call)

    def turn(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            call()


def test_one_step_a_turn() -> None:
    reactor = Turns()
    steps: list[int] = []
    ended: list[str] = []

    def work() -> Generator[None, None, str]:
        for step in range(3):
            steps.append(step)
            yield
        return "done"

    in_slices(reactor, work()).addCallback(ended.append)
    assert steps == [0]
    reactor.turn()
    assert (steps, ended) == ([0, 1], [])
    reactor.turn()
    reactor.turn()
    assert (steps, ended) == ([0, 1, 2], ["done"])


def test_failure() -> None:
    clock, failed = Clock(), []

    def work() -> Generator[None, None, None]:
        yield
        raise KeyError("x")

    in_slices(clock, work()).addErrback(lambda failure: failed.append(failure.type))
    clock.advance(0)
    assert failed == [KeyError]


def test_cancel() -> None:
    """The work ends where it is, and cleans up."""
    clock, steps, failed = Clock(), [], []

    def work() -> Generator[None, None, None]:
        try:
            while True:
                steps.append(1)
                yield
        finally:
            steps.append(0)

    waiting: Any = in_slices(clock, work()).addErrback(lambda failure: failed.append(failure.type))
    waiting.cancel()
    assert (steps, failed) == ([1, 0], [CancelledError])
    assert not clock.getDelayedCalls()
