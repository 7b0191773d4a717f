"""Tokens that workers share: see :mod:`socksproxy.workers.tokens`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from socksproxy.workers import shared_table as table_module
from socksproxy.workers.shared_table import ASIDE, EACH, POOL, SharedTable, new_table
from socksproxy.workers.tokens import Granted, Tokens, Wish

from ..support.logs import heard

WORKERS = 3
SECRET = b"0123456789abcdef"


class Worker:
    """One worker's end of one bucket: 100 tokens per second, 50 at once."""

    def __init__(self, table: SharedTable, number: int, name: str = "one") -> None:
        self.tokens = Tokens(table, number, name)
        self.left = 0.0

    def renew(self, now: float, waiting: int = 0, want: float = 1.0, per_second: float = 100.0) -> Granted:
        """Use what it has, or what is said, and take more."""
        granted = self.tokens.renew(now, Wish(per_second, 50.0, self.left, want, waiting))
        self.left = granted.tokens
        return granted

    def used(self) -> float:
        used, self.left = self.left, 0.0
        return used


@pytest.fixture
def table() -> Iterator[SharedTable]:
    table = SharedTable(new_table(WORKERS), WORKERS, SECRET)
    yield table
    table.close()


@pytest.fixture
def workers(table: SharedTable) -> list[Worker]:
    return [Worker(table, number) for number in range(WORKERS)]


def total(table: SharedTable, place: int) -> float:
    """All that is left in a bucket."""
    aside = table.tokens[place + ASIDE : place + ASIDE + EACH * WORKERS : EACH]
    return table.tokens[place + POOL] + sum(aside)


STEP = st.tuples(
    st.integers(0, WORKERS - 1),
    st.floats(0, 1),
    st.integers(0, 3),
    st.floats(0, 30),
    st.floats(-0.5, 1),
)


@pytest.mark.slow
@given(steps=st.lists(STEP, max_size=60))
def test_none_made_and_none_lost(steps: list[tuple[int, float, int, float, float]]) -> None:
    """
    Whoever waits and takes, there is never more than has come, nor less while nobody waits.
    """
    table = SharedTable(new_table(WORKERS), WORKERS, SECRET)
    workers = [Worker(table, number) for number in range(WORKERS)]
    crowd = [0] * WORKERS
    place, now, there = None, 0.0, 50.0
    for number, passes, waiting, want, unused in steps:
        worker = workers[number]
        now += passes
        # Less than none: it has used more than it had.
        worker.left = worker.left * unused if worker.left > 0 else worker.left
        left, came = worker.left, max(min(there + 100 * passes, 50.0), there)
        granted = worker.renew(now, waiting, want)
        crowd[number] = waiting
        place = worker.tokens._place if place is None else place
        assert place is not None
        there = total(table, place)
        assert there <= came + left - granted.tokens + 1e-6
        assert granted.tokens <= max(left, 0) + 50 + 1e-6
        if not any(crowd):
            assert granted.tokens >= min(want, came + left) - 1e-6
    table.close()


@pytest.mark.parametrize("periods", [(0.01, 0.01, 0.01), (0.01, 0.023, 0.05), (0.05, 0.007, 0.02)])
def test_shares_by_who_waits(periods: tuple[float, ...], workers: list[Worker]) -> None:
    """Each worker gets by how many wait there, however often it looks."""
    used, due, waiting = [0.0] * 3, [0.0] * 3, (3, 1, 2)
    workers[0].renew(0.0, want=50)
    workers[0].used()
    now = 0.0
    while now < 20:
        number = due.index(min(due))
        now = due[number]
        due[number] += periods[number]
        workers[number].renew(now, waiting[number], want=0)
        used[number] += workers[number].used()
    assert sum(used) == pytest.approx(100 * 20, rel=0.02)
    assert used == pytest.approx([1000, 2000 / 6, 2000 / 3], rel=0.02)


def test_tells_how_many_come(workers: list[Worker]) -> None:
    """A worker is told its part, by which it knows when to come again."""
    assert workers[0].renew(0).per_second == 100
    assert workers[0].renew(0, waiting=1).per_second == 100
    assert workers[1].renew(0, waiting=3).per_second == 75
    assert workers[0].renew(0, waiting=1).per_second == 25
    workers[1].renew(0)
    assert workers[0].renew(0, waiting=1).per_second == 100


def test_who_hangs_holds_up_nobody(workers: list[Worker]) -> None:
    """What one does not fetch is there for the others, but for its part of a bucket."""
    workers[0].renew(0, want=50)
    workers[0].used()
    workers[1].renew(0, waiting=1)
    used = 0.0
    for step in range(1, 1001):
        workers[0].renew(step / 100, waiting=1, want=5)
        used += workers[0].used()
    assert used == pytest.approx(1000 - 25, abs=1)


def test_who_is_killed_waits_no_more(table: SharedTable, workers: list[Worker]) -> None:
    """What was a worker's part is the others' once its column is cleared."""
    workers[0].renew(0, want=50)
    workers[0].used()
    workers[1].renew(0, waiting=9)
    table.clear(1)
    workers[0].renew(0.1, waiting=1, want=50)
    assert workers[0].renew(0.2, waiting=1, want=0).tokens == pytest.approx(20)


def test_debt_is_everybodys(workers: list[Worker]) -> None:
    """What one has used and had not is missing for all, and not for longer than it takes to come."""
    workers[0].renew(0, want=50)
    workers[0].left = -20.0
    workers[0].renew(0)
    assert workers[1].renew(0.1, want=5).tokens == 0
    assert workers[1].renew(0.25, want=5).tokens == pytest.approx(5)


def test_debt_of_another_measure(workers: list[Worker]) -> None:
    """A debt that was small by the rate of before is not to last by that of now."""
    workers[0].renew(0, want=50)
    workers[0].left = -1000.0
    workers[0].renew(0)
    assert workers[0].renew(0, per_second=10.0).tokens == 0
    assert workers[0].renew(5.2, per_second=10.0).tokens == pytest.approx(1)


def test_looks_at_the_clock_first(workers: list[Worker]) -> None:
    """Time passes once, though one that has looked at the clock before another gets the lock after it."""
    workers[0].renew(0, want=50)
    workers[0].used()
    assert workers[1].renew(0.1, want=50).tokens == pytest.approx(10)
    assert workers[0].renew(0.0, want=50).tokens == 0
    assert workers[2].renew(0.2, want=50).tokens == pytest.approx(10)


def test_no_rate(workers: list[Worker]) -> None:
    """A rate of nothing lets a burst pass, and then nothing."""
    assert workers[0].renew(0, want=50, per_second=0).tokens == 50
    workers[0].used()
    assert workers[1].renew(1e6, want=50, per_second=0).tokens == 0


# Rows.


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedTable]:
    """A table for two buckets."""
    monkeypatch.setattr(table_module, "_WAYS", 2)
    monkeypatch.setattr(table_module, "RATES", 2)
    table = SharedTable(new_table(WORKERS), WORKERS, SECRET)
    yield table
    table.close()


def test_who_comes_back_has_what_was_left(table: SharedTable) -> None:
    """Forgetting a bucket and making it anew gives no burst."""
    Worker(table, 0).renew(0, want=50)
    assert Worker(table, 0).renew(0.1, want=50).tokens == pytest.approx(10)
    assert Worker(table, 1).renew(0.2, want=50).tokens == pytest.approx(10)
    assert Worker(table, 0, "another").renew(0.2, want=50).tokens == 50


def test_full_ones_are_given_again(small: SharedTable) -> None:
    """A row serves one after the other: each as soon as the one before has its tokens again."""
    first = Worker(small, 0, "first")
    for number in range(20):
        assert Worker(small, 0, f"client {number}").renew(number, want=50).tokens == 50
    assert first.renew(20, want=50).tokens == 50
    first.used()
    for number in range(2):
        assert Worker(small, 1, f"client {number}").renew(21, want=20).tokens == 20
    # Its row is another's now; and as both are in use, it has one for itself.
    with heard() as lines:
        assert first.renew(21, want=50).tokens == 50
        first.used()
        assert first.renew(21.1, want=50).tokens == pytest.approx(10)
        assert Worker(small, 2, "third").renew(21.1, want=50).tokens == 50
    assert lines == ["too many limits are in use at once: each worker counts further ones for itself"]
    first.used()
    assert first.renew(22, want=50).tokens == 50
    first.used()
    assert Worker(small, 1, "first").renew(22.1, want=50).tokens == pytest.approx(10), "together again"


def test_waiting_keeps_a_row(small: SharedTable) -> None:
    """Who has nothing left, and waits, does not lose its row to others that come."""
    worker = Worker(small, 0)
    worker.renew(0, waiting=1, want=50)
    for step in range(1, 100):
        worker.used()
        Worker(small, 1, f"client {step}").renew(step / 10, want=50)
        assert worker.renew(step / 10, waiting=1, want=0).tokens == pytest.approx(10)
