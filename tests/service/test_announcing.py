"""Telling the other nodes about this one; ``tests/process/test_nodes.py`` has what operators see of that."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from socksproxy.admin.announcements import ANNOUNCE
from socksproxy.admin.answers import ProcessAnswer
from socksproxy.admin.control import Control, Gathered
from socksproxy.service.announcing import Announcing
from socksproxy.shared.nodes import BEAT


class FakeAsker:
    """Answers as a process does that tells the store, if it says so."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.done = True

    def ask(self, question: str, arguments: Any, worker: int | None = None) -> Deferred[Gathered]:
        return succeed(Gathered([ProcessAnswer({"sessions": 3}, []), ProcessAnswer({"sessions": 4}, [])], []))

    def ask_each(self, question: str, each: Any) -> Deferred[Gathered]:
        assert question == ANNOUNCE
        self.told.append(json.loads(each[0]["text"]))
        return succeed(Gathered([ProcessAnswer({"told": self.done}, [])], []))


def test_again_and_again() -> None:
    """The store is told every few seconds; sooner, where it has not been; and no more after the end."""
    clock, asker = Clock(), FakeAsker()
    announcing = Announcing(clock, lambda: Control(clock, 1, asker))
    announcing.follow(False)
    assert clock.getDelayedCalls() == []
    announcing.follow(True)
    announcing.follow(True)
    clock.advance(0)
    assert [told["sessions"] for told in asker.told] == [7]
    clock.advance(BEAT - 0.1)
    assert len(asker.told) == 1
    asker.done = False
    clock.advance(0.1)
    clock.advance(1)
    assert len(asker.told) == 3
    asker.done = True
    clock.advance(1)
    clock.advance(1)
    assert len(asker.told) == 4
    announcing.follow(False)
    assert clock.getDelayedCalls() == []
