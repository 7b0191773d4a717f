"""The last minutes and the last day: see :mod:`socksproxy.admin.page.history`."""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from socksproxy.admin.page.history import MINUTES, SECONDS, History, Point
from socksproxy.metrics.columns import Columns, OwnColumn, new_columns
from socksproxy.metrics.snapshot import Metrics
from socksproxy.metrics.table import BYTES, CONNECTIONS, ENDED, SESSIONS


class Counting:
    """A server with a worker that counts."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.columns = Columns(new_columns(2), 2)
        self.metrics: Metrics | None = Metrics(self.columns)
        self.history = History(self.clock, lambda: self.metrics)

    def worker(self) -> None:
        self.own = OwnColumn(self.columns, 0)
        self.places = {
            "sent": self.own.place(BYTES, "CONNECT", "sent"),
            "received": self.own.place(BYTES, "UDP_ASSOCIATE", "received"),
            "sessions": self.own.place(SESSIONS, "CONNECT", "relaying"),
            "connections": self.own.place(CONNECTIONS, "main"),
            "refused": self.own.place(ENDED, "CONNECT", "denied"),
            "over": self.own.place(ENDED, "CONNECT", "client"),
        }

    def count(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self.own.counts[self.places[name]] += number
        self.own.write()


@pytest.fixture
def server() -> Counting:
    counting = Counting()
    counting.worker()
    return counting


def test_points(server: Counting) -> None:
    """Each second has a point with what has happened in it."""
    server.history.start()
    server.count(sent=1000, received=500, sessions=2, connections=3, refused=1, over=4)
    server.clock.advance(1)
    (point,) = server.history.seconds
    assert point[1:] == (1000, 500, 2, 3, 1)
    server.clock.advance(1)
    assert server.history.seconds[1][1:] == (0, 0, 2, 0, 0)
    assert server.history.since(1) == [server.history.seconds[1]]
    assert server.history.since(2) == []
    server.history.stop()
    assert not server.clock.getDelayedCalls()


def test_dead_worker(server: Counting) -> None:
    """The end of a worker, and another one in its place, are no traffic."""
    server.count(sent=10**9, received=10**9)
    server.history.start()
    server.clock.advance(1)
    server.columns.retire(0)
    server.clock.advance(1)
    server.worker()
    server.count(sent=100)
    server.clock.advance(1)
    assert [(point.sent, point.received) for point in server.history.seconds] == [(0, 0), (0, 0), (100, 0)]


def test_what_was_counted_before_the_first_reading(server: Counting) -> None:
    """What was counted before the first reading, or while there was none, is in no point."""
    server.count(sent=10**9)
    server.history.start()
    assert not server.history.seconds
    server.clock.advance(1)
    server.history.stop()
    server.clock.advance(3600)
    server.count(sent=10**9)
    server.history.start()
    server.clock.advance(1)
    assert [point.sent for point in server.history.seconds] == [0, 0]


def test_nothing_counts() -> None:
    """Without metrics there are no points, and the page is told."""
    server = Counting()
    server.history.start()
    server.clock.advance(2)
    assert not json.loads(server.history.as_json())["counted"]
    server.metrics = None
    server.clock.advance(2)
    assert json.loads(server.history.as_json())["seconds"]["time"] == []
    server.metrics = Metrics(server.columns)
    server.worker()
    server.clock.advance(2)
    assert json.loads(server.history.as_json())["counted"]


def test_minutes(server: Counting) -> None:
    """A minute has the mean of its seconds, and the most sessions; the rings have bounds."""
    history = server.history
    for time in range(MINUTES * 60 + 7200):
        history.add(Point(time, time % 60, 60, time % 7, 1, 0))
    assert (len(history.seconds), len(history.minutes)) == (SECONDS, MINUTES)
    assert history.minutes[-1] == Point(MINUTES * 60 + 7140, 29.5, 60, 6, 1, 0)
    told = json.loads(history.as_json())
    assert told["minutes"]["time"][-1] == MINUTES * 60 + 7200
    assert len(told["seconds"]["sent"]) == SECONDS
