"""
The engine waits in the reactor's place, and the reactor's own come no later for it.

These tests are the notice, too: where a new Twisted is made differently from what
:mod:`socksproxy.relay.lingering` relies on, they fail.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ..support.relay import PATIENCE, Timed, an_engine, open_descriptors, reactor, socket_pair

if sys.platform != "linux":
    pytest.skip("the engine is Linux's", allow_module_level=True)

from twisted.internet.epollreactor import EPollReactor

from socksproxy.relay.engine import RelayEngine
from socksproxy.relay.epoll_events import READ
from socksproxy.relay.lingering import LONGEST, Lingering, lingering_for
from socksproxy.relay.pump import BUFFER_SIZE

Playing = Generator[Any, Any, None]

if type(reactor) is not EPollReactor:
    pytest.skip("only the epoll reactor's place is taken", allow_module_level=True)


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
    """Fires when the reactor is there again; for a delayed call the engine would not linger at all."""
    done: Deferred[None] = Deferred()
    reactor.callFromThread(done.callback, None)
    return done


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not to be the reason why it does not linger, and time not why it goes back."""
    monkeypatch.setattr("socksproxy.relay.lingering.LONGEST", PATIENCE)


class FakeReactor:
    """As much of a reactor as the waiting asks."""

    running = True

    def __init__(self) -> None:
        self.later: float | None = None

    def timeout(self) -> float | None:
        return self.later


class TestWaiting:
    """Who has something to do is found out, in a moment."""

    @pytest.fixture
    def pipes(self) -> Iterator[list[tuple[int, int]]]:
        pipes = [os.pipe(), os.pipe()]
        yield pipes
        for pipe in pipes:
            for descriptor in pipe:
                os.close(descriptor)

    @pytest.fixture
    def fake(self) -> FakeReactor:
        return FakeReactor()

    @pytest.fixture
    def waiting(self, fake: FakeReactor, pipes: list[tuple[int, int]]) -> Iterator[Any]:
        theirs, ours = select.epoll(), select.epoll()
        theirs.register(pipes[0][0], READ)
        ours.register(pipes[1][0], READ)
        waiting = Lingering(fake, theirs, ours)
        waiting.begin()
        waiting._until += PATIENCE  # a busy machine is not to be the reason
        yield waiting
        waiting.close()
        theirs.close()
        ours.close()

    def test_the_engine_alone(self, waiting: Any, pipes: list[tuple[int, int]]) -> None:
        os.write(pipes[1][1], b"x")
        assert waiting.goes_on()

    def test_the_reactor_alone(self, waiting: Any, pipes: list[tuple[int, int]]) -> None:
        os.write(pipes[0][1], b"x")
        assert not waiting.goes_on()

    def test_both(self, waiting: Any, pipes: list[tuple[int, int]]) -> None:
        """The reactor's epoll holds the engine's: that it has something is nothing to go by."""
        os.write(pipes[0][1], b"x")
        os.write(pipes[1][1], b"x")
        assert waiting.goes_on()

    def test_a_call_is_due(self, waiting: Any, fake: FakeReactor, pipes: list[tuple[int, int]]) -> None:
        """However busy the engine is."""
        os.write(pipes[1][1], b"x")
        fake.later = 0
        assert not waiting.goes_on()

    def test_a_call_will_be_due(self, waiting: Any, fake: FakeReactor) -> None:
        fake.later = 0.001
        assert not waiting.goes_on()

    def test_the_reactor_does_not_run(
        self, waiting: Any, fake: FakeReactor, pipes: list[tuple[int, int]]
    ) -> None:
        """An application that calls ``iterate`` itself, before or after: it wants to be back at once."""
        os.write(pipes[1][1], b"x")
        fake.running = False
        assert not waiting.goes_on()

    def test_time_is_up(self, waiting: Any, pipes: list[tuple[int, int]]) -> None:
        """An engine that is always busy does not keep whom nobody has thought of."""
        os.write(pipes[1][1], b"x")
        waiting._until -= PATIENCE + LONGEST
        assert not waiting.goes_on()

    def test_nobody_has_anything(self, waiting: Any) -> None:
        waiting.begin()
        assert not waiting.goes_on()


class TestReactors:
    """Only where it is known how the reactor is made."""

    def test_known(self) -> None:
        """This Twisted's reactor has what is relied on."""
        ours = select.epoll()
        lingering = lingering_for(reactor, ours)
        assert lingering is not None
        lingering.close()
        ours.close()

    def test_another_one(self) -> None:
        ours = select.epoll()
        assert lingering_for(Timed(Clock()), ours) is None
        ours.close()

    def test_made_differently(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then the engine does its work all the same, a turn for each batch."""
        monkeypatch.delattr(reactor, "_poller")
        ours = select.epoll()
        assert lingering_for(reactor, ours) is None
        ours.close()


class TestTurns:
    """What the reactor has to do is done, though the engine always has something."""

    @pytest_twisted.inlineCallbacks
    def test_several_batches_a_turn(self, engine: RelayEngine, patient: None) -> Playing:
        """What it is for: the reactor is not asked between one small message and the next."""
        told = []
        busy = Busy(engine)
        for _ in range(100):
            before = busy.told
            yield turn()
            told.append(busy.told - before)
        # A batch is one event here; a turn of the test's own reactor may have other things to do.
        assert max(told) > 1
        busy.close()

    @pytest_twisted.inlineCallbacks
    def test_no_more_than_a_batch(
        self, engine: RelayEngine, patient: None, monkeypatch: pytest.MonkeyPatch
    ) -> Playing:
        """Descriptors of the reactor's own wait for so many events, whoever's they are."""
        monkeypatch.setattr("socksproxy.relay.engine._BATCH", 5)
        busy = Busy(engine)
        for _ in range(100):
            before = busy.told
            yield turn()
            assert busy.told - before <= 2 * 5
        assert busy.told > 0
        busy.close()

    @pytest.mark.parametrize("what", ["bulk", "a note"])
    @pytest_twisted.inlineCallbacks
    def test_work_that_is_enough(self, engine: RelayEngine, patient: None, what: str) -> Playing:
        """After bulk, and where something is to be done in the next turn, the reactor is next."""

        def work(_: Busy) -> None:
            if what == "bulk":
                engine.spent += BUFFER_SIZE + 1
            else:
                engine.soon(lambda: None)

        busy = Busy(engine, work)
        for _ in range(100):
            before = busy.told
            engine.doRead()
            assert busy.told - before == 1
            yield turn()
        busy.close()

    @pytest_twisted.inlineCallbacks
    def test_delayed_calls(self, engine: RelayEngine, patient: None) -> Playing:
        """They are not kept, however long it might linger: here as long as a test may take."""
        busy = Busy(engine)
        for delay in (0, 0.001, 0.005):
            called: Deferred[None] = Deferred()
            reactor.callLater(delay, called.callback, None)
            yield called.addTimeout(PATIENCE, reactor)
        busy.close()

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
    @pytest.mark.usefixtures("patient")
    def test_the_engine_is_closed_meanwhile(self, told: int) -> None:
        """By a handler, in whatever batch: nothing is touched any more, and nothing is left open."""

        def close(busy: Busy) -> None:
            if busy.told == told:
                busy.engine.close()

        before = open_descriptors()
        with an_engine() as engine:
            busy = Busy(engine, close)
            while not engine.closed:
                engine.doRead()
        assert (busy.told, busy.aborted) == (told, 1)
        assert open_descriptors() == before

    @pytest_twisted.inlineCallbacks
    def test_a_fault_in_a_later_batch(self, engine: RelayEngine, patient: None) -> Playing:
        """It costs its own session, as in the first."""

        def fault(busy: Busy) -> None:
            if busy.told == 3:
                raise RuntimeError("a fault")

        faulty, healthy = Busy(engine, fault), Busy(engine)
        while not faulty.aborted or healthy.told < 20:
            yield turn()
        assert (faulty.told, faulty.aborted) == (3, 1)
        healthy.close()

    @pytest_twisted.inlineCallbacks
    def test_newcomers_are_told_in_the_next_batch(self, engine: RelayEngine, patient: None) -> Playing:
        """What is new in one batch is no stranger in those after it."""
        newcomers: list[Busy] = []
        told: list[int] = []

        def register(first: Busy) -> None:
            if not newcomers:
                newcomers.append(Busy(engine, lambda newcomer: told.append(first.told)))

        first = Busy(engine, register)
        while not told:
            yield turn()
        # Both are told in each batch from the second on.
        assert told[0] <= 2
        for busy in (first, *newcomers):
            busy.close()


_BUSY = """
import os, sys
sys.path.insert(0, {root!r})
from twisted.internet import epollreactor
epollreactor.install()
from twisted.internet import reactor
from twisted.internet.protocol import Protocol, ServerFactory
from socksproxy.relay.engine import RelayEngine
from tests.relay.test_lingering import Busy
engine = RelayEngine(reactor)
assert engine._lingering is not None
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_listeners_and_signals(number: signal.Signals) -> None:
    """A process whose engine is never still accepts clients, answers them, and ends when it is told to."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    process = subprocess.Popen(
        [sys.executable, "-c", _BUSY.format(root=root)],
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
