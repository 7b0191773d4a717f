"""What a process has in hand of the rows and rates of a Valkey; the test moves the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from socksproxy.shared.asking import ADMITTED, DOWN, OF, Ask, Job, Loan, Need, StoreProblem, Want
from socksproxy.shared.link import ScriptCall, StoreLink
from socksproxy.shared.scripts import ADMIT, LEAVE, SCHEMA
from tests.support.stores import SteppedNode
from tests.support.valkey import Valkey

_sites = count()
BOB = Need("n:user bob sessions", 1000)
OFTEN = Need("r:user bob arrivals", 1e6 / 1000, 1000)


class Fleet:
    """Nodes that share a site of their own."""

    def __init__(self, server: Valkey, nodes: int = 1) -> None:
        self.site = f"spares{next(_sites)}"
        self.server = server
        self.nodes = [SteppedNode(server.url, f"n{number + 1}", self.site) for number in range(nodes)]

    @property
    def one(self) -> SteppedNode:
        return self.nodes[0]

    def key(self, name: str) -> str:
        return f"sp:{{{self.site}}}:{SCHEMA}:{name}"

    def row(self, need: Need = BOB) -> dict[str, int]:
        """What each node has in the row, in a column that counts."""
        client = self.server.client()
        columns = client.zrange(self.key("nodes"), 0, -1)
        fields = client.hgetall(self.key(need.key))
        return {name.partition("/")[0]: int(fields[name]) for name in columns if name in fields}

    def close(self) -> None:
        for node in self.nodes:
            node.store.stop()
            node.thread._leave()


@pytest.fixture
def fleet(common: Valkey) -> Iterator[Fleet]:
    made = Fleet(common)
    yield made
    made.close()


def test_no_question(fleet: Fleet) -> None:
    """Sessions ask only when nothing is in hand; those that begin and end in turn ask once."""
    node = fleet.one
    assert node.ask(BOB) is None
    node.turn()
    assert fleet.row() == {"n1": 1 + 19}
    for _ in range(1000):
        assert node.ask(BOB) == ADMITTED
        node.store.count(BOB.key, -1)
    assert node.store.stats.asks == 1
    node.wait(0.1)
    assert fleet.row() == {"n1": 20}
    sent = node.thread._link.sent
    node.turn()
    assert node.thread._link.sent == sent


def test_take(fleet: Fleet) -> None:
    """All that a session needs is taken at once, or nothing."""
    node = fleet.one
    other = Need("n:user ann sessions", 1000)
    assert not node.store.take([BOB])
    node.asked(BOB)
    assert not node.store.take([BOB, other])
    assert not node.store.take([Need(BOB.key, 999)])
    assert fleet.row() == {"n1": 1 + 19}
    taken = 0
    while node.store.take([Need(*BOB)]):
        taken += 1
        assert taken <= 19
    assert taken == 19
    node.turn()  # more was wanted on the way
    assert node.store.take([BOB])
    node.store.leave([BOB.key] * 21)
    node.thread._lose(StoreProblem("gone"))
    assert not node.store.take([BOB])


def test_one_wake(fleet: Fleet) -> None:
    """Questions of one turn of the reactor wake the thread once; the ends of sessions do not wake it."""
    node = fleet.one
    for number in range(10):
        assert node.ask(Need(f"n:user {number} sessions", 10)) is None
    node.clock.advance(0)
    assert node.thread.inbox.qsize() == 1
    node.turn()
    for number in range(10):
        node.store.count(f"n:user {number} sessions", -1)
    assert node.thread.inbox.empty()
    node.clock.advance(0.025)
    assert node.thread.inbox.qsize() == 1


def test_more_in_time(fleet: Fleet) -> None:
    """More is lent before nothing is left, without a session that waits for it."""
    node = fleet.one
    node.asked(BOB)
    for number in range(100):
        assert node.ask(BOB) == ADMITTED, number
        node.turn()
    assert node.store.stats.asks == 1
    assert fleet.row() == {"n1": pytest.approx(101 + 17, abs=9)}


def test_goes_back(fleet: Fleet) -> None:
    """What no session needs for three seconds goes back; what sessions have stays."""
    node = fleet.one
    for _ in range(5):
        node.asked(BOB)
    node.wait(2.5)
    assert fleet.row() == {"n1": 5 + 19}
    node.wait(2)
    assert fleet.row() == {"n1": 5}
    assert not node.store._spares._spares
    for _ in range(5):
        node.store.count(BOB.key, -1)
    node.wait(0.1)
    assert fleet.row() == {}


def test_small_limit(fleet: Fleet) -> None:
    """Nothing is lent of a small limit, and a place that a session has left is free for others at once."""
    node = fleet.one
    ten = Need("n:user ann sessions", 10)
    for number in range(5):
        assert node.ask(ten) is None
        node.turn()
        assert fleet.row(ten) == {"n1": number + 1}
    node.store.count(ten.key, -1)
    assert node.ask(ten) == ADMITTED
    node.store.count(ten.key, -1)
    node.wait(0.05)
    assert fleet.row(ten) == {"n1": 4}


def test_scarce(common: Valkey) -> None:
    """When more than half of the limit is in use, the store lends nothing, and takes back what is in hand."""
    fleet = Fleet(common, 2)
    one, other = fleet.nodes
    one.asked(BOB)
    for _ in range(600):
        assert other.asked(BOB) == ADMITTED
        other.turn()
    assert fleet.row() == {"n1": 20, "n2": pytest.approx(600, abs=10)}
    for _ in range(10):
        assert one.ask(BOB) == ADMITTED
    one.wait(1.2)
    assert fleet.row()["n1"] == 11
    other.wait(1.2)
    assert fleet.row() == {"n1": 11, "n2": 600}
    # From here on, each session asks, and the limit is exact.
    for _ in range(1000 - 611):
        assert one.ask(BOB) is None
        one.turn()
    assert one.asked(BOB) == other.asked(BOB) == 1
    assert sum(fleet.row().values()) == 1000
    # A place that a session has left is free for the other node with the next writing.
    one.store.count(BOB.key, -1)
    one.wait(0.05)
    assert other.asked(BOB) == ADMITTED
    fleet.close()


def test_all_or_none(fleet: Fleet) -> None:
    """What was in hand for a session that one row refuses is in hand again; the answer names that row."""
    node = fleet.one
    none = Need("n:user ann sessions", 0)
    node.asked(BOB)
    node.asked(BOB, OFTEN)
    held = fleet.row()
    assert node.asked(BOB, OFTEN, none) == 3
    assert node.asked(OFTEN, none, BOB) == 2
    assert fleet.row() == held
    left = node.store._spares._spares
    assert (left[BOB.key].left, left[OFTEN.key].left) == (18, 19)
    assert not left[none.key].left


def test_rate(fleet: Fleet) -> None:
    """What is lent of a rate comes back, so that a burst is as large as it may be."""
    node = fleet.one
    slow = Need("r:user bob arrivals", 3600e6 / 100, 100)
    assert node.asked(slow) == ADMITTED
    assert node.ask(slow) == ADMITTED
    node.wait(4.5)
    for number in range(98):
        assert node.asked(slow) == ADMITTED, number
    assert node.asked(slow) == 1


def test_changed_limit(fleet: Fleet) -> None:
    """A limit that a reload has changed holds for the next session: nothing is in hand under the new one."""
    node = fleet.one
    for _ in range(5):
        node.asked(BOB)
    assert node.asked(Need(BOB.key, 5)) == 1
    assert fleet.row() == {"n1": 5}
    node.asked(OFTEN)
    less = OFTEN._replace(burst=500)
    assert node.ask(OFTEN) == ADMITTED
    assert node.ask(less) is None
    node.turn()
    assert node.ask(less) == ADMITTED
    assert node.asked(OFTEN) == ADMITTED
    # The answer to what the old limit was asked about comes late.
    node.store.ask(Ask([BOB], lambda _: None))
    node.store._spares.wants([Need(BOB.key, 700)])
    node.turn()
    node.wait(0.1)
    assert fleet.row() == {"n1": 6}


def test_down(fleet: Fleet) -> None:
    """While the store is down nothing is in hand, and what was in hand is not in the next column."""
    node = fleet.one
    node.asked(BOB, OFTEN)
    waiting: list[int] = []
    node.store.ask(Ask([BOB, OFTEN, Need("n:new", 5)], waiting.append))
    node.thread._lose(StoreProblem("gone"))
    assert waiting == [DOWN]
    assert node.ask(BOB) == DOWN
    node.clock.advance(0)
    assert len(node.clock.getDelayedCalls()) == 1  # the next look for commands
    node.store.count(BOB.key, 1)
    node.thread._follow_changes()
    assert node.thread._counts == {BOB.key: 2}
    node.thread._open()
    assert fleet.row() == {"n1": 2}
    node.turn()  # what had been asked before
    assert fleet.row() == {"n1": 2}


def test_fault(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fault of the thread, all that waits has an answer: there is no store."""
    node = fleet.one
    monkeypatch.setattr(node.thread, "_do", lambda link, work: 1 / 0)
    answers: list[Any] = []
    node.store.run(Job(LEAVE, ["nodes"], ["n0/1"], answers.append))
    node.store.ask(Ask([BOB], answers.append))
    with pytest.raises(ZeroDivisionError):
        node.turn()
    assert answers == [DOWN, None]


def test_forgotten(fleet: Fleet) -> None:
    """A store that has forgotten the column is told what is in hand, too, or takes it back."""
    node = fleet.one
    node.asked(BOB)
    node.thread._link.run([], 1)
    fleet.server.client().delete(fleet.key("nodes"), fleet.key(BOB.key))
    assert node.ask(BOB) == ADMITTED
    node.wait(1.2)
    assert fleet.row() == {}
    assert node.asked(Need("n:other", 5)) == ADMITTED
    node.turn()
    assert fleet.row()["n1"] == 2


def test_forgets_scripts(fleet: Fleet) -> None:
    """The counts are right at once when the store has forgotten the scripts, and knows some of them again."""
    node, client = fleet.one, fleet.server.client()
    ten = Need("n:user ann sessions", 10)
    assert node.asked(ten) == ADMITTED
    node.store.count(ten.key, 1)
    node.turn()
    client.script_flush()
    client.script_load(ADMIT.text)
    node.store.count(ten.key, 1)
    assert node.asked(ten) == ADMITTED
    node.turn()
    assert fleet.row(ten) == {"n1": 4}


@pytest.mark.parametrize("arrives", [False, True])
def test_joins_in_vain(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, arrives: bool) -> None:
    """Sessions count once, though the store was lost again before it was known who has which column."""
    node, client = fleet.one, fleet.server.client()
    ten = Need("n:user ann sessions", 10)
    assert node.asked(ten) == ADMITTED
    before = client.zrange(fleet.key("nodes"), 0, -1)
    run = StoreLink.run

    def cut(link: StoreLink, commands: Sequence[ScriptCall], patience: float) -> list[Any]:
        if arrives:
            run(link, commands, 10.0)
        raise StoreProblem("cut")

    for _ in range(2):
        if node.thread._link is not None:
            node.thread._lose(StoreProblem("gone"))
        with monkeypatch.context() as patched:
            patched.setattr(StoreLink, "run", cut)
            assert not node.thread._open()
    assert (client.zrange(fleet.key("nodes"), 0, -1) == before) != arrives
    assert node.thread._open()
    assert len(client.zrange(fleet.key("nodes"), 0, -1)) == 1
    assert fleet.row(ten) == {"n1": 1}
    node.turn()
    assert not node.thread._begun


def test_many_devices(fleet: Fleet) -> None:
    """The addresses of clients have no part in what is in hand; a place is free as soon as it is left."""
    node = fleet.one
    first, second = (Need(f"d:user bob devices{OF}10.0.0.{number}", 1) for number in (1, 2))
    assert node.asked(BOB, first) == ADMITTED
    assert list(node.store._spares._spares) == [BOB.key]
    assert node.asked(second) == 1
    node.store.count(first.key, -1)
    assert node.asked(BOB, second) == ADMITTED
    assert node.asked(first) == 1


def test_killed(common: Valkey) -> None:
    """What a killed node had in hand is free when its lease is over."""
    fleet = Fleet(common, 2)
    one, other = fleet.nodes
    two = Need(BOB.key, 100)
    one.asked(two)
    assert fleet.row() == {"n1": 2}
    one.thread._link.close()
    common.client().eval(LEAVE.text, 1, fleet.key("nodes"), one.thread._column)
    for _ in range(100):
        assert other.asked(two) == ADMITTED
    assert other.asked(two) == 1
    fleet.close()


def test_many_rows(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The renewal of many rows makes no session wait. The table of what is in hand has a bound."""
    monkeypatch.setattr("socksproxy.shared.spares._MOST", 1000)
    node = fleet.one
    needs = [Need(f"n:user {number} sessions", 100) for number in range(1100)]
    for some in range(0, 1100, 100):
        for need in needs[some : some + 100]:
            assert node.ask(need) is None
        node.turn()
    assert [node.ask(need) for need in needs[:1000:100]] == [ADMITTED] * 10
    assert node.ask(needs[-1]) is None
    node.turn()
    node.clock.advance(1)
    answers: list[int] = []
    node.store.ask(Ask([needs[-2]], answers.append))
    node.turn()
    assert answers == [ADMITTED]
    assert len(node.thread._wants) == 1000 - 400
    node.turn()
    node.turn()
    assert not node.thread._wants
    assert node.ask(needs[1]) == ADMITTED
    node.wait(5)
    for need in needs[1:100]:
        assert fleet.row(need) == {"n1": 1 + (need == needs[1])}


def test_nothing_goes_back(fleet: Fleet) -> None:
    """A row of which nothing is in hand is forgotten without a word to the store."""
    node = fleet.one
    assert node.asked(BOB._replace(most=10)) == ADMITTED
    for _ in range(3):
        node.clock.advance(1)
    assert not node.store._spares._spares
    assert not node.thread.changes


def test_answer_after_the_end(fleet: Fleet) -> None:
    """What the store lends after the end begins nothing."""
    node = fleet.one
    node.clock.advance(0)
    node.store.stop()
    node.store.answered([], [Loan(Want(BOB, 0), 20, 20)])
    node.store.ended()
    assert not node.clock.getDelayedCalls()


def test_stop(fleet: Fleet) -> None:
    """The end leaves no timer and nothing in hand."""
    fleet.one.asked(BOB)
    fleet.one.store.stop()
    assert len(fleet.one.clock.getDelayedCalls()) == 1  # the end itself
    fleet.one.store.count(BOB.key, -1)


NODES, LIMIT = 3, 60
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, NODES - 1), st.integers(1, 25)),
        st.tuples(st.just("end"), st.integers(0, NODES - 1), st.integers(1, 25)),
        st.tuples(st.sampled_from(["turn", "wait", "lose"]), st.integers(0, NODES - 1), st.just(1)),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(steps=STEPS)
def test_model(common: Valkey, steps: list[Any]) -> None:
    """
    Whatever nodes do, there are never more sessions than the limit.

    No session is refused as long as there is room beside the sessions, what is in hand, and what ended in the
    last 25 ms; and all that is free can be had when each node has had four seconds without sessions.
    """
    fleet = Fleet(common, NODES)
    need = Need("n:user bob sessions", LIMIT)
    sessions = [0] * NODES
    asking: list[list[int]] = [[] for _ in range(NODES)]

    def settle(number: int) -> None:
        before = sum(sessions)
        told, asking[number] = asking[number], []
        sessions[number] += told.count(ADMITTED)
        if 1 in told:
            held = sum(node.thread._counts.get(need.key, 0) for node in fleet.nodes)
            assert held >= LIMIT
        assert set(told) <= {ADMITTED, 1}
        assert before <= sum(sessions) <= LIMIT

    for what, number, times in steps:
        node = fleet.nodes[number]
        if what == "begin":
            for _ in range(times):
                node.store.ask(Ask([need], asking[number].append))
            node.turn()
            settle(number)
        elif what == "end":
            for _ in range(min(times, sessions[number])):
                sessions[number] -= 1
                node.store.count(need.key, -1)
        elif what == "turn":
            node.turn()
        elif what == "wait":
            node.wait(0.3)
        else:
            node.thread._lose(StoreProblem("for a moment"))
            assert node.thread._open()
    for node in fleet.nodes:
        node.wait(4.5)
    assert sum(fleet.row(need).values()) == sum(sessions)
    for _ in range(LIMIT - sum(sessions)):
        assert fleet.one.asked(need) == ADMITTED
    assert fleet.one.asked(need) == 1
    fleet.close()
