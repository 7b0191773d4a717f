"""One timer for many waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from socksproxy.runtime import deadlines
from socksproxy.runtime.deadlines import Deadlines, OwnDeadlines
from socksproxy.values.timeouts import NEVER
from tests.support.logs import log_publisher


class Waits:
    """Deadlines of ten seconds on a clock, and what has expired."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.clock = Clock()
        self.expired: list[tuple[str, float]] = []
        self.deadlines: Deadlines[str] = Deadlines(self.clock, seconds, self._has_expired)

    def _has_expired(self, thing: str) -> None:
        self.expired.append((thing, self.clock.seconds()))

    def start(self, thing: str) -> None:
        self.deadlines.start(thing, self.clock.seconds())


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """What is logged during the test."""
    events: list[LogEvent] = []
    log_publisher.addObserver(events.append)
    yield events
    log_publisher.removeObserver(events.append)


def test_expires_when_due(waits: Waits) -> None:
    waits.start("a")
    waits.clock.advance(9.9)
    assert waits.expired == []
    waits.clock.advance(0.1)
    assert waits.expired == [("a", 10.0)]
    assert len(waits.deadlines) == 0


def test_each_at_its_own_time(waits: Waits) -> None:
    """The one timer does for all: not a moment too late for the second, nor too soon."""
    for thing in "abc":
        waits.start(thing)
        waits.clock.advance(1)
    assert len(waits.deadlines) == 3
    waits.clock.pump([1] * 20)
    assert waits.expired == [("a", 10.0), ("b", 11.0), ("c", 12.0)]


def test_at_once(waits: Waits) -> None:
    """A turn that comes late finds several whose time has come, in the order in which they began."""
    for thing in "abc":
        waits.start(thing)
        waits.clock.advance(1)
    waits.clock.advance(60)
    assert [thing for thing, _ in waits.expired] == ["a", "b", "c"]


def test_one_timer(waits: Waits) -> None:
    for number in range(1000):
        waits.start(str(number))
    assert len(waits.clock.getDelayedCalls()) == 1


def test_stopped(waits: Waits) -> None:
    waits.start("a")
    waits.start("b")
    waits.deadlines.stop("a")
    waits.deadlines.stop("never here")
    waits.clock.advance(10)
    assert [thing for thing, _ in waits.expired] == ["b"]


def test_begins_again_after_all_have_ended(waits: Waits) -> None:
    waits.start("a")
    waits.deadlines.stop("a")
    waits.clock.advance(10)
    assert waits.clock.getDelayedCalls() == []
    waits.start("b")
    waits.clock.advance(10)
    assert waits.expired == [("b", 20.0)]


def test_the_old_timer_does_not_end_a_younger_wait(waits: Waits) -> None:
    waits.start("a")
    waits.clock.advance(8)
    waits.deadlines.stop("a")
    waits.start("b")
    waits.clock.advance(9.5)
    assert waits.expired == []
    waits.clock.advance(0.5)
    assert waits.expired == [("b", 18.0)]


def test_started_again(waits: Waits) -> None:
    """Its wait begins anew, and those behind it are not held up."""
    waits.start("a")
    waits.clock.advance(1)
    waits.start("b")
    waits.clock.advance(4)
    waits.start("a")
    waits.clock.pump([0.5] * 40)
    assert waits.expired == [("b", 11.0), ("a", 15.0)]


def test_for_ever() -> None:
    waits = Waits(NEVER)
    waits.start("a")
    assert len(waits.deadlines) == 0
    assert waits.clock.getDelayedCalls() == []
    waits.deadlines.stop("a")


def test_close(waits: Waits) -> None:
    waits.start("a")
    waits.deadlines.close()
    waits.deadlines.close()
    assert waits.clock.getDelayedCalls() == []
    assert len(waits.deadlines) == 0
    waits.clock.advance(60)
    assert waits.expired == []


@pytest.mark.parametrize("act", ["stop the next", "close", "start another"])
def test_what_expiring_may_do(act: str) -> None:
    """A session that ends takes others with it, or makes room for one that has waited."""
    clock, expired = Clock(), []

    def has_expired(thing: str) -> None:
        expired.append(thing)
        if thing != "a":
            return
        if act == "stop the next":
            deadlines.stop("b")  # type: ignore[attr-defined]
        elif act == "close":
            deadlines.close()  # type: ignore[attr-defined]
        else:
            deadlines.start("d", clock.seconds())  # type: ignore[attr-defined]

    deadlines = Deadlines(clock, 10, has_expired)
    for thing in "abc":
        deadlines.start(thing, clock.seconds())
    for _ in range(30):
        clock.advance(1)
        assert len(clock.getDelayedCalls()) <= 1
    assert (
        expired
        == {
            "stop the next": ["a", "c"],
            "close": ["a"],
            "start another": ["a", "b", "c", "d"],
        }[act]
    )
    assert clock.getDelayedCalls() == []


def test_a_fault_costs_one(logged: list[LogEvent]) -> None:
    """Else one session's fault would let all others wait for ever."""
    clock, expired = Clock(), []

    def has_expired(thing: str) -> None:
        if thing == "a":
            raise ZeroDivisionError
        expired.append(thing)

    deadlines = Deadlines(clock, 10, has_expired)
    deadlines.start("a", clock.seconds())
    deadlines.start("b", clock.seconds())
    clock.advance(1)
    deadlines.start("c", clock.seconds())
    clock.pump([1] * 10)
    assert expired == ["b", "c"]
    assert [event["log_failure"].type for event in logged if "log_failure" in event] == [ZeroDivisionError]


@given(
    st.lists(
        st.tuples(st.sampled_from(["start", "stop", "wait"]), st.sampled_from("abc"), st.integers(0, 25)),
        max_size=60,
    )
)
def test_any_order(acts: list[tuple[str, str, int]]) -> None:
    """Against the plain way: a time for each, looked at every second."""
    waits = Waits()
    due: dict[str, float] = {}
    expected: list[tuple[str, float]] = []
    for act, thing, seconds in acts:
        if act == "start":
            waits.start(thing)
            due.pop(thing, None)
            due[thing] = waits.clock.seconds() + 10
        elif act == "stop":
            waits.deadlines.stop(thing)
            due.pop(thing, None)
        else:
            for _ in range(seconds):
                waits.clock.advance(1)
                now = waits.clock.seconds()
                gone = [thing for thing, when in due.items() if when <= now]
                expected += [(thing, now) for thing in gone]
                for thing in gone:
                    del due[thing]
        assert len(waits.deadlines) == len(due)
        assert len(waits.clock.getDelayedCalls()) <= 1
    assert waits.expired == expected


# Things with a time of their own.


class OwnWaits(Waits):
    """Likewise, and each may have another one."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: OwnDeadlines[str] = OwnDeadlines(self.clock, 10.0, self._has_expired)


def test_a_time_of_its_own() -> None:
    """It begins when it is given, and takes the place of the wait that there was."""
    waits = OwnWaits()
    for thing in "abcd":
        waits.start(thing)
    waits.clock.advance(5)
    waits.deadlines.start_own("a", 2)
    waits.deadlines.start_own("b", 20)
    waits.deadlines.start_own("c", NEVER)
    assert len(waits.deadlines) == 4
    waits.clock.pump([1] * 100)
    assert waits.expired == [("a", 7.0), ("d", 10.0), ("b", 25.0)]
    assert len(waits.deadlines) == 1
    waits.deadlines.stop("c")
    assert len(waits.deadlines) == 0


def test_the_first_of_its_own_counts() -> None:
    waits = OwnWaits()
    waits.deadlines.start_own("a", 2)
    waits.clock.advance(1)
    waits.deadlines.start_own("a", 2)
    waits.clock.advance(1)
    assert waits.expired == [("a", 2.0)]


def test_nothing_is_left_of_its_own() -> None:
    waits = OwnWaits()
    waits.deadlines.start_own("a", 2)
    waits.deadlines.stop("a")
    assert not waits.clock.getDelayedCalls()
    waits.deadlines.start_own("a", 2)
    waits.deadlines.start_own("b", NEVER)
    waits.start("c")
    waits.deadlines.close()
    assert not waits.clock.getDelayedCalls()
    assert len(waits.deadlines) == 0


def test_another_length(waits: Waits) -> None:
    """What waits already does so for as long as it was told; what begins later, for the new time."""
    waits.start("long")
    waits.start("leaves")
    waits.clock.advance(1)
    waits.deadlines.seconds = 2.0
    assert waits.deadlines.seconds == 2.0
    waits.start("short")
    waits.clock.advance(1)
    waits.start("shorter")
    waits.deadlines.stop("leaves")
    assert len(waits.deadlines) == 3
    waits.clock.pump([0.5] * 40)
    assert waits.expired == [("short", 3.0), ("shorter", 4.0), ("long", 10.0)]
    assert len(waits.deadlines) == 0
    assert waits.clock.getDelayedCalls() == []


def test_begins_anew_after_the_change(waits: Waits) -> None:
    """A thing has one wait, whichever length it has."""
    waits.start("a")
    waits.deadlines.seconds = 20.0
    waits.start("a")
    assert len(waits.deadlines) == 1
    waits.clock.pump([1] * 30)
    assert waits.expired == [("a", 20.0)]


def test_for_ever_from_now_on(waits: Waits) -> None:
    """No deadline for what begins from now on, and then one again."""
    waits.start("before")
    waits.deadlines.seconds = NEVER
    waits.start("for ever")
    waits.deadlines.seconds = 5.0
    waits.start("after")
    waits.clock.pump([1] * 100)
    assert waits.expired == [("after", 5.0), ("before", 10.0)]


def test_close_after_the_change(waits: Waits) -> None:
    """Nothing expires after that, of whatever length it was."""
    waits.start("before")
    waits.deadlines.seconds = 3.0
    waits.start("after")
    waits.deadlines.close()
    assert len(waits.deadlines) == 0
    assert waits.clock.getDelayedCalls() == []


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([NEVER, 1.0, 3.0, 7.0])), max_size=30))
def test_each_for_its_own_length(steps: list[tuple[str, float]]) -> None:
    """Whatever lengths come one after the other, each thing waits for the one in force when it began last."""
    waits = Waits()
    due: dict[str, float] = {}
    expired: list[tuple[str, float]] = []
    for thing, seconds in steps:
        waits.deadlines.seconds = seconds
        waits.start(thing)
        now = waits.clock.seconds()
        due.pop(thing, None)
        if seconds != NEVER:
            due[thing] = now + seconds
        waits.clock.advance(0.5)
        over = [(name, when) for name, when in due.items() if when <= now + 0.5]
        for name, _ in over:
            del due[name]
        expired += over
    waits.clock.pump([0.5] * 20)
    expired += due.items()
    assert sorted(waits.expired) == sorted(expired)


def test_log_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is short, even the log may fail: the timeouts of all others come all the same."""
    clock, over = Clock(), []

    def expired(thing: str) -> None:
        if thing == "bad":
            raise MemoryError
        over.append(thing)

    monkeypatch.setattr(deadlines, "_log", None)
    waits = Deadlines(clock, 10, expired)
    waits.start("bad", 0)
    waits.start("good", 0)
    clock.advance(10)
    waits.start("later", 10)
    clock.advance(10)
    assert over == ["good", "later"]
