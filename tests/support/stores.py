"""Clients of a shared store in this process, each of which stands for a node."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import Clock

from socksproxy.shared.asking import WAKE, Ask, Need, Timing
from socksproxy.shared.store import SharedStore
from socksproxy.values.shared import SharedSettings, StoreAddress
from tests.support.proxy import reactor

#: A busy machine needs more than 50 ms for an answer now and then.
CALM = Timing(patience=1.0)
#: Times of tests: a lease that a test can wait for.
QUICK = CALM._replace(lease=0.6, beat=0.15, resync=0.3, probe=0.1)


def settings_of(url: str, **more: Any) -> SharedSettings:
    return SharedSettings(store=StoreAddress.of(url), **more)


class Nodes:
    """
    Nodes that share a store.

    :param url: the store.
    :param count: how many nodes.
    :param timing: how long things take.
    """

    def __init__(self, url: str, count: int = 1, timing: Timing = CALM, **more: Any) -> None:
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


class _Direct(Clock):
    """A reactor whose time the test moves; calls from threads happen at once."""

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        call(*arguments)


class SteppedNode:
    """
    A node without a thread of its own: the test does what the thread does, one turn at a time.

    :param url: the store.
    :param name: of the node.
    :ivar store: the store, as the node sees it.
    :ivar clock: its time.
    """

    def __init__(self, url: str, name: str = "n1", site: str = "socks") -> None:
        self.clock = _Direct()
        self.store = SharedStore(self.clock, settings_of(url, node=name, site=site), Timing(patience=10.0))
        thread: Any = self.store._thread
        self.thread = thread
        thread.start = lambda: None
        self.store.start()
        self.thread._open()

    def turn(self) -> None:
        """One turn of the thread, with all that has come."""
        self.clock.advance(0)
        self.thread.inbox.put(WAKE)
        self.thread._turn()

    def wait(self, seconds: float) -> None:
        """Time passes, and the thread does what is to be done."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            self.turn()

    def ask(self, *needs: Need) -> int | None:
        """The answer, if it is there without a question; None: it is not."""
        answers: list[int] = []
        self.store.ask(Ask(needs, answers.append))
        return answers[0] if answers else None

    def asked(self, *needs: Need) -> int:
        """The answer."""
        answers: list[int] = []
        self.store.ask(Ask(needs, answers.append))
        if not answers:
            self.turn()
        return answers[0]


def asked(store: SharedStore, *needs: Need) -> Deferred[int]:
    """Fires with the answer."""
    answer: Deferred[int] = Deferred()
    store.ask(Ask(needs, answer.callback))
    return answer
