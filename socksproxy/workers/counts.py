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

from twisted.logger import Logger

from ..policy.limits import Admission, ClientCount, SessionCount, SessionLimits, judged

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
    A file in memory for :class:`SharedCount`.

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


class _Rows:
    """
    How many each client has, of one thing, in all workers.

    :param table: what they share.
    :param column: which of its columns is this worker's.
    :param kind: the thing.
    """

    def __init__(self, table: SharedTable, column: int, kind: str) -> None:
        self._table = table
        self._column = column
        self._kind = kind
        #: By client, where its row is, for as long as this worker has any of the client's.
        self.places: dict[str | None, int] = {}
        self._alone: dict[str | None, int] = {}
        self._warned = False

    def add(self, client: str | None) -> int:
        """*client* has one more; returned is how many. To be called with the lock held."""
        place = self.places.get(client)
        if place is None:
            place = self._table.row(f"{self._kind} {'unix' if client is None else client}")
            if place is None:
                return self._add_alone(client)
            self.places[client] = place
        return self._table.add(place, self._column)

    def remove(self, client: str | None) -> None:
        """*client* has one less."""
        # Without the lock: nobody else writes here, and for the others it ends a moment later.
        place = self.places.get(client)
        if place is None:
            self._remove_alone(client)
        elif not self._table.remove(place, self._column):
            del self.places[client]

    def _add_alone(self, client: str | None) -> int:
        if not self._warned:
            self._warned = True
            _log.warn("more clients than the workers can count together: each counts the rest alone")
        count = self._alone[client] = self._alone.get(client, 0) + 1
        return count

    def _remove_alone(self, client: str | None) -> None:
        count = self._alone.get(client, 0)
        if count > 1:
            self._alone[client] = count - 1
        else:
            self._alone.pop(client, None)


class SharedCount(SessionCount):
    """
    Counts sessions of all workers against :class:`~socksproxy.policy.SessionLimits`.

    :param limits: those of all workers together.
    :param table: what they share.
    :param column: which of its columns is this worker's.
    """

    def __init__(self, limits: SessionLimits, table: SharedTable, column: int) -> None:
        super().__init__(limits)
        self._table = table
        self._column = column
        self._rows = _Rows(table, column, "session")

    def admit(self, client: str | None) -> Admission:
        """See :meth:`SessionCount.admit`."""
        limit, per_client = self.limits
        table, of_client = self._table, 0
        table.lock()
        try:
            total = table.add(table.total, self._column)
            if per_client is not None and client != "":
                of_client = self._rows.add(client)
        finally:
            table.unlock()
        over = 0 if limit is None else total - limit
        return judged(over if per_client is None else max(over, of_client - per_client))

    def release(self, client: str | None) -> None:
        """See :meth:`SessionCount.release`."""
        self._table.remove(self._table.total, self._column)
        self._rows.remove(client)


class SharedClientCount(ClientCount):
    """
    Counts what a client address may have only so many of, in all workers together.

    :param most: so many; None: no limit.
    :param table: what they share.
    :param column: which of its columns is this worker's.
    :param kind: what is counted.
    """

    def __init__(self, most: int | None, table: SharedTable, column: int, kind: str) -> None:
        super().__init__(most)
        self._table = table
        self._rows = _Rows(table, column, kind)

    def take(self, client: str | None) -> bool:
        """See :meth:`ClientCount.take`."""
        if self.most is None:
            return True
        self._table.lock()
        try:
            granted = self._rows.add(client) <= self.most
        finally:
            self._table.unlock()
        if not granted:
            self._rows.remove(client)
        return granted

    def give(self, client: str | None) -> None:
        """See :meth:`ClientCount.give`."""
        if self.most is not None:
            self._rows.remove(client)
