"""See :mod:`socksproxy.runtime.pool`."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from socksproxy.runtime.pool import DeadlinePassed, NoThread, Pool, PoolStopped, QueueFull

from ..support.proxy import PATIENCE, ClockedReactor, reactor, until

Waiting = Generator[Any, Any, None]
Make = Callable[..., Pool]


@pytest.fixture
def make() -> Iterator[Make]:
    """``make(...)``: a pool, which is stopped after the test."""
    made: list[Pool] = []

    def pool(reactor: Any = None, *, name: str = "tests", waiting: int = 100, **settings: Any) -> Pool:
        made.append(Pool(reactor, name=name, waiting=waiting, **settings))
        return made[-1]

    yield pool
    for one in made:
        one.stop()


class Gate:
    """Jobs that go on until the test opens the gate."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.begun: list[object] = []

    def __call__(self, number: object = 0) -> object:
        self.begun.append(number)
        assert self.event.wait(PATIENCE)
        return number


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Jobs that end with the test at the latest."""
    gate = Gate()
    yield gate
    gate.event.set()


def outcomes(pending: Deferred[Any]) -> list[Any]:
    """What comes of it; the exception of a failure."""
    results: list[Any] = []
    pending.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


def kinds(told: list[list[Any]]) -> list[list[type]]:
    """The types of what came."""
    return [[type(result) for result in results] for results in told]


@pytest_twisted.inlineCallbacks
def test_a_job_runs_in_a_thread(make: Make) -> Waiting:
    """The job runs in a thread, and its result comes in the reactor's."""
    pending = make(threads=1).run(lambda *numbers: (threading.current_thread(), sum(numbers)), 1, 2)
    thread, result = yield pending
    assert result == 3
    assert thread.daemon
    assert thread is not threading.current_thread()


@pytest_twisted.inlineCallbacks
def test_an_exception_is_the_callers(make: Make) -> Waiting:
    """An exception reaches the caller, and the thread goes on."""
    pool = make(threads=1)
    with pytest.raises(ZeroDivisionError):
        yield pool.run(lambda: 1 // 0)
    with pytest.raises(SystemExit):
        yield pool.run(sys.exit)
    assert (yield pool.run(abs, -1)) == 1


@pytest_twisted.inlineCallbacks
def test_shares_take_turns(make: Make, gate: Gate) -> Waiting:
    """A client that comes later waits for one job of another client, and not for all of them."""
    pool = make(threads=1)
    told = [outcomes(pool.run(gate, f"a{number}", share="a")) for number in range(3)]
    told.append(outcomes(pool.run(gate, "b0", share="b")))
    yield until(lambda: gate.begun)
    gate.event.set()
    yield until(lambda: all(told))
    assert gate.begun == ["a0", "a1", "b0", "a2"]


@pytest_twisted.inlineCallbacks
def test_a_share_occupies_a_part_of_the_threads(make: Make, gate: Gate) -> Waiting:
    """Jobs that hang leave threads to other clients, even after their caller has gone."""
    pool = make(threads=3, threads_per_share=2)
    hanging = [pool.run(gate, number, share="a") for number in range(5)]
    yield until(lambda: len(gate.begun) == 2)
    for pending in hanging:
        pending.addErrback(lambda failure: failure.trap(CancelledError))
        pending.cancel()
    more = [pool.run(gate, "more", share="a").addErrback(lambda failure: None) for _ in range(2)]
    assert (yield pool.run(abs, -1, share="b")) == 1
    assert (yield pool.run(abs, -2, share="b")) == 2
    assert gate.begun == [0, 1]
    gate.event.set()
    for pending in more:
        assert (yield pending) == "more"


@pytest_twisted.inlineCallbacks
def test_a_spare_thread_takes_the_place_of_an_abandoned_job(make: Make, gate: Gate) -> Waiting:
    """Jobs that hang and have no caller leave their places to other clients, up to a bound."""
    pool = make(threads=2, threads_per_share=1, spare=3)
    hanging = []
    for share in range(5):
        # Once all spare threads are at such jobs, the last two have the pool's own.
        hanging.append(pool.run(gate, share, share=share))
        yield until(lambda: len(gate.begun) == len(hanging))
        if share < 4:
            told = outcomes(hanging[-1])
            hanging[-1].cancel()
            assert kinds([told]) == [[CancelledError]]
    waiting = outcomes(pool.run(gate, "last", share="last"))
    assert pool.run(gate, "again", share=0).called is False
    gate.event.set()
    yield until(lambda: waiting and len(gate.begun) == 7)
    assert gate.begun[:5] == [0, 1, 2, 3, 4]
    yield until(lambda: pool._threads == 2)


@pytest_twisted.inlineCallbacks
def test_a_waiting_job_takes_the_place_of_one_that_is_late(make: Make, gate: Gate) -> Waiting:
    """A deadline frees the place at once, also for a job that waits already; its share stays occupied."""
    clock = Clock()
    pool = make(ClockedReactor(clock), threads=1, threads_per_share=1, spare=1, deadline=5.0)
    late = outcomes(pool.run(gate, "late", share="a"))
    yield until(lambda: gate.begun)
    clock.advance(3)
    own, other = outcomes(pool.run(abs, -1, share="a")), outcomes(pool.run(abs, -2, share="b"))
    clock.advance(2)
    yield until(lambda: other)
    assert kinds([late]) == [[DeadlinePassed]]
    assert (own, other) == ([], [2])
    gate.event.set()
    yield until(lambda: own)
    assert own == [1]


@pytest_twisted.inlineCallbacks
def test_the_longest_share_makes_room(make: Make, gate: Gate) -> Waiting:
    """A full queue refuses the flood, and not the client that has one job."""
    pool = make(threads=1, waiting=3)
    told = [outcomes(pool.run(gate, f"a{number}", share="a")) for number in range(4)]
    yield until(lambda: gate.begun)
    told.append(outcomes(pool.run(gate, "a4", share="a")))
    assert kinds(told) == [[], [], [], [], [QueueFull]]
    told.append(outcomes(pool.run(gate, "b0", share="b")))
    assert kinds(told) == [[], [], [], [QueueFull], [QueueFull], []]
    gate.event.set()
    yield until(lambda: all(told))
    assert gate.begun == ["a0", "a1", "b0", "a2"]


@pytest_twisted.inlineCallbacks
def test_a_cancelled_job_leaves_the_queue(make: Make, gate: Gate) -> Waiting:
    """A job whose caller has gone makes room at once, and never runs."""
    pool = make(threads=1, waiting=1)
    first, second = pool.run(gate, 1), pool.run(gate, 2)
    told = [outcomes(first), outcomes(second)]
    second.cancel()
    told.append(outcomes(pool.run(gate, 3)))
    gate.event.set()
    yield until(lambda: all(told))
    assert gate.begun == [1, 3]
    assert kinds(told) == [[int], [CancelledError], [int]]


@pytest_twisted.inlineCallbacks
def test_deadline(make: Make, gate: Gate) -> Waiting:
    """The caller is told at the deadline, whether its job runs or waits; the thread serves again later."""
    clock = Clock()
    pool = make(ClockedReactor(clock), threads=1, deadline=5.0)
    told = [outcomes(pool.run(gate, "hangs"))]
    yield until(lambda: gate.begun)
    clock.advance(3)
    told.append(outcomes(pool.run(gate, "waits")))
    clock.advance(2)
    assert kinds(told) == [[DeadlinePassed], []]
    clock.advance(3)
    assert kinds(told) == [[DeadlinePassed], [DeadlinePassed]]
    gate.event.set()
    assert (yield pool.run(abs, -1)) == 1
    assert gate.begun == ["hangs"]
    assert not clock.getDelayedCalls()


@pytest_twisted.inlineCallbacks
def test_stop(make: Make, gate: Gate) -> Waiting:
    """After the end callers are told at once, and new jobs are refused."""
    pool = make(threads=1)
    told = [outcomes(pool.run(gate)), outcomes(pool.run(gate))]
    yield until(lambda: gate.begun)
    pool.stop()
    told.append(outcomes(pool.run(gate)))
    assert kinds(told) == [[PoolStopped]] * 3
    pool.stop()


@pytest_twisted.inlineCallbacks
def test_threads_end_with_the_pool(make: Make) -> Waiting:
    """The threads of a pool that has no reference left end."""
    pool = Pool(name="forgotten", threads=2, waiting=1)
    yield pool.run(abs, 1)
    gone = weakref.ref(pool)
    del pool
    yield until(lambda: gc.collect() is not None and gone() is None)
    yield until(lambda: not [t for t in threading.enumerate() if t.name == "socksproxy forgotten"])


def test_no_thread(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without threads fails jobs, and not the process."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert kinds([outcomes(make(reactor, threads=1).run(abs, 1))]) == [[NoThread]]


HANGS = """
import threading
from twisted.internet import reactor
from socksproxy.runtime.pool import Pool

pool = Pool(reactor, name="hangs", threads=1, waiting=1)
pool.run(lambda: (reactor.callFromThread(reactor.stop), threading.Event().wait())).addErrback(lambda _: None)
reactor.run()
"""


def test_a_thread_that_hangs_does_not_hold_up_the_end() -> None:
    """The process ends, whatever a thread does."""
    subprocess.run([sys.executable, "-c", HANGS], check=True, timeout=PATIENCE)
