"""Sessions of several servers in this process that share a Valkey."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from socksproxy import Reply, Rule, RulePolicy
from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.limits.quota.usage import UsageFile
from socksproxy.shared.asking import Timing
from socksproxy.values.limits import Fallback
from socksproxy.wire.words import Command
from tests.conftest import Serve
from tests.support.origin import Origin, echo
from tests.support.proxy import (
    Playing,
    Proxy,
    ask4,
    ask5,
    ask_as,
    echoes,
    greet,
    reactor,
    reply5,
    request5,
    until,
)
from tests.support.stores import Nodes
from tests.support.users import portal_of
from tests.support.valkey import Valkey


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


def rows(valkey: Valkey) -> dict[str, int]:
    """How many there are of everything, on all nodes: what columns without a lease have does not count."""
    client = valkey.client()
    keys = client.keys("*")
    living = {column for key in keys if key.endswith(":nodes") for column in client.zrange(key, 0, -1)}
    found = {
        key.partition(":n:")[2]: sum(
            int(count) for column, count in client.hgetall(key).items() if column in living
        )
        for key in keys
        if ":n:" in key
    }
    return {key: count for key, count in found.items() if count}


def codes(proxies: list[Proxy], count: int, origin: Origin, socks: ExitStack) -> list[int]:
    """What so many clients of each proxy are told that ask at once."""
    clients = [socks.enter_context(proxy.connect()) for _ in range(count) for proxy in proxies]
    for client in clients:
        greet(client)
    for client in clients:
        client.sendall(request5("127.0.0.1", origin.port))
    return [reply5(client)[0] for client in clients]


@pytest_twisted.inlineCallbacks
def test_exactly(serve: Serve, origin: Origin, valkey: Valkey) -> Playing:
    """Of all that ask at once on four nodes, as many are served as may be; others, when these have ended."""
    nodes = Nodes(valkey.url, 4)
    yield nodes.start()
    proxies: list[Proxy] = []
    for store in nodes.stores:
        proxies.append((yield serve(shared=store, limits=ServerLimits(network=Limits(sessions=10)))))
    with ExitStack() as socks:
        told = yield proxies[0].play(codes, proxies, 15, origin, socks)
        assert told.count(0) == 10
        assert told.count(Reply.NOT_ALLOWED) == 50
        assert rows(valkey) == {"network 127.0.0.0/24 sessions": 10}
    yield until(lambda: not rows(valkey))
    yield until(lambda: not any(proxy.sessions.live for proxy in proxies))
    ends = [record["ended"] for proxy in proxies for record in proxy.records]
    assert ends.count("refused: too many sessions of network 127.0.0.0/24 on all nodes") >= 30
    with ExitStack() as socks:
        assert (yield proxies[0].play(codes, proxies[:1], 10, origin, socks)) == [0] * 10
    yield until(lambda: not any(proxy.sessions.live for proxy in proxies))
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_devices(serve_as: Serve, origin: Origin, valkey: Valkey) -> Playing:
    """A user may come from so many addresses to all nodes together; an address on two nodes counts once."""
    nodes = Nodes(valkey.url, 2)
    yield nodes.start()
    portal = portal_of(bob=Limits(devices=2, sessions=100))
    policy = RulePolicy([Rule(name="all", allow=True, networks=["127.0.0.0/8"])])
    proxies: list[Proxy] = []
    for store in nodes.stores:
        proxies.append((yield serve_as("wrapped", shared=store, portal=portal, policy=policy)))
    one, other = proxies

    def ask(proxy: Proxy, client: str) -> Deferred[int]:
        sock = socks.enter_context(proxy.connect(client))
        found: Deferred[int] = proxy.play(ask_as, sock, b"bob", origin.port)
        return found

    with ExitStack() as socks:
        told = []
        for proxy, client in (
            *((one, "192.0.2.1"), (one, "192.0.2.1"), (other, "192.0.2.1"), (one, "192.0.2.2")),
            *((other, "192.0.2.3"), (one, "192.0.2.3"), (other, "192.0.2.2")),
        ):
            told.append((yield ask(proxy, client)))
        assert told == [0, 0, 0, 0, Reply.NOT_ALLOWED, Reply.NOT_ALLOWED, 0]
        # The refused ones have left nothing.
        (key,) = valkey.client().keys("*:d:*")
        assert {field.split()[1] for field in valkey.client().hgetall(key)} == {"192.0.2.1", "192.0.2.2"}
    yield until(lambda: not any(proxy.sessions.live for proxy in proxies))
    yield until(lambda: not valkey.client().keys("*:d:*"))
    ends = [record["ended"] for proxy in proxies for record in proxy.records]
    assert ends.count("refused: too many client addresses of user bob on all nodes") == 1
    assert ends.count("refused: too many client addresses of user bob") == 1
    with ExitStack() as socks:
        assert (yield ask(other, "192.0.2.3")) == 0
    yield until(lambda: not any(proxy.sessions.live for proxy in proxies))
    yield nodes.stop()


@pytest.mark.parametrize("ask", [ask5, ask4])
@pytest_twisted.inlineCallbacks
def test_rule_of_a_name(serve_as: Serve, origin: Origin, valkey: Valkey, ask: Any) -> Playing:
    """A rule that allows an address of a name is asked about when the address is known."""
    nodes = Nodes(valkey.url, 2)
    yield nodes.start()
    rules = [Rule(name="few", allow=True, networks=["127.0.0.0/8"], limits=Limits(sessions=1))]
    proxies: list[Proxy] = []
    for store in nodes.stores:
        proxies.append((yield serve_as(shared=store, policy=RulePolicy(rules))))
    one, other = proxies
    with one.connect() as first, other.connect() as second:
        code, _ = yield one.play(ask, first, "localhost", origin.port)
        assert code in (0, 90)
        assert rows(valkey) == {"rule few sessions": 1}
        code, _ = yield one.play(ask, second, "localhost", origin.port)
        assert code in (Reply.NOT_ALLOWED, 91)
        yield one.play(echoes, first)
    yield until(lambda: not rows(valkey))
    yield nodes.stop()


@pytest.mark.parametrize(
    ("command", "kind"), [(Command.UDP_ASSOCIATE, "associations"), (Command.BIND, "binds")]
)
@pytest_twisted.inlineCallbacks
def test_other_commands(serve_as: Serve, valkey: Valkey, command: int, kind: str) -> Playing:
    """They begin when the store has answered."""
    nodes = Nodes(valkey.url, 2)
    yield nodes.start()
    most = {"binds": Limits(binds=1), "associations": Limits(associations=1)}
    limits = ServerLimits(network=most[kind])
    proxies: list[Proxy] = []
    for store in nodes.stores:
        proxies.append((yield serve_as(shared=store, limits=limits)))
    one, other = proxies
    with one.connect() as first, other.connect() as second:
        code, _ = yield one.play(ask5, first, "0.0.0.0", 0, command)
        assert code == 0
        assert rows(valkey)[f"network 127.0.0.0/24 {kind}"] == 1
        code, _ = yield one.play(ask5, second, "0.0.0.0", 0, command)
        assert code == Reply.NOT_ALLOWED
    yield until(lambda: not rows(valkey))
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_stopped_store(serve_as: Serve, origin: Origin, valkey: Valkey) -> Playing:
    """While the store hangs, each node serves its part; the first client waits, and the others do not."""
    nodes = Nodes(valkey.url, 2, Timing(patience=2.0, beat=0.05, probe=0.1))
    yield nodes.start()
    yield until(lambda: all(store.nodes == 2 for store in nodes.stores))
    users = {"bob": Limits(sessions=4), "ann": Limits(sessions=4, shared=Fallback.STRICT)}
    proxies: list[Proxy] = []
    for store in nodes.stores:
        proxies.append((yield serve_as(shared=store, portal=portal_of(**users))))
    valkey.signal(signal.SIGSTOP)
    told: list[int] = []
    with ExitStack() as socks:
        for number in range(3):
            for proxy in proxies:
                begun = time.monotonic()
                client = socks.enter_context(proxy.connect())
                told.append((yield proxy.play(ask_as, client, b"bob", origin.port)))
                assert time.monotonic() - begun < (7 if number == 0 else 2)
        assert told == [0, 0, 0, 0, Reply.NOT_ALLOWED, Reply.NOT_ALLOWED]
        client = socks.enter_context(proxies[0].connect())
        assert (yield proxies[0].play(ask_as, client, b"ann", origin.port)) == Reply.GENERAL_FAILURE
        valkey.signal(signal.SIGCONT)
        yield until(lambda: all(store.up for store in nodes.stores))
        assert rows(valkey) == {"user bob sessions": 4}
        client = socks.enter_context(proxies[0].connect())
        assert (yield proxies[0].play(ask_as, client, b"bob", origin.port)) == Reply.NOT_ALLOWED
    yield until(lambda: not rows(valkey))
    yield until(lambda: len(proxies[0].records) == 5)
    assert sorted(record["end"] for record in proxies[0].records) == ["client", "client", *["limit"] * 3]
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_gone_before_the_answer(serve: Serve, origin: Origin, valkey: Valkey) -> Playing:
    """Clients that go while the store is asked leave nothing behind."""
    nodes = Nodes(valkey.url)
    yield nodes.start()
    limits = ServerLimits(network=Limits(sessions=50, new_sessions=Rate(1000)))
    proxy: Proxy = yield serve(shared=nodes.one, limits=limits)

    def ask_and_go() -> None:
        for number in range(30):
            with proxy.connect() as sock:
                greet(sock)
                sock.sendall(request5("127.0.0.1", origin.port))
                if number % 2:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    yield proxy.play(ask_and_go)
    yield until(lambda: not proxy.sessions.live)
    yield until(lambda: not rows(valkey))
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_other_store(serve_as: Serve, origin: Origin, valkey: Valkey) -> Playing:
    """Sessions that go on count in the store that takes the place of another one."""
    nodes, others = Nodes(valkey.url), Nodes(valkey.url, site="other")
    yield gatherResults([nodes.start(), others.start()])
    proxy: Proxy = yield serve_as(shared=nodes.one, limits=ServerLimits(network=Limits(sessions=5)))

    def keys() -> list[str]:
        return [key for key in valkey.client().keys("*") if ":n:" in key]

    with proxy.connect() as client:
        yield proxy.play(ask5, client, "127.0.0.1", origin.port)
        assert keys() == ["sp:{socks}:1:n:network 127.0.0.0/24 sessions"]
        proxy.factory.reconfigure(shared=others.one)
        yield until(lambda: keys() == ["sp:{other}:1:n:network 127.0.0.0/24 sessions"])
        proxy.factory.reconfigure(shared=None)
        yield until(lambda: not keys())
        yield proxy.play(echoes, client)
    yield nodes.stop()
    yield others.stop()


def trickle(sock: socket.socket) -> float:
    """Move a byte now and then, until the session ends; when that is."""
    with suppress(OSError):
        sock.sendall(b"x")
        while sock.recv(1):
            time.sleep(0.02)
            sock.sendall(b"x")
    return time.monotonic()


@pytest_twisted.inlineCallbacks
def test_quota_used_up_elsewhere(
    serve_as: Serve, origin: Origin, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Playing:
    """When a user has used up a quota on one node, the user's sessions on another one end, and say why."""
    monkeypatch.setattr("socksproxy.limits.quota.usage.WRITE_AFTER", 0.4)
    nodes = Nodes(valkey.url, 2)
    yield nodes.start()
    portal = portal_of(bob=Limits(daily=100_000))
    proxies: list[Proxy] = []
    usages: list[UsageFile] = []
    for store in nodes.stores:
        usage = UsageFile(reactor, str(tmp_path / store.settings.node))
        yield usage.start()
        usages.append(usage)
        proxy: Proxy = yield serve_as(portal=portal)
        proxy.factory.reconfigure(usage=usage, shared=store)
        proxies.append(proxy)
    one, other = proxies
    with one.connect() as here, other.connect() as there:
        assert (yield other.play(ask_as, there, b"bob", origin.port)) == 0
        going_on = other.play(trickle, there)
        assert (yield one.play(ask_as, here, b"bob", origin.port)) == 0
        with suppress(AssertionError, OSError):
            yield one.play(echoes, here, b"x" * 60_000)
        used_up = time.monotonic()
        ended = yield going_on
        # Each node writes what was used within 0.4 seconds here, and within a second otherwise.
        assert ended - used_up < 10
    yield until(lambda: bool(other.records) and bool(one.records))
    assert other.records[0]["ended"] == one.records[0]["ended"] == "quota used up"
    with other.connect() as again:
        assert (yield other.play(ask_as, again, b"bob", origin.port)) == Reply.NOT_ALLOWED
    yield gatherResults([usage.stop() for usage in usages])
    yield nodes.stop()
