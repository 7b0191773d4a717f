"""Buckets and paces of all workers together: see :mod:`socksproxy.workers.rates`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock

from socksproxy.limits.buckets import Bucket, Meter
from socksproxy.limits.counting import Pace
from socksproxy.values.limits import Rate
from socksproxy.workers.counts import SharedCounting
from socksproxy.workers.shared_table import SharedTable, new_table

WORKERS = 3
SECRET = b"0123456789abcdef"


class Shared:
    """Several workers, in this process, with one clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.table = SharedTable(new_table(WORKERS), WORKERS, SECRET)
        self.workers = [
            SharedCounting(self.clock, self.table, number, self.clock.seconds) for number in range(WORKERS)
        ]

    def buckets(self, rate: Rate) -> list[Bucket]:
        return [worker.bucket("server upload", rate) for worker in self.workers]

    def run(self, seconds: float) -> None:
        """Let that much time pass, timer by timer."""
        end = self.clock.seconds() + seconds
        while calls := [call for call in self.clock.getDelayedCalls() if call.getTime() <= end]:
            self.clock.advance(max(min(call.getTime() for call in calls) - self.clock.seconds(), 0))
        self.clock.advance(end - self.clock.seconds())


@pytest.fixture
def shared() -> Iterator[Shared]:
    shared = Shared()
    yield shared
    shared.table.close()


class Greedy:
    """A session that moves as much as it may, at most 16 KiB at a time."""

    def __init__(self, bucket: Bucket) -> None:
        self.moved = 0
        self.meter = Meter([bucket])
        self.meter.owner = self

    def resume(self) -> None:
        while some := min(self.meter.take(), 16384):
            self.meter.spend(some)
            self.moved += some


class Slow(Greedy):
    """One that comes to wait again only a moment after its turn."""

    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        super().__init__(bucket)
        self._clock = clock

    def resume(self) -> None:
        self._clock.callLater(0.001, super().resume)


# Paces.


@given(
    steps=st.lists(
        st.tuples(st.integers(0, WORKERS - 1), st.integers(0, 32), st.none() | st.integers(1, 8)), max_size=80
    ),
    burst=st.none() | st.integers(1, 5),
)
def test_pace_of_one_process(steps: list[tuple[int, int, int | None]], burst: int | None) -> None:
    """Three workers let begin what one process would have, also when the rate changes."""
    shared, rate = Shared(), Rate(4, burst)
    paces = [worker.pace("user bob arrivals", rate) for worker in shared.workers]
    alone = Pace(shared.clock, rate)
    for number, passes, changed in steps:
        shared.clock.advance(passes / 16)
        if changed is not None:
            # Before it is another rate, what has come by the one of before is there.
            assert alone.take() == paces[number].take()
            alone.rate = Rate(changed, burst)
            for pace in paces:
                pace.rate = alone.rate
        assert paces[number].take() == alone.take()
    shared.table.close()


def test_pace_made_anew(shared: Shared) -> None:
    """Who has been forgotten has no second burst, and may be forgotten at any time."""
    first = shared.workers[0].pace("client 192.0.2.1 arrivals", Rate(1, 3))
    assert [first.take() for _ in range(4)] == [True, True, True, False]
    assert first.full
    again = shared.workers[0].pace("client 192.0.2.1 arrivals", Rate(1, 3))
    assert not again.take()
    shared.clock.advance(1)
    assert again.take()
    assert not first.take()


# Buckets.


def test_bucket_exact(shared: Shared) -> None:
    """Sessions in all workers move the rate together, and what was there at first."""
    sessions = [Greedy(bucket) for bucket in shared.buckets(Rate(1_000_000)) for _ in range(2)]
    for session in sessions:
        session.resume()
    shared.run(10)
    assert sum(session.moved for session in sessions) == pytest.approx(10_250_000, rel=0.02)


@pytest.mark.parametrize("per_second", [20_000, 1_000_000, 100_000_000])
@pytest.mark.parametrize("kind", ["at once", "a moment later"])
def test_bucket_fair(per_second: int, kind: str, shared: Shared) -> None:
    """Each session gets the same, wherever it is and however many are there with it."""
    buckets = shared.buckets(Rate(per_second))
    sessions = []
    for bucket, count in zip(buckets, (5, 1, 2), strict=True):
        for _ in range(count):
            sessions.append(Greedy(bucket) if kind == "at once" else Slow(bucket, shared.clock))
    for session in sessions:
        session.resume()
    shared.run(2)
    for session in sessions:
        session.moved = 0
    shared.run(20)
    moved = [session.moved for session in sessions]
    assert sum(moved) == pytest.approx(20 * per_second, rel=0.05)
    assert moved == pytest.approx([sum(moved) / 8] * 8, rel=0.1)


def test_bucket_idle_elsewhere(shared: Shared) -> None:
    """One worker's session may have all that there is, though others had some."""
    first, second, _ = shared.buckets(Rate(1_000_000))
    other = Greedy(second)
    other.resume()
    shared.run(1)
    other.meter.leave()
    session = Greedy(first)
    session.resume()
    shared.run(10)
    assert session.moved == pytest.approx(10_000_000, rel=0.05)


def test_bucket_changes_in_place(shared: Shared) -> None:
    """Another rate holds at once for those who wait, though workers hear of it one after the other."""
    buckets = shared.buckets(Rate(1_000_000))
    sessions = [Greedy(bucket) for bucket in buckets]
    for session in sessions:
        session.resume()
    shared.run(1)
    for bucket in buckets:
        bucket.rate = Rate(100_000)
        shared.run(0.01)
    shared.run(1)
    before = sum(session.moved for session in sessions)
    shared.run(10)
    assert sum(session.moved for session in sessions) - before == pytest.approx(1_000_000, rel=0.05)


def test_bucket_gives_back(shared: Shared) -> None:
    """What a worker has taken and not used is there for all, when it comes again or is forgotten."""
    first, second, _ = shared.buckets(Rate(1000, 30_000))
    assert first.available() > 0
    assert first.full
    total = 0
    while some := second.available():
        second.spend(some)
        total += some
    assert 30_000 - 512 < total <= 30_000


def test_bucket_keeps_old_leases_not(shared: Shared) -> None:
    """A lease that has not been used for long does not come on top of a full bucket."""
    first, *others = shared.buckets(Rate(1_000_000, 100_000))
    lease = first.available()
    assert 0 < lease < 100_000 / 4
    shared.run(10)
    total = 0
    for bucket in (first, *others):
        while some := bucket.available():
            bucket.spend(some)
            total += some
    assert total == pytest.approx(100_000, abs=1024)


def test_nothing_left_behind(shared: Shared) -> None:
    """When nobody waits there is no timer."""
    sessions = [Greedy(bucket) for bucket in shared.buckets(Rate(10_000))]
    for session in sessions:
        session.resume()
    shared.run(1)
    for session in sessions:
        session.meter.leave()
    assert shared.clock.getDelayedCalls() == []


# Processes.

#: Begins as often as it may; or moves what it may, with so many sessions; and tells how often, or how much.
COMMON = """
import sys, time
from twisted.internet import reactor
from socksproxy.limits.buckets import Meter
from socksproxy.values.limits import Rate
from socksproxy.workers.counts import SharedCounting
from socksproxy.workers.shared_table import SharedTable
descriptor, columns, column, count = map(int, sys.argv[1:])
table = SharedTable(descriptor, columns, b"0123456789abcdef")
counting = SharedCounting(reactor, table, column)
print("ready", flush=True)
begin, end = map(float, sys.stdin.readline().split())
"""
PACE = (
    COMMON
    + """
pace, taken = counting.pace("server arrivals", Rate(50, 50)), 0
while time.monotonic() < end:
    taken += pace.take()
print(taken)
"""
)
BUCKET = (
    COMMON
    + """
bucket = counting.bucket("server upload", Rate(1_000_000, 1_000_000))

class Greedy:
    moved = 0

    def __init__(self):
        self.meter = Meter([bucket])
        self.meter.owner = self

    def resume(self):
        while some := min(self.meter.take(), 16384):
            self.meter.spend(some)
            self.moved += some

sessions = [Greedy() for _ in range(count)]
for session in sessions:
    reactor.callLater(begin - time.monotonic(), session.resume)
reactor.callLater(end - time.monotonic(), reactor.stop)
reactor.run()
print(sum(session.moved for session in sessions))
"""
)


class Processes:
    """Several workers' processes."""

    def __init__(self, table: SharedTable, code: str, counts: tuple[int, ...]) -> None:
        self.all = [
            subprocess.Popen(
                [sys.executable, "-c", code, *map(str, (table.fileno(), WORKERS, column, count))],
                pass_fds=[table.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for column, count in enumerate(counts)
        ]

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *problem: object) -> None:
        for process in self.all:
            process.kill()
            process.communicate()

    def go(self, seconds: float) -> None:
        """Begin, all at the same time, and end after so many *seconds*."""
        for process in self.all:
            assert _out(process).readline() == "ready\n"
        begin = time.monotonic() + 0.1
        for process in self.all:
            assert process.stdin is not None
            process.stdin.write(f"{begin} {begin + seconds}\n")
            process.stdin.flush()

    def said(self, *numbers: int) -> list[int]:
        """What those of these numbers had to say."""
        return [int(_out(self.all[number]).readline()) for number in numbers]


def _out(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def test_pace_of_processes(shared: Shared) -> None:
    """As many begin, in all processes together, as may: not one more."""
    with Processes(shared.table, PACE, (1, 1, 1)) as processes:
        processes.go(3)
        total = sum(processes.said(0, 1, 2))
    # A tenth of a second more, as they begin when they have read when that is.
    assert total <= 50 + 50 * 3.1 + 1
    assert total >= 0.7 * (50 + 50 * 3)  # a busy machine does not begin all that may


def test_bucket_of_processes(shared: Shared) -> None:
    """Sessions of several processes move the rate together, and each as much as the next."""
    with Processes(shared.table, BUCKET, (3, 1, 2)) as processes:
        processes.go(5)
        moved = processes.said(0, 1, 2)
    assert 0.7 * 6_000_000 <= sum(moved) <= 1.1 * 6_000_000


def test_bucket_of_a_process_that_is_killed(shared: Shared) -> None:
    """Those that are left have it all, when the supervisor has cleared its column."""
    with Processes(shared.table, BUCKET, (4, 1, 1)) as processes:
        processes.go(5)
        time.sleep(1)
        processes.all[0].send_signal(signal.SIGKILL)
        processes.all[0].wait()
        shared.table.clear(0)
        moved = processes.said(1, 2)
    # In the first second all three had the burst and what came.
    assert 0.7 * 4_000_000 <= sum(moved) <= 6_100_000
