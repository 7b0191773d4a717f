"""
Relays that may not go on for ever without data: those with an idle timeout, and half-closed ones.

A peer that has gone looks like one that has sent all it had to say and waits for the rest of the answer. So
a half-closed relay may go on, but not for ever without data; and where descriptors run short, the relay
without data for the longest time ends first.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import nsmallest
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..events import Cause
from ..logs.throttle import complain
from ..runtime.deadlines import look_every
from ..values.timeouts import NEVER

_log = Logger(namespace="socksproxy")

#: Seconds without data from which on a relay may be ended for its descriptors: closing takes a moment.
SPARED = 1.0
#: Seconds after which a half-closed relay begins to be looked at: most have ended by then.
MOMENT = 0.2


class _Wait:
    """
    How long a relay has moved nothing.

    :param seconds: how long it may; NEVER: without an end.
    :param now: from when on.
    """

    __slots__ = ("seconds", "since", "total")

    def __init__(self, total: int, seconds: float, now: float) -> None:
        self.total = total
        self.seconds = seconds
        self.since = now

    def look(self, total: int, now: float) -> float:
        """For how many seconds nothing has moved, where *total* bytes have moved by *now*."""
        if total != self.total:
            self.total, self.since = total, now
        return now - self.since


class IdleRelays:
    """
    Ends relays (:class:`~socksproxy.relay.interfaces.IRelay`) that move no data.

    It looks at the relays now and then, instead of being told of every byte.

    :param clock: the source of time.
    :param cause: how the relays end.
    """

    def __init__(self, clock: IReactorTime, cause: Cause) -> None:
        self._clock = clock
        self._cause = cause
        self._waits: dict[Any, _Wait] = {}
        self._timer: IDelayedCall | None = None
        #: Relays that are to be added in a moment, and how long they may go on.
        self._new: dict[Any, Callable[[], float]] = {}
        self._moment: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._waits) + len(self._new)

    def add(self, relay: Any, seconds: float) -> None:
        """
        *relay* is not to go on without data.

        :param seconds: how long it may go on without data; NEVER: without an end.
        """
        self._waits[relay] = _Wait(relay.sent + relay.received, seconds, self._clock.seconds())
        if seconds != NEVER:
            self._want_look(seconds)

    def add_in_a_moment(self, relay: Any, seconds: Callable[[], float]) -> None:
        """As :meth:`add`, if *relay* has not ended in a moment: then it has cost next to nothing."""
        self._new[relay] = seconds
        if self._moment is None:
            self._moment = self._clock.callLater(MOMENT, self._add_new)

    def _add_new(self) -> None:
        self._moment = None
        new, self._new = self._new, {}
        for relay, seconds in new.items():
            self.add(relay, seconds())

    def discard(self, relay: Any) -> None:
        """*relay* has ended."""
        if self._new:
            self._new.pop(relay, None)
        if self._waits:
            self._waits.pop(relay, None)

    def end_longest(self, most: int) -> int:
        """
        End the relays that have moved nothing for the longest time, for descriptors are short.

        :param most: how many at the most.
        :returns: how many.
        """
        now = self._clock.seconds()
        idle = [relay for relay, time in self._look(now) if time >= SPARED]
        chosen = nsmallest(most, idle, key=lambda relay: self._waits[relay].since)
        self._end(chosen, Cause.SHORTAGE)
        return len(chosen)

    def close(self) -> None:
        """Forget the relays and the timer."""
        self._waits.clear()
        self._new.clear()
        for timer in (self._timer, self._moment):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._moment = None

    def _look(self, now: float) -> list[tuple[Any, float]]:
        return [(relay, wait.look(relay.sent + relay.received, now)) for relay, wait in self._waits.items()]

    def _want_look(self, seconds: float) -> None:
        wait = look_every(seconds)
        if self._timer is None:
            self._timer = self._clock.callLater(wait, self._check)
        elif self._timer.getTime() > self._clock.seconds() + wait:
            self._timer.reset(wait)

    def _check(self) -> None:
        self._timer = None
        looked = self._look(self._clock.seconds())
        self._end([relay for relay, idle in looked if idle >= self._waits[relay].seconds], self._cause)
        shortest = min((wait.seconds for wait in self._waits.values()), default=NEVER)
        if shortest != NEVER:
            self._want_look(shortest)

    def _end(self, relays: list[Any], how: Cause) -> None:
        for relay in relays:
            wait = self._waits.pop(relay, None)
            if wait is None:
                continue  # the end of another has ended it
            try:
                relay.abort(how)
            except Exception:
                # A fault of ours: the others end all the same, and this one is tried again.
                self._waits[relay] = wait
                complain(_log, "an idle session fails to end")
