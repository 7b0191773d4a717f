"""
Living within the limit on open descriptors.

A session that was accepted and cannot dial for want of a descriptor is worse
than a client that waits in the listen queue. So accepting pauses before the
descriptors run out, and goes on when sessions have ended.
"""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol as Shape

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..logs.throttle import LogThrottle, complain

_log = Logger(namespace="socksproxy")

#: Seconds after which a paused port is tried again.
RETRY = 1.0


def _next_descriptor() -> int | None:
    """The number that the next descriptor gets; None: there is no more to be had."""
    try:
        with socket.socket() as probe:
            return probe.fileno()
    except OSError:
        return None


class Port(Shape):
    """A listening port that can be paused."""

    @property
    def connected(self) -> int:
        """Whether it still listens."""

    def startReading(self) -> None: ...

    def stopReading(self) -> None: ...


def raise_limit() -> int:
    """Raise the soft limit on open descriptors to the hard one, and tell it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def current_limit() -> int:
    """The soft limit on open descriptors, as a number even where there is none."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def reserve(limit: int) -> int:
    """How many of *limit* descriptors are kept for logs, look-ups, second attempts and pipes."""
    return max(16, limit // 32)


class DescriptorGate:
    """
    Pauses ports while descriptors are short.

    :param clock: for trying again.
    :param dialing: how many accepted sessions have yet to open their second descriptor.
    :param needed: how many descriptors all sessions together have or will have; no fewer than *dialing*.
        None: as many as that.
    :param make_room: ends so many sessions at the most, that can be spared; how many it has ended.
    """

    def __init__(
        self,
        clock: IReactorTime,
        dialing: Callable[[], int],
        needed: Callable[[], int] | None = None,
        make_room: Callable[[int], int] = lambda most: 0,
    ) -> None:
        self._clock = clock
        self._dialing = dialing
        self._needed = needed or dialing
        self._make_room = make_room
        self._paused: set[Port] = set()
        self._resting: set[Port] = set()
        self._retry: IDelayedCall | None = None
        self._paused_again = LogThrottle(clock)
        self._failed_again = LogThrottle(clock)
        self._learn_limit()

    @property
    def paused(self) -> bool:
        """Whether any port is paused."""
        return bool(self._paused)

    def accepted(self, port: Port, descriptor: int) -> None:
        """
        *port* has accepted a connection as *descriptor*.

        The system gives out the lowest free number, so the number tells how many are in use at the least.
        """
        # The sum is seldom so high, and counting those who dial takes longer than this.
        if descriptor + self._needed() >= self._most and self._is_short(descriptor):
            self._check(port, descriptor)

    def exhausted(self, port: Port) -> None:
        """*port* could not accept for want of descriptors."""
        self._learn_limit()
        self._pause(port, self._limit)

    def failed(self, port: Port) -> None:
        """
        *port* could not accept because of the exception that is being handled, such as a lack of memory.

        Nothing is raised.
        """
        with suppress(Exception):
            self._hold(port)
            if self._failed_again.due():
                complain(_log, "accepting fails; it pauses for {seconds} s and goes on", seconds=RETRY)

    def freed(self) -> None:
        """A session has ended."""
        if self._paused:
            self._resume()

    def rest(self, port: Port) -> None:
        """*port* accepts nothing until :meth:`wake`, however many descriptors there are."""
        self._resting.add(port)
        self._paused.discard(port)
        port.stopReading()

    def wake(self, port: Port) -> None:
        """*port* accepts clients again, if it has rested."""
        if port in self._resting:
            self._resting.discard(port)
            if port.connected:
                port.startReading()

    def forget(self, port: Port) -> None:
        """*port* is closed."""
        self._paused.discard(port)
        self._resting.discard(port)

    def close(self) -> None:
        """Forget the timer."""
        self._paused.clear()
        self._resting.clear()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None

    def _learn_limit(self) -> None:
        """The limit as it is now: it may have been raised since."""
        self._limit = current_limit()
        self._most = self._limit - reserve(self._limit)
        #: Sessions that end at once where room is to be made; half of what their descriptors would reserve.
        self._spare = max(8, reserve(self._limit) // 2)

    def _check(self, port: Port, descriptor: int) -> None:
        self._learn_limit()
        if self._is_short(descriptor):
            self._pause(port, descriptor)

    def _is_short(self, descriptor: int) -> bool:
        return self._needed() >= self._most or descriptor + self._dialing() >= self._most

    def _hold(self, port: Port) -> None:
        # The timer comes first: a port that stops without a timer may stop for ever.
        if self._retry is None:
            self._retry = self._clock.callLater(RETRY, self._tried)
        self._paused.add(port)
        port.stopReading()

    def _pause(self, port: Port, used: int) -> None:
        self._hold(port)
        # Where sessions end at once, accepting goes on at once.
        ended = self._make_room(self._spare)
        if self._paused_again.due():
            then = (
                "Half-closed sessions without data end, or sessions of the client that waits for most answers"
                if ended
                else "Accepting pauses until sessions end"
            )
            _log.warn(
                "descriptors are short: of {limit}, {used} are in use, {reserved} are reserved for logs and "
                "look-ups, and the others for sessions that have begun. {then}; raise the limit "
                "(ulimit -n, LimitNOFILE=) or use --max-sessions",
                used=used,
                limit=self._limit,
                reserved=self._limit - self._most,
                then=then,
            )

    def _tried(self) -> None:
        self._retry = None
        if not self._paused:
            return
        try:
            self._learn_limit()
            free = _next_descriptor()
            if free is not None and not self._is_short(free):
                self._resume()
            else:
                self._make_room(self._spare)
        finally:
            # To accept one more now and then would use up what is kept for those who are here.
            if self._paused and self._retry is None:
                self._retry = self._clock.callLater(RETRY, self._tried)

    def _resume(self) -> None:
        for port in list(self._paused):
            if port.connected:
                port.startReading()
            self._paused.discard(port)
