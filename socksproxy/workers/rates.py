"""
Buckets and paces whose tokens the workers share: see :mod:`~socksproxy.workers.tokens`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IReactorTime

from ..limits.buckets import Bucket, Waiter
from ..limits.counting import Pace
from ..values.limits import Rate
from .tokens import Tokens, Wish

#: Seconds' worth that a worker takes at a time, and the most of a whole bucket that all of them may have so.
_LEASE_SECONDS, _LEASE_PART = 0.02, 0.25
#: Seconds after which it gives back what it has not used, before it takes more.
_KEPT = 0.1
#: Bytes that are worth the lock.
_LEAST_LEASE = 512.0


class SharedPace(Pace):
    """
    See :class:`~socksproxy.limits.counting.Pace`; this one holds for all workers, exactly.

    :param rate: how many may begin.
    :param tokens: what the workers share of it.
    :param seconds: a clock that is the same in all of them.
    """

    __slots__ = ("_tokens",)

    def __init__(self, rate: Rate, tokens: Tokens, seconds: Callable[[], float]) -> None:
        self.rate = rate
        self._tokens = tokens
        self._seconds = seconds

    def take(self) -> bool:
        """See :meth:`~socksproxy.limits.counting.Pace.take`."""
        return self._tokens.take(self._seconds(), max(self._rate.per_second, 0.0), self._burst)

    @property
    def full(self) -> bool:
        """True: what has begun stays known when this is forgotten."""
        return True


class SharedBucket(Bucket):
    """
    A :class:`~socksproxy.limits.buckets.Bucket` that fills from what all workers have together.

    What it has by itself is a lease, of some tens of milliseconds.

    :param clock: calls those who wait.
    :param rate: how many bytes come, for all workers.
    :param tokens: what they share of it.
    :param workers: how many they are.
    :param seconds: a clock that is the same in all of them.
    """

    __slots__ = ("_crowd", "_crowded", "_for_us", "_shared", "_workers")

    def __init__(
        self, clock: IReactorTime, rate: Rate, tokens: Tokens, workers: int, seconds: Callable[[], float]
    ) -> None:
        super().__init__(clock, rate)
        self._shared = tokens
        self._workers = workers
        self._seconds = seconds
        # How many waited when they had their turns, and when that was; and how many bytes come for them.
        self._crowd, self._crowded = 0, -inf
        self._for_us = self._per_second
        self._tokens, self._filled = 0.0, -inf

    @property
    def full(self) -> bool:
        """Whether nothing is lost when the bucket is forgotten: what was spent is known to all workers."""
        if self._waiting:
            return False
        self._renew(self._seconds(), 0.0)
        return True

    def lend(self, amount: int) -> bool:
        """Nothing is lent: what it has is a lease already."""
        return False

    def leave(self, waiter: Waiter) -> None:
        """See :meth:`~socksproxy.limits.buckets.Budget.leave`."""
        waited = bool(self._waiting)
        super().leave(waiter)
        if waited and not self._waiting:
            self._renew(self._seconds(), 0.0)

    def _fill(self) -> None:
        now, least = self._seconds(), min(_LEAST_LEASE, self._quantum)
        if self._waiting:
            self._renew(now, self._quantum)
        elif self._tokens < least or now - self._filled >= _KEPT:
            part = min(self._per_second * _LEASE_SECONDS, self._burst * _LEASE_PART / self._workers)
            self._renew(now, max(part, least))

    def _renew(self, now: float, want: float) -> None:
        waiting = len(self._waiting)
        if waiting and now - self._crowded < _KEPT:
            # They are about to wait again.
            waiting = max(waiting, self._crowd)
        wish = Wish(self._per_second, self._burst, self._tokens, want, waiting)
        self._tokens, self._for_us = self._shared.renew(now, wish)
        self._filled = now

    def _want_timer(self) -> None:
        if self._timer is None and self._waiting and self._per_second:
            self._fill()
            wait = max(self._quantum - self._tokens, 0.0) / self._for_us
            # Others may come to wait no longer, and then there is more for us.
            longest = max(self._quantum / self._per_second, _KEPT)
            self._timer = self._clock.callLater(min(wait, longest), self._wake)

    def _wake(self) -> None:
        self._crowd, self._crowded = len(self._waiting), self._seconds()
        super()._wake()
        if not self._waiting:
            # What is set aside for us is for the others.
            self._renew(self._seconds(), 0.0)
