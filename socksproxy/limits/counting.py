"""
How counts and rates are kept: here, for a process by itself.

Several processes keep them together (:mod:`socksproxy.workers.counts`), and whoever counts need not know.
"""

from __future__ import annotations

from typing import Any, Protocol as Shape

from twisted.internet.interfaces import IReactorTime

from ..values.limits import Rate
from .buckets import Bucket


class Counter(Shape):
    """How many there are of something."""

    def add(self) -> int:
        """One more; returned is how many there are."""

    def give(self) -> None:
        """One less."""


class Pace(Shape):
    """
    How often something may begin.

    :ivar rate: it can be set in place.
    """

    rate: Rate

    def take(self) -> bool:
        """Whether one more may begin now, which it then does."""

    @property
    def full(self) -> bool:
        """Whether nothing has begun for so long that nothing is lost when this is forgotten."""


class Counting(Shape):
    """Keeps counts and rates, by names."""

    def counter(self, name: str) -> Counter:
        """The count of that *name*; it is let go of when none is left."""

    def pace(self, name: str, rate: Rate) -> Pace:
        """The pace of that *name*."""

    def bucket(self, name: str, rate: Rate) -> Bucket:
        """The bucket of bytes of that *name*."""


class OwnCounter:
    """See :class:`Counter`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self) -> int:
        self.value += 1
        return self.value

    def give(self) -> None:
        self.value -= 1


class OwnPace:
    """
    See :class:`Pace`.

    :param clock: the source of time.
    :param rate: where it says nothing else, a second's worth may begin at once, and one always.
    """

    __slots__ = ("_filled", "_left", "_seconds", "rate")

    def __init__(self, clock: IReactorTime, rate: Rate) -> None:
        self._seconds = clock.seconds
        self.rate = rate
        self._filled = self._seconds()
        self._left = burst_of(rate)

    def take(self) -> bool:
        self._fill()
        # A little less: what is due at a time is not quite there at that time, in floating numbers.
        if self._left < 1 - 1e-9:
            return False
        self._left -= 1
        return True

    @property
    def full(self) -> bool:
        self._fill()
        return self._left >= burst_of(self.rate)

    def _fill(self) -> None:
        now = self._seconds()
        come = (now - self._filled) * self.rate.per_second
        self._left = min(self._left + come, burst_of(self.rate))
        self._filled = now


def burst_of(rate: Rate) -> float:
    """How many may begin at once after a pause."""
    return max(1.0, rate.per_second if rate.burst is None else rate.burst)


class OwnCounting:
    """
    Counts for one process.

    :param reactor: keeps time.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def counter(self, name: str) -> OwnCounter:
        return OwnCounter()

    def pace(self, name: str, rate: Rate) -> OwnPace:
        return OwnPace(self._reactor, rate)

    def bucket(self, name: str, rate: Rate) -> Bucket:
        return Bucket(self._reactor, rate)
