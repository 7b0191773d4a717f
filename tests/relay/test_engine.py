"""
What only the engine does: splicing, turns, descriptors, connections, its life.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from ..support.relay import (
    PATIENCE,
    Harness,
    Timed,
    an_engine,
    reactor,
    read_exactly,
    read_to_end,
    send_what_fits,
    socket_pair,
)

if sys.platform != "linux":
    pytest.skip("the engine is Linux's", allow_module_level=True)

from socksproxy.events import Cause
from socksproxy.relay import engine_for, pump
from socksproxy.relay.engine import RelayEngine
from socksproxy.relay.epoll_events import READ, WRITE
from socksproxy.relay.pipes import WANTED, Pipe, PipePool
from socksproxy.relay.pump import BUFFER_SIZE, EngineRelay

Playing = Generator[Any, Any, None]
BULK = os.urandom(1 << 20) * 6


@pytest.fixture
def engine() -> Iterator[RelayEngine]:
    with an_engine() as engine:
        yield engine


@pytest.fixture
def harness(engine: RelayEngine) -> Iterator[Harness]:
    harness = Harness("engine", engine)
    yield harness
    harness.close()


def bulk(client: socket.socket, destination: socket.socket, sent: int = 0) -> str:
    """Six megabytes upwards, *sent* of them already, and an orderly end; the hash of what arrived."""

    def send_the_rest() -> None:
        client.sendall(BULK[sent:])
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send_the_rest)
    sender.start()
    arrived = hashlib.sha256(read_to_end(destination)).hexdigest()
    sender.join()
    destination.close()
    assert read_to_end(client) == b""
    return arrived


def whole() -> str:
    return hashlib.sha256(BULK).hexdigest()


class Splicing:
    """
    In the place of ``splice``.

    :ivar moved: what each call has moved.
    :ivar fail_at: the number of the call from which on it fails.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moved: list[int] = []
        self.fail_at = sys.maxsize
        monkeypatch.setattr(pump, "_SPLICE", self)

    def __call__(self, *args: Any, **options: Any) -> int:
        if len(self.moved) + 1 >= self.fail_at:
            self.moved.append(0)
            raise OSError(errno.EINVAL, "Invalid argument")
        size = os.splice(*args, **options)
        self.moved.append(size)
        return size


@pytest.fixture
def splicing(monkeypatch: pytest.MonkeyPatch) -> Splicing:
    return Splicing(monkeypatch)


class Sips(PipePool):
    """Its pipes take a page at a time: what waits on a socket is many calls."""

    def take(self) -> Pipe | None:
        pipe = super().take()
        if pipe is not None:
            pipe.size = 4096
        return pipe


class TestSplice:
    """
    Bulk goes through pipes, and arrives where it cannot.

    The first buffers are full because they wait when the relay begins. Whether those
    that come later are depends on who is faster: the sender, the reader or the relay.
    """

    @pytest_twisted.inlineCallbacks
    def test_bulk_is_spliced(self, harness: Harness, engine: RelayEngine, splicing: Splicing) -> Playing:
        """Without it, bulk costs two copies a byte; afterwards every pipe is back and empty."""
        sent = harness.fill(BULK)
        waiting = harness.waiting()
        harness.start()
        assert (yield harness.run(partial(bulk, sent=sent))) == whole()
        yield harness.finished()
        # In and out: each byte twice, but for the first buffers.
        assert sum(splicing.moved) >= 2 * (waiting - 2 * BUFFER_SIZE)
        assert engine.pipes.lent == 0

    @pytest.mark.parametrize("fail_at", [1, 2, 3, 4, 7, 8])
    @pytest_twisted.inlineCallbacks
    def test_splice_fails_midway(self, splicing: Splicing, fail_at: int) -> Playing:
        """A kernel or a socket that cannot splice, found out in the middle: no byte is lost."""
        splicing.fail_at = fail_at
        with an_engine(pipes=Sips()) as engine:
            harness = Harness("engine", engine)
            sent = harness.fill(BULK)
            harness.start()
            assert (yield harness.run(partial(bulk, sent=sent))) == whole()
            yield harness.finished()
            harness.close()
        assert len(splicing.moved) >= fail_at
        assert engine.pipes.lent == 0

    @pytest.mark.parametrize(
        ("pool", "is_spliced"),
        [
            (PipePool(most=0), False),
            (PipePool(wanted=1 << 16), True),
            (PipePool(wanted=4096), True),
            (PipePool(keep=0), True),
            (Sips(), True),
        ],
        ids=["none to be had", "64 KiB", "what is had anyway", "none kept", "a page"],
    )
    @pytest_twisted.inlineCallbacks
    def test_other_pipes(self, splicing: Splicing, pool: PipePool, is_spliced: bool) -> Playing:
        """The pool exhausted, or the system stingy: it still works."""
        with an_engine(pipes=pool) as engine:
            harness = Harness("engine", engine)
            sent = harness.fill(BULK)
            harness.start()
            assert (yield harness.run(partial(bulk, sent=sent))) == whole()
            yield harness.finished()
            harness.close()
        assert bool(splicing.moved) is is_spliced
        assert pool.lent == 0

    @pytest_twisted.inlineCallbacks
    def test_reset_with_a_full_pipe(self, harness: Harness, engine: RelayEngine) -> Playing:
        """A pipe with bytes of a dead session in it never serves another one."""
        harness.fill(BULK)
        harness.start()
        half = harness.relay.client
        harness.destination.setblocking(False)
        deadline = reactor.seconds() + PATIENCE
        while not (half._pipe and half._pipe.held) and reactor.seconds() < deadline:
            send_what_fits(harness.client, BULK)
            yield deferLater(reactor, 0, lambda: None)
            if half._blocked and not (half._pipe and half._pipe.held):
                # All is full, and what is stuck is in a buffer: let it go on.
                with suppress(BlockingIOError):
                    harness.destination.recv(1 << 18)
        assert engine.pipes.lent == 1
        harness.relay.abort()
        yield harness.finished()
        assert engine.pipes.lent == 0
        again = Harness("engine", engine)
        sent = again.fill(BULK)
        again.start()
        assert (yield again.run(partial(bulk, sent=sent))) == whole()
        yield again.finished()
        again.close()


class Recorder:
    """A handler that remembers what it is told."""

    def __init__(self) -> None:
        self.masks: list[int] = []
        self.aborted = 0

    def event(self, mask: int) -> None:
        self.masks.append(mask)

    def abort(self) -> None:
        self.aborted += 1


class TestDescriptors:
    """Events reach whom they are for."""

    def test_closed_within_the_batch(self, engine: RelayEngine) -> None:
        """The first handler closes the second one's descriptor: its event is nobody's."""
        (a, b), (c, d) = socket_pair(), socket_pair()
        second = Recorder()

        class First(Recorder):
            def event(self, mask: int) -> None:
                super().event(mask)
                for sock, other in ((b, d), (d, b)):
                    if engine._handlers[sock.fileno()] is self:
                        engine.drop(other.fileno())
                        other.close()

        first = First()
        engine.register(b.fileno(), first, READ)
        engine.register(d.fileno(), first, READ)
        a.sendall(b"x")
        c.sendall(b"x")
        engine._round(0)
        assert len(first.masks) == 1
        assert second.masks == []
        for sock in (a, b, c, d):
            sock.close()

    def test_number_given_out_again_within_the_batch(self, engine: RelayEngine) -> None:
        """A stale event would tell a connection in progress that it is made."""
        pairs = [socket_pair(), socket_pair()]
        newcomer = Recorder()
        opened: list[socket.socket] = []

        class Recycler(Recorder):
            def event(self, mask: int) -> None:
                super().event(mask)
                victim = next(sock for _, sock in pairs if engine._handlers[sock.fileno()] is not self)
                number = victim.fileno()
                engine.drop(number)
                victim.close()
                fresh = socket.socket()
                assert fresh.fileno() == number
                opened.append(fresh)
                engine.register(number, newcomer, WRITE)

        handlers = [Recycler(), Recycler()]
        for (mine, relays), handler in zip(pairs, handlers, strict=True):
            engine.register(relays.fileno(), handler, READ)
            mine.sendall(b"x")
        engine._round(0)
        assert sum(len(handler.masks) for handler in handlers) == 1
        assert newcomer.masks == []
        for sock in [*opened, *(sock for pair in pairs for sock in pair)]:
            sock.close()

    def test_a_fault_costs_one_session(self, engine: RelayEngine) -> None:
        """An exception in one handler is logged, ends that handler, and reaches no other."""

        class Faulty(Recorder):
            def event(self, mask: int) -> None:
                raise RuntimeError("a fault")

        faulty, healthy = Faulty(), Recorder()
        pairs = [socket_pair(), socket_pair()]
        for (mine, relays), handler in zip(pairs, (faulty, healthy), strict=True):
            engine.register(relays.fileno(), handler, READ)
            mine.sendall(b"x")
        engine._round(0)
        assert faulty.aborted == 1
        assert healthy.masks == [READ]
        for pair in pairs:
            for sock in pair:
                sock.close()

    def test_forget_what_was_never_known(self, engine: RelayEngine) -> None:
        engine.forget(4711)
        assert not engine.closed


class TestTurns:
    """Bulk does not starve the rest of the application."""

    @pytest_twisted.inlineCallbacks
    def test_the_reactor_keeps_ticking(self) -> Playing:
        """Four bulk streams at full speed, and all together move but so much between two ticks of a timer."""
        stop = threading.Event()

        def flood(client: socket.socket, destination: socket.socket) -> None:
            def sink() -> None:
                while destination.recv(1 << 20):
                    pass

            reader = threading.Thread(target=sink)
            reader.start()
            while not stop.is_set():
                client.sendall(BULK)
            client.shutdown(socket.SHUT_WR)
            reader.join()
            destination.close()

        with an_engine(turn_bytes=1 << 20) as engine:
            harnesses = [Harness("engine", engine) for _ in range(4)]
            running = []
            for harness in harnesses:
                harness.fill(BULK)
                harness.start()
                running.append(harness.run(flood))

            def moved() -> int:
                return sum(harness.relay.sent for harness in harnesses)

            most, last = 0, moved()
            while last < 64 << 20:
                yield deferLater(reactor, 0, lambda: None)
                most, last = max(most, moved() - last), moved()
            stop.set()
            for harness, flooding in zip(harnesses, running, strict=True):
                yield flooding
                harness.client.close()
                yield harness.finished()
                assert harness.relay.sent > 0
        # Its events and its notes, each over by a pipe at the most, and what goes through the buffer.
        assert most <= 2 * (engine.turn_bytes + WANTED + 32 * BUFFER_SIZE)

    @pytest_twisted.inlineCallbacks
    def test_budget_is_shared(self) -> Playing:
        """With a budget of almost nothing a turn, every stream still gets through."""
        with an_engine(turn_bytes=1) as engine:
            harnesses = [Harness("engine", engine) for _ in range(3)]
            running = []
            for harness in harnesses:
                sent = harness.fill(BULK)
                harness.start()
                running.append(harness.run(partial(bulk, sent=sent)))
            for flowing in running:
                assert (yield flowing) == whole()
            for harness in harnesses:
                yield harness.finished()
                harness.close()

    @pytest_twisted.inlineCallbacks
    def test_soon(self, engine: RelayEngine) -> Playing:
        done: Deferred[str] = Deferred()
        engine.soon(lambda: done.callback("called"))
        assert not done.called
        assert (yield done) == "called"

    @pytest_twisted.inlineCallbacks
    def test_a_call_that_fails(self, engine: RelayEngine) -> Playing:
        """The calls and the streams that wait behind it have their turn all the same."""

        class Stream:
            queued = False

            def __init__(self) -> None:
                self.pumped: Deferred[None] = Deferred()

            def pump(self) -> None:
                self.pumped.callback(None)

        def fails() -> None:
            raise ZeroDivisionError

        done: Deferred[None] = Deferred()
        stream: Any = Stream()
        engine.soon(fails)
        engine.soon(lambda: done.callback(None))
        engine.again(stream)
        yield done.addTimeout(PATIENCE, reactor)
        yield stream.pumped.addTimeout(PATIENCE, reactor)


class TestLife:
    """One engine for a reactor, for as long as it is needed."""

    def test_one_for_a_reactor(self) -> None:
        first = engine_for(reactor)
        assert first is not None
        assert engine_for(reactor) is first
        first.close()
        second = engine_for(reactor)
        assert second is not None
        assert second is not first
        second.close()

    def test_none_for_a_reactor_that_watches_no_descriptors(self) -> None:
        from twisted.internet.task import Clock

        assert engine_for(Clock()) is None

    @pytest_twisted.inlineCallbacks
    def test_the_last_user_takes_it_along(self) -> Playing:
        engine = RelayEngine(reactor)
        engine.use()
        harness = Harness("engine", engine)
        harness.start()
        engine.leave()
        assert not engine.closed  # a session still needs it
        yield harness.run(lambda client, destination: (client.close(), destination.close()))
        yield harness.finished()
        assert engine.closed
        assert engine not in reactor.getReaders()

    @pytest_twisted.inlineCallbacks
    def test_close_ends_what_is_left(self) -> Playing:
        engine = RelayEngine(reactor)
        harness = Harness("engine", engine)
        harness.start()
        engine.close()
        ended = yield harness.finished()
        assert ended.how is Cause.ABORTED
        assert engine.closed
        harness.close()


_OTHER_REACTOR = """
import sys
from twisted.internet import {module}
{module}.install()
from twisted.internet import reactor
sys.path.insert(0, {root!r})
from twisted.internet.defer import inlineCallbacks
from tests.support.relay import Harness, an_engine
from tests.relay.test_engine import bulk, whole

@inlineCallbacks
def main():
    try:
        with an_engine() as engine:
            for _ in range(3):
                harness = Harness("engine", engine)
                harness.start(idle=60)
                assert (yield harness.run(bulk)) == whole(), "bytes differ"
                yield harness.finished()
                harness.close()
        print("relayed by", type(reactor).__name__)
    finally:
        reactor.stop()

reactor.callWhenRunning(main)
reactor.run()
"""


@pytest.mark.parametrize("module", ["epollreactor", "pollreactor", "selectreactor", "asyncioreactor"])
def test_under_every_reactor(module: str) -> None:
    """The engine is a reader like any other: it works wherever readers do."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, "-c", _OTHER_REACTOR.format(module=module, root=root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "relayed by" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("how", ["shutdown", "fork"])
def test_process(how: str) -> None:
    """A reactor that stops with sessions open, and one that forks, end cleanly and do not spin."""
    script = f"""
import os, sys
sys.path.insert(0, {os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))!r})
from twisted.internet import reactor
from tests.support.relay import Harness
from socksproxy.relay import engine_for
engine = engine_for(reactor)
harness = Harness("engine", engine)
harness.start()
harness.ended.addCallback(lambda relay: print("ended:", relay.how.value.words))
if {how!r} == "fork":
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
reactor.callLater(0.2, reactor.stop)
reactor.run()
print("cpu", sum(os.times()[:2]) < 20, "closed", engine.closed)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split("\n")[:2] == ["ended: aborted", "cpu True closed True"], (
        done.stdout + done.stderr
    )


@pytest_twisted.inlineCallbacks
def test_leaves_no_cycles() -> Playing:
    """A relay that has ended is freed at once; thousands that wait for the collector are much memory."""

    def scenario(client: socket.socket, destination: socket.socket) -> None:
        client.sendall(b"bye")
        client.close()
        assert read_to_end(destination) == b"bye"
        destination.close()

    with an_engine() as engine:
        harness = Harness("engine", engine)
        harness.start()
        relay = harness.relay
        yield harness.run(scenario)
        yield harness.finished()
        halves = [relay.client, relay.destination]
        for half in halves:
            assert not [other for other in gc.get_referents(half) if other is relay or other in halves]
            half.abort()  # somebody may still have it, and that is no harm
        assert (relay.sent, relay.received) == (3, 0)
        harness.close()


class Poll:
    """An epoll whose next waits fail with *problems*, once they have taken the events."""

    def __init__(self, epoll: Any, problems: list[Exception]) -> None:
        self._epoll = epoll
        self._problems = problems

    def poll(self, *arguments: Any) -> Any:
        events = self._epoll.poll(*arguments)
        if events and self._problems:
            raise self._problems.pop()
        return events


class TestFaults:
    """An exception that leaves doRead would have the reactor close the engine with all its sessions."""

    @pytest.mark.parametrize("problem", [MemoryError(), RuntimeError("unforeseen")])
    @pytest_twisted.inlineCallbacks
    def test_while_waiting(self, harness: Harness, engine: RelayEngine, problem: Exception) -> Playing:
        """Sessions go on, and no event is lost."""
        harness.start()
        yield harness.run(lambda client, destination: (client.sendall(b"a"), read_exactly(destination, 1)))
        failing = Poll(engine._epoll, [problem])
        engine._poll = failing.poll
        yield harness.run(lambda client, destination: (client.sendall(b"b"), read_exactly(destination, 1)))
        assert not engine.closed
        assert failing._problems == []

    @pytest_twisted.inlineCallbacks
    def test_of_one_that_cannot_even_end(self, harness: Harness, engine: RelayEngine) -> Playing:
        """It costs one session; a failure to end that one costs no other."""
        mine, theirs = socket_pair()

        class Broken:
            events = 0

            def event(self, mask: int) -> None:
                self.events += 1
                raise RuntimeError("unforeseen")

            def abort(self) -> None:
                raise MemoryError

        broken = Broken()
        engine.register(theirs.fileno(), broken)
        harness.start()
        mine.sendall(b"x")
        yield harness.run(lambda client, destination: (client.sendall(b"a"), read_exactly(destination, 1)))
        assert broken.events
        assert not engine.closed
        engine.forget(theirs.fileno())
        mine.close()
        theirs.close()

    @pytest_twisted.inlineCallbacks
    def test_in_an_idle_end(self, monkeypatch: pytest.MonkeyPatch) -> Playing:
        """One relay that fails to end keeps no other from ending."""
        clock = Clock()
        with an_engine(Timed(clock)) as engine:
            harnesses = [Harness("engine", engine) for _ in range(2)]
            for harness in harnesses:
                harness.start(idle=10)
            failures = [RuntimeError("unforeseen")]
            abort = EngineRelay.abort

            def fails_once(relay: EngineRelay, how: Cause = Cause.ABORTED) -> None:
                if failures:
                    raise failures.pop()
                abort(relay, how)

            monkeypatch.setattr(EngineRelay, "abort", fails_once)
            for _ in range(30):
                clock.advance(1)
            for harness in harnesses:
                assert (yield harness.finished()).how is Cause.IDLE
                harness.close()
