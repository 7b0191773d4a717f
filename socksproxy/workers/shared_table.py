"""
The memory that workers share.

In it, what is counted has a row for each name, such as that of a client address, and
each worker a column in every row: how many that worker has. Only the
worker itself writes its column, so that when it is killed, the supervisor knows
what to take away. What is granted depends on sums over a row; a lock
makes adding and summing one step. It is a record lock, which the kernel takes
from a process that dies.

Beside them are rows of tokens: what there is of a rate, and, for each worker, what of it has been
set aside for the worker and how many wait there (:mod:`socksproxy.workers.tokens`).

Rows are found by a keyed hash of the name: the first half of it names a
part of the table, and the whole of it is looked for there. A row whose counts are all 0, or whose
tokens are all there, is given to the next new name of its part. Should a part be full of names in use,
there is no room for further ones.
"""

from __future__ import annotations

import mmap
import os
from hashlib import blake2b

from twisted.logger import Logger

from ..runtime.shared_file import RecordLock, memory_file

_log = Logger(namespace="socksproxy")

_KEY = 16
#: Rows of a part; more of them make it less likely that one is full while others are not.
_WAYS = 64
_PARTS = 1024
_CELL = 4
_TOKENS = 8

#: How many names can be counted.
ROWS = _WAYS * _PARTS
#: How many rates there can be that are in use.
RATES = ROWS

#: What a row of tokens begins with: when all tokens are there again, what is there for everybody, and
#: when that was so. For each column follow what is set aside for it, and how many wait there.
FULL, POOL, SINCE, ASIDE, WAITING = range(5)
#: Places from one column to the next.
EACH = 2


def new_table(columns: int) -> int:
    """
    A file in memory for :class:`SharedTable`.

    :param columns: how many workers there are.
    :returns: its descriptor.
    """
    descriptor = memory_file()
    os.ftruncate(descriptor, _Layout(columns).end)
    return descriptor


class _Layout:
    """Where what begins: keys of rows, their cells, keys of rates, their tokens."""

    def __init__(self, columns: int) -> None:
        self.width = ASIDE + EACH * columns
        self.rates = ROWS * _KEY
        self.tokens = self.rates + RATES * _KEY
        self.cells = self.tokens + RATES * self.width * _TOKENS
        self.end = self.cells + ROWS * columns * _CELL


class SharedTable:
    """
    The rows.

    :param descriptor: what :func:`new_table` gave.
    :param columns: how many workers there are.
    :param secret: makes the hashes, so that no client can choose its part of the table.
    :ivar cells: the counts; those of a row follow each other.
    :ivar tokens: the rows of tokens: see :data:`FULL`.
    """

    def __init__(self, descriptor: int, columns: int, secret: bytes) -> None:
        self._descriptor = descriptor
        self.columns = columns
        self._secret = secret
        self._layout = layout = _Layout(columns)
        self._memory = mmap.mmap(descriptor, layout.end)
        self.tokens = memoryview(self._memory)[layout.tokens : layout.cells].cast("d")
        self.cells = memoryview(self._memory)[layout.cells :].cast("I")
        self._unused = bytes(columns * _CELL)
        #: Keeps the other processes out, for a moment.
        self.lock = RecordLock(descriptor)
        self._complained = False

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def key(self, name: str) -> bytes:
        """By what the rows of *name* are found."""
        return blake2b(name.encode("utf-8", "surrogateescape"), digest_size=_KEY, key=self._secret).digest()

    def complain(self) -> None:
        """There is no room for a name."""
        if not self._complained:
            self._complained = True
            _log.warn("too many limits are in use at once: each worker counts further ones for itself")

    # Counts.

    def add(self, place: int, column: int) -> int:
        """One more in a row; returned is the sum over it. To be called with the lock held."""
        self.cells[place + column] += 1
        return self.total(place)

    def total(self, place: int) -> int:
        """The sum over a row."""
        return sum(self.cells[place : place + self.columns])

    def remove(self, place: int, column: int) -> None:
        """One less in a row."""
        self.cells[place + column] -= 1

    def row(self, key: bytes) -> int | None:
        """
        Where the cells of *key* begin; None: there is no room. To be called with the lock held.

        The row is that key's while any of its cells is above 0.
        """
        first = _first(key, ROWS)
        row = self._find(key, first * _KEY, _KEY)
        if row is None:
            width = self.columns * _CELL
            row = self._find(self._unused, self._layout.cells + first * width, width)
            if row is None:
                return None
            self._memory[(first + row) * _KEY : (first + row + 1) * _KEY] = key
        return (first + row) * self.columns

    # Tokens.

    def has(self, key: bytes, place: int) -> bool:
        """Whether the tokens at *place* are still those of *key*. To be called with the lock held."""
        start = self._layout.rates + place // self._layout.width * _KEY
        return self._memory[start : start + _KEY] == key

    def rate(self, key: bytes, now: float) -> tuple[int, bool] | None:
        """
        Where the tokens of *key* begin, and whether they have just been given to it; None: there is no room.

        To be called with the lock held. They are that key's until all tokens are there.

        :param now: what is full by then can be given away.
        """
        layout = self._layout
        first = _first(key, RATES)
        row = self._find(key, layout.rates + first * _KEY, _KEY)
        if row is not None:
            return (first + row) * layout.width, False
        start, width = first * layout.width, layout.width
        for row, full in enumerate(self.tokens[start : start + _WAYS * width : width]):
            if full <= now:
                place, at = start + row * width, layout.rates + (first + row) * _KEY
                self._memory[at : at + _KEY] = key
                self.tokens[place : place + width] = memoryview(bytes(width * _TOKENS)).cast("d")
                return place, True
        return None

    def _find(self, what: bytes, start: int, width: int) -> int | None:
        """Which of the rows of a part has *what*."""
        end = start + _WAYS * width
        place = start
        while (place := self._memory.find(what, place, end)) >= 0:
            row, within = divmod(place - start, width)
            if not within:
                return row
            place += width - within
        return None

    # How full it is.

    def counts_in_use(self, first: int, end: int) -> int:
        """How many of the rows of counts from *first* to before *end* belong to a name."""
        cells = self.cells[first * self.columns : end * self.columns].tolist()
        return sum(map(any, zip(*[iter(cells)] * self.columns, strict=True)))

    def rates_in_use(self, first: int, end: int, now: float) -> int:
        """How many of the rows of tokens from *first* to before *end* are not full yet."""
        width = self._layout.width
        return sum(full > now for full in self.tokens[FULL + first * width : end * width : width].tolist())

    # The end.

    def clear(self, column: int) -> None:
        """The worker of that *column* has ended, and its sessions with it."""
        width = self._layout.width
        nothing = memoryview(bytes(RATES * _TOKENS)).cast("d")
        with self.lock:
            self.cells[column :: self.columns] = memoryview(bytes(ROWS * _CELL)).cast("I")
            for what in (ASIDE, WAITING):
                self.tokens[what + EACH * column :: width] = nothing

    def close(self) -> None:
        """Use it no more."""
        self.cells.release()
        self.tokens.release()
        self._memory.close()
        os.close(self._descriptor)


def _first(key: bytes, rows: int) -> int:
    """The first row of the part that is *key*'s."""
    return int.from_bytes(key[:8], "big") % (rows // _WAYS) * _WAYS
