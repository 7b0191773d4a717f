"""
The last ten minutes, second by second, and the last day, minute by minute.

Strategy: once a second the counters' columns are read, a few numbers of each process. No session is looked
at, so this costs the same with one session and with ten thousand.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from twisted.internet.task import LoopingCall

from ...events import End
from ...metrics.columns import Series
from ...metrics.snapshot import Metrics
from ...metrics.table import BYTES, CONNECTIONS, ENDED, SESSIONS

#: Seconds between two points, and how many points are kept.
EVERY, SECONDS = 1.0, 600
#: Minutes that are kept.
MINUTES = 1440
#: Seconds between two readings after which they tell nothing of the time between them.
LONGEST = 10.0

#: How sessions end that the server did not want to serve.
REFUSED = frozenset(end.value for end in (End.DENIED, End.LIMIT, End.AUTH))


class Point(NamedTuple):
    """
    What a server did in a second, or in a minute.

    :ivar time: its end, in seconds since the epoch.
    :ivar sent: bytes per second from clients.
    :ivar received: bytes per second to clients.
    :ivar sessions: how many there were; of a minute, the most.
    :ivar connections: clients that connected, per second.
    :ivar refused: sessions that the server refused, per second.
    """

    time: int
    sent: float
    received: float
    sessions: float
    connections: float
    refused: float


class CountedTotals:
    """
    What has been counted so far.

    :param metrics: where the numbers are.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._known = 0
        self._places: tuple[list[int], ...] = ([], [], [], [], [])

    @property
    def counted(self) -> bool:
        """Whether anything counts what sessions do."""
        self._find()
        return bool(self._places[0])

    def read(self) -> list[int]:
        """Bytes sent and received, sessions, connections and refused sessions, in all processes."""
        self._find()
        columns = self.metrics.columns
        numbers = [0] * len(self._places)
        for column in map(columns.column, range(columns.count)):
            for which, places in enumerate(self._places):
                numbers[which] += sum([column[place] for place in places])
        return numbers

    def _find(self) -> None:
        series = self.metrics.columns.series()
        for each in series[self._known :]:
            which = _which(each)
            if which is not None:
                self._places[which].append(each.place)
        self._known = len(series)


def _which(series: Series) -> int | None:
    """Which of the numbers of :meth:`CountedTotals.read` a series belongs to; None: to none."""
    metric, labels = series.metric, series.labels
    if metric is BYTES:
        return ("sent", "received").index(labels[1])
    if metric is ENDED:
        return 4 if labels[1] in REFUSED else None
    return {SESSIONS: 2, CONNECTIONS: 3}.get(metric)


class History:
    """
    Points of the last minutes, and of the last day.

    :param reactor: keeps time.
    :param metrics: gives the metrics; None: nothing counts.
    :ivar seconds: the last points.
    :ivar minutes: the minutes before this one.
    :ivar number: how many points there have been so far.
    :ivar changed: called after each reading.
    """

    def __init__(self, reactor: Any, metrics: Callable[[], Metrics | None]) -> None:
        self._reactor = reactor
        self._metrics = metrics
        self._totals: CountedTotals | None = None
        self._before: tuple[float, list[int]] | None = None
        self._loop = LoopingCall(self._read)
        self._loop.clock = reactor
        self.seconds: deque[Point] = deque(maxlen=SECONDS)
        self.minutes: deque[Point] = deque(maxlen=MINUTES)
        self._minute: list[Point] = []
        self.number = 0
        self.changed: Callable[[], None] = lambda: None

    @property
    def counted(self) -> bool:
        """Whether there is anything to read."""
        return self._totals is not None and self._totals.counted

    def start(self) -> None:
        """Read once a second from now on."""
        if not self._loop.running:
            self._loop.start(EVERY)

    def stop(self) -> None:
        """Read no more."""
        if self._loop.running:
            self._loop.stop()

    def _read(self) -> None:
        metrics = self._metrics()
        if metrics is None:
            self._totals = self._before = None
        elif self._totals is None or self._totals.metrics is not metrics:
            self._totals, self._before = CountedTotals(metrics), None
        if self._totals is not None and self._totals.counted:
            self._take(self._reactor.seconds(), self._totals.read())
        self.changed()

    def _take(self, now: float, numbers: list[int]) -> None:
        before, self._before = self._before, (now, numbers)
        if before is None or not 0 < now - before[0] <= LONGEST:
            return
        sent, received, _, connections, refused = (
            round(max(0, new - old) / (now - before[0]), 1)
            for new, old in zip(numbers, before[1], strict=True)
        )
        self.add(Point(int(time.time()), sent, received, numbers[2], connections, refused))

    def add(self, point: Point) -> None:
        """*point* is the newest."""
        if self._minute and self._minute[-1].time // 60 != point.time // 60:
            self.minutes.append(summed(self._minute))
            self._minute = []
        self._minute.append(point)
        self.seconds.append(point)
        self.number += 1

    def since(self, number: int) -> list[Point]:
        """The points behind the first *number*, as far as they are kept."""
        missing = min(max(self.number - number, 0), len(self.seconds))
        return [self.seconds[place] for place in range(-missing, 0)]

    def as_json(self) -> bytes:
        """Everything, column by column."""
        minutes = [*self.minutes, *([summed(self._minute)] if self._minute else [])]
        return json.dumps(
            {"counted": self.counted, "seconds": in_columns(self.seconds), "minutes": in_columns(minutes)}
        ).encode()


def summed(points: list[Point]) -> Point:
    """The minute that *points* are: what the server did on the average, and the most sessions."""
    most = max(point.sessions for point in points)
    means = [round(sum(values) / len(points), 1) for values in list(zip(*points, strict=True))[1:]]
    return Point(points[-1].time // 60 * 60 + 60, *means)._replace(sessions=most)


def in_columns(points: Iterable[Point]) -> dict[str, list[float]]:
    """*points* as a list for each of their values."""
    columns = [list(values) for values in zip(*points, strict=True)] or [[] for _ in Point._fields]
    return dict(zip(Point._fields, columns, strict=True))
