"""The stream of the status page: see :mod:`socksproxy.admin.page.source`."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from socksproxy.admin.answers import ProcessAnswer
from socksproxy.admin.busiest import GROUPS
from socksproxy.admin.control import Gathered
from socksproxy.admin.errors import RequestRefused
from socksproxy.admin.event_stream import CUT_AFTER
from socksproxy.admin.page import source as module
from socksproxy.admin.page.history import History, Point
from socksproxy.admin.page.source import EVERY, PageSource, busiest, fullest
from socksproxy.admin.routes import ApiRoute, Asked, Routes
from socksproxy.admin.settings import AdminLevel

from ...support.busy import processor_seconds

ASKED = Asked({}, {}, {}, "")


class MeasuredClock(Clock):
    """A clock that notes what each call costs of the processor."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: list[float] = []

    def callLater(self, when: float, what: Callable[..., object], *a: object, **kw: object) -> Any:  # type: ignore[override]
        def measured() -> None:
            began = time.thread_time()
            what(*a, **kw)
            self.costs.append(time.thread_time() - began)

        return super().callLater(when, measured)


class Server:
    """A control, whose sessions a test chooses."""

    def __init__(self) -> None:
        self.reactor = MeasuredClock()
        self.told: Gathered | None = None
        self.looks = 0
        self.lines = [["live", "1.1.1", "bob"], ["ended", "1.1.0"], ["user", "bob", 1, 5.0, 7]]
        control: Any = self
        names = ("status", "workers", "listeners", "upstreams", "pools", "lockouts")
        routes = [
            ApiRoute("GET", f"/v1/{name}", AdminLevel.MONITOR, lambda asked: {"x": 1}) for name in names
        ]
        routes.append(
            ApiRoute("GET", "/v1/limits", AdminLevel.MONITOR, lambda asked: succeed({"limits": []}))
        )
        self.history = History(self.reactor, lambda: None)
        self.source = PageSource(control, Routes(routes), self.history)

    def processes(self) -> dict[str, int]:
        return {"running": 2, "configured": 2}

    def ask(self, question: str, arguments: Any) -> Deferred[Gathered]:
        assert (question, arguments) == ("page", {"rows": 250})
        self.looks += 1
        return succeed(self.told or self.answer())

    def answer(self) -> Gathered:
        """What the processes tell of their sessions."""
        part = b"\n".join(json.dumps(line).encode() for line in self.lines)
        value = {"worker": 1, "live": 1, "phases": {"relaying": 1}}
        return Gathered([ProcessAnswer(value, [part]), ProcessAnswer(value, [])], [])

    def point(self, time: int) -> None:
        self.history.add(Point(time, 1, 2, 3, 4, 5))
        self.history.changed()


class Viewer:
    """A request whose client may not read."""

    def __init__(self, source: PageSource) -> None:
        self.data: list[bytes] = []
        self.finished: Deferred[None] = Deferred()
        self.producer: Any = None
        self.channel = self.transport = self
        self.aborted = False
        request: Any = self
        source.stream(ASKED).start(request)

    def notifyFinish(self) -> Deferred[None]:
        return self.finished

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def write(self, data: bytes) -> None:
        self.data.append(data)

    def abortConnection(self) -> None:
        self.aborted = True
        self.finished.callback(None)

    def events(self) -> list[tuple[str, Any]]:
        """What has come since the last call."""
        data, self.data = b"".join(self.data), []
        found = []
        for each in data.decode().split("\n\n")[:-1]:
            name, line = each.split("\n")
            found.append((name.removeprefix("event: "), json.loads(line.removeprefix("data: "))))
        return found


@pytest.fixture
def server() -> Server:
    return Server()


def test_sections(server: Server) -> None:
    """A viewer gets each section, and again what differs; another one gets at once what there is."""
    viewer = Viewer(server.source)
    server.reactor.advance(0)
    events = viewer.events()
    assert [name for name, _ in events] == [
        *("history", "ended", "sessions", "busiest"),
        *("status", "workers", "listeners", "upstreams", "pools", "limits", "lockouts"),
    ]
    assert events[1][1] == [["ended", "1.1.0"]]
    assert events[2][1]["live"] == 2
    assert events[2][1]["rows"] == [["live", "1.1.1", "bob"]]
    assert events[3][1]["user"] == [["bob", 1, 5.0, 7]]
    server.reactor.advance(EVERY)
    assert viewer.events() == []
    server.lines = server.lines[1:]
    server.reactor.advance(EVERY)
    assert [name for name, _ in viewer.events()] == ["sessions"]
    other = Viewer(server.source)
    assert len(other.events()) == len(events)


def test_looks(server: Server) -> None:
    """One look serves all viewers, and nothing looks without them."""
    viewers = [Viewer(server.source) for _ in range(20)]
    server.reactor.advance(0)
    for _ in range(4):
        server.reactor.advance(EVERY)
    assert server.looks == 5
    for viewer in viewers:
        viewer.finished.callback(None)
    assert not server.reactor.getDelayedCalls()
    server.point(1)


def test_points(server: Server) -> None:
    """Each viewer gets each point once, one that was slow later."""
    viewer, slow = Viewer(server.source), Viewer(server.source)
    server.reactor.advance(0)
    viewer.events(), slow.events()
    slow.producer.pauseProducing()
    server.point(1)
    server.point(2)
    assert [data[0][0] for _, data in viewer.events()] == [1, 2]
    server.lines = server.lines[:1]
    server.reactor.advance(EVERY)
    assert slow.events() == []
    slow.producer.resumeProducing()
    assert [name for name, _ in slow.events()] == ["ended", "busiest"]
    server.point(3)
    assert [[point[0] for point in data] for _, data in slow.events()] == [[1, 2, 3]]


def test_cut(server: Server) -> None:
    """A viewer that reads nothing is cut off."""
    viewer = Viewer(server.source)
    viewer.producer.pauseProducing()
    server.reactor.advance(CUT_AFTER + 1)
    assert viewer.aborted
    assert not server.reactor.getDelayedCalls()


def test_crowd(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a bound on viewers."""
    monkeypatch.setattr(module, "MOST_VIEWERS", 1)
    Viewer(server.source)
    with pytest.raises(RequestRefused):
        server.source.stream(ASKED)


def test_holds_no_loop(server: Server) -> None:
    """With 20 viewers and as many sessions as are told, no turn takes 5 ms of the processor."""
    viewers = [Viewer(server.source) for _ in range(20)]
    worst = []
    for look in range(5):
        tail = [
            "203.0.113.7:12345",
            "user",
            "CONNECT",
            "host.example.org:443",
            "rule",
            None,
            "relaying",
            look,
        ]
        server.lines = [["live", f"1.1.{number}", *tail] for number in range(500)]
        server.lines += [["ended", f"1.2.{number}", *tail] for number in range(200)]
        server.lines += [[kind, f"{number}", 1, look, 7] for kind in GROUPS for number in range(120)]
        server.told = server.answer()
        gc.collect()
        server.reactor.costs.clear()
        server.reactor.advance(EVERY)
        assert len(server.reactor.costs) > 10
        worst.append(max(server.reactor.costs))
    assert len(viewers[-1].events()) > 20
    # What else the machine is at can make some of them slow.
    assert min(worst) < processor_seconds(0.005), [f"{1000 * cost:.1f} ms" for cost in worst]


def test_busiest() -> None:
    """What several processes tell of a name is added up; those with the highest rate come first."""
    told = [["user", "bob", 1, 5.0, 10], ["user", "eve", 9, 1.0, 1], ["user", "bob", 2, 6.0, 20]]
    assert busiest(told) == [["bob", 3, 11.0, 30], ["eve", 9, 1.0, 1]]
    assert busiest([]) == []


def test_fullest() -> None:
    """Those come first that have taken the most of a limit."""
    rows = [
        {"holder": name, "limits": {"sessions": most}, "now": {"sessions": now}, "full": now >= most}
        for name, now, most in (("a", 1, 10), ("b", 10, 10), ("c", 9, 10))
    ]
    assert [row["holder"] for row in fullest(rows)] == ["b", "c", "a"]
