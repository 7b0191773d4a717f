"""When a wait sleeps, and when it asks without sleep: by a clock of the test's, and in the engine."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from itertools import accumulate, cycle, islice
from typing import Any

import pytest
import pytest_twisted

from ..support.relay import Harness, an_engine, reactor, read_exactly

if sys.platform != "linux":
    pytest.skip("the engine is Linux's", allow_module_level=True)

from socksproxy import SOCKSFactory
from socksproxy.relay.busy_poll import LONGEST_REST, BusyPoll, Events
from socksproxy.relay.epoll_events import READ
from socksproxy.values.errors import ConfigError

#: The setting of these tests, and the time of one question, in seconds.
MOST, QUESTION = 50e-6, 1e-6
SOMETHING: Events = [(7, READ)]


class Kernel:
    """
    In the place of an epoll: events come at given times, and a question takes a microsecond.

    :param times: when events come, in seconds, in order.
    :ivar asked: the questions that did not sleep.
    :ivar in_vain: those of them that found nothing.
    :ivar slept: the timeouts of those that did.
    """

    def __init__(self, *times: float) -> None:
        self.time = 0.0
        self.times = list(times)
        self.asked = self.in_vain = 0
        self.slept: list[float] = []
        self.busy = BusyPoll(self.poll, MOST, lambda: self.time)

    def poll(self, timeout: float, maxevents: int) -> Events:
        assert maxevents == 9
        self.time += QUESTION
        if timeout:
            self.slept.append(timeout)
            until = self.time + timeout if timeout > 0 else self.times[0]
            self.time = max(self.time, min([until, *self.times[:1]]))
        else:
            self.asked += 1
        if self.times and self.times[0] <= self.time:
            del self.times[0]
            return SOMETHING
        self.in_vain += not timeout
        return []

    def wait(self, timeout: float = -1) -> Events:
        return self.busy.poll(timeout, 9)


def test_events_that_come_soon() -> None:
    """The first wait sleeps. The others need no sleep, because each event comes soon after the one before."""
    kernel = Kernel(*(number * 30e-6 for number in range(1, 11)))
    for _ in range(10):
        assert kernel.wait() == SOMETHING
    assert kernel.slept == [-1]
    assert kernel.time < 310e-6


def test_rare_events() -> None:
    """Every wait sleeps at once."""
    kernel = Kernel(*(number * 1e-3 for number in range(1, 11)))
    for _ in range(10):
        assert kernel.wait() == SOMETHING
    assert (kernel.asked, len(kernel.slept)) == (0, 10)


def test_no_event_follows() -> None:
    """A wait asks in vain for the time that is set, not longer, and sleeps. The next one sleeps at once."""
    kernel = Kernel(30e-6, 1.0, 2.0)
    kernel.wait()
    assert kernel.wait() == SOMETHING
    assert 0 < kernel.asked <= MOST / QUESTION + 1
    before = kernel.asked
    kernel.wait()
    assert (kernel.asked, kernel.slept) == (before, [-1, -1, -1])


def gaps(*microseconds: float) -> list[float]:
    """The times of 3,000 events with these gaps between them, again and again."""
    return list(accumulate(islice(cycle(each * 1e-6 for each in microseconds), 3000)))


def random_gaps(mean: float) -> list[float]:
    source = random.Random(13)
    return gaps(*(source.expovariate(1 / mean) for _ in range(3000)))


VAIN = {
    "60 µs": gaps(60),
    "100 µs": gaps(100),
    "1 ms": gaps(1000),
    "every other one soon": gaps(30, 60),
    "an answer, and a client that thinks": gaps(20, 1000),
    "an answer, and a client that nearly comes soon": gaps(20, 51),
    "bursts": gaps(*[0] * 9, 300),
    "short bursts": gaps(20, 20, 300),
    "at random, 100 µs": random_gaps(100),
    "at random, 200 µs": random_gaps(200),
    "at random, 1 ms": random_gaps(1000),
}


@pytest.mark.parametrize("times", VAIN.values(), ids=VAIN)
def test_events_for_which_it_asks_in_vain(times: Sequence[float]) -> None:
    """Where fewer than half of the waits would find events, next to no time goes to questions in vain."""
    kernel = Kernel(*times)
    while kernel.times:
        assert kernel.wait() == SOMETHING
    assert kernel.in_vain * QUESTION < 0.025 * kernel.time
    assert kernel.time < times[-1] + 1e-3


@pytest.mark.parametrize("soon", [30, 45])
def test_events_come_soon_again(soon: float) -> None:
    """However long it has asked in vain, a few hundred events that come soon make it ask again."""
    kernel = Kernel(*gaps(20, 1000))
    while kernel.times:
        kernel.wait()
    kernel.times = [kernel.time + each for each in gaps(soon)]
    for _ in range(LONGEST_REST + 10):
        kernel.wait()
    kernel.slept.clear()
    while kernel.times:
        kernel.wait()
    assert kernel.slept == []


class SharedCore(Kernel):
    """
    The other end needs the core, and has it while the server sleeps.

    :ivar preempts: whether the other end also gets the core while the server asks, after a while.
    """

    preempts = False

    def poll(self, timeout: float, maxevents: int) -> Events:
        self.time += QUESTION
        if timeout:
            self.slept.append(timeout)
            self.time += 20e-6
            return SOMETHING
        self.asked += 1
        self.in_vain += 1
        if not self.preempts or self.in_vain % 20:
            return []
        self.time += 1e-3
        return SOMETHING


@pytest.mark.parametrize("preempts", [False, True])
def test_one_core_for_both_ends(preempts: bool) -> None:
    """It hardly asks: the answer comes late, or only once it sleeps."""
    kernel = SharedCore()
    kernel.preempts = preempts
    for _ in range(3000):
        assert kernel.wait() == SOMETHING
    assert len(kernel.slept) > 2950
    assert kernel.in_vain * QUESTION < 0.025 * kernel.time


def test_only_calls_of_the_reactor() -> None:
    """Waits that end because a delayed call is due, and not with an event, do not count as short."""
    kernel = Kernel()
    for _ in range(100):
        assert kernel.wait(20e-6) == []
    assert (kernel.asked, len(kernel.slept)) == (0, 100)


@pytest.mark.parametrize("timeout", [5e-6, 20e-6, 50e-6, 200e-6, 1e-3])
def test_a_delayed_call_is_due(timeout: float) -> None:
    """A wait is not longer than it may be, but for the last question and what follows it."""
    kernel = Kernel(30e-6)
    kernel.wait()
    before = kernel.time
    assert kernel.wait(timeout) == []
    assert timeout <= kernel.time - before <= timeout + 3 * QUESTION


def test_no_wait() -> None:
    """A question that is not to wait is one question."""
    kernel = Kernel(30e-6)
    kernel.wait()
    assert kernel.wait(0) == []
    assert (kernel.asked, len(kernel.slept)) == (1, 1)


@pytest.mark.parametrize("wrong", [-1, 1001, 0.5, True, "50"])
def test_wrong_settings(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="busy_poll: not a whole number from 0 to 1000"):
        SOCKSFactory(reactor, busy_poll=wrong)


@pytest.fixture
def timeouts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The timeouts with which the engine's epoll is asked where waits are busy."""
    asked: list[float] = []

    def recorded(poll: Callable[[float, int], Events], seconds: float) -> BusyPoll:
        def record(timeout: float, maxevents: int) -> Events:
            asked.append(timeout)
            return poll(timeout, maxevents)

        return BusyPoll(record, seconds)

    monkeypatch.setattr("socksproxy.relay.engine.BusyPoll", recorded)
    return asked


def echoes(client: socket.socket, destination: socket.socket) -> None:
    for number in range(100):
        data = bytes([number]) * (number + 1)
        client.sendall(data)
        destination.sendall(read_exactly(destination, len(data)))
        assert read_exactly(client, len(data)) == data


@pytest_twisted.inlineCallbacks
def test_a_relay(timeouts: list[float]) -> Generator[Any, Any, None]:
    """It moves the same bytes; and where the engine waits itself, it does so mostly without sleep."""
    with an_engine() as engine:
        engine.poll_busily(0.5)  # a machine that is busy makes no wait long
        harness = Harness("engine", engine)
        harness.start()
        yield harness.run(echoes)
        assert engine._joint is None or timeouts.count(0) > 100
        engine.poll_busily(0)
        timeouts.clear()
        yield harness.run(echoes)
        assert timeouts == []
        harness.close()
        yield harness.finished()


def test_settings() -> None:
    """The engine has the setting of the server that comes last, also after a reload."""
    factory = SOCKSFactory(reactor)
    other = SOCKSFactory(reactor, busy_poll=0)
    factory.doStart()
    try:
        engine = factory.context.engine
        assert engine is not None

        def of_engine() -> float:
            owner = getattr(engine._poll, "__self__", None)
            return owner._seconds if isinstance(owner, BusyPoll) else 0.0

        assert of_engine() == pytest.approx(50e-6)
        assert engine is other.context.engine
        assert of_engine() == 0.0
        factory.reconfigure(busy_poll=70)
        assert of_engine() == pytest.approx(70e-6)
        other.reconfigure(log_probes=True)
        assert of_engine() == pytest.approx(70e-6)
        factory.reconfigure(busy_poll=0)
        assert of_engine() == 0.0
    finally:
        factory.doStop()
        factory.stop_sessions()
