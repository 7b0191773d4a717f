"""Clients of a shared store in this process, each of which stands for a node."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks

from socksproxy.shared.asking import Ask, Need, Timing
from socksproxy.shared.store import SharedStore
from socksproxy.values.shared import SharedSettings, StoreAddress
from tests.support.proxy import reactor

#: Times of tests: a lease that a test can wait for.
QUICK = Timing(lease=0.6, beat=0.15, resync=0.3, probe=0.1)


def settings_of(url: str, **more: Any) -> SharedSettings:
    return SharedSettings(store=StoreAddress.of(url), **more)


class Nodes:
    """
    Nodes that share a store.

    :param url: the store.
    :param count: how many nodes.
    :param timing: how long things take.
    """

    def __init__(self, url: str, count: int = 1, timing: Timing = Timing(), **more: Any) -> None:
        self.stores = [
            SharedStore(reactor, settings_of(url, node=f"n{number}", **more), timing)
            for number in range(1, count + 1)
        ]

    @property
    def one(self) -> SharedStore:
        return self.stores[0]

    @inlineCallbacks
    def start(self) -> Generator[Any, Any, None]:
        yield gatherResults([store.start() for store in self.stores])

    @inlineCallbacks
    def stop(self) -> Generator[Any, Any, None]:
        yield gatherResults([store.stop() for store in self.stores])


def asked(store: SharedStore, *needs: Need) -> Deferred[int]:
    """Fires with the answer."""
    answer: Deferred[int] = Deferred()
    store.ask(Ask(needs, answer.callback))
    return answer
