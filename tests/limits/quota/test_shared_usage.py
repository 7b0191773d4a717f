"""The use of quotas on several nodes that share a Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from socksproxy.limits.quota.quota import Quota
from socksproxy.limits.quota.usage import UsageFile
from socksproxy.shared.store import SharedStore
from tests.support.proxy import Playing, reactor, until
from tests.support.stores import QUICK, Nodes
from tests.support.valkey import Valkey

BOB = "user bob"


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socksproxy.limits.quota.usage.WRITE_AFTER", 0.01)


class Counting:
    """A node's file, and the quota of bob there, of 1,000 bytes."""

    def __init__(self, path: Path, store: SharedStore) -> None:
        self.file = UsageFile(reactor, str(path))
        self.file.share(store)

    def begin(self) -> Any:
        return self.file.start().addCallback(self._begun)

    @property
    def left(self) -> int:
        """What is left, as a new session would see it."""
        return 0 if self.bob.exhausted else self.bob.available()

    def _begun(self, _: object) -> None:
        self.bob = Quota(self.file, BOB, daily=1000)


def has_told(server: Valkey, count: int) -> bool:
    return totals(server) == {"n1": count}


def totals(server: Valkey) -> dict[str, int]:
    """What each node has told of bob's day."""
    client = server.client()
    (key,) = [key for key in client.keys("*:u:*") if key.count("-") == 2] or [None]
    return {} if key is None else {node: int(count) for node, count in client.hgetall(key).items()}


@pytest_twisted.inlineCallbacks
def test_together(tmp_path: Path, valkey: Valkey) -> Playing:
    """
    What bob moves on one node is gone on the other one, whatever the store goes through.

    The sums are exact: those of the nodes' files, and those in the store.
    """
    nodes = Nodes(valkey.url, 2, QUICK)
    yield nodes.start()
    one, other = (Counting(tmp_path / store.settings.node, store) for store in nodes.stores)
    yield gatherResults([one.begin(), other.begin()])
    assert one.bob.available() == 1000
    one.bob.spend(300)
    other.bob.spend(50)
    yield until(lambda: one.left == other.left == 650)
    assert totals(valkey) == {"n1": 300, "n2": 50}
    # Down, and then another one, without anything.
    valkey.kill()
    yield until(lambda: not nodes.one.up)
    one.bob.spend(100)
    other.bob.spend(100)
    assert one.bob.available() == other.bob.available() == 550
    yield until(lambda: not one.file._waiting)
    valkey.start()
    yield until(lambda: one.left == other.left == 450)
    assert totals(valkey) == {"n1": 400, "n2": 150}
    # It forgets everything, and the connections stay.
    valkey.client().flushall()
    yield until(lambda: totals(valkey) == {"n1": 400, "n2": 150})
    other.bob.spend(450)
    yield until(lambda: one.bob.exhausted)
    yield gatherResults([one.file.stop(), other.file.stop()])
    yield nodes.stop()
    assert totals(valkey) == {"n1": 400, "n2": 600}


@pytest_twisted.inlineCallbacks
def test_closed(tmp_path: Path, valkey: Valkey) -> Playing:
    """A file that another one follows, as after a reload with another time zone, tells nothing any more."""
    nodes = Nodes(valkey.url, 1)
    yield nodes.start()
    store = nodes.one
    before = list(store.when_up)
    for number in range(3):
        node = Counting(tmp_path / "one", store)
        yield node.begin()
        node.bob.spend(100)
        yield node.file.stop()
        yield until(partial(has_told, valkey, 100 * (number + 1)))
    assert store.when_up == before
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_restart(tmp_path: Path, valkey: Valkey) -> Playing:
    """The last bytes of a node that ends are in the store. It goes on from its file: no byte counts twice."""
    nodes = Nodes(valkey.url, 2)
    yield nodes.start()
    for expected in (200, 400):
        node = Counting(tmp_path / "one", nodes.one)
        yield node.begin()
        node.bob.spend(200)
        yield node.file.stop()
        yield until(partial(has_told, valkey, expected))
    late = Counting(tmp_path / "other", nodes.stores[1])
    yield late.begin()
    yield until(lambda: late.left == 600)
    # Without a store, a node counts for itself.
    late.file.share(None)
    assert late.bob.available() == 1000
    yield late.file.stop()
    yield nodes.stop()
