"""Clients that are plain sockets from the start."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import tcp
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock, deferLater

from socksproxy import SOCKSFactory, Timeouts
from socksproxy.limits import Limits, ServerLimits
from socksproxy.limits.claims import PATIENCE as HEARD
from socksproxy.net.descriptors import DescriptorGate
from socksproxy.relay.engine import RelayEngine
from socksproxy.relay.epoll_events import READ as EVENT
from socksproxy.server import sockets as accept
from socksproxy.server.sockets import Acceptor, SocketChannel, take_over
from socksproxy.session.parts import Phase
from socksproxy.twisted_internals import change_factory

from ..conftest import Serve
from ..support.origin import Origin, answer_at_the_end, echo
from ..support.policy import Policy
from ..support.proxy import (
    PATIENCE,
    Playing,
    Proxy,
    greet,
    greeting,
    options_of,
    reactor,
    reply5,
    request5,
    until,
)
from ..support.relay import an_engine, is_reset, raw, read_to_end, reset, socket_pair
from ..support.routes import ScriptedRoute

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class FakeSession:
    """What a channel tells."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.on_data: Callable[[], None] = lambda: None

    def received(self, data: bytes) -> None:
        self.told.append(data)
        self.on_data()

    def read_closed(self) -> None:
        self.told.append("end")

    def lost(self, reset: bool) -> None:
        self.told.append("reset" if reset else "lost")

    def data(self) -> bytes:
        return b"".join(piece for piece in self.told if isinstance(piece, bytes))


class Channel:
    """A channel between a test's socket and a fake session, with a real engine."""

    def __init__(self, engine: RelayEngine) -> None:
        self.client, theirs = socket_pair()
        self.socket = raw(theirs)
        self.session = FakeSession()
        self.channel = SocketChannel(engine, reactor, self.socket)
        self.channel.session = self.session  # type: ignore[assignment]
        self.engine = engine

    def register(self) -> None:
        self.engine.register(self.socket.fileno(), self.channel)


@pytest.fixture
def channel() -> Iterator[Channel]:
    with an_engine() as engine:
        made = Channel(engine)
        yield made
        made.channel.abort()
        assert engine._registered == 0
        made.client.close()


class TestReading:
    """With edge triggering, what is not used up is never told of again."""

    @pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 8192, 50_000])
    @pytest_twisted.inlineCallbacks
    def test_sizes(self, channel: Channel, size: int) -> Playing:
        channel.client.sendall(bytes(size))
        channel.register()
        yield until(lambda: len(channel.session.data()) == size)
        channel.client.sendall(b"more")
        yield until(lambda: len(channel.session.data()) == size + 4)
        assert channel.session.told.count("end") == 0

    @pytest.mark.parametrize("size", [0, 1, 4096, 10_000])
    @pytest_twisted.inlineCallbacks
    def test_end_in_the_same_edge(self, channel: Channel, size: int) -> Playing:
        """A FIN that comes together with the last bytes has no edge of its own."""
        channel.client.sendall(bytes(size))
        channel.client.shutdown(socket.SHUT_WR)
        channel.register()
        yield until(lambda: "end" in channel.session.told)
        assert len(channel.session.data()) == size
        assert channel.session.told[-1] == "end"

    @pytest_twisted.inlineCallbacks
    def test_reset_after_the_end(self, channel: Channel) -> Playing:
        """Nobody reads any more who could notice: the event tells."""
        channel.client.shutdown(socket.SHUT_WR)
        channel.register()
        yield until(lambda: channel.session.told == ["end"])
        reset(channel.client)
        yield until(lambda: channel.session.told == ["end", "reset"])

    @pytest_twisted.inlineCallbacks
    def test_reset(self, channel: Channel) -> Playing:
        channel.register()
        reset(channel.client)
        yield until(lambda: channel.session.told == ["reset"])

    @pytest_twisted.inlineCallbacks
    def test_paused(self, channel: Channel) -> Playing:
        """A paused channel reads nothing more; what it has not read is still to be had."""
        channel.session.on_data = channel.channel.pause
        channel.client.sendall(bytes(20_000))
        channel.register()
        yield until(lambda: channel.session.told)
        channel.client.sendall(bytes(100))
        channel.client.shutdown(socket.SHUT_WR)
        yield until(lambda: channel.channel.missed & 0x2000)
        assert len(channel.session.data()) == 4096
        taken = channel.channel.detach()
        assert taken is channel.socket
        assert channel.channel.missed
        assert channel.channel.detach() is None
        channel.engine.drop(taken.fileno())
        taken.close()

    @pytest_twisted.inlineCallbacks
    def test_resumes_to_its_end(self, channel: Channel) -> Playing:
        """After a refusal what was held back is read away, up to the end."""
        channel.session.on_data = channel.channel.pause
        channel.client.sendall(bytes(10_000))
        channel.client.shutdown(socket.SHUT_WR)
        channel.register()
        yield until(lambda: channel.session.told)
        channel.session.on_data = lambda: None
        channel.channel.finish()
        assert channel.client.recv(1) == b""
        yield until(lambda: "end" in channel.session.told)
        assert len(channel.session.data()) == 10_000

    @pytest_twisted.inlineCallbacks
    def test_session_closes_while_reading(self, channel: Channel) -> Playing:
        """Nothing is read from a socket that the session has closed meanwhile."""
        channel.session.on_data = channel.channel.close
        channel.client.sendall(bytes(20_000))
        channel.register()
        yield until(lambda: channel.session.told)
        assert channel.session.told == [bytes(4096), "lost"]
        channel.channel.event(1)
        assert len(channel.session.told) == 2


class TestEnding:
    """Whatever is asked of a channel that is closed already, nothing happens, and nobody is told twice."""

    def test_twice(self, channel: Channel) -> None:
        channel.register()
        channel.channel.close()
        for again in (channel.channel.close, channel.channel.abort, channel.channel.finish):
            again()
        channel.channel.write(b"too late")
        assert channel.session.told == ["lost"]
        assert channel.client.recv(1) == b""
        assert channel.channel.detach() is None

    def test_abort_is_a_reset(self, channel: Channel) -> None:
        channel.register()
        channel.channel.abort()
        assert is_reset(channel.client)
        assert channel.session.told == ["lost"]

    def test_finish_when_the_peer_has_gone(self, channel: Channel) -> None:
        reset(channel.client)
        channel.channel.finish()
        assert channel.session.told == ["reset"]

    def test_write_when_the_peer_has_gone(self, channel: Channel) -> None:
        reset(channel.client)
        channel.channel.write(b"x")
        assert channel.session.told == ["reset"]

    def test_write_that_does_not_fit(self, channel: Channel) -> None:
        """A client that leaves no room for a reply has read nothing for long: it is not waited for."""
        channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with suppress(BlockingIOError):
            while True:
                channel.socket.send(bytes(65536))
        channel.channel.write(b"reply")
        assert channel.session.told == ["reset"]

    def test_write_that_fits_in_part(self, channel: Channel) -> None:
        """Half a reply is worse than none."""
        channel.channel.write(bytes(50_000_000))
        assert channel.session.told == ["reset"]


# Accepting.


class NoGate:
    """A gate that is always open."""

    paused = False

    def __init__(self) -> None:
        self.accepted_numbers: list[int] = []
        self.exhausted_ports: list[Any] = []
        self.failures: list[Any] = []

    def accepted(self, port: Any, descriptor: int) -> None:
        self.accepted_numbers.append(descriptor)

    def exhausted(self, port: Any) -> None:
        self.exhausted_ports.append(port)
        self.paused = True

    def failed(self, port: Any) -> None:
        self.failures.append(sys.exc_info()[1])
        self.paused = True


class Listening:
    """A port that only the test reads from."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(128)
        self.socket.setblocking(False)


class Accepting:
    """An acceptor whose turns are the test's."""

    def __init__(self, stack: ExitStack, **options: Any) -> None:
        self.records: list[dict[str, Any]] = []
        options.setdefault("log_probes", True)
        self.factory = SOCKSFactory(reactor, observer=self.records.append, **options)
        self.factory.doStart()
        self.port: Any = Listening()
        stack.callback(self.factory.doStop)
        stack.callback(self.factory.stop_sessions)
        stack.callback(self.port.socket.close)
        self.gate: Any = NoGate()
        self.acceptor = Acceptor(self.port, self.factory.sessions, self.gate)  # type: ignore[arg-type]
        self.stack = stack

    def come(self, count: int) -> list[socket.socket]:
        """*count* clients wait in the queue."""
        address = self.port.socket.getsockname()
        return [self.stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(count)]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_a_turn_has_a_bound(stack: ExitStack) -> None:
    """A crowd is accepted in several turns, between which others have theirs."""
    accepting = Accepting(stack)
    accepting.come(100)
    accepting.acceptor.doRead()
    assert len(accepting.factory.sessions.live) == 64
    accepting.acceptor.doRead()
    assert len(accepting.factory.sessions.live) == 100
    accepting.acceptor.doRead()
    assert len(accepting.gate.accepted_numbers) == 100


def test_options_are_inherited(stack: ExitStack) -> None:
    """Small messages go at once, urgent data stays, and a peer that has vanished is found out."""
    accepting = Accepting(stack, timeouts=Timeouts(keepalive=61, keepalive_interval=7, user_timeout=9))
    accepting.come(1)
    accepting.acceptor.doRead()
    (session,) = accepting.factory.sessions.live
    accepted = session.channel._socket  # type: ignore[attr-defined]
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert options_of(accepted) == (1, 1, 61, 7, 9000)
    assert not accepted.getblocking() if hasattr(accepted, "getblocking") else accepted.gettimeout() == 0


def test_other_options_after_a_reload(stack: ExitStack) -> None:
    """The next client has them, and one that is there keeps its own."""
    accepting = Accepting(stack)
    accepting.come(1)
    accepting.acceptor.doRead()
    accepting.factory.reconfigure(timeouts=Timeouts(keepalive=77, user_timeout=9))
    accepting.come(1)
    accepting.acceptor.doRead()
    accepted = [session.channel._socket for session in accepting.factory.sessions.live]  # type: ignore[attr-defined]
    told = {options_of(each)[:3:2] + options_of(each)[4:] for each in accepted}
    assert told == {(1, 60, 300_000), (1, 77, 9000)}


def ends(sock: socket.socket) -> bool:
    """Whether the peer ends the connection, in order or by a reset, and says nothing before."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def failing(problem: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise problem

    return fail


@pytest.mark.parametrize(
    "place",
    ["_accept", "sessions.begin", "engine.register", "gate.accepted", "SocketType", "SocketChannel"],
)
@pytest.mark.parametrize("problem", [MemoryError(), RuntimeError("unforeseen"), AssertionError()])
def test_survives_any_exception(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, place: str, problem: Exception
) -> None:
    """An exception that leaves doRead would have the reactor close the port for good."""
    accepting = Accepting(stack)
    owners = {
        "_accept": accepting.acceptor,
        "sessions.begin": accepting.factory.sessions,
        "engine.register": accepting.factory.sessions.context.engine,
        "gate.accepted": accepting.gate,
    }
    (client,) = accepting.come(1)
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(owners.get(place, accept), place.rpartition(".")[2], failing(problem))
        accepting.acceptor.doRead()
    assert accepting.gate.failures == [problem]
    if place == "gate.accepted":
        accepting.factory.stop_sessions()
    if place != "_accept":  # where the client still waits in the queue
        assert ends(client)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not accepting.factory.sessions.live
    assert len(accepting.factory.sessions.context.ledger) == 0
    accepting.gate.paused = False
    if place != "_accept":
        accepting.come(1)
    accepting.acceptor.doRead()
    assert len(accepting.factory.sessions.live) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_exhausted(stack: ExitStack, number: int) -> None:
    """The port is paused, once; the client stays in the queue."""
    accepting = Accepting(stack)
    accept = accepting.acceptor._accept

    def exhausted() -> Any:
        raise OSError(number, "no more")

    accepting.acceptor._accept = exhausted
    accepting.come(1)
    accepting.acceptor.doRead()
    assert accepting.gate.exhausted_ports == [accepting.port]
    accepting.gate.paused = False
    accepting.acceptor._accept = accept
    accepting.acceptor.doRead()
    assert len(accepting.factory.sessions.live) == 1


def test_client_gone_in_the_queue(stack: ExitStack) -> None:
    """The others behind it are accepted all the same."""
    accepting = Accepting(stack)
    accept = accepting.acceptor._accept
    problems = [OSError(errno.ECONNABORTED, "gone"), OSError(errno.EPERM, "filtered")]

    def some_fail() -> Any:
        if problems:
            raise problems.pop()
        return accept()

    accepting.acceptor._accept = some_fail
    accepting.come(2)
    accepting.acceptor.doRead()
    assert len(accepting.factory.sessions.live) == 2


def test_another_port_is_paused(stack: ExitStack) -> None:
    """This one pauses, too: a port that is readable and does not read would spin the reactor."""
    accepting = Accepting(stack)
    accepting.gate.paused = True
    accepting.come(1)
    accepting.acceptor.doRead()
    assert accepting.gate.exhausted_ports == [accepting.port]
    assert not accepting.factory.sessions.live


def test_paused_within_a_turn(stack: ExitStack) -> None:
    """The gate's word counts from one client to the next."""
    accepting = Accepting(stack)
    accepting.gate.accepted = lambda port, descriptor: setattr(accepting.gate, "paused", True)
    accepting.come(3)
    accepting.acceptor.doRead()
    assert len(accepting.factory.sessions.live) == 1


def test_no_room_in_epoll(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over max_user_watches: the client is reset, the session is no more, the next one may have luck."""
    accepting = Accepting(stack)
    engine = accepting.factory.sessions.context.engine

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "register", no_room)
        (client,) = accepting.come(1)
        accepting.acceptor.doRead()
    assert is_reset(client)
    assert not accepting.factory.sessions.live
    assert [record["ended"] for record in accepting.records] == ["aborted"]
    accepting.come(1)
    accepting.acceptor.doRead()
    assert len(accepting.factory.sessions.live) == 1


def test_dropped(stack: ExitStack) -> None:
    """One too many to be listened to: a reset, and no session, record or handler."""
    accepting = Accepting(stack, limits=ServerLimits(server=Limits(sessions=1)))
    clients = accepting.come(1 + HEARD + 1)
    accepting.acceptor.doRead()
    assert is_reset(clients[-1])
    assert len(accepting.factory.sessions.live) == 1 + HEARD
    assert accepting.factory.sessions.context.ledger.refusing == HEARD
    assert accepting.records == []


# Which ports.


@pytest_twisted.inlineCallbacks
def test_take_over() -> Playing:
    """Plain ports, and only where there is an engine; each keeps what else is Twisted's."""
    gate = DescriptorGate(reactor, lambda: 0)
    factory = SOCKSFactory(reactor)
    slow = SOCKSFactory(reactor, engine=False)
    for listener in ("tcp:0:interface=127.0.0.1", r"tcp6:0:interface=\:\:1"):
        port: Any = yield serverFromString(reactor, listener).listen(factory)
        assert not take_over(port, slow.sessions, gate)
        assert "doRead" not in vars(port)
        assert take_over(port, factory.sessions, gate)
        assert port.doRead.__func__ is Acceptor.doRead
        yield port.stopListening()

    class Special(tcp.Port):
        """Whose accepting may mean something else."""

    special = Special(0, factory, interface="127.0.0.1", reactor=reactor)
    special.startListening()
    assert not take_over(special, factory.sessions, gate)
    yield special.stopListening()
    assert not take_over(object(), factory.sessions, gate)


@pytest_twisted.inlineCallbacks
def test_take_over_needs_the_raw_accept() -> Playing:
    """On an interpreter whose sockets have no ``_accept``, Twisted accepts."""

    class Foreign:
        """A socket of another implementation."""

    factory = SOCKSFactory(reactor)
    port: Any = yield serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory)
    real, port.socket = port.socket, Foreign()
    assert not take_over(port, factory.sessions, DescriptorGate(reactor, lambda: 0))
    port.socket = real
    yield port.stopListening()


@pytest_twisted.inlineCallbacks
def test_opened(serve_as: Serve) -> Playing:
    """A port that is made ready before its first client accepts even that one straight; ours once."""
    proxy: Proxy = yield serve_as("early")
    proxy.factory.opened(proxy.port)
    accept = proxy.port.doRead
    proxy.factory.opened(proxy.port)
    assert proxy.port.doRead == accept
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        (session,) = proxy.sessions.live
        assert type(session.channel) is SocketChannel


@pytest_twisted.inlineCallbacks
def test_paced(serve_as: Serve) -> Playing:
    """Twisted's own accepting takes one in a turn, so that the gate can judge after each."""
    proxy: Proxy = yield serve_as("transports")
    turns: list[int] = []
    with ExitStack() as stack:
        proxy.factory.opened(proxy.port)
        for _ in range(3):
            stack.enter_context(proxy.connect())
        accept = proxy.port.doRead

        def counted() -> None:
            before = len(proxy.sessions.live)
            accept()
            turns.append(len(proxy.sessions.live) - before)

        proxy.port.doRead = counted
        yield until(lambda: len(proxy.sessions.live) == 3)
        assert max(turns, default=1) == 1


# Who watches a port.


def counted_accepts(proxy: Proxy, count: Callable[[], int] = lambda: 1) -> list[int]:
    """What the port's accepting finds: *count* for each client, and 0 for a call that finds none."""
    acceptor: Acceptor = proxy.port.doRead.__self__
    accept, found = acceptor._accept, []

    def counted() -> Any:
        found.append(0)
        client = accept()
        found[-1] = count()
        return client

    acceptor._accept = counted
    return found


def watching(proxy: Proxy) -> tuple[bool, bool]:
    """Whether the reactor watches the port, and whether the engine does."""
    acceptor: Acceptor = proxy.port.doRead.__self__
    engine = proxy.factory.context.engine
    assert engine is not None
    return proxy.port in reactor.getReaders(), acceptor in engine._handlers


@pytest_twisted.inlineCallbacks
def test_the_engine_watches(serve_as: Serve) -> Playing:
    """A session costs the reactor no reader; one who comes alone costs one call to accept."""
    proxy: Proxy = yield serve_as("accepted")
    proxy.factory.opened(proxy.port)
    assert watching(proxy) == (False, True)
    found = counted_accepts(proxy)
    for _ in range(5):
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
        yield until(lambda: not proxy.sessions.live)
    assert found == [1] * 5


@pytest_twisted.inlineCallbacks
def test_a_crowd(serve_as: Serve) -> Playing:
    """Of those who wait, twice as many are accepted in each round."""
    proxy: Proxy = yield serve_as("accepted")
    proxy.factory.opened(proxy.port)
    found = counted_accepts(proxy)
    engine = proxy.factory.context.engine
    assert engine is not None
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(proxy.connect())
        before = engine.rounds
        yield until(lambda: len(proxy.sessions.live) == 40)
        assert engine.rounds - before <= 10
    assert found.count(0) <= 1


@pytest_twisted.inlineCallbacks
def test_a_crowd_beside_many_others(serve_as: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Clients do not wait until all sockets that are ready have had their turns."""
    proxy: Proxy = yield serve_as("accepted")
    proxy.factory.opened(proxy.port)
    engine = proxy.factory.context.engine
    assert engine is not None
    told, pairs = [0], [socket_pair() for _ in range(40)]

    class Busy:
        """Has always something to read."""

        def event(self, mask: int) -> None:
            told[0] += 1

        def abort(self) -> None:
            """Nothing is left to do."""

    monkeypatch.setattr("socksproxy.relay.engine._BATCH", 2)
    for mine, theirs in pairs:
        engine.register(theirs.fileno(), Busy(), EVENT)
        mine.sendall(b"x")
    found = counted_accepts(proxy, lambda: told[0])
    with proxy.connect(), proxy.connect(), proxy.connect():
        yield until(lambda: len(proxy.sessions.live) == 3)
    assert max(found) < len(pairs)
    for mine, theirs in pairs:
        engine.forget(theirs.fileno())
        mine.close()
        theirs.close()


@pytest_twisted.inlineCallbacks
def test_paused_and_resumed(serve_as: Serve) -> Playing:
    """As Twisted's own port: no client is accepted meanwhile, and those who wait are accepted then."""
    proxy: Proxy = yield serve_as("accepted")
    proxy.port.stopReading()
    proxy.factory.opened(proxy.port)  # a port that is paused stays so
    assert watching(proxy) == (False, False)
    with proxy.connect() as sock:
        for _ in range(2):
            proxy.port.stopReading()
            yield deferLater(reactor, 0.01)
            assert not proxy.sessions.live
        proxy.port.startReading()
        proxy.port.startReading()
        assert watching(proxy) == (False, True)
        yield proxy.play(greet, sock)


@pytest_twisted.inlineCallbacks
def test_the_engine_closes(serve_as: Serve) -> Playing:
    """The reactor watches the port then, and the next client has a new engine."""
    proxy: Proxy = yield serve_as("accepted")
    proxy.factory.opened(proxy.port)
    engine = proxy.factory.context.engine
    assert engine is not None
    engine.close()
    assert watching(proxy) == (True, False)
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        second = proxy.factory.context.engine
        assert second is not None
        assert second is not engine
    yield until(lambda: not proxy.sessions.live)
    second.close()


@pytest.mark.parametrize("paused", [False, True])
@pytest_twisted.inlineCallbacks
def test_another_factory(serve_as: Serve, paused: bool) -> Playing:
    """A reload gives the port to another factory; the reactor watches it until that one takes it over."""
    proxy: Proxy = yield serve_as("accepted")
    proxy.factory.opened(proxy.port)
    if paused:
        proxy.port.stopReading()
    before, other = proxy.factory, SOCKSFactory(reactor)
    change_factory(proxy.port, other)
    assert "startReading" not in vars(proxy.port)
    assert (proxy.port in reactor.getReaders()) is not paused
    other.opened(proxy.port)
    proxy.port.startReading()
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        assert (len(before.sessions.live), len(other.sessions.live)) == (0, 1)
    change_factory(proxy.port, before)


@pytest_twisted.inlineCallbacks
def test_closed(serve_as: Serve) -> Playing:
    """Nothing watches a port that is closed, and its descriptor is free."""
    proxy: Proxy = yield serve_as("accepted")
    proxy.factory.opened(proxy.port)
    assert watching(proxy) == (False, True)
    acceptor = proxy.port.doRead.__self__
    yield proxy.port.stopListening()
    engine = proxy.factory.context._engine
    assert engine is None or engine.closed or acceptor not in engine._handlers
    assert proxy.port not in reactor.getReaders()


_OTHER_REACTOR = f"""
import socket, sys
from twisted.internet import MODULE
MODULE.install()
from twisted.internet import reactor
sys.path.insert(0, {ROOT!r})
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from socksproxy import SOCKSFactory
from tests.support.proxy import greeting, request5
from tests.support.origin import Origin, echo

def session(port, origin):
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(greeting())
        assert len(sock.recv(2, socket.MSG_WAITALL)) == 2
        sock.sendall(request5("127.0.0.1", origin))
        assert sock.recv(10, socket.MSG_WAITALL)[1] == 0
        sock.sendall(b"hello")
        assert sock.recv(5, socket.MSG_WAITALL) == b"hello"

@inlineCallbacks
def main():
    try:
        factory = SOCKSFactory(reactor)
        port = yield serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory)
        factory.opened(port)
        assert port not in reactor.getReaders()
        with Origin(echo) as origin:
            for _ in range(3):
                yield deferToThread(session, port.getHost().port, origin.port)
        yield port.stopListening()
        print("served by", type(reactor).__name__)
    finally:
        reactor.stop()

reactor.callWhenRunning(main)
reactor.run()
"""


@pytest.mark.parametrize("module", ["epollreactor", "pollreactor", "selectreactor", "asyncioreactor"])
def test_under_every_reactor(module: str) -> None:
    """The engine watches the port wherever there is an engine."""
    done = subprocess.run(
        [sys.executable, "-c", _OTHER_REACTOR.replace("MODULE", module)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "served by" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_opened_with_another_kind_of_port() -> None:
    """Whatever listens, nothing is done to what is not known."""
    SOCKSFactory(reactor).opened(object())


@pytest_twisted.inlineCallbacks
def test_closed_while_paused(serve: Serve) -> Playing:
    """A port that was closed while it was paused stays closed, and others go on."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock)
    other: Any = yield serverFromString(reactor, "tcp:0:interface=127.0.0.2").listen(proxy.factory)
    gate = proxy.factory._gate
    gate.exhausted(other)
    gate.exhausted(proxy.port)
    yield other.stopListening()
    with proxy.connect() as sock:
        clock.advance(1)
        assert not gate.paused
        yield proxy.play(greet, sock)
    assert other not in reactor.getReaders()


# From a client's socket to a relay.


@pytest_twisted.inlineCallbacks
def test_no_room_for_the_relay(serve_as: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A client's socket that epoll has no room for: the session ends, and both connections with it."""
    ended: list[bytes] = []

    def until_the_end(sock: socket.socket) -> None:
        try:
            ended.append(read_to_end(sock))
        except ConnectionResetError:
            ended.append(b"reset")

    with Origin(until_the_end) as origin:
        proxy: Proxy = yield serve_as("detached")
        engine = proxy.sessions.context.engine
        assert engine is not None
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            register = engine.register
            dialed: list[int] = []

            def only_the_destination(fd: int, handler: Any, *more: Any) -> None:
                if dialed:
                    raise OSError(errno.ENOSPC, "no room")
                dialed.append(fd)
                register(fd, handler, *more)

            monkeypatch.setattr(engine, "register", only_the_destination)
            sock.sendall(request5("127.0.0.1", origin.port))
            yield proxy.play(reply5, sock)
            assert (yield proxy.play(is_reset, sock))
        record = yield proxy.record()
        yield until(lambda: ended)
    assert record["ended"] == "client lost"
    assert ended == [b"reset"]


def over_transports(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way out gives Twisted's transports."""
    real = proxy.sessions.context.route
    monkeypatch.setattr(
        proxy.sessions.context, "route", ScriptedRoute(lambda address: real.dial(address, False))
    )


@pytest.mark.parametrize("early", [b"", b"early"])
@pytest_twisted.inlineCallbacks
def test_joins_a_transport(serve_as: Serve, early: bytes, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A way out that gives a transport is joined to a client's plain socket all the same."""
    with Origin(answer_at_the_end) as origin:
        proxy: Proxy = yield serve_as("accepted")
        over_transports(proxy, monkeypatch)
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", origin.port) + early)
            assert (yield proxy.play(reply5, sock))[0] == 0
            sock.sendall(bytes(300_000))
            sock.shutdown(socket.SHUT_WR)
            answer = yield proxy.play(read_to_end, sock)
            assert answer.startswith(b"%d " % (300_000 + len(early)))
        record = yield proxy.record()
    assert record["ended"] == "client"
    assert record["sent"] == 300_000 + len(early)


@pytest.mark.parametrize("kind", ["accepted", "detached"])
@pytest_twisted.inlineCallbacks
def test_cannot_join(serve_as: Serve, kind: str, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """No descriptor for the copy that a transport needs: the session ends, and is not left behind."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve_as(kind)

        def no_more(*_: object) -> None:
            raise OSError(errno.EMFILE, "no more")

        if kind == "accepted":
            over_transports(proxy, monkeypatch)
        else:
            monkeypatch.setattr("socksproxy.server.factory.detach_socket", lambda transport: None)
        monkeypatch.setattr(reactor, "adoptStreamConnection", no_more)
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", origin.port))
            yield proxy.play(read_to_the_end_of_it, sock)
        record = yield proxy.record()
        assert not proxy.sessions.live
    assert record["ended"] == "internal error"


def read_to_the_end_of_it(sock: socket.socket) -> None:
    try:
        read_to_end(sock)
    except ConnectionResetError:
        return


@pytest_twisted.inlineCallbacks
def test_not_detachable_after_all(serve_as: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A transport that keeps its socket is relayed over, though the destination's is a plain one."""
    with Origin(answer_at_the_end) as origin:
        proxy: Proxy = yield serve_as("detached")
        monkeypatch.setattr("socksproxy.server.factory.detach_socket", lambda transport: None)
        with proxy.connect() as sock:
            sock.sendall(greeting() + request5("127.0.0.1", origin.port) + b"early ")
            yield until(lambda: [s for s in proxy.sessions.live if s.phase is Phase.RELAYING])
            sock.sendall(bytes(100_000))
            sock.shutdown(socket.SHUT_WR)
            answer = yield proxy.play(read_to_end, sock)
        assert answer[12:].startswith(b"100006 ")
        record = yield proxy.record()
    assert record["ended"] == "client"


@pytest.mark.parametrize("refused", [False, True], ids=["granted", "refused"])
@pytest_twisted.inlineCallbacks
def test_gone_under_the_reply(serve: Serve, refused: bool, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A client that is found gone when it is told: its new connection is closed, the record is true."""
    closed: list[bool] = []

    def until_the_end(sock: socket.socket) -> None:
        with suppress(ConnectionResetError):
            read_to_end(sock)
        closed.append(True)

    with Origin(until_the_end) as origin:
        proxy: Proxy = yield serve(policy=Policy({"127.0.0.1": not refused}))
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            (session,) = proxy.sessions.live
            write = session.channel.write

            def gone(data: bytes) -> None:
                session.lost(True)
                write(data)

            monkeypatch.setattr(type(session.channel), "write", lambda channel, data: gone(data))
            sock.sendall(request5("127.0.0.1", origin.port))
            record = yield proxy.record()
            monkeypatch.undo()
            session.channel.abort()
        if not refused:
            yield until(lambda: closed)
    assert record["ended"] == "client reset"
    assert record["reached"] == (None if refused else f"127.0.0.1:{origin.port}")
    assert record["reply"] == (2 if refused else 0)
