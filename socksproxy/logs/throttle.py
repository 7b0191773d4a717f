"""
Log lines about events that may happen thousands of times: one line in a while, with the number of events.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

#: Seconds between two lines.
EVERY = 60.0
#: Kinds of lines that are told apart; lines of further kinds count together.
MOST_KINDS = 64


def complain(log: Logger, text: str, **values: Any) -> None:
    """
    Log the exception that is being handled, with *text*.

    Nothing is raised: where memory is short, logging may fail, too.
    """
    with suppress(Exception):
        log.failure(text, **values)


class LogThrottle:
    """
    Counts events, and says when a line is due: for the first event, and then once in :data:`EVERY`.

    :param clock: tells the time.
    """

    __slots__ = ("_clock", "_count", "_last")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._count = 0
        self._last: float | None = None

    def due(self) -> int:
        """
        Count one more event.

        :returns: the number of events since the last line, if another line is due; 0: none is due.
        """
        self._count += 1
        if not self.quiet:
            return 0
        count, self._count, self._last = self._count, 0, self._clock.seconds()
        return count

    @property
    def quiet(self) -> bool:
        """Whether another line would be due, because the last one was long ago."""
        return self._last is None or self._clock.seconds() - self._last >= EVERY


class LogThrottleByKind:
    """
    As :class:`LogThrottle`, for lines of several kinds that do not hide each other.

    :param clock: tells the time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._kinds: dict[str, LogThrottle] = {}
        self._further = LogThrottle(clock)

    def due(self, text: str) -> int:
        """
        Count one more event.

        :param text: the text of the line. Lines that differ in numbers only are of one kind.
        :returns: the number of events of this kind since the last line, if another line is due; 0: none is
            due.
        """
        kind = re.sub("[0-9]+", "#", text)
        throttle = self._kinds.get(kind)
        if throttle is None:
            if len(self._kinds) >= MOST_KINDS:
                return self._further.due()
            throttle = self._kinds[kind] = LogThrottle(self._clock)
        return throttle.due()
