"""
Rates that hold across processes.

What a token bucket has is in the memory that workers share. A worker takes some tens of milliseconds'
worth at a time, so that it seldom needs the lock, and gives back what it has not used when that has
become old.

Where there is not enough for all, each worker's part is set aside for it, in proportion to how many wait
there: the first worker that looks shares out what has come since the last look. So nothing depends on
which worker is quick, and what a worker does not fetch in time is there for the others.
"""

from __future__ import annotations

from array import array
from math import inf
from typing import NamedTuple

from .shared_table import ASIDE, EACH, FULL, POOL, SINCE, WAITING, SharedTable

#: A little less than a token: what is due at a time is not quite there then, in floating numbers.
_ONE = 1 - 1e-9


class Wish(NamedTuple):
    """
    What a worker wants of a bucket.

    :ivar per_second: how many tokens come.
    :ivar burst: how many there are at the most.
    :ivar left: what it has not used of what it took before; less than 0: it used more.
    :ivar want: what it wants to have.
    :ivar waiting: how many wait in the worker.
    """

    per_second: float
    burst: float
    left: float
    want: float
    waiting: int


class Granted(NamedTuple):
    """
    What it gets.

    :ivar tokens: so many are its own now; less than 0: it still owes some.
    :ivar per_second: how many more come for it.
    """

    tokens: float
    per_second: float


class Tokens:
    """
    What a bucket has, as one worker sees it.

    :param table: what the workers share.
    :param column: which of its columns is this worker's.
    :param name: of the bucket.
    """

    __slots__ = ("_alone", "_column", "_key", "_place", "_table")

    def __init__(self, table: SharedTable, column: int, name: str) -> None:
        self._table = table
        self._column = column
        self._key = table.key(name)
        self._place: int | None = None
        self._alone: memoryview[float] | None = None

    def renew(self, now: float, wish: Wish) -> Granted:
        """
        Have *wish* granted, as far as may be.

        :param now: by a clock that is the same in all processes.
        """
        with self._table.lock:
            row = self._row(now, wish.burst)
            row.share_out(now, wish.per_second, wish.burst)
            granted = row.grant(wish)
            row.store(wish.per_second, wish.burst)
        return granted

    def take(self, now: float, per_second: float, burst: float) -> bool:
        """
        Take one token, if there is one. Of such a bucket nothing is set aside, and nothing waits for it.

        :param now: by a clock that is the same in all processes.
        :param per_second: how many tokens come.
        :param burst: how many there are at the most.
        """
        with self._table.lock:
            cells, place = self._cells(now, burst)
            since = cells[place + SINCE]
            # Another worker, which had the lock before, may have looked at the clock later.
            now = max(now, since)
            pool = min(max(cells[place + POOL], -burst) + (now - since) * per_second, burst)
            taken = pool >= _ONE
            pool -= taken
            cells[place + FULL] = now + (burst - pool) / per_second if per_second else inf
            cells[place + POOL], cells[place + SINCE] = pool, now
        return taken

    def _row(self, now: float, burst: float) -> _Row:
        cells, place = self._cells(now, burst)
        if self._alone is None:
            return _Row(cells, place, self._table.columns, self._column)
        return _Row(cells, place, 1, 0)

    def _cells(self, now: float, burst: float) -> tuple[memoryview[float], int]:
        """The cells in which the row is, and where it begins; a new row has all its tokens."""
        table, new = self._table, False
        if self._place is None or not table.has(self._key, self._place):
            found = table.rate(self._key, now)
            if found is None:
                return self._own_cells(now, burst), 0
            self._place, new = found
            self._alone = None
        if new:
            table.tokens[self._place + POOL], table.tokens[self._place + SINCE] = burst, now
        return table.tokens, self._place

    def _own_cells(self, now: float, burst: float) -> memoryview[float]:
        """There is no room: as many tokens come for this worker alone."""
        if self._alone is None:
            self._table.complain()
            nothing = array("d", [0.0] * (ASIDE + EACH))
            self._alone = memoryview(nothing).cast("B").cast("d")
            self._alone[POOL], self._alone[SINCE] = burst, now
        return self._alone


class _Row:
    """
    A row of tokens, as read; see :data:`~socksproxy.workers.shared_table.FULL`.

    :ivar pool: what is there for everybody; less than 0: what everybody owes.
    :ivar since: when it was.
    """

    __slots__ = ("_aside", "_cells", "_column", "_places", "_waiting", "pool", "since")

    def __init__(self, cells: memoryview[float], place: int, columns: int, column: int) -> None:
        end = place + EACH * columns
        self._cells = cells
        self._column = column
        self._places = (
            place,
            slice(place + ASIDE, end + ASIDE, EACH),
            slice(place + WAITING, end + WAITING, EACH),
        )
        self.pool, self.since = cells[place + POOL], cells[place + SINCE]
        self._aside = [*map(float, cells[self._places[1]])]
        self._waiting = [*map(float, cells[self._places[2]])]

    def share_out(self, now: float, per_second: float, burst: float) -> None:
        """What has come since is there now."""
        # Another worker, which had the lock before, may have looked at the clock later.
        now = max(now, self.since)
        # A debt of the measure of before is not to last by that of now.
        pool, aside = min(max(self.pool, -burst), burst), self._aside
        came = min((now - self.since) * per_second, max(burst - pool - sum(aside), 0.0))
        crowd = sum(self._waiting)
        # Debts are everybody's; and what a worker does not fetch leaves room for the others.
        shared = max(came + min(pool, 0.0), 0.0)
        if crowd and shared:
            for number, waiting in enumerate(self._waiting):
                most = burst * waiting / crowd
                part = min(shared * waiting / crowd, max(most - aside[number], 0.0))
                aside[number] += part
                came -= part
        self.pool, self.since = pool + came, now

    def grant(self, wish: Wish) -> Granted:
        """Give this worker its part, and what it wants besides if that is there."""
        column = self._column
        have, self._aside[column] = wish.left + self._aside[column], 0.0
        self._waiting[column] = wish.waiting
        if not wish.waiting:
            have, self.pool = 0.0, min(self.pool + have, wish.burst)
        more = max(min(self.pool, wish.want - have), 0.0)
        self.pool -= more
        crowd = sum(self._waiting)
        return Granted(have + more, wish.per_second * wish.waiting / crowd if crowd else wish.per_second)

    def store(self, per_second: float, burst: float) -> None:
        """Write it all down."""
        place, aside, waiting = self._places
        missing = max(burst - self.pool - sum(self._aside), 0.0)
        cells, full = self._cells, self.since + missing / per_second if per_second else inf
        cells[place + FULL], cells[place + POOL], cells[place + SINCE] = full, self.pool, self.since
        cells[aside], cells[waiting] = array("d", self._aside), array("d", self._waiting)
