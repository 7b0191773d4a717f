"""
Limits on sessions that hold across processes.

The workers share a piece of memory. In it each client address has a row, and
each worker a column in every row: how many sessions of the client that worker
has. BINDs and UDP associations of a client have rows of their own. Only the
worker itself writes its column, so that when it is killed, the supervisor knows
what to take away. What a session may be told depends on sums over a row; a lock
makes adding and summing one step. It is a record lock, which the kernel takes
from a process that dies.

Rows are found by a keyed hash of the address: the first half of it names a
bucket, and the whole of it is looked for there. A row whose counts are all 0 is
given to the next new client of its bucket. Should a bucket be full of clients with
sessions, further ones are counted by each worker alone.

Admitting and releasing a session costs 3 to 6 µs with this, and less than 1 µs with the count of
a process by itself, which workers use as well where there is no limit.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from hashlib import blake2b
from typing import Any

from twisted.logger import Logger

from ..limits.buckets import Bucket
from ..limits.counting import OwnPace
from ..limits.terms import Rate

_log = Logger(namespace="socksproxy")

_KEY = 16
#: Rows of a bucket; more of them make it less likely that one is full while others are not.
_WAYS = 64
_BUCKETS = 1024
_CELL = 4

#: How many clients with sessions there can be.
ROWS = _WAYS * _BUCKETS


def new_table(columns: int) -> int:
    """
    A file in memory for :class:`SharedTable`.

    :param columns: how many workers there are.
    :returns: its descriptor.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("socksproxy")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _size(columns))
    return descriptor


def _size(columns: int) -> int:
    return ROWS * _KEY + (ROWS + 1) * columns * _CELL


class SharedTable:
    """
    The rows.

    :param descriptor: what :func:`new_table` gave.
    :param columns: how many workers there are.
    :param secret: makes the hashes, so that no client can choose its bucket.
    :ivar cells: the counts; those of a row follow each other.
    """

    def __init__(self, descriptor: int, columns: int, secret: bytes) -> None:
        self._descriptor = descriptor
        self.columns = columns
        #: Where the cells of all sessions begin.
        self.total = ROWS * columns
        self._secret = secret
        self._memory = mmap.mmap(descriptor, _size(columns))
        # The cells come behind the keys; the last row is that of the total.
        self.cells = memoryview(self._memory)[ROWS * _KEY :].cast("I")
        self._unused = bytes(columns * _CELL)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def lock(self) -> None:
        """Keep the other processes out, for a moment."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Let them in again."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def add(self, place: int, column: int) -> int:
        """One more in a row; returned is the sum over it. To be called with the lock held."""
        self.cells[place + column] += 1
        return sum(self.cells[place : place + self.columns])

    def remove(self, place: int, column: int) -> int:
        """One less in a row; returned is what is left in the column."""
        self.cells[place + column] -= 1
        return self.cells[place + column]

    def row(self, name: str) -> int | None:
        """
        Where the cells of *name* begin; None: there is no room. To be called with the lock held.

        The row has that name while any of its cells is above 0.
        """
        key = blake2b(name.encode(), digest_size=_KEY, key=self._secret).digest()
        first = int.from_bytes(key[:8], "big") % _BUCKETS * _WAYS
        row = self._find(key, first * _KEY, _KEY)
        if row is None:
            width = self.columns * _CELL
            row = self._find(self._unused, ROWS * _KEY + first * width, width)
            if row is None:
                return None
            self._memory[(first + row) * _KEY : (first + row + 1) * _KEY] = key
        return (first + row) * self.columns

    def _find(self, what: bytes, start: int, width: int) -> int | None:
        """Which of the rows of a bucket has *what*."""
        end = start + _WAYS * width
        place = start
        while (place := self._memory.find(what, place, end)) >= 0:
            row, within = divmod(place - start, width)
            if not within:
                return row
            place += width - within
        return None

    def clear(self, column: int) -> None:
        """The worker of that *column* has ended, and its sessions with it."""
        self.lock()
        try:
            empty = memoryview(bytes((ROWS + 1) * _CELL)).cast("I")
            self.cells[column :: self.columns] = empty
        finally:
            self.unlock()

    def close(self) -> None:
        """Use it no more."""
        self.cells.release()
        self._memory.close()
        os.close(self._descriptor)


class SharedCounter:
    """
    How many all workers have of something.

    :param counting: whose it is.
    :param name: of the thing.
    """

    __slots__ = ("_counting", "_name", "_place", "_value")

    def __init__(self, counting: SharedCounting, name: str) -> None:
        self._counting = counting
        self._name = name
        self._value = 0
        #: Where its row is, for as long as this worker has any.
        self._place: int | None = None

    def add(self) -> int:
        """See :meth:`socksproxy.limits.counting.Counter.add`."""
        table, column = self._counting.table, self._counting.column
        self._value += 1
        table.lock()
        try:
            if self._value == 1:
                self._place = table.row(self._name)
            if self._place is not None:
                return table.add(self._place, column)
        finally:
            table.unlock()
        self._counting.complain()
        return self._value

    def give(self) -> None:
        """See :meth:`socksproxy.limits.counting.Counter.give`."""
        self._value -= 1
        if self._place is not None:
            # Without the lock: nobody else writes here, and for the others it ends a moment later.
            self._counting.table.remove(self._place, self._counting.column)


class SharedCounting:
    """
    Counts for all workers together.

    :param reactor: keeps time.
    :param table: what they share.
    :param column: which of its columns is this worker's.
    """

    def __init__(self, reactor: Any, table: SharedTable, column: int) -> None:
        self.table = table
        self.column = column
        self._reactor = reactor
        self._warned = False

    def counter(self, name: str) -> SharedCounter:
        """See :meth:`socksproxy.limits.counting.Counting.counter`."""
        return SharedCounter(self, name)

    def pace(self, name: str, rate: Rate) -> OwnPace:
        """See :meth:`socksproxy.limits.counting.Counting.pace`."""
        return OwnPace(self._reactor, rate)

    def bucket(self, name: str, rate: Rate) -> Bucket:
        """See :meth:`socksproxy.limits.counting.Counting.bucket`."""
        return Bucket(self._reactor, rate)

    def complain(self) -> None:
        """There is no room in the table."""
        if not self._warned:
            self._warned = True
            _log.warn("more clients than the workers can count together: each counts the rest alone")
