"""
What workers tell each other of pools: one of them checks the members, for all.

It stands in rows of the shared table (:mod:`~socksproxy.workers.shared_table`): for each pool the minute in
which each worker has used it and a number that grows with each change, and for each member whether it is
down. A worker that dies leaves nothing, and its replacement checks anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection

from .shared_table import SharedTable

_MINUTE = 60.0


class WorkersChecks:
    """
    See :class:`socksproxy.routes.pools.SharedChecks`.

    :param table: what the workers share.
    :param column: which of its columns is this worker's. The first one checks.
    :param seconds: a clock that is the same in all workers.
    """

    def __init__(
        self, table: SharedTable, column: int, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._table = table
        self._column = column
        self._seconds = seconds
        #: For each pool, what was told or taken last.
        self._told: dict[str, frozenset[str]] = {}
        self._seen: dict[str, int] = {}
        self._number = 0

    @property
    def leads(self) -> bool:
        """See :attr:`socksproxy.routes.pools.SharedChecks.leads`."""
        return self._column == 0

    def use(self, pool: str) -> None:
        """See :meth:`socksproxy.routes.pools.SharedChecks.use`."""
        self._set("used", pool, self._minute())

    def unused(self, pool: str) -> float:
        """See :meth:`socksproxy.routes.pools.SharedChecks.unused`."""
        last = max(self._row("used", pool), default=0)
        return (self._minute() - last) * _MINUTE if last else math.inf

    def tell(self, pool: str, down: Collection[str]) -> None:
        """See :meth:`socksproxy.routes.pools.SharedChecks.tell`."""
        now, before = frozenset(down), self._told.get(pool, frozenset())
        if now == before:
            return
        for name in now ^ before:
            self._set("down", f"{pool}\n{name}", int(name in now))
        self._told[pool] = now
        # By the time, so that it is another one where this worker replaces one that has died.
        self._number = max(self._number + 1, int(self._seconds()))
        self._set("told", pool, self._number)

    def found_down(self, pool: str, members: Collection[str]) -> frozenset[str] | None:
        """See :meth:`socksproxy.routes.pools.SharedChecks.found_down`."""
        number = max(self._row("told", pool), default=0)
        if number == self._seen.get(pool, 0):
            return None
        self._seen[pool] = number
        return frozenset(name for name in members if any(self._row("down", f"{pool}\n{name}")))

    def _minute(self) -> int:
        return int(self._seconds() / _MINUTE) + 1

    def _key(self, kind: str, name: str) -> bytes:
        return self._table.key(f"pool {kind} {name}")

    def _set(self, kind: str, name: str, value: int) -> None:
        table = self._table
        with table.lock:
            place = table.row(self._key(kind, name))
            if place is not None:
                table.cells[place + self._column] = value

    def _row(self, kind: str, name: str) -> Collection[int]:
        table = self._table
        with table.lock:
            place = table.row(self._key(kind, name))
            return () if place is None else list(table.cells[place : place + table.columns])
