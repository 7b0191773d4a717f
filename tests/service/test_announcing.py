"""Telling the other nodes about this one; ``tests/process/test_nodes.py`` has what operators see of that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from socksproxy.admin.announcements import ANNOUNCE
from socksproxy.admin.answers import ProcessAnswer
from socksproxy.admin.control import Control, Gathered
from socksproxy.service.announcing import Announcing
from socksproxy.shared.nodes import BEAT
from tests.support.logs import heard


class FakeAsker:
    """Answers as a process does that tells the store, if it says so."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.done = True
        #: What another server tells under the same name, before each time that this one does.
        self.other: str | None = None

    def ask(self, question: str, arguments: Any, worker: int | None = None) -> Deferred[Gathered]:
        return succeed(Gathered([ProcessAnswer({"sessions": 3}, []), ProcessAnswer({"sessions": 4}, [])], []))

    def ask_each(self, question: str, each: Any) -> Deferred[Gathered]:
        assert question == ANNOUNCE
        before = json.dumps(self.told[-1]) if self.told else ""
        self.told.append(json.loads(each[0]["text"]))
        answer = {"told": True, "node": "n1", "before": before if self.other is None else self.other}
        return succeed(Gathered([ProcessAnswer(answer if self.done else {"told": False}, [])], []))


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


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ('{"instance": "process 7 on web3, abc"}', "process 7 on web3"),
        ("{}", "of an older version"),
        ("what is this", None),
        ("[]", None),
    ],
    ids=["same version", "older version", "garbage", "other garbage"],
)
def test_two_of_one_name(other: str, words: str | None) -> None:
    """Two servers that tell under one name are told apart. A server that has been before is none of them."""
    clock, asker = Clock(), FakeAsker()
    announcing = Announcing(clock, lambda: Control(clock, 1, asker))
    with heard() as lines:
        asker.other = other
        announcing.follow(True)
        clock.advance(0)
        asker.other = None
        for _ in range(3):
            clock.advance(BEAT)
        assert not any("another server" in line for line in lines)
        assert {told["namesake"] for told in asker.told} == {None}
        asker.other = other
        for _ in range(5):
            clock.advance(BEAT)
        assert asker.told[-1]["namesake"] == words
        asker.other = None
        for _ in range(2):
            clock.advance(BEAT)
        assert asker.told[-1]["namesake"] is None
    announcing.stop()
    found = [line for line in lines if "another server" in line]
    assert len(found) == (words is not None)
    if words is not None:
        assert found[0] == (
            f"another server ({words}) uses the shared store as node n1, too: give each node "
            'a "name" of its own in [node]'
        )
