"""Commands whose answers are cut off: each answer is that of its own command (pitfall 26)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest_twisted
from twisted.internet.task import deferLater

from socksproxy.shared.asking import ADMITTED, DOWN, Ask, Job, Need, Timing
from socksproxy.shared.scripts import script
from socksproxy.shared.store import SharedStore
from tests.support.proxy import Playing, reactor, until
from tests.support.sharing import StoreWay, Way
from tests.support.stores import Nodes
from tests.support.valkey import Valkey

COMMANDS = 10_000
ECHO = script("return ARGV[1]")


class Questions:
    """
    Commands of which each has an answer of its own.

    :ivar told: how many answers were right, wrong, or did not come.
    """

    def __init__(self, store: SharedStore) -> None:
        self.told: Counter[str] = Counter()
        self.asked = 0
        self._store = store

    @property
    def open(self) -> int:
        return self.asked - self.told.total()

    def ask(self) -> None:
        """One more."""
        self.asked += 1
        number = self.asked
        if number % 2:
            self._store.run(Job(ECHO, ["x"], [number], partial(self._echoed, str(number).encode())))
        else:
            # Every second one of these has no room.
            need = Need(f"n:{number}", number // 2 % 2)
            self._store.ask(Ask([need], partial(self._judged, need)))

    def _echoed(self, expected: bytes, answer: Any) -> None:
        self.told["none" if answer is None else "right" if answer == expected else "wrong"] += 1

    def _judged(self, need: Need, answer: int) -> None:
        if answer == ADMITTED:
            self._store.count(need.key, -1)
        right = answer == (ADMITTED if need.most else 1)
        self.told["none" if answer == DOWN else "right" if right else "wrong"] += 1


@pytest_twisted.inlineCallbacks
def test_pitfall_26(valkey: Callable[..., Valkey]) -> Playing:
    """Ten thousand commands, cut off at random: held, answered too late, unanswered, reset."""
    way = StoreWay(valkey().path)
    nodes = Nodes(way.url, 1, Timing(patience=0.005, probe=0.001))
    store, chance = nodes.one, random.Random(26)
    yield nodes.start()
    questions = Questions(store)
    while questions.asked < COMMANDS:
        yield until(lambda: store.up)
        for _ in range(chance.randrange(1, 40)):
            questions.ask()
        if chance.random() < 0.3:
            mend = way.set(chance.choice([Way.HELD, Way.DEAF, Way.RESET]))
            yield deferLater(reactor, chance.uniform(0, 0.01))
            mend()
        yield until(lambda: not questions.open)
    assert questions.told["wrong"] == 0
    assert questions.told["right"] > COMMANDS / 4
    assert questions.told["none"] > COMMANDS / 100
    yield nodes.stop()
    way.stop()
