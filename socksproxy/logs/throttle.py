"""
Log lines on what may happen thousands of times: one a while, that says how often.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

#: Seconds between two lines.
EVERY = 60.0
#: Kinds of lines that are told apart; those of further kinds count together.
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
    Counts something, and says when a line on it is due: the first time, and then once in :data:`EVERY`.

    :param clock: tells the time.
    """

    __slots__ = ("_clock", "_count", "_last")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._count = 0
        self._last: float | None = None

    def due(self) -> int:
        """
        It has happened once more.

        :returns: how often since the last line, where another one is due; 0: it is not.
        """
        self._count += 1
        if not self.quiet:
            return 0
        count, self._count, self._last = self._count, 0, self._clock.seconds()
        return count

    @property
    def quiet(self) -> bool:
        """Whether the last line is so long ago that another one would be due."""
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
        It has happened once more.

        :param text: of the line. Lines that differ in numbers only are of one kind.
        :returns: how often, in this kind, since the last line, where another one is due; 0: it is not.
        """
        kind = re.sub("[0-9]+", "#", text)
        seldom = self._kinds.get(kind)
        if seldom is None:
            if len(self._kinds) >= MOST_KINDS:
                return self._further.due()
            seldom = self._kinds[kind] = LogThrottle(self._clock)
        return seldom.due()
