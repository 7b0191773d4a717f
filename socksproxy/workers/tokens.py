"""
Token buckets that workers share, so that a rate holds across processes.

Strategy: the tokens of a bucket are in the memory that the workers share. A worker takes the tokens of some
tens of milliseconds at a time, so that it seldom needs the lock. It gives tokens back that it has not used
for a while.

Where the tokens are not enough for all workers, each worker has a part set aside, in proportion to its
sessions that wait. The first worker that looks shares out the tokens that have come since the last look. So a
quick worker gets no more than a slow one, and tokens that a worker does not fetch in time go to the others.
"""

from __future__ import annotations

from array import array
from math import inf
from typing import NamedTuple

from .shared_table import ASIDE, EACH, FULL, POOL, SINCE, WAITING, SharedTable

#: A little less than a token: by rounding, a token that is due now may lack a little.
_ONE = 1 - 1e-9


class Wish(NamedTuple):
    """
    A worker's request for tokens of a bucket.

    :ivar per_second: the tokens that the bucket gets per second.
    :ivar burst: the most tokens that the bucket has.
    :ivar left: the tokens that the worker took before and has not used; below 0: it has used more.
    :ivar want: the tokens that the worker wants to have.
    :ivar waiting: the number of sessions that wait in the worker.
    """

    per_second: float
    burst: float
    left: float
    want: float
    waiting: int


class Granted(NamedTuple):
    """
    The answer to a worker's :class:`Wish`.

    :ivar tokens: the tokens that the worker has now; below 0: it owes some.
    :ivar per_second: the tokens per second that are to come for the worker.
    """

    tokens: float
    per_second: float


class Tokens:
    """
    One worker's access to a shared bucket.

    :param table: the table that the workers share.
    :param column: the number of this worker's column in the table.
    :param name: the name of the bucket.
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
        Give back and take tokens as *wish* says, as far as the bucket has them.

        :param now: the time by a clock that all processes share.
        """
        with self._table.lock:
            row = self._row(now, wish.burst)
            row.share_out(now, wish.per_second, wish.burst)
            granted = row.grant(wish)
            row.store(wish.per_second, wish.burst)
        return granted

    def take(self, now: float, per_second: float, burst: float) -> bool:
        """
        Take one token, if there is one. Such a bucket sets no tokens aside, and no session waits for it.

        :param now: the time by a clock that all processes share.
        :param per_second: the tokens that the bucket gets per second.
        :param burst: the most tokens that the bucket has.
        :returns: whether there was a token.
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
        """The cells of the bucket's row, and the index of the first one. A new row has all its tokens."""
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
        """A row of this worker alone, with the full rate, because the shared table has no room."""
        if self._alone is None:
            self._table.complain()
            nothing = array("d", [0.0] * (ASIDE + EACH))
            self._alone = memoryview(nothing).cast("B").cast("d")
            self._alone[POOL], self._alone[SINCE] = burst, now
        return self._alone


class _Row:
    """
    A copy of a bucket's row; see :data:`~socksproxy.workers.shared_table.FULL`.

    :ivar pool: the tokens for all workers; below 0: the tokens that all workers together owe.
    :ivar since: the time of *pool*.
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
        """Add the tokens that have come since the last look, and share them out to workers that wait."""
        # Another worker, which had the lock before, may have looked at the clock later.
        now = max(now, self.since)
        # A reload may have lowered the burst. A debt from before must not last longer than the new burst.
        pool, aside = min(max(self.pool, -burst), burst), self._aside
        came = min((now - self.since) * per_second, max(burst - pool - sum(aside), 0.0))
        crowd = sum(self._waiting)
        # All workers pay a debt together. Tokens beyond a worker's most stay for the others.
        shared = max(came + min(pool, 0.0), 0.0)
        if crowd and shared:
            for number, waiting in enumerate(self._waiting):
                most = burst * waiting / crowd
                part = min(shared * waiting / crowd, max(most - aside[number], 0.0))
                aside[number] += part
                came -= part
        self.pool, self.since = pool + came, now

    def grant(self, wish: Wish) -> Granted:
        """Give this worker its part, and the rest of its wish from the pool as far as the pool has it."""
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
        """Write the row back to the table."""
        place, aside, waiting = self._places
        missing = max(burst - self.pool - sum(self._aside), 0.0)
        cells, full = self._cells, self.since + missing / per_second if per_second else inf
        cells[place + FULL], cells[place + POOL], cells[place + SINCE] = full, self.pool, self.since
        cells[aside], cells[waiting] = array("d", self._aside), array("d", self._waiting)
