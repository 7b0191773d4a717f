"""
One timeout for many: every session of a factory waits equally long in a state.

Equal waits end in the order in which they began, so one timer, for the oldest,
does for all; beginning and ending a wait costs a dictionary entry instead of a
``callLater`` each (measured: 0.1 µs against 3 µs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..logs.throttle import complain
from ..values.timeouts import NEVER

_log = Logger(namespace="socksproxy")

T = TypeVar("T")

_SHORTEST_LOOK, _LONGEST_LOOK = 0.1, 15.0


def look_every(idle: float) -> float:
    """
    Seconds between two looks for idle relays, which do not report every byte.

    :param idle: seconds that they may be idle; NEVER: without an end.
    """
    return min(max(idle / 8, _SHORTEST_LOOK), _LONGEST_LOOK)


class Deadlines(Generic[T]):
    """
    Calls *expired* with each thing that has been here for *seconds*.

    :param clock: the source of time.
    :param seconds: how long a thing may stay; NEVER: without an end.
    :param expired: called with each thing that stays longer; it is no longer here then.
    """

    __slots__ = ("_before", "_clock", "_due", "_expired", "_seconds", "_timer")

    def __init__(self, clock: IReactorTime, seconds: float, expired: Callable[[T], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._expired = expired
        self._due: dict[T, float] = {}
        self._timer: IDelayedCall | None = None
        #: Waits of another length, which began before it was changed.
        self._before: list[Deadlines[T]] = []

    def __len__(self) -> int:
        return len(self._due) + sum(map(len, self._before))

    @property
    def seconds(self) -> float:
        """How long a thing may stay whose wait begins now; NEVER: without an end."""
        return self._seconds

    @seconds.setter
    def seconds(self, seconds: float) -> None:
        if seconds == self._seconds:
            return
        self._stop_timer()
        # With waits of two lengths in it, a queue would not be in order any more.
        before = Deadlines(self._clock, self._seconds, self._expired)
        before._due, self._due = self._due, before._due
        self._before = [each for each in (*self._before, before) if each]
        self._seconds = seconds
        before._check()

    def start(self, thing: T, now: float) -> None:
        """*thing*'s wait begins, or begins anew, at *now* (the clock's seconds)."""
        if self._before:
            self.stop(thing)
        if self._seconds == NEVER:
            return
        self._due.pop(thing, None)  # to the end of the queue
        self._due[thing] = now + self._seconds
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._check)

    def stop(self, thing: T) -> None:
        """*thing*'s wait is over, if it has one."""
        # The timer stays: it finds out whose turn it is when it comes.
        self._due.pop(thing, None)
        for before in self._before:
            before.stop(thing)

    def close(self) -> None:
        """Forget everything and the timer."""
        self._due.clear()
        for before in self._before:
            before.close()
        self._before.clear()
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _check(self) -> None:
        # The timer that has fired stays in its place, lest :meth:`start` makes a second one.
        now = self._clock.seconds()
        while self._due:
            thing, due = next(iter(self._due.items()))
            if due > now:
                self._timer = self._clock.callLater(due - now, self._check)
                return
            del self._due[thing]
            try:
                self._expired(thing)
            except Exception:
                # A fault of ours: it costs one session, not the timeouts of all others.
                complain(_log, "a timeout failed")
        self._timer = None


class OwnDeadlines(Deadlines[T]):
    """As :class:`Deadlines`; a thing may also have a time of its own, which costs a timer."""

    __slots__ = ("_own",)

    def __init__(self, clock: IReactorTime, seconds: float, expired: Callable[[T], None]) -> None:
        super().__init__(clock, seconds, expired)
        self._own: dict[T, IDelayedCall | None] = {}

    def __len__(self) -> int:
        return super().__len__() + len(self._own)

    def start_own(self, thing: T, seconds: float) -> None:
        """
        In place of the wait that *thing* has, one of *seconds* begins, if that was not its own already.

        :param seconds: how long it may stay; NEVER: without an end.
        """
        if thing in self._own:
            return
        self.stop(thing)
        self._own[thing] = None if seconds == NEVER else self._clock.callLater(seconds, self._own_over, thing)

    def stop(self, thing: T) -> None:
        """See :meth:`Deadlines.stop`."""
        super().stop(thing)
        if self._own:
            _cancel(self._own.pop(thing, None))

    def close(self) -> None:
        """See :meth:`Deadlines.close`."""
        super().close()
        while self._own:
            _cancel(self._own.popitem()[1])

    def _own_over(self, thing: T) -> None:
        del self._own[thing]
        self._expired(thing)


def _cancel(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
