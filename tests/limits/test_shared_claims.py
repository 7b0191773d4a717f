"""What one session has in the store that nodes share, with a store that answers when it is told to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from twisted.internet.task import Clock

from socksproxy import Client
from socksproxy.errors import OverLimit, StoreDown, TooManyAssociations, TooManySessions, reply_for
from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.limits.account import ASSOCIATIONS, Scope
from socksproxy.limits.claims import Claims
from socksproxy.limits.ledger import Ledger
from socksproxy.shared.asking import ADMITTED, DOWN, OF, Ask, Need
from socksproxy.values.limits import Fallback
from socksproxy.wire.words import Reply

USER = Scope.USER


class FakeStore:
    """Keeps what it is asked, and what it counts."""

    def __init__(self, up: bool = True, nodes: int = 2) -> None:
        self.up = up
        self.nodes = nodes
        self.open: list[Ask] = []
        self.counts: Counter[str] = Counter()
        #: Whether all that sessions need is in hand, and what was taken of that.
        self.in_hand = False
        self.taken: list[list[Need]] = []

    def take(self, needs: list[Need]) -> bool:
        if self.in_hand:
            self.taken.append(needs)
            self.counts.update(need.key for need in needs if need.burst is None)
        return self.in_hand

    def leave(self, rows: list[str]) -> None:
        for row in rows:
            self.count(row, -1)

    @property
    def asks(self) -> bool:
        return self.up

    def ask(self, ask: Ask) -> None:
        self.open.append(ask)
        if not self.up:
            self.answer(DOWN)

    def answer(self, answer: int) -> list[str]:
        """Answer the oldest ask; the keys of its needs."""
        ask = self.open.pop(0)
        if answer == ADMITTED:
            self.counts.update(ask.rows)
        ask.answered(answer)
        return [need.key for need in ask.needs]

    def count(self, row: str, by: int) -> None:
        self.counts[row] += by

    @property
    def held(self) -> dict[str, int]:
        return {row: count for row, count in self.counts.items() if count}


class Node:
    """A ledger, and sessions that tell what they hear."""

    def __init__(self, store: FakeStore, limits: ServerLimits = ServerLimits()) -> None:
        shared: Any = store
        self.ledger = Ledger(Clock(), limits, store=shared)
        self.heard: list[OverLimit | None] = []

    def session(self, **limits: Any) -> Claims:
        claims = self.ledger.arrive(Client("192.0.2.1", 1)) or Claims(self.ledger)
        claims.begin()
        claims.enter(USER, "bob", Limits(**limits))
        return claims

    def share(self, claims: Claims, ahead: str | None = None) -> bool:
        return claims.share(self.heard.append, ahead)

    def alone(self, most: int, **limits: Any) -> int:
        """How many of *most* sessions are let in without the store."""
        let_in = 0
        for _ in range(most):
            try:
                claims = self.session(**limits)
                assert not self.share(claims)
            except OverLimit:
                continue
            let_in += 1
        return let_in


def test_together() -> None:
    """All holders are asked about at once, and only about what was not asked about before."""
    store = FakeStore()
    node = Node(store, ServerLimits(server=Limits(sessions=9), network=Limits(new_sessions=Rate(10, 5))))
    claims = node.session(sessions=3)
    assert node.share(claims)
    assert [(need.key, need.most, need.burst) for need in store.open[0].needs] == [
        ("n:server sessions", 9, None),
        ("n:user bob sessions", 3, None),
        ("r:network 192.0.2.0/24 arrivals", 100_000, 5),
    ]
    assert node.share(claims)
    claims.enter(Scope.RULE, "web", Limits(sessions=7))
    assert node.share(claims)
    store.answer(ADMITTED)
    assert claims.unanswered
    assert store.answer(ADMITTED) == ["n:rule web sessions"]
    assert not claims.unanswered
    assert not node.share(claims)
    assert node.heard == [None, None]
    assert store.held == {"n:server sessions": 1, "n:user bob sessions": 1, "n:rule web sessions": 1}
    claims.leave((Scope.RULE, "web"))
    assert "n:rule web sessions" not in store.held
    claims.close()
    assert not store.held


def test_in_hand() -> None:
    """A session for which all is in hand asks nothing, counts, and gives everything back in the end."""
    store = FakeStore()
    store.in_hand = True
    node = Node(store, ServerLimits(server=Limits(sessions=9), network=Limits(new_sessions=Rate(10, 5))))
    sessions = [node.session(sessions=3) for _ in range(3)]
    for claims in sessions:
        assert not node.share(claims)
        assert not node.share(claims)
        assert not claims.unanswered
    assert not store.open
    assert not node.heard
    both = {"n:server sessions": 3, "n:user bob sessions": 3}
    assert store.held == both
    assert [[need.key for need in needs] for needs in store.taken] == [
        [*both, "r:network 192.0.2.0/24 arrivals"]
    ] * 3
    # One is under a rule, too; one leaves a holder; one is as it was. None of that touches the others.
    one, two, three = sessions
    one.enter(Scope.RULE, "web", Limits(sessions=7))
    assert node.share(one)
    assert store.answer(ADMITTED) == ["n:rule web sessions"]
    two.leave((USER, "bob"))
    assert store.held == {"n:server sessions": 3, "n:user bob sessions": 2, "n:rule web sessions": 1}
    two.close()
    one.close()
    assert store.held == {"n:server sessions": 1, "n:user bob sessions": 1}
    three.close()
    assert not store.held


def test_in_hand_under_other_limits() -> None:
    """What sessions need follows the limits, and a session that goes on under others keeps its places."""
    store = FakeStore()
    store.in_hand = True
    node = Node(store, ServerLimits(server=Limits(sessions=9)))
    client = Client("192.0.2.1", 1)
    first = node.session(sessions=3)
    node.share(first)
    node.ledger.set(ServerLimits(server=Limits(sessions=8)), None, node.ledger.store)
    assert node.ledger.renewed(first, client, first.of(USER)) is first
    first.share_again(True)
    second = node.session(sessions=3)
    node.share(second)
    assert [need.most for need in store.taken[0]] == [9, 3]
    assert [need.most for need in store.taken[1]] == [8, 3]
    assert store.held == {"n:server sessions": 2, "n:user bob sessions": 2}
    first.close()
    second.close()
    assert not store.held


def test_refused() -> None:
    """A session that the store refuses counts for no holder, here as there."""
    store = FakeStore()
    node = Node(store, ServerLimits(server=Limits(sessions=9)))
    claims = node.session(sessions=3)
    node.share(claims)
    store.answer(2)
    (problem,) = node.heard
    assert isinstance(problem, TooManySessions)
    assert str(problem) == "too many sessions of user bob on all nodes"
    assert reply_for(problem) is Reply.NOT_ALLOWED
    assert node.session(sessions=1)
    claims.close()
    assert not store.held


def test_over_before_the_answer() -> None:
    """A session that has ended before the store has counted it is counted no more."""
    store = FakeStore()
    node = Node(store)
    claims = node.session(sessions=3)
    node.share(claims)
    claims.close()
    assert not store.held
    store.answer(ADMITTED)
    assert not store.held
    claims = node.session(sessions=3)
    node.share(claims)
    claims.close()
    store.answer(1)
    assert not store.held


def test_ahead() -> None:
    """The store is asked about an association before there is one."""
    store = FakeStore()
    node = Node(store)
    claims = node.session(associations=1)
    assert node.share(claims, ASSOCIATIONS)
    assert store.answer(ADMITTED) == ["n:user bob associations"]
    claims.take(ASSOCIATIONS)
    assert store.held == {"n:user bob associations": 1}
    claims.give(ASSOCIATIONS)
    assert not store.held
    other = node.session(associations=1)
    node.share(other, ASSOCIATIONS)
    store.answer(1)
    assert isinstance(node.heard[-1], TooManyAssociations)


@pytest.mark.parametrize(
    ("how", "nodes", "let_in"),
    [
        (None, 4, 2),
        (Fallback.SHARE, 4, 2),
        (Fallback.SHARE, 3, 2),
        (Fallback.SHARE, 20, 1),
        (Fallback.SHARE, 1, 8),
        (Fallback.LOCAL, 4, 8),
        (Fallback.STRICT, 4, 0),
    ],
)
def test_alone(how: Fallback | None, nodes: int, let_in: int) -> None:
    """Without the store a limit of eight does what its "shared" says; what is let in counts later."""
    store = FakeStore(up=False, nodes=nodes)
    node = Node(store)
    assert node.alone(8, sessions=8, shared=how) == let_in
    assert store.held == ({"n:user bob sessions": let_in} if let_in else {})


@pytest.mark.parametrize(("how", "let_in"), [(None, 3), (Fallback.LOCAL, 12)])
def test_rate_alone(how: Fallback | None, let_in: int) -> None:
    node = Node(FakeStore(up=False, nodes=4))
    assert node.alone(20, new_sessions=Rate(12), shared=how) == let_in


def test_associations_alone() -> None:
    store = FakeStore(up=False, nodes=2)
    node = Node(store)
    for number in range(4):
        claims = node.session(associations=4)
        if number < 2:
            assert not node.share(claims, ASSOCIATIONS)
            claims.take(ASSOCIATIONS)
        else:
            with pytest.raises(TooManyAssociations, match="on one of 2 nodes: the shared store is down"):
                node.share(claims, ASSOCIATIONS)


def test_devices_alone() -> None:
    """Each node has its part of client addresses, too. More sessions from the same ones may come."""
    store = FakeStore(up=False, nodes=2)
    node = Node(store)
    let_in, words = [], set()
    for host in "121342":
        claims = Claims(node.ledger)
        claims.is_on(f"192.0.2.{host}")
        claims.enter(USER, "bob", Limits(devices=4))
        try:
            assert not node.share(claims)
            let_in.append(host)
        except TooManySessions as problem:
            words.add(str(problem))
    assert let_in == ["1", "2", "1", "2"]
    assert words == {"too many client addresses of user bob on one of 2 nodes: the shared store is down"}
    assert store.held == {f"d:user bob devices{OF}192.0.2.{host}": 2 for host in "12"}


def test_strict() -> None:
    """The reply says that the fault is here, and not that the client may not."""
    node = Node(FakeStore(up=False))
    with pytest.raises(StoreDown, match="no sessions of user bob: the shared store is down") as caught:
        node.share(node.session(sessions=8, shared=Fallback.STRICT))
    assert reply_for(caught.value) is Reply.GENERAL_FAILURE


def test_down_while_it_waits() -> None:
    """Those that wait when the store goes down are judged one after the other."""
    store = FakeStore(nodes=2)
    node = Node(store)
    for _ in range(6):
        node.share(node.session(sessions=6))
    for _ in range(6):
        store.answer(DOWN)
    assert node.heard.count(None) == 3
    assert store.held == {"n:user bob sessions": 3}


def test_changed_limits() -> None:
    """A session goes on under changed limits, and counts for its holders, in the store that is in use."""
    store = FakeStore()
    node = Node(store)
    claims = node.session(sessions=3)
    node.share(claims)
    store.answer(ADMITTED)
    place = USER, "bob"
    claims.renew([(place, Limits(sessions=1)), ((Scope.SERVER, ""), Limits(sessions=5))])
    claims.share_again(True)
    assert store.held == {"n:user bob sessions": 1, "n:server sessions": 1}
    assert not store.open
    claims.renew([(place, Limits())])
    claims.share_again(True)
    assert not store.held
    claims.renew([(place, Limits(sessions=1))])
    other: Any = FakeStore()
    node.ledger.set(ServerLimits(), None, other)
    claims.share_again(True)
    assert other.held == {"n:user bob sessions": 1}
    assert not store.held
    node.ledger.set(ServerLimits(), None)
    claims.share_again(True)
    assert not other.held
    assert not node.share(claims)
