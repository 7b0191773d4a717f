"""
How full the table is that workers share.

Strategy: to look at all rows at once would hold up the supervisor. A look a second covers a part of them, and
so the level is of the last 16 seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from .shared_table import RATES, ROWS, SharedTable

_log = Logger(namespace="socksproxy")

_PARTS = 16
#: Seconds between two looks.
EVERY = 1.0
#: The share of rows in use from which on there is a warning, and below which there may be another one.
WARN_AT, CALM_AT = 0.8, 0.7

_Values = Sequence[tuple[tuple[str, ...], float]]


class FillLevel:
    """
    Watches how many rows of *table* are in use.

    :param reactor: keeps time.
    :param table: the table.
    :param seconds: the clock of the rates.
    """

    def __init__(
        self, reactor: Any, table: SharedTable, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._reactor = reactor
        self._table = table
        self._seconds = seconds
        self._next = 0
        self._counts = [0] * _PARTS
        self._rates = [0] * _PARTS
        self._warned: set[str] = set()
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Watch from now on."""
        self.look()
        self._timer = self._reactor.callLater(EVERY, self.start)

    def stop(self) -> None:
        """Watch no more."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def look(self) -> None:
        """Look at the next part of the table."""
        part, self._next = self._next, (self._next + 1) % _PARTS
        table, now = self._table, self._seconds()
        self._counts[part] = table.counts_in_use(part * ROWS // _PARTS, (part + 1) * ROWS // _PARTS)
        self._rates[part] = table.rates_in_use(part * RATES // _PARTS, (part + 1) * RATES // _PARTS, now)
        for (name,), used in self.rows():
            most = dict(self.most())[name,]
            if used >= WARN_AT * most and name not in self._warned:
                self._warned.add(name)
                _log.warn(
                    "{used:.0f} of {most} rows of the table that workers share are in use ({name}): when it "
                    "is full, each worker counts further limits for itself",
                    used=used,
                    most=most,
                    name=name,
                )
            elif used < CALM_AT * most:
                self._warned.discard(name)

    def rows(self) -> _Values:
        """How many rows are in use, of each kind."""
        return [(("counts",), sum(self._counts)), (("rates",), sum(self._rates))]

    def most(self) -> _Values:
        """How many rows there are, of each kind."""
        return [(("counts",), ROWS), (("rates",), RATES)]
