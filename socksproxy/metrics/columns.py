"""
The memory in which processes count.

Strategy: a file in memory holds a directory and columns of 64-bit numbers. The directory is a text that only
grows: each line names a series, which is a metric with values of its labels, and so gives it the next cells.
A process that wants to count a series looks for it once, and adds it where it is missing, under the lock of
the file. From then on the process knows the series by a number, and counts with nothing but that.

Each worker has a column, and writes only there, without a lock: the store of one number is one step. When a
worker has died, its supervisor adds the column's counters to the last column, the retired one, and
empties the column. So the sum over all columns never goes back, and gauges of the dead are gone. A directory
outlives every reload: a series that is gone from the configuration keeps its count, and gets it back if it
comes again.
"""

from __future__ import annotations

import json
import mmap
import os
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from twisted.logger import Logger

from ..logs.printable import line_of_record
from ..runtime.shared_file import RecordLock, memory_file
from .table import BY_NAME, MICROSECOND, Metric, MetricKind

_log = Logger(namespace="socksproxy")

_CELL = 8
#: Cells of a column. Memory is used for those that are counted in.
CELLS = 1 << 15
#: Bytes of the directory. It begins with how many of them are in use.
_DIRECTORY = 1 << 22
#: The cell for what has no room: nothing reads it.
NOWHERE = 0
#: The cell that tells that a worker lives: the microseconds of its clock when it was last written.
HEARTBEAT = 1
_FIRST = 2


class Series(NamedTuple):
    """
    One metric with values of its labels.

    :ivar metric: the metric.
    :ivar labels: the values, in the order of the metric's labels.
    :ivar place: the number of its first cell.
    """

    metric: Metric
    labels: tuple[str, ...]
    place: int


def new_columns(columns: int) -> int:
    """
    A file in memory for :class:`Columns`.

    :param columns: how many there are, the retired one included.
    :returns: its descriptor.
    """
    descriptor = memory_file()
    os.ftruncate(descriptor, _DIRECTORY + columns * CELLS * _CELL)
    return descriptor


class Columns:
    """
    The directory and the columns.

    :param descriptor: what :func:`new_columns` gave.
    :param count: how many columns there are, the retired one included.
    """

    def __init__(self, descriptor: int, count: int) -> None:
        self._descriptor = descriptor
        self.count = count
        self._memory = mmap.mmap(descriptor, _DIRECTORY + count * CELLS * _CELL)
        self._all = memoryview(self._memory)
        self._used = self._all[:_CELL].cast("Q")
        self._cells = self._all[_DIRECTORY:].cast("Q")
        self._lock = RecordLock(descriptor)
        #: The series that this process knows, and by what they are found.
        self._series: list[Series] = []
        self._places: dict[tuple[str, tuple[str, ...]], int] = {}
        self._number_of: Counter[str] = Counter()
        self._read_to = 0
        self._next = _FIRST
        self._complained = False

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def column(self, number: int) -> memoryview:
        """
        The cells of one column, which one process alone writes.

        :param number: from 0 on.
        """
        return self._cells[number * CELLS : (number + 1) * CELLS]

    def place(self, metric: Metric, *labels: str, most: int | None = None) -> int:
        """
        The number of the first cell of a series; a new one is 0 in all columns.

        :param labels: the values of the metric's labels, which are made fit to be shown.
        :param most: how many series the metric may have; None: any number.
        :returns: :data:`NOWHERE` where there is no room, or where there are *most* already.
        """
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, and not {labels}")
        labels = tuple(map(line_of_record, labels))
        found = self._find(metric, labels, most)
        if found is not None:
            return found
        with self._lock:  # another process may be as far
            found = self._find(metric, labels, most)
            return self._add(metric, labels) if found is None else found

    def _find(self, metric: Metric, labels: tuple[str, ...], most: int | None) -> int | None:
        """The place of a series; None: it may be added."""
        known = metric.name, labels
        if known not in self._places:
            self._read()
        found = self._places.get(known)
        if found is None and most is not None and self._number_of[metric.name] >= most:
            return NOWHERE
        return found

    def _add(self, metric: Metric, labels: tuple[str, ...]) -> int:
        line = json.dumps([metric.name, metric.cells, *labels]).encode() + b"\n"
        start = _CELL + self._used[0]
        if start + len(line) > _DIRECTORY or self._next + metric.cells > CELLS:
            if not self._complained:
                self._complained = True
                _log.warn("too many series of metrics since the start: further ones are not counted")
            return NOWHERE
        place = self._next
        self._memory[start : start + len(line)] = line
        # Last: a process that dies before it has added nothing.
        self._used[0] += len(line)
        self._read()
        return place

    def _read(self) -> None:
        """Get to know the series that other processes have added."""
        used = self._used[0]
        if used == self._read_to:
            return
        lines = self._memory[_CELL + self._read_to : _CELL + used].splitlines()
        self._read_to = used
        for line in lines:
            name, cells, *labels = json.loads(line)
            place, self._next = self._next, self._next + cells
            metric = BY_NAME.get(name)
            if metric is not None and metric.cells == cells:
                series = Series(metric, tuple(labels), place)
                self._series.append(series)
                self._places[name, series.labels] = place
                self._number_of[name] += 1

    @property
    def used(self) -> int:
        """The cells of a column that series have, as far as this process knows."""
        return self._next

    def series(self) -> Sequence[Series]:
        """All series, the oldest first."""
        self._read()
        return self._series

    def values(self) -> list[list[int]]:
        """The cells of each column, as far as there are series."""
        self._read()
        return [self.column(number)[: self._next].tolist() for number in range(self.count)]

    def retire(self, column: int) -> None:
        """
        The worker of that *column* has died: keep what it has counted, and forget what it was.

        Its supervisor calls this, before it starts another one with the column.
        """
        gone, retired = self.column(column), self.column(self.count - 1)
        with self._lock:
            gone[HEARTBEAT] = 0
            for metric, _, place in self.series():
                # The counters of each worker go on where they were when its next process starts.
                if metric.per_worker and metric.kind is MetricKind.COUNTER:
                    continue
                for cell in range(place, place + metric.cells):
                    value = gone[cell]
                    if value and metric.kind is not MetricKind.GAUGE:
                        retired[cell] += value
                    gone[cell] = 0

    def close(self) -> None:
        """Add no series any more. The memory goes with the last view of it."""
        os.close(self._descriptor)


class OwnColumn:
    """
    What one process counts.

    Strategy: a list takes a third of the time of shared memory. So the process counts in a list, and copies
    it to its column once a second.

    :param columns: of all processes.
    :param number: of the column, from 0 on.
    :ivar counts: the numbers, by their places. It is always the same list. The sums of histograms are in
        seconds here.
    """

    def __init__(self, columns: Columns, number: int) -> None:
        self._columns = columns
        self._cells = columns.column(number)
        columns.series()
        # The counters of a worker go on where its process before has left them.
        self.counts: list[Any] = self._cells[: columns.used].tolist()
        #: The places of sums of histograms.
        self._sums: set[int] = set()

    def place(self, metric: Metric, *labels: str, most: int | None = None) -> int:
        """See :meth:`Columns.place`."""
        place = self._columns.place(metric, *labels, most=most)
        self.counts.extend([0] * (self._columns.used - len(self.counts)))
        total = place + metric.cells - 1
        if metric.kind is MetricKind.HISTOGRAM and place != NOWHERE and total not in self._sums:
            self._sums.add(total)
            self.counts[total] *= metric.scale
        return place

    def write(self) -> None:
        """Let other processes see the numbers."""
        numbers = self.counts.copy()
        for place in self._sums:
            numbers[place] = round(numbers[place] / MICROSECOND)
        self._cells[: len(numbers)] = memoryview(array("Q", numbers))
