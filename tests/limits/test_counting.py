"""How one process keeps counts and rates."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from socksproxy.limits import Rate
from socksproxy.limits.buckets import Bucket
from socksproxy.limits.counting import Counter, Counting, Pace, burst_of


def test_counter() -> None:
    counter = Counter()
    assert [counter.add(), counter.add()] == [1, 2]
    counter.give()
    assert counter.value == 1
    assert counter.add() == 2


@pytest.mark.parametrize(
    ("rate", "burst"), [(Rate(5), 5), (Rate(0.1), 1), (Rate(5, 20), 20), (Rate(5, 1), 1), (Rate(5, 0.5), 1)]
)
def test_burst(rate: Rate, burst: float) -> None:
    """A second's worth unless it is given, and at least one, or nothing could ever begin."""
    assert burst_of(rate) == burst
    pace = Pace(Clock(), rate)
    assert [pace.take() for _ in range(int(burst) + 1)] == [True] * int(burst) + [False]


def test_pace() -> None:
    """One more may begin each tenth of a second, however often it is asked."""
    clock = Clock()
    pace = Pace(clock, Rate(10, 1))
    assert pace.take()
    for _ in range(50):
        clock.advance(0.05)
        assert not pace.take()
        clock.advance(0.05)
        assert pace.take()


def test_a_pause_is_worth_one_burst() -> None:
    clock = Clock()
    pace = Pace(clock, Rate(10, 3))
    assert pace.full
    assert pace.take()
    assert not pace.full
    clock.advance(0.1)
    assert pace.full
    clock.advance(3600)
    assert [pace.take() for _ in range(4)] == [True, True, True, False]


def test_a_rate_that_changes() -> None:
    """What has come by the time of the change is kept as far as the new burst allows."""
    clock = Clock()
    pace = Pace(clock, Rate(10, 8))
    pace.rate = Rate(1, 2)
    assert [pace.take() for _ in range(3)] == [True, True, False]
    clock.advance(1)
    assert [pace.take() for _ in range(2)] == [True, False]


def test_each_has_its_own() -> None:
    """By one process nothing is shared, not even by one name."""
    counting, rate = Counting(Clock()), Rate(1)
    assert counting.counter("a").add() == counting.counter("a").add() == 1
    assert counting.pace("a", rate).take()
    assert counting.pace("a", rate).take()
    assert type(counting.bucket("a", rate)) is Bucket
    assert counting.bucket("a", rate).rate == rate
