"""Rates of bytes that hold for all nodes that share a Valkey."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from socksproxy import Client
from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.limits.ledger import Ledger
from socksproxy.limits.lent import LentBucket
from socksproxy.shared.store import SharedStore
from socksproxy.values.limits import Fallback
from tests.support.proxy import Playing, reactor, until
from tests.support.stores import Nodes
from tests.support.valkey import Valkey


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    yield server
    server.stop()


class Eager:
    """Moves as many bytes as it may."""

    def __init__(self, bucket: LentBucket) -> None:
        self.bucket = bucket
        self.moved = 0
        self.resume()

    def resume(self) -> None:
        some = self.bucket.available()
        if some:
            self.bucket.spend(some, self)
            self.moved += some
        self.bucket.wait(self)

    def stop(self) -> None:
        self.bucket.leave(self)


def wait(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


@pytest_twisted.inlineCallbacks
def test_together(valkey: Valkey) -> Playing:
    """Four nodes that want more than there is get the rate together, and equal parts of it."""
    nodes = Nodes(valkey.url, 4)
    yield nodes.start()
    rate = Rate(400_000.0)
    eager = [Eager(LentBucket(reactor, rate, store, "user bob upload")) for store in nodes.stores]
    yield until(wait(0.3))
    before, begun = [each.moved for each in eager], time.monotonic()
    yield until(wait(1.5))
    moved = [each.moved - known for each, known in zip(eager, before, strict=True)]
    passed = time.monotonic() - begun
    for each in eager:
        each.stop()
    # A busy machine asks for less than there is.
    assert 0.7 < sum(moved) / (rate.per_second * passed) < 1.1
    assert min(moved) > max(moved) / 2
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_alone(valkey: Valkey) -> Playing:
    """One node that wants bytes gets all of them, and while the store is down, its part."""
    nodes = Nodes(valkey.url, 2)
    yield nodes.start()
    store = nodes.stores[1]
    yield until(lambda: store.processes == 2)
    rate = Rate(400_000.0)
    eager = Eager(LentBucket(reactor, rate, store, "user bob upload"))
    for step, expected in ((lambda: None, 1.0), (valkey.kill, 0.5), (valkey.start, 1.0)):
        step()
        yield until(partial(_is, store, expected == 1.0))
        yield until(wait(0.3))
        # What a pause of a busy machine has held back comes in the time after it.
        parts: list[float] = []
        while not parts or (not 0.65 < parts[-1] < 1.2 and len(parts) < 20):
            before, begun = eager.moved, time.monotonic()
            yield until(wait(0.6))
            got = (eager.moved - before) / (time.monotonic() - begun)
            parts.append(got / (expected * rate.per_second))
        assert 0.65 < parts[-1] < 1.2, parts
    eager.stop()
    yield nodes.stop()


def _is(store: SharedStore, up: bool) -> bool:
    return store.up is up


class NoStore:
    """A store that is down."""

    up = False
    nodes = processes = 4
    when_up: list[Any] = []  # noqa: RUF012


def test_meters() -> None:
    """Sessions are under the shared rates, and follow a store that comes and goes."""
    limits = ServerLimits(network=Limits(upload=Rate(8000.0, 8000.0), shared=Fallback.LOCAL))
    store: Any = NoStore()
    ledger = Ledger(reactor, limits, store=store)
    claims = ledger.arrive(Client("192.0.2.1", 1))
    assert claims is not None
    meters = claims.meters()
    assert meters is not None
    assert meters.up is not None
    (own, lent) = meters.up.budgets
    assert isinstance(lent, LentBucket)
    assert lent.local
    assert not isinstance(own, LentBucket)
    assert meters.down is None
    ledger.set(limits, None)
    meters = claims.meters()
    assert meters is not None
    assert meters.up is not None
    assert meters.up.budgets == (own,)
    claims.close()
