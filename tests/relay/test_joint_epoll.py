"""
The engine waits in the reactor's place, and what the reactor has to do waits no longer than one round.

These tests are the notice, too: where a new Twisted is made differently from what
:class:`socksproxy.twisted_internals.JointEpoll` relies on, they fail.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ..support.relay import PATIENCE, Harness, Timed, an_engine, open_descriptors, reactor, socket_pair

if sys.platform != "linux":
    pytest.skip("the engine is Linux's", allow_module_level=True)

from twisted.internet.base import ReactorBase
from twisted.internet.epollreactor import EPollReactor

from socksproxy.relay.engine import RelayEngine
from socksproxy.relay.epoll_events import READ
from socksproxy.relay.pump import BUFFER_SIZE
from socksproxy.twisted_internals import _WAITED_WITH, JointEpoll, join_epoll

Playing = Generator[Any, Any, None]
Events = Sequence[tuple[int, int]]

if type(reactor) is not EPollReactor:
    pytest.skip("only the epoll reactor's place is taken", allow_module_level=True)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Busy:
    """
    A handler of a socket that always has something to read.

    :ivar told: how often it was told so.
    :ivar aborted: how often it was ended.
    :param then: called every time it is told, with itself.
    """

    def __init__(self, engine: RelayEngine, then: Callable[[Busy], object] = lambda _: None) -> None:
        self.told = 0
        self.aborted = 0
        self.engine = engine
        self._then = then
        self._mine, self._other = socket_pair()
        engine.register(self._other.fileno(), self, READ)
        self._mine.sendall(b"x")

    def event(self, mask: int) -> None:
        self.told += 1
        self._then(self)

    def abort(self) -> None:
        self.aborted += 1
        self.close()

    def close(self) -> None:
        self.engine.drop(self._other.fileno())
        self._other.close()
        self._mine.close()


@pytest.fixture
def engine() -> Iterator[RelayEngine]:
    with an_engine() as engine:
        yield engine


def turn() -> Deferred[None]:
    """Fires when the reactor has had a turn; a delayed call would be due after each round."""
    done: Deferred[None] = Deferred()
    reactor.callFromThread(done.callback, None)
    return done


class FakeReactor:
    """As much of an epoll reactor as the waiting asks; time goes by when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.running = True
        self._justStopped = False
        self._poller: Any = select.epoll()
        self.seconds = self.clock.seconds
        self._newTimedCalls: list[Any] = []
        self._pendingTimedCalls: list[Any] = []

    def call_at(self, time: float) -> None:
        self._newTimedCalls.append(SimpleNamespace(time=time))

    def _insertNewDelayedCalls(self) -> None:
        self._pendingTimedCalls += self._newTimedCalls
        self._newTimedCalls.clear()


class Rounds:
    """
    In the place of the engine's rounds: each one is busy, and takes a millisecond.

    :param then: called in each round, with its number.
    :param events: of each round.
    :ivar timeouts: those that the rounds were given.
    """

    MOST = 4

    def __init__(self, fake: FakeReactor, then: Callable[[int], object], events: Events) -> None:
        self._fake = fake
        self._then = then
        self._events = events
        self.ours = select.epoll()
        self.timeouts: list[float] = []
        self.joint = JointEpoll(fake, self.ours, self, self.MOST)

    def __call__(self, timeout: float) -> Events:
        assert len(self.timeouts) < 100, "the reactor waits for ever"
        self.timeouts.append(timeout)
        self._fake.clock.advance(0.001)
        self._then(len(self.timeouts))
        theirs = [event for event in self.ours.poll(0) if event == self.joint._ready]
        return [*self._events, *theirs] if len(self._events) < self.MOST else self._events


class TestRounds:
    """How many rounds the reactor waits, and how long: by a clock of the test's."""

    ONE: Events = ((999, READ),)

    @pytest.fixture
    def fake(self) -> Iterator[FakeReactor]:
        fake = FakeReactor()
        epoll = fake._poller
        yield fake
        epoll.close()

    @pytest.fixture
    def pipe(self, fake: FakeReactor) -> Iterator[tuple[int, int]]:
        """One that the reactor reads."""
        reading, writing = os.pipe()
        fake._poller.register(reading, READ)
        yield reading, writing
        os.close(reading)
        os.close(writing)

    def poll(
        self,
        fake: FakeReactor,
        then: Callable[[int], object],
        events: Events = ONE,
        timeout: float = 0.5,
    ) -> tuple[Rounds, Events]:
        rounds = Rounds(fake, then, events)
        try:
            return rounds, fake._poller.poll(timeout, 10)
        finally:
            rounds.ours.close()

    @pytest.mark.parametrize("number", [1, 2, 30])
    def test_a_descriptor_of_the_reactor(self, fake: FakeReactor, pipe: tuple[int, int], number: int) -> None:
        """It becomes ready, and the very round that finds it ready is the last one."""
        rounds, events = self.poll(fake, lambda now: now == number and os.write(pipe[1], b"x"))
        assert events == [(pipe[0], READ)]
        assert len(rounds.timeouts) == number

    def test_a_full_round(self, fake: FakeReactor, pipe: tuple[int, int]) -> None:
        """With more sockets ready than a round handles, the reactor's may be left out: it is asked."""
        rounds, events = self.poll(fake, lambda now: os.write(pipe[1], b"x"), [*self.ONE] * Rounds.MOST)
        assert events == [(pipe[0], READ)]
        assert len(rounds.timeouts) == 1

    def test_a_round_that_goes_back(self, fake: FakeReactor, pipe: tuple[int, int]) -> None:
        """Much was moved: the reactor has its turn, though nothing is ready."""
        rounds, events = self.poll(fake, lambda now: now == 2 and setattr(fake._poller, "goes_back", True))
        assert (len(rounds.timeouts), list(events)) == (2, [])
        assert not rounds.joint.goes_back

    def test_a_full_round_and_nothing_else(self, fake: FakeReactor) -> None:
        rounds, events = self.poll(fake, lambda now: None, [*self.ONE] * Rounds.MOST)
        assert (len(rounds.timeouts), list(events)) == (1, [])

    @pytest.mark.parametrize("delay", [0, 0.001, 0.0095, 0.05])
    def test_a_delayed_call(self, fake: FakeReactor, delay: float) -> None:
        """It is no later than a round, however busy the engine is."""

        due: list[float] = []

        def call_later(now: int) -> None:
            if now == 3:
                due.append(fake.clock.seconds() + delay)
                fake.call_at(due[0])

        rounds, events = self.poll(fake, call_later)
        assert list(events) == []
        assert due[0] <= fake.clock.seconds() < due[0] + 0.001
        assert all(timeout <= delay + 1e-9 for timeout in rounds.timeouts[3:])

    def test_no_delayed_call(self, fake: FakeReactor) -> None:
        """The reactor waits without end."""

        def stop(now: int) -> None:
            fake.running = now < 3

        rounds, _ = self.poll(fake, stop, timeout=-1)
        assert rounds.timeouts == [-1, -1, -1]

    @pytest.mark.parametrize(("timeout", "count"), [(0, 1), (0.0025, 3), (0.0095, 10)])
    @pytest.mark.parametrize("later", [False, True])
    def test_iterate_of_a_reactor_that_runs(
        self, fake: FakeReactor, timeout: float, count: int, later: bool
    ) -> None:
        """An application waits as long as it says, with a busy engine, and with a later call or without."""
        if later:
            fake.call_at(5.0)
        rounds, events = self.poll(fake, lambda now: None, timeout=timeout)
        assert (len(rounds.timeouts), list(events)) == (count, [])
        assert all(waited <= timeout for waited in rounds.timeouts)

    def test_time_is_up(self, fake: FakeReactor) -> None:
        rounds, events = self.poll(fake, lambda now: None, [])
        assert (rounds.timeouts, list(events)) == ([0.5], [])

    @pytest.mark.parametrize("how", ["stop", "crash", "iterate"])
    def test_the_reactor_stops(self, fake: FakeReactor, how: str) -> None:
        """A handler stops it. Or it does not run, and an application calls ``iterate``."""
        fake.running = how != "iterate"

        def stop(now: int) -> None:
            if how == "stop":
                fake._justStopped = now == 2
            elif how == "crash":
                fake.running = now != 2

        rounds, events = self.poll(fake, stop)
        assert (len(rounds.timeouts), list(events)) == (1 if how == "iterate" else 2, [])

    def test_the_engine_leaves(self, fake: FakeReactor, pipe: tuple[int, int]) -> None:
        theirs = fake._poller
        joint: Any = None

        def leave(now: int) -> None:
            nonlocal joint
            if now == 2:
                joint = fake._poller
                joint.leave()

        rounds, events = self.poll(fake, leave)
        assert (len(rounds.timeouts), list(events)) == (2, [])
        assert fake._poller is theirs
        # A reactor that has kept the method waits with its own epoll.
        os.write(pipe[1], b"x")
        assert joint.poll(0, 10) == [(pipe[0], READ)]
        assert len(rounds.timeouts) == 2

    def test_another_one_has_the_place(self, fake: FakeReactor) -> None:
        """What another program has put there stays."""
        ours = select.epoll()
        joint = JointEpoll(fake, ours, lambda timeout: [], 4)
        theirs, fake._poller = joint._theirs, object()
        joint.leave()
        assert fake._poller is not theirs
        fake._poller = theirs
        ours.close()


class TestReactors:
    """Only where it is known how the reactor is made."""

    @pytest.mark.parametrize("missing", [None, "_poller", *_WAITED_WITH, "another", "taken"])
    def test_join(self, monkeypatch: pytest.MonkeyPatch, missing: str | None) -> None:
        """This Twisted's reactor has what is relied on; every other one keeps its place."""
        ours, theirs = select.epoll(), reactor._poller
        if missing == "_poller":
            monkeypatch.delattr(reactor, "_poller")
        elif missing == "_insertNewDelayedCalls":
            monkeypatch.delattr(ReactorBase, missing)
        elif missing in _WAITED_WITH:
            monkeypatch.delattr(reactor, missing)
        elif missing == "taken":
            monkeypatch.setattr(reactor, "_poller", object())
        joint = join_epoll(Timed(Clock()) if missing == "another" else reactor, ours, lambda timeout: [], 4)
        if joint is not None:
            joint.leave()
            assert reactor._poller is theirs
        ours.close()
        assert (joint is None) == (missing is not None)

    @pytest.mark.parametrize("missing", ["_poller", "taken"])
    @pytest_twisted.inlineCallbacks
    def test_an_engine_without_the_place(self, monkeypatch: pytest.MonkeyPatch, missing: str) -> Playing:
        """It is a reader of the reactor, and relays all the same."""
        with monkeypatch.context() as patched, an_engine() as first:
            if missing == "_poller":
                patched.setattr("socksproxy.relay.engine.join_epoll", lambda *arguments: None)
            with an_engine() as engine:
                assert first._joint is not None
                assert engine._joint is None
                assert engine in reactor.getReaders()
                busy = Busy(engine)
                while busy.told < 10:
                    yield turn()
                busy.close()
            assert engine not in reactor.getReaders()

    @pytest_twisted.inlineCallbacks
    def test_engines_come_and_go(self) -> Playing:
        """In any order: those that are left relay, and the reactor has its own epoll in the end."""
        theirs = reactor._poller
        first, second = RelayEngine(reactor), RelayEngine(reactor)
        first.close()
        third = RelayEngine(reactor)
        for engine in (second, third):
            busy = Busy(engine)
            while busy.told < 10:
                yield turn()
            busy.close()  # the engine leaves with its last handler
            assert engine.closed
        assert reactor._poller is theirs
        yield turn()


class TestTurns:
    """What the reactor has to do is done, though the engine always has something."""

    @pytest_twisted.inlineCallbacks
    def test_several_rounds_a_turn(self, engine: RelayEngine, monkeypatch: pytest.MonkeyPatch) -> Playing:
        """What it is for: the reactor is not asked between one small message and the next."""
        turns, run = [0], reactor.runUntilCurrent

        def counted() -> None:
            turns[0] += 1
            run()

        busy = Busy(engine)
        monkeypatch.setattr(reactor, "runUntilCurrent", counted)
        called: Deferred[int] = Deferred()
        reactor.callLater(0.05, lambda: called.callback(busy.told))
        assert (yield called) > 5 * turns[0]
        busy.close()

    @pytest_twisted.inlineCallbacks
    def test_bulk(self, engine: RelayEngine) -> Playing:
        """After each round of bulk the reactor is next."""
        called: Deferred[int] = Deferred()

        def work(busy: Busy) -> None:
            engine.spent += BUFFER_SIZE + 1
            if busy.told == 20:
                reactor.callFromThread(lambda: called.callback(turns[0]))

        turns, doing = [0], reactor.doIteration

        def counted(timeout: float) -> None:
            turns[0] += 1
            doing(timeout)

        vars(reactor)["doIteration"] = counted
        busy = Busy(engine, work)
        try:
            assert (yield called) >= 19
        finally:
            del vars(reactor)["doIteration"]
        busy.close()

    @pytest_twisted.inlineCallbacks
    def test_delayed_calls(self, engine: RelayEngine) -> Playing:
        """A call is due after the round in which its time comes."""
        busy = Busy(engine)
        for delay in (0, 0.001, 0.005):
            before = busy.told
            called: Deferred[int] = Deferred()
            reactor.callLater(delay, lambda called=called: called.callback(busy.told))
            told = yield called.addTimeout(PATIENCE, reactor)
            assert delay or told - before <= 1
        busy.close()

    @pytest_twisted.inlineCallbacks
    def test_calls_of_a_handler(self, engine: RelayEngine) -> Playing:
        """``callLater(0)`` and ``callFromThread`` from a handler come before its next event but one."""
        told: list[tuple[str, int]] = []

        def call(busy: Busy) -> None:
            if busy.told == 3:
                reactor.callLater(0, lambda: told.append(("later", busy.told)))
                reactor.callFromThread(lambda: told.append(("thread", busy.told)))

        busy = Busy(engine, call)
        while len(told) < 2:
            yield turn()
        busy.close()
        assert sorted(name for name, _ in told) == ["later", "thread"]
        assert all(count <= 4 for _, count in told)

    @pytest_twisted.inlineCallbacks
    def test_calls_of_threads(self, engine: RelayEngine) -> Playing:
        busy = Busy(engine)
        called: Deferred[None] = Deferred()
        thread = threading.Thread(target=reactor.callFromThread, args=(called.callback, None))
        thread.start()
        yield called.addTimeout(PATIENCE, reactor)
        thread.join()
        busy.close()

    @pytest.mark.parametrize("told", [1, 2, 5])
    @pytest_twisted.inlineCallbacks
    def test_the_engine_is_closed_meanwhile(self, told: int) -> Playing:
        """By a handler, in whatever round: nothing is touched any more, and nothing is left open."""

        def close(busy: Busy) -> None:
            if busy.told == told:
                busy.engine.close()

        before, theirs = open_descriptors(), reactor._poller
        with an_engine() as engine:
            busy = Busy(engine, close)
            while not engine.closed:
                yield turn()
        assert (busy.told, busy.aborted) == (told, 1)
        assert reactor._poller is theirs
        assert open_descriptors() == before

    @pytest_twisted.inlineCallbacks
    def test_a_handler_that_raises(self, engine: RelayEngine) -> Playing:
        """It costs its own session, in whatever round; relays and the reactor go on."""

        def fault(busy: Busy) -> None:
            if busy.told == 3:
                raise RuntimeError("a fault")

        faulty, healthy = Busy(engine, fault), Busy(engine)
        while not faulty.aborted or healthy.told < 20:
            yield turn()
        assert (faulty.told, faulty.aborted) == (3, 1)
        healthy.close()
        harness = Harness("engine", engine)
        harness.start()
        yield harness.run(lambda client, destination: (client.close(), destination.close()))
        yield harness.finished()

    @pytest_twisted.inlineCallbacks
    def test_newcomers_are_told_in_the_next_round(self, engine: RelayEngine) -> Playing:
        """What is new in one round is no stranger in those after it."""
        newcomers: list[Busy] = []
        told: list[int] = []

        def register(first: Busy) -> None:
            if not newcomers:
                newcomers.append(Busy(engine, lambda newcomer: told.append(first.told)))

        first = Busy(engine, register)
        while not told:
            yield turn()
        # Both are told in each round from the second on.
        assert told[0] <= 2
        for busy in (first, *newcomers):
            busy.close()


_HEAD = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
from twisted.internet import epollreactor
epollreactor.install()
from twisted.internet import reactor
from twisted.internet.protocol import Protocol, ServerFactory
from socksproxy.relay.engine import RelayEngine
from tests.relay.test_joint_epoll import Busy
engine = RelayEngine(reactor)
assert engine._joint is not None
"""

_BUSY = """
busy = Busy(engine)

class Greeting(Protocol):
    def connectionMade(self):
        self.transport.write(b"hello")

def listen():
    port = reactor.listenTCP(0, ServerFactory.forProtocol(Greeting), interface="127.0.0.1")
    print(port.getHost().port, flush=True)

reactor.callWhenRunning(listen)
reactor.run()
print("ended", engine.closed, busy.told > 0, flush=True)
"""

_STOPS = """
def stop(busy):
    # Nothing else happens: a reactor that is not asked again would wait for ever.
    busy._other.recv(1)
    reactor.{stop}()

busy = Busy(engine, stop)
reactor.run()
print("ended", engine.closed, busy.told, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_listeners_and_signals(number: signal.Signals) -> None:
    """A process whose engine is never still accepts clients, answers them, and ends when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HEAD + _BUSY],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.strip().isdigit(), first + process.stdout.read()
        port = int(first)
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                assert client.recv(5, socket.MSG_WAITALL) == b"hello"
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert said == "ended True True\n"


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_a_handler_stops_the_reactor(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + _STOPS.replace("{stop}", how)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"ended {how == 'stop'} 1\n", done.stdout + done.stderr
