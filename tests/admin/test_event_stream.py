"""The stream of events: see :mod:`socksproxy.admin.event_stream`."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from socksproxy.admin import event_stream
from socksproxy.admin.answers import ProcessAnswer
from socksproxy.admin.control import Gathered
from socksproxy.admin.errors import RequestRefused
from socksproxy.admin.event_stream import CUT_AFTER, EVERY, EventSource
from socksproxy.admin.routes import Asked

from ..conftest import Serve
from ..support.admin import administered
from ..support.proxy import Playing, Proxy

ASKED = Asked({}, {}, {}, "")


class Server:
    """A control whose state a test chooses."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.told: dict[str, Any] = {
            "state": ("running", None),
            "config": "a",
            "listener": "enabled",
            "pid": 7,
        }
        self.looks = 0

    def ask(self, question: str, arguments: object) -> Deferred[Gathered]:
        self.looks += 1
        return succeed(Gathered([ProcessAnswer({"sessions": 3}, []), ProcessAnswer({"sessions": 4}, [])], []))

    def state(self) -> Any:
        return self.told["state"]

    def config(self) -> Any:
        return {"hash": self.told["config"], "loaded": 1.0}

    def metrics(self) -> None:
        return None

    def listeners(self) -> Any:
        return [{"address": "tcp:1", "state": self.told["listener"]}]

    def upstreams(self) -> Any:
        return {}

    def workers(self) -> Any:
        return [{"number": 1, "state": "running", "pid": self.told["pid"]}]


class Reader:
    """A request whose client may not read."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.finished: Deferred[None] = Deferred()
        self.producer: Any = None
        self.channel = self.transport = self
        self.aborted = False

    def notifyFinish(self) -> Deferred[None]:
        return self.finished

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def write(self, data: bytes) -> None:
        name, line, *rest = data.decode().split("\n")
        assert rest == ["", ""]
        self.events.append((name.removeprefix("event: "), json.loads(line.removeprefix("data: "))))

    def abortConnection(self) -> None:
        self.aborted = True
        self.finished.callback(None)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def source(server: Server) -> EventSource:
    control: Any = server
    return EventSource(control)


def reading(source: EventSource) -> Reader:
    reader: Any = Reader()
    source.events(ASKED).start(reader)
    found: Reader = reader
    return found


def test_status(server: Server, source: EventSource) -> None:
    """One look a second is taken for all readers, and none where there are none."""
    first, second = reading(source), reading(source)
    server.reactor.advance(0)
    for _ in range(3):
        server.reactor.advance(EVERY)
    assert server.looks == 4
    for reader in (first, second):
        assert [name for name, _ in reader.events] == ["status"] * 4
        assert reader.events[0][1]["sessions"] == 7
    for reader in (first, second):
        reader.finished.callback(None)
    assert not server.reactor.getDelayedCalls()


def test_changes(server: Server, source: EventSource) -> None:
    """What has changed is told, once."""
    reader = reading(source)
    server.reactor.advance(0)
    server.told = {"state": ("draining", "draining"), "config": "b", "listener": "disabled", "pid": 8}
    server.reactor.advance(EVERY)
    server.reactor.advance(EVERY)
    assert [event for event in reader.events if event[0] != "status"] == [
        ("state", {"state": "draining", "why": "draining"}),
        ("reload", {"hash": "b", "loaded": 1.0}),
        ("listener", {"address": "tcp:1", "state": "disabled"}),
        ("worker", {"number": 1, "state": "running", "pid": 8}),
    ]


def test_slow_reader(server: Server, source: EventSource) -> None:
    """A reader that does not keep up loses events and is told how many; the others lose none."""
    slow, other = reading(source), reading(source)
    server.reactor.advance(0)
    slow.producer.pauseProducing()
    for _ in range(5):
        server.reactor.advance(EVERY)
    slow.producer.resumeProducing()
    server.reactor.advance(EVERY)
    assert (len(slow.events), len(other.events)) == (2, 7)
    assert slow.events[1][1]["lost"] == 5
    assert all("lost" not in data for _, data in other.events)


def test_cut(server: Server, source: EventSource) -> None:
    """A reader that reads nothing at all is cut off."""
    reader = reading(source)
    reader.producer.pauseProducing()
    server.reactor.advance(CUT_AFTER - 1)
    assert not reader.aborted
    server.reactor.advance(2)
    assert reader.aborted
    assert not server.reactor.getDelayedCalls()


def test_crowd(source: EventSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "MOST_READERS", 1)
    reading(source)
    with pytest.raises(RequestRefused):
        source.events(ASKED)


@pytest_twisted.inlineCallbacks
def test_over_http(serve_as: Serve, tmp_path: Path) -> Playing:
    """A reader gets the first event at once, in the form that browsers read."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"

    def read() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            client.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while b"\n\n" not in answer:
                answer += client.recv(65536)
            return answer

    with administered(proxy.factory, path):
        answer = yield proxy.play(read)
    assert b"content-type: text/event-stream" in answer.lower()
    assert b'event: status\ndata: {"time": ' in answer
