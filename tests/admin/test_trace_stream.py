"""Traces over the admin API: see :mod:`socksproxy.admin.trace_stream`."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from socksproxy.admin.answers import ProcessAnswer
from socksproxy.admin.control import Gathered
from socksproxy.admin.errors import RequestRefused
from socksproxy.admin.event_stream import CUT_AFTER
from socksproxy.admin.routes import Asked
from socksproxy.admin.settings import AdminLevel
from socksproxy.admin.trace_stream import TraceRoutes, TraceStream
from socksproxy.admin.traces import BEGIN, END, TAKE
from socksproxy.session.trace import MOST_TRACES

from ..conftest import Serve
from ..support.admin import administered, asks
from ..support.origin import Origin, echo
from ..support.processes import PATIENCE, Program
from ..support.proxy import Playing, Proxy, until
from ..support.sessions import connected
from ..support.workers import LISTENING, with_each, workers_of


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as server:
        yield server


class Reader:
    """Reads a trace, as a program would that knows nothing of HTTP but its end of headers."""

    def __init__(self, path: Path, query: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self.socket.sendall(f"GET /v1/trace?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.response = http.client.HTTPResponse(self.socket)
        self.response.begin()

    def events(self) -> Iterator[dict[str, Any]]:
        for line in self.response:
            yield json.loads(line)

    def close(self) -> None:
        self.response.close()
        self.socket.close()


@pytest_twisted.inlineCallbacks
def test_a_trace(serve_as: Serve, tmp_path: Path, origin: Origin) -> Playing:
    """The events come as they happen; the stream ends with its time, and nothing is left."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    with administered(proxy.factory, path, AdminLevel.OPERATOR):

        def scenario() -> list[str]:
            reader = Reader(path, "client=127.0.0.1&seconds=1")
            assert reader.response.status == 200
            assert reader.response.headers["Content-Type"] == "application/x-ndjson"
            connected(proxy, origin.port).close()
            found = [each["event"] for each in reader.events()]
            reader.close()
            return found

        found = yield proxy.play(scenario)
        assert found[0] == "accepted"
        assert found[-1] == "ended"
        yield until(lambda: proxy.sessions.context.tracing is None)


@pytest_twisted.inlineCallbacks
def test_a_reader_that_leaves(serve_as: Serve, tmp_path: Path, origin: Origin) -> Playing:
    """The trace is over with its reader."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    with administered(proxy.factory, path):
        reader = yield proxy.play(Reader, path, "user=bob")
        assert proxy.sessions.context.tracing is not None
        reader.close()
        yield until(lambda: proxy.sessions.context.tracing is None)


@pytest_twisted.inlineCallbacks
def test_head(serve_as: Serve, tmp_path: Path) -> Playing:
    """HEAD begins a trace to learn the status, and keeps none."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    with administered(proxy.factory, path):
        for _ in range(MOST_TRACES + 1):
            told = yield proxy.play(asks, path, "HEAD", "/v1/trace?user=bob")
            assert (told.status, told.data) == (200, b"")
        assert proxy.sessions.context.tracing is None


@pytest.mark.parametrize("silent", [False, True])
def test_no_stream(silent: bool) -> None:
    """A process that is asked to begin a trace is asked to end it, too, where no stream comes of it."""
    told: list[tuple[str, str]] = []
    begun: Deferred[Gathered] = Deferred()

    def ask(question: str, arguments: dict[str, Any]) -> Deferred[Gathered]:
        told.append((question, arguments["name"]))
        return begun if question == BEGIN else succeed(Gathered([], []))

    control: Any = SimpleNamespace(ask=ask)
    answer = TraceRoutes(control).trace(Asked({}, {"user": "bob"}, {}, "me"))
    if silent:
        begun.callback(Gathered([], [1]))
    else:
        answer.cancel()  # the client is gone
    (name,) = {name for _, name in told}
    assert name
    assert [question for question, _ in told] == [BEGIN, END]
    problems: list[Any] = []
    answer.addErrback(lambda failure: problems.append(failure.type))
    assert problems == [RequestRefused if silent else CancelledError]


def test_a_reader_that_does_not_read() -> None:
    """It is cut off some time after the end of the trace, and keeps no connection."""
    clock = Clock()
    asked: list[str] = []

    def ask(question: str, arguments: object) -> Deferred[Gathered]:
        asked.append(question)
        return succeed(Gathered([ProcessAnswer({"over": False}, [b'{"time": 1}'])], []))

    gone: Deferred[None] = Deferred()
    request: Any = SimpleNamespace(
        notifyFinish=lambda: gone,
        registerProducer=lambda producer, streaming: None,
        unregisterProducer=lambda: None,
        write=lambda data: None,
        finish=lambda: gone.callback(None),
    )
    control: Any = SimpleNamespace(reactor=clock, ask=ask)
    stream = TraceStream(control, "a", 5.0)
    stream.start(request)
    stream.pauseProducing()
    clock.advance(5.0 + CUT_AFTER)
    assert gone.called
    assert asked == [TAKE, END]
    assert not clock.getDelayedCalls()


@pytest_twisted.inlineCallbacks
def test_what_makes_no_sense(serve_as: Serve, tmp_path: Path) -> Playing:
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    with administered(proxy.factory, path):
        for query, status, words in (
            ("", 400, "give one of session, user, client"),
            ("user=bob&client=127.0.0.1", 400, "give one of session, user, client"),
            ("client=bob", 400, "client: not an address, and not a network: bob"),
            ("user=bob&seconds=0", 400, "seconds: a whole number from 1 to 60"),
            ("user=bob&seconds=61", 400, "seconds: a whole number from 1 to 60"),
            ("user=bob&bytes=1", 400, "no such parameter: bytes; there are session, user, client, seconds"),
            ("session=1.2.3", 404, "there is no session 1.2.3"),
        ):
            told = yield proxy.play(asks, path, "GET", f"/v1/trace?{query}")
            assert (told.status, told.body["error"]) == (status, words)
        readers = []
        for _ in range(MOST_TRACES):
            readers.append((yield proxy.play(Reader, path, "user=bob")))
        told = yield proxy.play(asks, path, "GET", "/v1/trace?user=bob")
        assert (told.status, told.body["error"]) == (409, "there are 8 traces already")
        for reader in readers:
            reader.close()
        yield until(lambda: proxy.sessions.context.tracing is None)


@pytest_twisted.inlineCallbacks
def test_monitors_do_not_trace(serve_as: Serve, tmp_path: Path) -> Playing:
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    with administered(proxy.factory, path, AdminLevel.MONITOR):
        told = yield proxy.play(asks, path, "GET", "/v1/trace?user=bob")
        assert told.status == 403


def test_workers(twistd: Callable[..., Program], tmp_path: Path, origin: Origin) -> None:
    """The supervisor asks all workers: sessions of each are in one stream, in the order of time."""
    path, config = tmp_path / "admin", tmp_path / "socks.toml"
    config.write_text(f'[[admin.listener]]\nendpoint = "unix:{path}"\n')
    program = twistd("socks", "-p", "0", "--workers", "2", "--config", str(config))
    port = int(program.wait_for(LISTENING)[1])
    reader = Reader(path, "client=127.0.0.0/8")
    clients: list[socket.socket] = []
    with_each(port, origin, workers_of(program.process.pid), clients)
    for client in clients:
        client.close()
    ended: dict[str, str] = {}
    for each in reader.events():
        if each["event"] == "ended":
            ended[each["session"]] = each["session"].split(".")[1]
        if len(ended) == len(clients):
            break
    reader.close()
    assert set(ended.values()) == {"1", "2"}
