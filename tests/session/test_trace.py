"""Traces of sessions: see :mod:`socksproxy.session.trace`."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.testing import MemoryReactorClock

from socksproxy import Rule, RulePolicy, SOCKSFactory
from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.session.permission import Permission
from socksproxy.session.session import Session
from socksproxy.session.trace import (
    MOST_BYTES,
    MOST_TRACES,
    CannotTrace,
    Trace,
    TracedPermission,
    TracedSession,
    Tracing,
)

from ..conftest import Serve
from ..support.origin import Origin, echo
from ..support.proxy import Playing, Proxy, ask5, ask_as, closed_port, echoes, until
from ..support.sessions import connected, the_session
from ..support.users import portal_of


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as server:
        yield server


def tracing_of(proxy: Proxy) -> Tracing:
    return Tracing(proxy.sessions)


def events(trace: Trace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trace.take()]


def words(found: list[dict[str, Any]]) -> list[str]:
    return [each["event"] for each in found]


@pytest_twisted.inlineCallbacks
def test_a_session_from_its_start(serve: Serve, origin: Origin) -> Playing:
    """Each step is told, in its order and with its time, whatever carries the session."""
    rules = [
        Rule(name="mail", allow=False, ports=[25]),
        Rule(name="all", allow=True, networks=["127.0.0.0/8"]),
    ]
    proxy: Proxy = yield serve(policy=RulePolicy(rules))
    before = time.time()
    tracing = tracing_of(proxy)
    trace = tracing.begin(client="127.0.0.1")

    found: list[dict[str, Any]] = []

    def looked() -> bool:
        """Whether the relay has been looked at since both directions have moved a byte."""
        found.extend(events(trace))
        return words(found).count("first byte") == 2

    def shut(sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""

    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
        yield proxy.play(echoes, sock)
        yield until(looked)
        yield proxy.play(shut, sock)
    yield until(lambda: not proxy.sessions.live)
    found.extend(events(trace))
    told = words(found)
    assert told[0] == "accepted"
    assert ("identified" in told) is (proxy.kind == "wrapped")
    expected = ["greeting", "request", "rules", "attempt", "connected", "reply"]
    assert [word for word in told if word in expected] == expected
    assert {"first byte"} <= set(told)
    assert told[-1] == "ended"
    by_word = {each["event"]: each for each in found}
    assert by_word["greeting"]["methods"] == [0]
    assert by_word["request"]["destination"] == f"127.0.0.1:{origin.port}"
    assert by_word["rules"]["rule"] == "all"
    assert by_word["rules"]["steps"] == [f"mail (deny): ports 25, not {origin.port}", "all (allow): matches"]
    assert by_word["attempt"]["address"] == f"127.0.0.1:{origin.port}"
    assert by_word["ended"]["sent"] > 0
    times = [each["time"] for each in found]
    assert times == sorted(times)
    assert before <= times[0] <= time.time()
    assert {each["session"] for each in found} == {proxy.records[-1]["id"]}
    tracing.end(trace)
    assert proxy.sessions.context.tracing is None


@pytest_twisted.inlineCallbacks
def test_a_refusal_and_an_errno(serve_as: Serve, origin: Origin) -> Playing:
    """Why the destination was not reached: each address with its error, and the reply."""
    proxy: Proxy = yield serve_as()
    tracing = tracing_of(proxy)
    trace = tracing.begin(client="127.0.0.0/8")
    port = closed_port()

    def scenario() -> int:
        with proxy.connect() as sock:
            return int(ask5(sock, "127.0.0.1", port)[0])

    code = yield proxy.play(scenario)
    assert code == 5
    yield until(lambda: not proxy.sessions.live)
    by_word = {each["event"]: each for each in events(trace)}
    assert by_word["attempt failed"]["errno"] == 111
    assert by_word["attempt failed"]["address"] == f"127.0.0.1:{port}"
    assert by_word["refused"]["reply"] == 5
    assert by_word["ended"]["end"] == "refused"
    tracing.end(trace)


@pytest_twisted.inlineCallbacks
def test_a_user(serve_as: Serve, origin: Origin) -> Playing:
    """The whole session is there, from before the user was known; no other user's, and no password."""
    proxy: Proxy = yield serve_as(portal=portal_of(alice=None, bob=None))
    tracing = tracing_of(proxy)
    trace = tracing.begin(user="bob")

    def scenario() -> None:
        for name in (b"alice", b"bob"):
            with proxy.connect() as sock:
                ask_as(sock, name, origin.port)
        with proxy.connect() as sock:
            sock.sendall(b"\x05\x01\x02")

    yield proxy.play(scenario)
    yield until(lambda: not proxy.sessions.live)
    lines = trace.take()
    assert b"secret" not in b"".join(lines)
    found = [json.loads(line) for line in lines]
    assert len({each["session"] for each in found}) == 1
    assert words(found)[:3] == ["accepted", "greeting", "authenticated"]
    assert found[1]["methods"] == [2]
    assert found[2]["user"] == "bob"
    tracing.end(trace)


@pytest_twisted.inlineCallbacks
def test_one_session_from_now_on(serve_as: Serve, origin: Origin) -> Playing:
    proxy: Proxy = yield serve_as()
    tracing = tracing_of(proxy)
    first = yield proxy.play(connected, proxy, origin.port)
    session = the_session(proxy)
    second = yield proxy.play(connected, proxy, origin.port)
    trace = tracing.begin(session=session.id)
    assert type(session) is TracedSession
    assert [type(each) for each in proxy.sessions.live] == [TracedSession, Session]
    second.close()
    first.close()
    yield until(lambda: not proxy.sessions.live)
    found = events(trace)
    assert {each["session"] for each in found} == {session.id}
    assert found[0]["event"] == "joined"
    assert found[0]["phase"] == "relaying"
    assert words(found)[-1] == "ended"
    with pytest.raises(CannotTrace, match=r"there is no session 1\.2\.3"):
        tracing.begin(session="1.2.3")
    tracing.end(trace)


@pytest_twisted.inlineCallbacks
def test_the_end_of_a_trace(serve_as: Serve, origin: Origin) -> Playing:
    """Sessions go on as ever, and nothing is left."""
    proxy: Proxy = yield serve_as()
    tracing = tracing_of(proxy)
    trace = tracing.begin(client="127.0.0.1")
    sock = yield proxy.play(connected, proxy, origin.port)
    session = the_session(proxy)
    told: list[bool] = []
    trace.changed = lambda: told.append(trace.over)
    tracing.end(trace)
    tracing.end(trace)
    assert told == [True]
    assert type(session) is Session
    assert proxy.sessions.context.tracing is None
    assert not proxy.sessions.context.events.wants("began")
    trace.take()
    yield proxy.play(echoes, sock)
    sock.close()
    yield until(lambda: not proxy.sessions.live)
    assert trace.take() == []


@pytest.mark.parametrize("number", range(7))
@pytest_twisted.inlineCallbacks
def test_the_end_of_a_trace_at_any_event(number: int, serve_as: Serve, origin: Origin) -> Playing:
    """The reader leaves at an event: the session goes on as if there had been no trace."""
    proxy: Proxy = yield serve_as()
    tracing = tracing_of(proxy)
    trace = tracing.begin(client="127.0.0.1")
    told: list[None] = []

    def changed() -> None:
        told.append(None)
        if len(told) > number:
            tracing.end(trace)

    trace.changed = changed
    sock = yield proxy.play(connected, proxy, origin.port)
    sock.close()
    yield until(lambda: not proxy.sessions.live)
    tracing.end(trace)
    assert len(told) > number


@pytest.mark.parametrize("kind", ["transports", "accepted"])
@pytest_twisted.inlineCallbacks
def test_stalls(kind: str, serve_as: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A destination that does not read, and a limit: each stall is told with its cause, and its end."""
    monkeypatch.setattr("socksproxy.session.trace.STALL", 0.2)
    go_on = [False]

    def reads_later(sock: socket.socket) -> None:
        while not go_on[0]:
            time.sleep(0.01)
        while sock.recv(1 << 20):
            pass

    with Origin(reads_later) as origin:
        proxy: Proxy = yield serve_as(kind)
        tracing = tracing_of(proxy)
        trace = tracing.begin(client="127.0.0.1")
        found: list[dict[str, Any]] = []

        def has(word: str) -> Callable[[], bool]:
            def look() -> bool:
                found.extend(events(trace))
                return word in words(found)

            return look

        sock = proxy.connect()
        yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
        sock.setblocking(False)

        def fill() -> None:
            while not go_on[0]:
                try:
                    sock.send(bytes(1 << 16))
                except BlockingIOError:
                    time.sleep(0.01)

        filling = proxy.play(fill)
        yield until(has("stalled"))
        go_on[0] = True
        yield filling
        yield until(has("moves again"))
        stalled = next(each for each in found if each["event"] == "stalled")
        assert (stalled["direction"], stalled["because"]) == ("sent", "destination full")
        sock.close()
        yield until(lambda: not proxy.sessions.live)
        tracing.end(trace)


@pytest_twisted.inlineCallbacks
def test_a_limit_stalls(serve_as: Serve, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Playing:
    monkeypatch.setattr("socksproxy.session.trace.STALL", 0.1)
    limits = ServerLimits(session=Limits(upload=Rate(2000, 1000)))
    proxy: Proxy = yield serve_as(limits=limits)
    tracing = tracing_of(proxy)
    trace = tracing.begin(client="127.0.0.1")
    sock = proxy.connect()
    yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
    sock.sendall(bytes(20_000))
    found: list[dict[str, Any]] = []

    def stalled() -> bool:
        found.extend(events(trace))
        return "stalled" in words(found)

    yield until(stalled)
    assert next(each for each in found if each["event"] == "stalled")["because"] == "limit"
    sock.close()
    yield until(lambda: not proxy.sessions.live)
    tracing.end(trace)


def test_a_permission_is_the_same() -> None:
    """A traced session is judged as any other: nothing of its permission is lost."""
    permission = Permission(RulePolicy([]))
    for name in Permission.__slots__:
        setattr(permission, name, object())
    traced: Any = TracedPermission(permission, lambda *_: None)
    assert all(getattr(traced, name) is getattr(permission, name) for name in Permission.__slots__)


def test_a_reader_that_is_slow() -> None:
    """It loses the oldest events, and sees how many."""
    trace = Trace(lambda client: True)
    line = b"x" * 999 + b"\n"
    count = MOST_BYTES // 1000 + 7
    for _ in range(count):
        trace.put(line)
    first, *rest = trace.take()
    lost = json.loads(first)
    assert lost["event"] == "lost"
    assert lost["events"] + len(rest) == count
    assert sum(map(len, rest)) <= MOST_BYTES
    assert trace.take() == []


@pytest_twisted.inlineCallbacks
def test_bounds(serve_as: Serve, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Eight traces, so many sessions, and an end after its time."""
    monkeypatch.setattr("socksproxy.session.trace.MOST_SESSIONS", 1)
    proxy: Proxy = yield serve_as()
    tracing = tracing_of(proxy)
    traces = [tracing.begin(client="127.0.0.1", seconds=0.5) for _ in range(MOST_TRACES)]
    with pytest.raises(CannotTrace, match="there are 8 traces already"):
        tracing.begin(user="bob")
    socks = []
    for _ in range(2):
        socks.append((yield proxy.play(connected, proxy, origin.port)))
    found = events(traces[0])
    assert len({each["session"] for each in found if "session" in each}) == 1
    assert found[0]["event"] == "lost"
    yield until(lambda: all(trace.over for trace in traces))
    assert proxy.sessions.context.tracing is None
    for sock in socks:
        sock.close()


def test_a_client_that_is_no_address() -> None:
    tracing = Tracing(SOCKSFactory(MemoryReactorClock()).sessions)
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 network"):
        tracing.begin(client="bob")
