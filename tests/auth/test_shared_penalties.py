"""Lock-outs that hold for all nodes that share a Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock

from socksproxy.auth.penalties import Penalties
from socksproxy.shared.asking import Need
from socksproxy.shared.commands import Deed, NodeCommand
from tests.support.proxy import Playing, until
from tests.support.stores import Nodes, asked
from tests.support.valkey import Valkey

HOST = "192.0.2.1"
NEED = Need("n:server sessions", 100)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    yield server
    server.stop()


def node(nodes: Nodes, number: int, clock: Clock, failures: int | None = 4) -> Penalties:
    penalties = Penalties(clock, failures)
    penalties.share_with(nodes.stores[number])
    return penalties


def unlock(penalties: Penalties, told: NodeCommand) -> None:
    penalties.forgive(told.about, told=True)


@pytest_twisted.inlineCallbacks
def test_guesses_in_turn(valkey: Valkey) -> Playing:
    """Who guesses on several nodes is refused after as many failures as on one, and longer each time."""
    clock, nodes = Clock(), Nodes(valkey.url, 3)
    yield nodes.start()
    one, two, three = (node(nodes, number, clock) for number in range(3))
    for penalties in (one, two, one):
        assert penalties.failed(HOST, b"bob") == 0.0
        yield gatherResults([asked(store, NEED) for store in nodes.stores])
    assert two.failed(HOST, b"ann") == 0.0
    yield until(lambda: two.refuses(HOST, b"bob"))
    assert not one.refuses(HOST, b"bob")
    assert not three.refuses(HOST, b"bob")
    assert three.failed(HOST, b"bob") == 0.0
    yield until(lambda: three.refuses(HOST, b"bob"))
    assert not three.refuses("192.0.2.2", b"bob")
    clock.advance(59)
    assert three.refuses(HOST, b"bob")
    clock.advance(2)
    assert not three.refuses(HOST, b"bob")
    # The next penalty is the second one, wherever it is.
    client = valkey.client()
    (key,) = client.keys("*:l:*")
    assert client.hget(key, "level") == "1"
    client.hset(key, "till", 0)
    for _ in range(4):
        one.failed(HOST, b"eve")
    yield until(lambda: one.refuses(HOST, b"eve"))
    yield until(lambda: client.hget(key, "level") == "2")
    yield asked(nodes.one, NEED)
    clock.advance(100)
    assert one.refuses(HOST, b"eve")
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_forgiven(valkey: Valkey) -> Playing:
    """A success forgives the failures of that user from there, also those that the store has."""
    clock, nodes = Clock(), Nodes(valkey.url, 2)
    yield nodes.start()
    one, two = node(nodes, 0, clock), node(nodes, 1, clock)
    for _ in range(3):
        one.failed(HOST, b"bob")
    client = valkey.client()
    yield until(lambda: sum(map(int, client.hvals("sp:{socks}:1:f:192.0.2.1"))) == 3)
    assert 0 < client.pttl("sp:{socks}:1:f:192.0.2.1") <= 60_000
    one.succeeded(HOST, b"bob")
    yield until(lambda: not client.keys("*:f:*"))
    two.failed(HOST, b"bob")
    yield until(lambda: client.keys("*:f:*"))
    assert not two.refuses(HOST, b"bob")
    assert b"bob" not in repr(client.hgetall("sp:{socks}:1:f:192.0.2.1")).encode()
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_unlocked(valkey: Valkey) -> Playing:
    """What an operator unlocks is not locked again by the next failure."""
    clock, nodes = Clock(), Nodes(valkey.url)
    yield nodes.start()
    one = node(nodes, 0, clock)
    for _ in range(4):
        one.failed(HOST, b"bob")
    client = valkey.client()
    yield until(lambda: client.keys("*:l:*"))
    yield asked(nodes.one, NEED)
    assert one.forgive(HOST)
    yield until(lambda: not client.keys("*:l:*"))
    one.failed(HOST, b"bob")
    yield until(lambda: client.keys("*:f:*"))
    yield asked(nodes.one, NEED)
    assert not one.refuses(HOST, b"bob")
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_without(valkey: Valkey) -> Playing:
    """Local users, servers without lock-outs and stores that are down tell the store nothing."""
    clock, nodes = Clock(), Nodes(valkey.url)
    yield nodes.start()
    one = node(nodes, 0, clock)
    for _ in range(20):
        one.failed(None, b"bob")
        one.failed("uid 1000", b"bob")
        node(nodes, 0, clock, None).failed(HOST, b"bob")
    valkey.kill()
    yield until(lambda: not nodes.one.up)
    for _ in range(4):
        one.failed(HOST, b"bob")
    assert one.refuses(HOST, b"bob")
    valkey.start()
    yield until(lambda: nodes.one.up)
    assert not valkey.client().keys("*:f:*")
    one.share_with(None)
    one.failed("192.0.2.9", b"bob")
    yield nodes.stop()
    assert not valkey.client().keys("*:f:*")


@pytest_twisted.inlineCallbacks
def test_learned(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A lock-out on one node is one on all nodes soon, without another failure, and ends everywhere."""
    monkeypatch.setattr("socksproxy.shared.commands.LOOKS_EVERY", 0.05)
    clock, nodes = Clock(), Nodes(valkey.url, 3)
    yield nodes.start()
    all_three = [node(nodes, number, clock) for number in range(3)]
    for penalties, store in zip(all_three, nodes.stores, strict=True):
        store.commands.obey[Deed.UNLOCK] = partial(unlock, penalties)
    yield until(lambda: all(store.commands._position for store in nodes.stores))
    for _ in range(4):
        all_three[0].failed(HOST, b"bob")
    yield until(lambda: all(penalties.refuses(HOST, b"bob") for penalties in all_three))
    clock.advance(55)
    assert all_three[1].refuses(HOST, b"bob")
    clock.advance(6)
    assert not all_three[1].refuses(HOST, b"bob")
    for _ in range(4):
        all_three[0].failed("192.0.2.2", b"bob")
    yield until(lambda: all(penalties.refuses("192.0.2.2", b"bob") for penalties in all_three))
    # An operator unlocks it on one node.
    assert all_three[1].forgive("192.0.2.2")
    yield nodes.stores[1].commands.send(Deed.UNLOCK, "192.0.2.2", "uid 0")
    yield until(lambda: not any(penalties.refuses("192.0.2.2", b"bob") for penalties in all_three))
    assert not valkey.client().keys("*:l:192.0.2.2")
    yield nodes.stop()
