"""What a server counts of its sessions."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from socksproxy import Rule, RulePolicy
from socksproxy.limits import Limits, ServerLimits
from socksproxy.metrics.snapshot import Metrics
from socksproxy.session import counters as counters_module
from socksproxy.session.counters import MOST_RULES
from socksproxy.wire.words import Reply
from tests.conftest import Serve
from tests.support.origin import Origin, echo
from tests.support.proxy import Playing, Proxy, ask4, ask5, ask_as, echoes, until
from tests.support.stores import QUICK, Nodes
from tests.support.udp import Client as Datagrams, Echo, serving, wait_for
from tests.support.users import portal_of
from tests.support.valkey import Valkey

ALL = Rule(name="all", allow=True, networks=["0.0.0.0/0", "::/0"])


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


def value(metrics: Metrics, proxy: Proxy, name: str, **labels: str) -> float:
    """A value, with all that has been counted until now."""
    counters = proxy.factory.context.counters
    if counters is not None:
        counters.update(0.0)
    return metrics.snapshot().value(f"socksproxy_{name}", **labels)


@pytest_twisted.inlineCallbacks
def test_whole_session(serve: Serve, origin: Origin) -> Playing:
    """Bytes count while the session goes on; the rest when it is over."""
    proxy: Proxy = yield serve()
    metrics = proxy.factory.count()
    with proxy.connect() as client:
        assert (yield proxy.play(ask5, client, "127.0.0.1", origin.port))[0] == 0
        yield proxy.play(echoes, client, b"12345")
        assert value(metrics, proxy, "bytes_total") == 0
        yield until(lambda: value(metrics, proxy, "bytes_total") == 10)
        assert value(metrics, proxy, "sessions", command="CONNECT", phase="relaying") == 1
        yield proxy.play(echoes, client, b"123")
    yield until(lambda: not proxy.sessions.live)
    assert value(metrics, proxy, "bytes_total", direction="sent", command="CONNECT") == 8
    assert value(metrics, proxy, "bytes_total", direction="received") == 8
    assert value(metrics, proxy, "sessions_ended_total", command="CONNECT", reason="client") == 1
    assert value(metrics, proxy, "sessions_ended_total") == 1
    assert value(metrics, proxy, "replies_total", version="5", code="0") == 1
    for histogram in ("handshake_seconds", "connect_seconds", "session_seconds"):
        assert value(metrics, proxy, histogram) == 1
    assert value(metrics, proxy, "resolution_seconds") == 0
    yield until(lambda: value(metrics, proxy, "sessions") == 0)
    proxy.factory.stop_counting()
    assert proxy.factory.context.counters is None


@pytest_twisted.inlineCallbacks
def test_all_there_from_the_start(serve_as: Serve, origin: Origin) -> Playing:
    """Every set of labels is there before it is needed, and the first refusal shows as an increase."""
    policy = RulePolicy([Rule(name="none", allow=False, networks=["127.0.0.0/8"]), ALL])
    proxy: Proxy = yield serve_as(policy=policy)
    metrics = proxy.factory.count()
    before = {name: len(each.samples) for name, each in metrics.snapshot().families.items()}
    labels = {"rule": "none", "decision": "deny"}
    denied = [each.labels for each in metrics.snapshot().families["socksproxy_rule_decisions_total"].samples]
    assert tuple(labels.values()) in denied
    assert value(metrics, proxy, "sessions_ended_total", reason="denied") == 0
    with proxy.connect() as client:
        assert (yield proxy.play(ask4, client, "127.0.0.1", origin.port))[0] == 91
    yield until(lambda: not proxy.sessions.live)
    assert value(metrics, proxy, "sessions_ended_total", reason="denied") == 1
    assert value(metrics, proxy, "rule_decisions_total", **labels) == 1
    assert value(metrics, proxy, "rule_decisions_total") == 1
    assert value(metrics, proxy, "replies_total", version="4", code="91") == 1
    assert {name: len(each.samples) for name, each in metrics.snapshot().families.items()} == before


@pytest_twisted.inlineCallbacks
def test_no_series_from_outside(serve_as: Serve, origin: Origin) -> Playing:
    """Names, wrong names, commands and versions that clients make up make no series."""
    proxy: Proxy = yield serve_as(portal=portal_of(bob=None))
    metrics = proxy.factory.count()
    before = {name: len(each.samples) for name, each in metrics.snapshot().families.items()}
    for number in range(20):
        with proxy.connect() as client, pytest.raises((EOFError, AssertionError, ValueError, OSError)):
            yield proxy.play(ask_as, client, b"eve%d" % number, origin.port)
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x05\x00",
        b"\x04\x77\x00\x50\x7f\x00\x00\x01x\x00",
        b"\x16\x03\x01",
    ):
        with proxy.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            yield until(lambda: not proxy.sessions.live)
    assert value(metrics, proxy, "sessions_ended_total", reason="auth") > 0
    assert value(metrics, proxy, "sessions_ended_total", reason="protocol") > 0
    assert value(metrics, proxy, "authentications_total", method="password", result="refused") > 0
    assert value(metrics, proxy, "authentication_seconds", method="password") > 0
    assert {name: len(each.samples) for name, each in metrics.snapshot().families.items()} == before


@pytest_twisted.inlineCallbacks
def test_users(serve_as: Serve, origin: Origin) -> Playing:
    """The first users have series of their own, and all others one together."""
    proxy: Proxy = yield serve_as(portal=portal_of(bob=None, ann=None, joe=None))
    metrics = proxy.factory.count(users=2)
    for name in (b"bob", b"ann", b"joe", b"bob"):
        with proxy.connect() as client:
            assert (yield proxy.play(ask_as, client, name, origin.port)) == 0
            yield proxy.play(echoes, client, b"1234")
        yield until(lambda: not proxy.sessions.live)
    sent = [
        value(metrics, proxy, "user_bytes_total", user=user, direction="sent") for user in ("bob", "ann", "")
    ]
    assert sent == [8, 4, 4]
    assert len(metrics.snapshot().families["socksproxy_user_sessions"].samples) == 3
    assert value(metrics, proxy, "authentications_total", method="password", result="granted") == 4
    with proxy.connect() as client:
        assert (yield proxy.play(ask_as, client, b"bob", origin.port)) == 0
        yield until(lambda: value(metrics, proxy, "user_sessions", user="bob") == 1)


@pytest_twisted.inlineCallbacks
def test_limits(serve_as: Serve, origin: Origin) -> Playing:
    """What a limit refuses counts for its scope."""
    limits = ServerLimits(client=Limits(sessions=1))
    proxy: Proxy = yield serve_as(limits=limits)
    metrics = proxy.factory.count()
    with proxy.connect() as first, proxy.connect() as second:
        assert (yield proxy.play(ask5, first, "127.0.0.1", origin.port))[0] == 0
        assert (yield proxy.play(ask5, second, "127.0.0.1", origin.port))[0] == Reply.NOT_ALLOWED
    yield until(lambda: not proxy.sessions.live)
    assert value(metrics, proxy, "limited_total", scope="client", limit="sessions") == 1
    assert value(metrics, proxy, "limited_total") == 1
    assert value(metrics, proxy, "sessions_ended_total", reason="limit") == 1


@pytest_twisted.ensureDeferred
async def test_datagrams() -> None:
    """Datagrams count while the association goes on, and so do those that are dropped."""

    def some(proxy: Any) -> None:
        with Echo() as destination, Datagrams(proxy) as client:
            assert client.ask(b"ping", destination.address) == b"ping"
            client.udp.sendto(b"nonsense", client.relay)
            assert client.ask(b"pong", destination.address) == b"pong"
            wait_for(lambda: metrics.snapshot().value("socksproxy_datagrams_total") == 4)

    async with serving("engine") as proxy:
        metrics = proxy.factory.count()
        await proxy.run(some)
        await until(lambda: proxy.records)
        snapshot = metrics.snapshot()
        proxy.factory.stop_counting()
    assert snapshot.value("socksproxy_datagrams_dropped_total", reason="malformed") == 1
    assert snapshot.value("socksproxy_datagrams_dropped_total") == 1
    assert metrics.snapshot().value("socksproxy_datagrams_total", direction="sent") == 2
    assert metrics.snapshot().value("socksproxy_bytes_total", command="UDP_ASSOCIATE") == 16


@pytest_twisted.inlineCallbacks
def test_rules_of_a_reload(serve_as: Serve, origin: Origin) -> Playing:
    """New rules have series at once, those that were keep their counts, and very many count together."""
    proxy: Proxy = yield serve_as(policy=RulePolicy([ALL]))
    metrics = proxy.factory.count()

    def visit() -> Playing:
        with proxy.connect() as client:
            assert (yield proxy.play(ask4, client, "127.0.0.1", origin.port))[0] == 90
        yield until(lambda: not proxy.sessions.live)

    yield from visit()
    many = [
        Rule(name=f"rule-{number}", allow=True, networks=[f"10.0.{number}.0/24"])
        for number in range(MOST_RULES)
    ]
    last = Rule(name="last", allow=True, networks=["127.0.0.0/8"])
    proxy.factory.reconfigure(policy=RulePolicy([*many, last]))
    yield from visit()
    decisions = "rule_decisions_total"
    assert value(metrics, proxy, decisions, rule="all", decision="allow") == 1
    assert value(metrics, proxy, decisions, rule="rule-7", decision="allow") == 0
    assert value(metrics, proxy, decisions, rule="other", decision="allow") == 1
    assert len(metrics.snapshot().families[f"socksproxy_{decisions}"].samples) <= 2 * MOST_RULES + 2


@pytest_twisted.inlineCallbacks
def test_many_sessions_in_slices(serve_as: Serve, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A look at very many sessions takes several turns, and says how late it was called."""
    monkeypatch.setattr(counters_module, "_AT_ONCE", 1)
    clock = Clock()
    proxy: Proxy = yield serve_as("wrapped", clock=clock)
    metrics = proxy.factory.count()
    with proxy.connect(), proxy.connect(), proxy.connect():
        yield until(lambda: len(proxy.sessions.live) == 3)
        clock.advance(1.5)
        assert metrics.snapshot().value("socksproxy_sessions") == 0
        yield until(lambda: metrics.snapshot().value("socksproxy_sessions") == 3)
        snapshot = metrics.snapshot()
        assert snapshot.value("socksproxy_sessions", command="", phase="negotiating") == 3
        assert snapshot.value("socksproxy_reactor_lag_seconds") == 0.5
    proxy.factory.stop_counting()


@pytest_twisted.inlineCallbacks
def test_steady_rate(serve_as: Serve) -> Playing:
    """A long download counts each second by what has moved in it, and not at its end."""
    clock = Clock()
    proxy: Proxy = yield serve_as("wrapped", clock=clock)
    metrics = proxy.factory.count()

    def shout(accepted: socket.socket) -> None:
        while data := accepted.recv(100):
            accepted.sendall(data * 10)

    with Origin(shout) as origin, proxy.connect() as client:
        assert (yield proxy.play(ask5, client, "127.0.0.1", origin.port))[0] == 0
        before = 0.0
        for _ in range(60):
            yield proxy.play(_fetch, client)
            clock.advance(1)
            now = metrics.snapshot().value("socksproxy_bytes_total", direction="received")
            assert now - before == 1000
            before = now
    yield until(lambda: not proxy.sessions.live)
    assert value(metrics, proxy, "bytes_total", direction="received") == 60_000
    proxy.factory.stop_counting()


def _fetch(client: socket.socket) -> None:
    client.sendall(b"x" * 100)
    left = 1000
    while left:
        left -= len(client.recv(left))


@pytest_twisted.inlineCallbacks
def test_fault(serve_as: Serve, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A fault in the counters costs numbers, and no session."""
    proxy: Proxy = yield serve_as()
    proxy.factory.count()
    counters = proxy.factory.context.counters
    assert counters is not None
    monkeypatch.setattr(counters, "counts", [0])
    with proxy.connect() as client:
        assert (yield proxy.play(ask4, client, "127.0.0.1", origin.port))[0] == 90
    yield until(lambda: not proxy.sessions.live)
    assert (yield proxy.record())["end"] == "client"
    monkeypatch.undo()
    proxy.factory.stop_counting()


@pytest_twisted.inlineCallbacks
def test_fault_in_a_look(serve_as: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A session that cannot be looked at does not end the looks at others."""
    clock = Clock()
    proxy: Proxy = yield serve_as("wrapped", clock=clock)
    metrics = proxy.factory.count()

    def broken(*_: object) -> str:
        raise RuntimeError

    with proxy.connect():
        yield until(lambda: proxy.sessions.live)
        monkeypatch.setattr(counters_module, "_phase", broken)
        clock.advance(1)
        monkeypatch.undo()
        clock.advance(1)
        assert metrics.snapshot().value("socksproxy_sessions") == 1
    proxy.factory.stop_counting()


@pytest_twisted.inlineCallbacks
def test_store(serve_as: Serve, origin: Origin, tmp_path: Path) -> Playing:
    """What the store that nodes share was asked, and that it is gone."""
    server = Valkey(tmp_path)
    nodes = Nodes(server.url, 1, QUICK)
    yield nodes.start()
    proxy: Proxy = yield serve_as(shared=nodes.one, limits=ServerLimits(network=Limits(sessions=5)))
    metrics = proxy.factory.count()
    with proxy.connect() as client:
        yield proxy.play(ask5, client, "127.0.0.1", origin.port)
    yield until(lambda: nodes.one.stats.sent)
    assert value(metrics, proxy, "shared_up") == 1
    assert value(metrics, proxy, "shared_asks_total") == 1
    assert value(metrics, proxy, "shared_fallbacks_total") == 0
    assert value(metrics, proxy, "shared_sent_bytes_total") > 0
    server.kill()
    yield until(lambda: not nodes.one.up)
    with proxy.connect() as client:
        yield proxy.play(ask5, client, "127.0.0.1", origin.port)
    assert value(metrics, proxy, "shared_up") == 0
    assert value(metrics, proxy, "shared_asks_total") == 2
    assert value(metrics, proxy, "shared_fallbacks_total") == 1
    assert value(metrics, proxy, "shared_failures_total") == 1
    yield until(lambda: not proxy.sessions.live)
    proxy.factory.stop_counting()
    yield nodes.stop()
