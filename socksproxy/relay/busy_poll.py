"""
Waiting for events without sleep, where the next events are near.

Strategy: to sleep and to be woken costs tens of microseconds, more than the proxy's own work on a message. So
before a sleep, the wait asks again and again for a while, without sleep. The wait does that only if the last
one was short: an idle server sleeps. It also does that only where it helps. After a wait that has asked in
vain, a number of short waits sleep before another one asks. Each failure doubles that number, and each
success halves it. So waits go on to ask where more than half of them succeed. Elsewhere hardly any asks, such
as on a core that the other end needs for its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

Events = list[tuple[int, int]]

#: The greatest setting, in microseconds.
LONGEST_BUSY_POLL = 1000
#: The most short waits that sleep before the next one asks again.
LONGEST_REST = 255


class BusyPoll:
    """
    Polls in the place of an epoll.

    :param poll: the method of :class:`select.epoll`.
    :param seconds: the time for which a wait asks without sleep; a wait up to this time is short.
    :param now: the clock, in seconds.
    """

    __slots__ = ("_now", "_poll", "_rest", "_resting", "_seconds", "_was_short")

    def __init__(
        self,
        poll: Callable[[float, int], Events],
        seconds: float,
        now: Callable[[], float] = perf_counter,
    ) -> None:
        self._poll = poll
        self._seconds = seconds
        self._now = now
        self._was_short = False
        #: Short waits that sleep after a failure, and those that are left of them.
        self._rest = self._resting = 0

    def poll(self, timeout: float, maxevents: int) -> Events:
        """See :meth:`select.epoll.poll`."""
        poll, now, most = self._poll, self._now, self._seconds
        if not timeout:
            return poll(0, maxevents)
        began = now()
        if self._was_short:
            if self._resting:
                self._resting -= 1
            else:
                events = poll(0, maxevents)
                if events:  # a sleep would have found them as well
                    return events
                until = began + (most if timeout < 0 or timeout > most else timeout)
                while not events and now() < until:
                    events = poll(0, maxevents)
                # Events may come late although it asked: others had the core, perhaps the other end.
                if events and now() < until:
                    self._rest >>= 1
                    return events
                self._rest = self._resting = min(2 * self._rest + 1, LONGEST_REST)
                if events:
                    return events
                if timeout > 0:
                    timeout = max(timeout - most, 0)
        events = poll(timeout, maxevents)
        self._was_short = bool(events) and now() - began <= most
        return events
