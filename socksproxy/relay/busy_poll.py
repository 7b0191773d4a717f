"""
Waiting for events without sleep, where the next events are near.

Strategy: to sleep and to be woken costs tens of microseconds, more than the proxy's own work on a message. So
before a sleep, the wait asks again and again for a while, without sleep. The wait does that only if the last
one was short: an idle server sleeps, and a server with rare events asks in vain at most once for an event.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

Events = list[tuple[int, int]]

#: The greatest setting, in microseconds.
LONGEST_BUSY_POLL = 1000


class BusyPoll:
    """
    Polls in the place of an epoll.

    :param poll: the method of :class:`select.epoll`.
    :param seconds: the time for which a wait asks without sleep; a wait up to this time is short.
    :param now: the clock, in seconds.
    """

    __slots__ = ("_now", "_poll", "_seconds", "_was_short")

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

    def poll(self, timeout: float, maxevents: int) -> Events:
        """See :meth:`select.epoll.poll`."""
        poll, now, most = self._poll, self._now, self._seconds
        if not timeout:
            return poll(0, maxevents)
        began = now()
        if self._was_short:
            until = began + (most if timeout < 0 or timeout > most else timeout)
            while True:
                events = poll(0, maxevents)
                if events:
                    return events
                if now() >= until:
                    break
            if timeout > 0:
                timeout = max(timeout - most, 0)
        events = poll(timeout, maxevents)
        self._was_short = bool(events) and now() - began <= most
        return events
