"""What nodes tell of themselves, through a real Valkey."""

from __future__ import annotations

from collections.abc import Callable

import pytest_twisted
from twisted.internet.defer import gatherResults

from socksproxy.shared.link import ScriptCall, StoreLink
from socksproxy.shared.nodes import ANNOUNCE, FIND, GONE, LONGEST, MOST, announce, find
from socksproxy.shared.scripts import LEAVE, prefix
from tests.shared.test_link import ACL
from tests.support.proxy import Playing, until
from tests.support.stores import CALM, QUICK, Nodes, settings_of
from tests.support.valkey import Valkey

TOLD, ABOUT, COLUMNS = (prefix("socks") + key for key in ("told", "about", "nodes"))
_HOUR = 3_600_000


@pytest_twisted.inlineCallbacks
def test_told(valkey: Callable[..., Valkey]) -> Playing:
    """A node is known with what it has told last, until it stops; one that tells nothing by its column."""
    server = valkey()
    nodes = Nodes(server.url, 2, CALM)
    yield nodes.start()
    assert (yield announce(nodes.one, b"old")) == b""
    assert (yield announce(nodes.one, b"new")) == b"old"
    one, two = yield find(nodes.stores[1])
    assert (one.name, one.processes, one.text) == ("n1", 1, b"new")
    assert 0 <= one.seen < 60
    assert two == ("n2", None, 1, b"")
    assert 0 < server.client().pttl(TOLD) <= _HOUR
    assert 0 < server.client().pttl(ABOUT) <= _HOUR
    yield nodes.one.stop(withdraws=True)
    assert [each.name for each in (yield find(nodes.stores[1]))] == ["n2"]
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_processes(valkey: Callable[..., Valkey]) -> Playing:
    """A node is known until the last of its processes has left, also if several leave at once."""
    server = valkey()
    nodes, more = Nodes(server.url, 2, CALM), Nodes(server.url, 1, CALM)
    yield nodes.start()
    yield more.start()
    yield announce(nodes.one, b"me")
    yield more.one.stop(withdraws=True)
    assert [each.text for each in (yield find(nodes.stores[1]))] == [b"me", b""]
    more = Nodes(server.url, 1, CALM)
    yield more.start()
    yield gatherResults([nodes.one.stop(withdraws=True), more.one.stop(withdraws=True)])
    assert [each.name for each in (yield find(nodes.stores[1]))] == ["n2"]
    # One that was not told to withdraw stays known.
    yield announce(nodes.stores[1], b"it")
    yield nodes.stop()
    assert server.client().hgetall(ABOUT) == {"n2": "it"}


@pytest_twisted.inlineCallbacks
def test_gone(valkey: Callable[..., Valkey]) -> Playing:
    """A node that tells no more stays known for an hour, without a column."""
    server = valkey()
    nodes = Nodes(server.url, 1, CALM)
    yield nodes.start()
    client = server.client()
    yield announce(nodes.one, b"me")
    now = int(client.zscore(TOLD, "n1"))
    others = {"n2": now - 12_000, "n3": now - _HOUR - 1000, "n4": now + 7_200_000}
    client.zadd(TOLD, others)
    client.hset(ABOUT, mapping=dict.fromkeys(others, "it"))
    found = yield find(nodes.one)
    assert [(each.name, each.processes, each.text) for each in found] == [("n1", 1, b"me"), ("n2", 0, b"it")]
    assert 12 <= found[1].seen < 60
    client.zadd(TOLD, {"n1": now - int(1000 * GONE) - 1})
    assert (yield announce(nodes.one, b"me")) == b""  # what is old tells nothing of today
    assert sorted(client.zrange(TOLD, 0, -1)) == sorted(client.hkeys(ABOUT)) == ["n1", "n2"]
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_most(valkey: Callable[..., Valkey]) -> Playing:
    """Of too many nodes those stay that have told something last."""
    server = valkey()
    nodes = Nodes(server.url, 1, CALM)
    yield nodes.start()
    client = server.client()
    yield announce(nodes.one, b"me")
    now = int(client.zscore(TOLD, "n1"))
    client.zadd(TOLD, {f"x{number}": now - 2000 + number for number in range(MOST + 150)})
    client.zadd(COLUMNS, {f"y{number}/1": now + 60_000 for number in range(100)})
    found = yield find(nodes.one)
    assert len(found) == MOST
    assert "n1" in [each.name for each in found]
    yield announce(nodes.one, b"me")
    yield announce(nodes.one, b"me")
    assert client.zcard(TOLD) == MOST
    assert client.zscore(TOLD, "x0") is None
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_garbage(valkey: Callable[..., Valkey]) -> Playing:
    """Whatever is in the store, the nodes are read, told again, and the store is not taken to be down."""
    server = valkey()
    nodes = Nodes(server.url, 1, CALM)
    yield nodes.start()
    client = server.client()
    yield announce(nodes.one, b"me")
    names = ["", "a b", "\x1b[2J", "ü", "x" * 65, "n9"]
    client.zadd(TOLD, dict.fromkeys(names, client.zscore(TOLD, "n1")))
    client.zadd(TOLD, {"inf": "inf", "-inf": "-inf"})
    client.hset(ABOUT, "n9", "x" * (LONGEST + 1))
    client.zadd(COLUMNS, {"without a slash": 9e15, "n8/": 9e15, "/": 9e15})
    found = yield find(nodes.one)
    assert [(each.name, each.text) for each in found] == [("n1", b"me"), ("n8", b""), ("n9", b"")]
    for key, set_ in ((TOLD, client.set), (ABOUT, client.rpush)):
        client.delete(key)
        set_(key, "garbage")
        assert "n1" in [each.name for each in (yield find(nodes.one))]
        assert (yield announce(nodes.one, b"me")) == b""
        client.hset(ABOUT, "n1", "x" * (LONGEST + 1))
        assert (yield announce(nodes.one, b"me")) == b""
        assert client.hgetall(ABOUT)["n1"] == "me"
        client.delete(key)
        set_(key, "garbage")
        assert (yield find(nodes.one)) is not None
    assert nodes.one.up
    assert nodes.one.stats.failures == 0
    yield nodes.one.stop(withdraws=True)
    assert client.zrange(COLUMNS, 0, -1) == ["/", "n8/", "without a slash"]


@pytest_twisted.inlineCallbacks
def test_down(valkey: Callable[..., Valkey]) -> Playing:
    """Without the store nothing is told and nothing is known."""
    server = valkey()
    nodes = Nodes(server.url, 1, QUICK)
    yield nodes.start()
    server.kill()
    yield until(lambda: not nodes.one.up)
    assert (yield announce(nodes.one, b"me")) is None
    assert (yield find(nodes.one)) is None
    yield nodes.stop()


def test_rights(valkey: Callable[..., Valkey]) -> None:
    """The rights of the documentation are enough."""
    server = valkey()
    assert ACL is not None
    server.client().execute_command("ACL", "SETUSER", *ACL[1].replace("\\", "").split())
    link = StoreLink(settings_of(f"unix://socks:secret@{server.path}"))
    told, about, columns = (prefix("berlin") + key for key in ("told", "about", "nodes"))
    server.client().zadd(told, {"n0": 1, "n2": 9e15})
    for garbage, last in ((False, b""), (False, b"{}"), (True, b"")):
        if garbage:
            server.client().set(told, "x")
        assert link.run([ScriptCall(ANNOUNCE, [told, about], ["n1", "{}"])], 1.0) == [last]
        ((_, found, texts, _),) = link.run([ScriptCall(FIND, [told, about, columns], [])], 1.0)
        assert (found[0], texts) == (b"n1", [b"{}"])
    link.run([ScriptCall(LEAVE, [columns, told, about], ["n1/1", "n1"])], 1.0)
    assert not server.client().exists(about)
    link.close()
