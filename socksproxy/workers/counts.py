"""
Limits that hold across processes: see :mod:`~socksproxy.workers.shared_table` for where they are kept.

Counting something and giving it back costs 3 to 6 µs with this, and less than 1 µs by a
process alone; what has no limit is not counted at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..limits.counting import Counter, Counting, Devices
from ..values.limits import Rate
from .rates import SharedBucket, SharedPace
from .shared_table import SharedTable
from .tokens import Tokens


class SharedCounter(Counter):
    """
    How many there are of something, in all workers.

    :param table: what they share.
    :param column: which of its columns is this worker's.
    :param name: the thing's.
    """

    __slots__ = ("_alone", "_column", "_here", "_key", "_place", "_table")

    def __init__(self, table: SharedTable, column: int, name: str) -> None:
        self._table = table
        self._column = column
        self._key = table.key(name)
        # Where its row is, for as long as there are any that this one has counted there.
        self._place: int | None = None
        self._here = 0
        self._alone = 0

    @property
    def value(self) -> int:
        """How many there are."""
        return self._alone if self._place is None else self._table.total(self._place)

    def add(self) -> int:
        """See :meth:`~socksproxy.limits.counting.Counter.add`."""
        table = self._table
        with table.lock:
            if self._place is None:
                self._place = table.row(self._key)
            if self._place is not None:
                self._here += 1
                return table.add(self._place, self._column)
        table.complain()
        self._alone += 1
        return self._alone

    def give(self) -> None:
        """See :meth:`~socksproxy.limits.counting.Counter.give`."""
        if self._place is None:
            self._alone -= 1
            return
        # Without the lock: no other process writes here, and the others see the end a moment later.
        self._table.remove(self._place, self._column)
        self._here -= 1
        if not self._here:
            self._place = None


class SharedDevices(Devices):
    """
    How many different addresses there are in all workers.

    Strategy: each address has a row with the sessions of each worker, and a row in which the worker has 1
    that counts the address for all. When that worker ends, another worker counts the address with its next
    session. All rows change with the lock held.

    :param table: what they share.
    :param column: which of its columns is this worker's.
    :param name: the holder's.
    """

    __slots__ = ("_alone", "_column", "_key", "_name", "_table")

    def __init__(self, table: SharedTable, column: int, name: str) -> None:
        super().__init__()
        self._table = table
        self._column = column
        self._name = name
        self._key = table.key(name)
        #: The addresses for which the table had no room.
        self._alone: dict[str, int] = {}

    @property
    def value(self) -> int:
        """See :attr:`~socksproxy.limits.counting.Devices.value`."""
        with self._table.lock:
            total = self._table.row(self._key)
        return len(self._alone) + (0 if total is None else self._sum(total))

    def add(self, address: str) -> int:
        """See :meth:`~socksproxy.limits.counting.Devices.add`."""
        table, column = self._table, self._column
        sessions, counted = self._keys(address)
        with table.lock:
            place = None if address in self._alone else table.row(sessions)
            if place is None:
                return self._add_alone(address)
            table.add(place, column)
            owner = table.row(counted)
            if owner is not None and not self._sum(owner):
                table.add(owner, column)
                total = table.row(self._key)
                if total is not None:
                    return table.add(total, column)
                table.remove(owner, column)
                owner = None
            total = table.row(self._key)
            if owner is None or total is None:
                table.remove(place, column)
                return self._add_alone(address)
            return self._sum(total)

    def give(self, address: str) -> None:
        """See :meth:`~socksproxy.limits.counting.Devices.give`."""
        if address in self._alone:
            self._alone[address] -= 1
            if not self._alone[address]:
                del self._alone[address]
            return
        table = self._table
        sessions, counted = self._keys(address)
        with table.lock:
            place = table.row(sessions)
            assert place is not None
            table.remove(place, self._column)
            if self._sum(place):
                return
            owner = table.row(counted)
            column = None if owner is None else self._owner_of(owner)
            if owner is None or column is None:
                return  # the worker that counted it has ended
            total = table.row(self._key)
            assert total is not None
            table.remove(total, column)
            table.remove(owner, column)

    def _add_alone(self, address: str) -> int:
        self._table.complain()
        self._alone[address] = self._alone.get(address, 0) + 1
        return len(self._alone)

    def _keys(self, address: str) -> tuple[bytes, bytes]:
        key = self._table.key
        return key(f"{self._name} {address}"), key(f"{self._name} {address} counted")

    def _sum(self, place: int) -> int:
        return sum(self._table.cells[place : place + self._table.columns])

    def _owner_of(self, place: int) -> int | None:
        cells = self._table.cells[place : place + self._table.columns]
        return next((column for column, count in enumerate(cells) if count), None)


class SharedCounting(Counting):
    """
    Counts for several processes. See :class:`~socksproxy.limits.counting.Counting`.

    :param reactor: calls those who wait.
    :param table: what the processes share.
    :param column: which of its columns is this one's.
    :param seconds: a clock that is the same in all of them.
    """

    def __init__(
        self,
        reactor: Any,
        table: SharedTable,
        column: int,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(reactor)
        self.table = table
        self.column = column
        self._seconds = seconds

    def counter(self, name: str) -> SharedCounter:
        """See :meth:`~socksproxy.limits.counting.Counting.counter`."""
        return SharedCounter(self.table, self.column, name)

    def devices(self, name: str) -> SharedDevices:
        """See :meth:`~socksproxy.limits.counting.Counting.devices`."""
        return SharedDevices(self.table, self.column, name)

    def pace(self, name: str, rate: Rate) -> SharedPace:
        """See :meth:`~socksproxy.limits.counting.Counting.pace`."""
        return SharedPace(rate, self._of(name), self._seconds)

    def bucket(self, name: str, rate: Rate) -> SharedBucket:
        """See :meth:`~socksproxy.limits.counting.Counting.bucket`."""
        return SharedBucket(self._reactor, rate, self._of(name), self.table.columns, self._seconds)

    def _of(self, name: str) -> Tokens:
        return Tokens(self.table, self.column, name)
