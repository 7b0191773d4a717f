"""
How counts and rates are kept: here, for one process.

Several processes keep them together (:mod:`socksproxy.workers.counts`), by classes that replace these.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime

from ..values.limits import Rate
from .buckets import Bucket


class Counter:
    """How many there are of something."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0

    @property
    def value(self) -> int:
        """How many there are."""
        return self._value

    def add(self) -> int:
        """Count one more, and return how many there are."""
        self._value += 1
        return self._value

    def give(self) -> None:
        """Count one less."""
        self._value -= 1


class Devices:
    """How many different addresses there are; each is counted as long as it has a session."""

    __slots__ = ("_sessions",)

    def __init__(self) -> None:
        self._sessions: dict[str, int] = {}

    @property
    def value(self) -> int:
        """How many addresses there are."""
        return len(self._sessions)

    def add(self, address: str) -> int:
        """Count one more session from *address*, and return how many addresses there are."""
        self._sessions[address] = self._sessions.get(address, 0) + 1
        return len(self._sessions)

    def give(self, address: str) -> None:
        """Count one session less from *address*."""
        left = self._sessions[address] - 1
        if left:
            self._sessions[address] = left
        else:
            del self._sessions[address]


class Device:
    """
    One session's part of *devices*, as a :class:`Counter`.

    :param address: the address of the client.
    """

    __slots__ = ("_address", "_devices")

    def __init__(self, devices: Devices, address: str) -> None:
        self._devices = devices
        self._address = address

    def add(self) -> int:
        """See :meth:`Devices.add`."""
        return self._devices.add(self._address)

    def give(self) -> None:
        """See :meth:`Devices.give`."""
        self._devices.give(self._address)


class Pace:
    """
    How often something may begin.

    :param clock: the source of time.
    :param rate: how often; it can be set in place. Without a burst a second's worth may begin at once, and at
        least one.
    """

    __slots__ = ("_burst", "_filled", "_left", "_rate", "_seconds")

    def __init__(self, clock: IReactorTime, rate: Rate) -> None:
        self._seconds = clock.seconds
        self.rate = rate
        self._filled = self._seconds()
        self._left = self._burst

    @property
    def rate(self) -> Rate:
        """How often something may begin."""
        return self._rate

    @rate.setter
    def rate(self, rate: Rate) -> None:
        self._rate, self._burst = rate, burst_of(rate)

    def take(self) -> bool:
        """Whether one more may begin now; if so, it counts."""
        self._fill()
        # A little less: what is due at a time is not quite there at that time, in floating numbers.
        if self._left < 1 - 1e-9:
            return False
        self._left -= 1
        return True

    @property
    def full(self) -> bool:
        """Whether the last beginning is so long ago that nothing is lost when this pace is forgotten."""
        self._fill()
        return self._left >= self._burst

    def _fill(self) -> None:
        now = self._seconds()
        left, burst = self._left + (now - self._filled) * self._rate.per_second, self._burst
        self._left = left if left < burst else burst
        self._filled = now


def burst_of(rate: Rate) -> float:
    """How many may begin at once after a pause."""
    return max(1.0, rate.per_second if rate.burst is None else rate.burst)


class Counting:
    """
    Makes what keeps counts and rates, by names.

    :param reactor: keeps time.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def counter(self, name: str) -> Counter:
        """The count of that *name*; it may be forgotten when none is left."""
        return Counter()

    def devices(self, name: str) -> Devices:
        """The addresses of that *name*."""
        return Devices()

    def pace(self, name: str, rate: Rate) -> Pace:
        """The pace of that *name*."""
        return Pace(self._reactor, rate)

    def bucket(self, name: str, rate: Rate) -> Bucket:
        """The bucket of bytes of that *name*."""
        return Bucket(self._reactor, rate)
