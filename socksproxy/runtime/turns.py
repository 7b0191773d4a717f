"""
Turns: a bounded number of jobs go on at once, and the clients who want them take turns.

Strategy: that of :class:`~socksproxy.runtime.pool.Pool`, for jobs that need no thread, such as questions
to a server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred

from .fair_queue import FairQueue
from .pool import QueueFull

T = TypeVar("T")


class _Turn:
    __slots__ = ("answer", "running", "start")

    def __init__(self, start: Callable[[], Deferred[Any]], answer: Deferred[Any]) -> None:
        self.start = start
        self.answer = answer
        self.running: Deferred[Any] | None = None


class Turns:
    """
    Starts jobs when it is their turn.

    :param at_once: how many jobs go on at once.
    :param waiting: how many more jobs wait.
    :param per_share: how many jobs of one share go on at once; jobs without a share are not bounded so.
    :param cancels: whether to cancel a job that goes on when its caller does not wait any more.
    """

    def __init__(self, at_once: int, waiting: int, per_share: int, cancels: bool = True) -> None:
        self._cancels = cancels
        self._at_once = at_once
        self._most_waiting = waiting
        self._per_share = per_share
        self._busy = 0
        self._running: Counter[Hashable] = Counter()
        self._waiting: FairQueue[_Turn] = FairQueue()

    def run(self, start: Callable[[], Deferred[T]], share: Hashable = None) -> Deferred[T]:
        """
        Call *start* when it is its turn.

        :param start: begins a job; its Deferred can be cancelled.
        :param share: the client for whom the job is; its jobs take turns with those of other shares.
        :returns: fires with what the job's Deferred fires with. Cancelling it takes a job that waits out of
            the queue, and cancels a job that goes on unless *cancels* is False.
        :raises QueueFull: (by the Deferred) when too many jobs wait.
        """
        answer: Deferred[T] = Deferred(lambda _: self._forget(share, job))
        job = _Turn(start, answer)
        self._waiting.put(share, job)
        self._next()
        if len(self._waiting) > self._most_waiting:
            self._waiting.shed(share).answer.errback(QueueFull("as many jobs wait as may"))
        return answer

    def _next(self) -> None:
        while self._busy < self._at_once and (taken := self._waiting.take(self._has_turn)) is not None:
            share, job = taken
            self._busy += 1
            self._running[share] += 1
            job.running = maybeDeferred(job.start)
            job.running.addBoth(self._ended, share, job)

    def _has_turn(self, share: Hashable) -> bool:
        return share is None or self._running[share] < self._per_share

    def _ended(self, result: Any, share: Hashable, job: _Turn) -> None:
        self._busy -= 1
        self._running[share] -= 1
        if not self._running[share]:
            del self._running[share]
        self._next()
        if not job.answer.called:
            job.answer.callback(result)

    def _forget(self, share: Hashable, job: _Turn) -> None:
        if job.running is None:
            self._waiting.discard(share, job)
        elif self._cancels:
            job.running.cancel()
