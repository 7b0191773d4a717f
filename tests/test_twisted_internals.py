"""
The private parts of Twisted that :mod:`socksproxy.twisted_internals` relies on.

Each part has a test with the Twisted that is installed, which fails where a new Twisted is made differently,
and a test of the fallback.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import ssl as tls_module
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import endpoints, ssl, tcp
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.python.systemd import ListenFDs
from zope.interface import implementer

from socksproxy import twisted_internals
from socksproxy.twisted_internals import (
    SharedUNIXPort,
    accept_with,
    can_half_close,
    change_factory,
    detach_socket,
    handles_signal,
    has_canceller,
    inner_endpoint,
    innermost,
    is_default_resolver,
    is_detachable,
    is_paused,
    is_tls,
    keep_socket_open,
    leave_descriptor_alone,
    place_of_endpoint,
    read_at_most,
    reads_header,
    replace_protocol,
    socket_of,
    systemd_sockets,
    tls_options_of,
    without_header,
)

from .support.certificates import self_signed
from .support.logs import log_publisher
from .support.relay import PATIENCE, open_descriptors, reactor, read_exactly, read_to_end, reset

Playing = Generator[Any, Any, None]
KINDS = ["tcp server", "tcp client", "tcp6 server", "adopted", "unix server", "unix client"]


@implementer(IHalfCloseableProtocol)
class Told(Protocol):
    """Writes down what it is told. :ivar lost: fires when the connection is gone."""

    def __init__(self, made: Deferred[Told]) -> None:
        self._made = made
        self.data = b""
        self.told: list[str] = []
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def readConnectionLost(self) -> None:
        self.told.append("read closed")

    def writeConnectionLost(self) -> None:
        self.told.append("write closed")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append("lost")
        self.lost.callback(None)


class Pair:
    """
    A Twisted transport and the test's own blocking socket at its other end.

    :ivar protocol: the transport's protocol, once connected.
    :ivar peer: the test's socket.
    """

    protocol: Told

    def __init__(self, directory: Path) -> None:
        self._path = str(directory / "s")
        self._made: Deferred[Told] = Deferred()
        self._ports: list[Any] = []
        self._listening: socket.socket | None = None
        self.peer = socket.socket()

    @property
    def transport(self) -> Any:
        return self.protocol.transport

    def connect(self, kind: str) -> Deferred[None]:
        """Connect them; *kind* is one of :data:`KINDS`."""
        name, _, end = kind.partition(" ")
        if kind == "adopted":
            self._adopt()
        elif end == "server":
            self._serve(name)
        else:
            self._dial(name)
        self._made.addTimeout(PATIENCE, reactor)
        return self._made.addCallback(self._connected)

    def _connected(self, protocol: Told) -> None:
        self.protocol = protocol
        if self._listening is not None:
            self.peer.close()
            self.peer, _ = self._listening.accept()
            self._listening.close()
        self.peer.settimeout(PATIENCE)
        for port in self._ports:
            port.stopListening()

    def _serve(self, name: str) -> None:
        factory = ServerFactory.forProtocol(lambda: Told(self._made))
        if name == "unix":
            self._ports.append(reactor.listenUNIX(self._path, factory))
            self._connect_peer(socket.AF_UNIX, self._path)
            return
        family, host = (socket.AF_INET6, "::1") if name == "tcp6" else (socket.AF_INET, "127.0.0.1")
        port = reactor.listenTCP(0, factory, interface=host)
        self._ports.append(port)
        self._connect_peer(family, (host, port.getHost().port))

    def _connect_peer(self, family: int, address: Any) -> None:
        self.peer.close()
        self.peer = socket.socket(family)
        self.peer.connect(address)

    def _dial(self, name: str) -> None:
        family, address = (
            (socket.AF_UNIX, self._path) if name == "unix" else (socket.AF_INET, ("127.0.0.1", 0))
        )
        factory = ClientFactory.forProtocol(lambda: Told(self._made))
        self._listening = listening = socket.socket(family)
        listening.bind(address)
        listening.listen(1)
        if name == "unix":
            reactor.connectUNIX(self._path, factory)
        else:
            reactor.connectTCP(*listening.getsockname(), factory)

    def _adopt(self) -> None:
        self.peer.close()
        self.peer, theirs = socket.socketpair(socket.AF_UNIX)
        with theirs:
            theirs.setblocking(False)
            factory = ServerFactory.forProtocol(lambda: Told(self._made))
            reactor.adoptStreamConnection(theirs.fileno(), socket.AF_UNIX, factory)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.peer.close()


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[LogEvent]]:
    """What this project logs during the test; nothing was warned of before."""
    monkeypatch.setattr(twisted_internals, "_warned", False)
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"] == "socksproxy":
            events.append(event)

    log_publisher.addObserver(observe)
    yield events
    log_publisher.removeObserver(observe)


def turn() -> Deferred[None]:
    """A turn of the reactor or two."""
    return deferLater(reactor, 0.02, lambda: None)


def detached(transport: Any) -> socket.SocketType:
    """The socket of *transport*, which can be had."""
    link = detach_socket(transport)
    assert link is not None
    return link


@pytest.mark.parametrize("kind", KINDS)
class TestEveryTransport:
    """Each kind that the server meets gives its socket."""

    @pytest_twisted.inlineCallbacks
    def test_alive(self, pair: Pair, kind: str, warnings: list[LogEvent]) -> Playing:
        """Bytes both ways, both half-closes, and not a word of warning."""
        yield pair.connect(kind)
        assert is_detachable(pair.transport)
        link = detached(pair.transport)
        assert warnings == []
        assert link.family == pair.peer.family
        assert link.type & socket.SOCK_STREAM
        with pytest.raises(BlockingIOError):
            link.recv(1)
        link.send(b"hello")
        assert (yield deferToThread(read_exactly, pair.peer, 5)) == b"hello"
        pair.peer.sendall(b"world")
        assert readable(link)
        assert link.recv(10) == b"world"
        pair.peer.shutdown(socket.SHUT_WR)
        assert readable(link)
        assert link.recv(10) == b""
        link.send(b"more")
        link.close()
        assert (yield deferToThread(read_to_end, pair.peer)) == b"more"

    @pytest_twisted.inlineCallbacks
    def test_twisted_has_let_go(self, pair: Pair, kind: str) -> Playing:
        """No reader, no writer, no word to the protocol; the socket outlives the transport."""
        yield pair.connect(kind)
        protocol, transport = pair.protocol, pair.transport
        link = detached(transport)
        number = link.fileno()
        assert transport not in reactor.getReaders()
        assert transport not in reactor.getWriters()
        assert transport.fileno() == -1
        pair.peer.sendall(b"not for the protocol")
        yield turn()
        for late in ("loseConnection", "abortConnection"):
            getattr(transport, late)()
        transport.write(b"nothing of this")
        yield turn()
        assert (protocol.data, protocol.told) == (b"", [])
        del protocol, transport, pair.protocol
        gc.collect()
        yield turn()
        assert link.fileno() == number
        assert link.recv(100) == b"not for the protocol"
        link.send(b"alive")
        assert (yield deferToThread(read_exactly, pair.peer, 5)) == b"alive"
        link.close()
        assert (yield deferToThread(read_to_end, pair.peer)) == b""

    @pytest_twisted.inlineCallbacks
    def test_for_another_epoll(self, pair: Pair, kind: str) -> Playing:
        """The engine registers it with its own, and the number is free when it is closed."""
        yield pair.connect(kind)
        link = detached(pair.transport)
        if hasattr(select, "epoll"):
            with select.epoll() as epoll:
                epoll.register(link.fileno(), select.EPOLLIN)
                pair.peer.sendall(b"x")
                assert epoll.poll(PATIENCE) == [(link.fileno(), select.EPOLLIN)]
        entry = f"{link.fileno()} {os.readlink(f'/proc/self/fd/{link.fileno()}')}"
        assert entry in open_descriptors()
        link.close()
        assert entry not in open_descriptors()
        yield turn()

    @pytest_twisted.inlineCallbacks
    def test_buffered_bytes_go_first(self, pair: Pair, kind: str) -> Playing:
        """The reply that grants the request is written, and the relay begins at once."""
        yield pair.connect(kind)
        pair.transport.write(b"the ")
        pair.transport.writeSequence([b"reply", b", "])
        link = detached(pair.transport)
        link.send(b"and what follows")
        link.close()
        assert (yield deferToThread(read_to_end, pair.peer)) == b"the reply, and what follows"

    @pytest_twisted.inlineCallbacks
    def test_what_the_client_sent_meanwhile(self, pair: Pair, kind: str) -> Playing:
        """It waits in the kernel for the relay, and so does the end behind it."""
        yield pair.connect(kind)
        pair.peer.sendall(b"early")
        pair.peer.shutdown(socket.SHUT_WR)
        link = detached(pair.transport)
        assert readable(link)
        assert link.recv(10) == b"early"
        assert link.recv(10) == b""
        link.close()

    @pytest_twisted.inlineCallbacks
    def test_more_than_can_be_sent(self, pair: Pair, kind: str) -> Playing:
        """A client that does not read: the transport keeps everything, and goes on."""
        yield pair.connect(kind)
        size = 16 << 20
        pair.transport.write(bytes(size))
        assert detach_socket(pair.transport) is None
        assert (yield deferToThread(read_exactly, pair.peer, size)) == bytes(size)
        pair.transport.write(b"more")
        assert (yield deferToThread(read_exactly, pair.peer, 4)) == b"more"
        pair.peer.sendall(b"answer")
        pair.peer.close()
        yield until(lambda: pair.protocol.data == b"answer")
        pair.transport.loseConnection()
        yield pair.protocol.lost.addTimeout(PATIENCE, reactor)

    @pytest.mark.parametrize("pending", [b"", b"last words"])
    @pytest_twisted.inlineCallbacks
    def test_closing(self, pair: Pair, kind: str, pending: bytes) -> Playing:
        """What somebody has begun to close is not to live on."""
        yield pair.connect(kind)
        pair.transport.write(pending)
        pair.transport.loseConnection()
        assert detach_socket(pair.transport) is None
        assert (yield deferToThread(read_to_end, pair.peer)) == pending
        yield pair.protocol.lost.addTimeout(PATIENCE, reactor)

    @pytest.mark.parametrize("written", [b"", b"x"])
    @pytest_twisted.inlineCallbacks
    def test_gone(self, pair: Pair, kind: str, written: bytes) -> Playing:
        """A connection that is lost already is nobody's."""
        yield pair.connect(kind)
        pair.transport.abortConnection()
        yield pair.protocol.lost.addTimeout(PATIENCE, reactor)
        pair.transport.write(written)
        assert detach_socket(pair.transport) is None


def readable(link: socket.SocketType) -> bool:
    """Whether there is something to be read from *link*, within reason."""
    return bool(select.select([link.fileno()], [], [], PATIENCE)[0])


def until(holds: Callable[[], bool]) -> Deferred[None]:
    """Wait until *holds*, as long as it takes, within reason."""
    done: Deferred[None] = Deferred()

    def check() -> None:
        if holds():
            done.callback(None)
        elif not done.called:
            reactor.callLater(0.01, check)

    check()
    return done.addTimeout(PATIENCE, reactor)


@pytest_twisted.inlineCallbacks
def test_reset_under_the_last_bytes(pair: Pair) -> Playing:
    """Bytes that cannot be sent any more: no socket, and the protocol is told of the end."""
    yield pair.connect("tcp server")
    pair.transport.stopReading()
    reset(pair.peer)
    pair.transport.write(b"x")
    assert detach_socket(pair.transport) is None
    pair.transport.startReading()
    yield pair.protocol.lost.addTimeout(PATIENCE, reactor)


@pytest.mark.parametrize("kind", ["tcp client", "tcp server", "unix client"])
@pytest_twisted.inlineCallbacks
def test_replace_protocol(pair: Pair, kind: str) -> Playing:
    """The new protocol gets all that follows, its half-close and end included."""
    yield pair.connect(kind)
    new = Told(Deferred())
    transport = pair.transport
    assert replace_protocol(transport, new)
    new.makeConnection(transport)
    pair.peer.sendall(b"more")
    pair.peer.shutdown(socket.SHUT_WR)
    yield until(lambda: new.told == ["read closed"])
    assert new.data == b"more"
    transport.loseConnection()
    yield new.lost.addTimeout(PATIENCE, reactor)
    assert (pair.protocol.data, pair.protocol.told) == (b"", [])


def test_replace_protocol_of_wrappers() -> None:
    """A wrapper passes on to the new protocol; what is neither stays as it is, and says so."""
    wrapping = WrappingFactory(ClientFactory.forProtocol(Protocol))
    wrapper: Any = wrapping.buildProtocol(None)
    new = Protocol()
    assert replace_protocol(wrapper, new)
    assert wrapper.wrappedProtocol is new
    assert not replace_protocol(object(), new)


@pytest_twisted.inlineCallbacks
def test_is_paused(pair: Pair) -> Playing:
    """As the protocol has it; what cannot be seen counts as not paused."""
    yield pair.connect("tcp client")
    assert not is_paused(pair.transport)
    pair.transport.pauseProducing()
    assert is_paused(pair.transport)
    pair.transport.resumeProducing()
    assert not is_paused(pair.transport)
    assert not is_paused(object())


@pytest_twisted.inlineCallbacks
def test_half_closed_by_the_client(pair: Pair) -> Playing:
    """Twisted has seen the FIN; the socket is still good for sending."""
    yield pair.connect("tcp server")
    pair.peer.shutdown(socket.SHUT_WR)
    yield until(lambda: pair.protocol.told == ["read closed"])
    link = detached(pair.transport)
    assert link.recv(1) == b""
    link.send(b"answer")
    link.close()
    assert (yield deferToThread(read_to_end, pair.peer)) == b"answer"


class TestAnotherTwisted:
    """One that has not what is relied on: no socket, no harm, and a line that says so."""

    @pytest_twisted.inlineCallbacks
    def test_attribute_missing(
        self, pair: Pair, warnings: list[LogEvent], monkeypatch: pytest.MonkeyPatch
    ) -> Playing:
        yield pair.connect("tcp server")
        monkeypatch.setattr(
            twisted_internals, "_RELIED_ON", (*twisted_internals._RELIED_ON, "_renamed", "_gone")
        )
        for _ in range(5):
            assert detach_socket(pair.transport) is None
        (event,) = warnings
        assert event["missing"] == "_renamed, _gone"
        # The session goes on over the transport.
        pair.transport.write(b"still here")
        assert (yield deferToThread(read_exactly, pair.peer, 10)) == b"still here"
        pair.transport.abortConnection()
        yield pair.protocol.lost.addTimeout(PATIENCE, reactor)

    @pytest.mark.parametrize("name", twisted_internals._RELIED_ON)
    @pytest_twisted.inlineCallbacks
    def test_everything_relied_on_is_there(self, pair: Pair, name: str) -> Playing:
        yield pair.connect("tcp server")
        assert hasattr(pair.transport, name)
        pair.transport.abortConnection()
        yield pair.protocol.lost.addTimeout(PATIENCE, reactor)


class TestNotDetachable:
    """Transports whose bytes are not the socket's."""

    @pytest_twisted.inlineCallbacks
    def test_tls(self, pair: Pair) -> Playing:
        """What is on the socket is encrypted, and the keys are not ours to take."""
        yield pair.connect("tcp server")
        pair.transport.startTLS(ssl.CertificateOptions())
        assert not is_detachable(pair.transport)
        assert detach_socket(pair.transport) is None
        pair.peer.close()
        yield pair.protocol.lost.addTimeout(PATIENCE, reactor)

    @pytest.mark.parametrize("wrapping", [WrappingFactory, HAProxyWrappingFactory])
    @pytest_twisted.inlineCallbacks
    def test_wrapped(self, wrapping: Callable[[ServerFactory], ServerFactory]) -> Playing:
        """The wrapper may hold bytes back; what is inside it sees a transport of another kind."""
        made: Deferred[Told] = Deferred()
        factory = wrapping(ServerFactory.forProtocol(lambda: Told(made)))  # type: ignore[arg-type]
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as peer:
            peer.sendall(b"PROXY TCP4 192.0.2.9 192.0.2.1 5000 1080\r\n")
            protocol = yield made.addTimeout(PATIENCE, reactor)
            assert not is_detachable(protocol.transport)
            assert detach_socket(protocol.transport) is None
        yield protocol.lost.addTimeout(PATIENCE, reactor)
        yield port.stopListening()

    @pytest.mark.parametrize("wrappers", [1, 2])
    @pytest_twisted.inlineCallbacks
    def test_without_header(self, wrappers: int) -> Playing:
        """The wrapper that would read a PROXY header can be taken away, and remembers nothing."""
        made: Deferred[Told] = Deferred()
        inner = ServerFactory.forProtocol(lambda: Told(made))
        factories: list[Any] = [inner]
        for _ in range(wrappers):
            factories.append(HAProxyWrappingFactory(factories[-1]))
        assert [reads_header(factory) for factory in factories] == [False, *[True] * wrappers]
        port = reactor.listenTCP(0, factories[-1], interface="127.0.0.1")
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as peer:
            yield deferLater(reactor, 0.05)
            (wrapper,) = factories[-1].protocols
            protocol = wrapper.wrappedProtocol if wrappers == 1 else wrapper.wrappedProtocol.wrappedProtocol
            assert reads_header(wrapper)
            transport = without_header(protocol.transport, protocol)
            assert type(transport) is tcp.Server
            assert not any(factory.protocols for factory in factories[1:])
            protocol.transport = transport
            peer.sendall(b"no header")
            while protocol.data != b"no header":
                yield deferLater(reactor, 0.01)
            transport.abortConnection()
        yield protocol.lost.addTimeout(PATIENCE, reactor)
        yield port.stopListening()

    def test_another_wrapper(self) -> None:
        """Where the wrapper is made differently, no client is taken for the balancer."""

        class Changed(HAProxyWrappingFactory.protocol):  # type: ignore[misc, valid-type]
            transport = object()

        Changed.__module__ = HAProxyWrappingFactory.__module__
        wrapper = Changed(HAProxyWrappingFactory(ServerFactory()), Protocol())
        wrapper.factory.registerProtocol(wrapper)
        with pytest.raises(RuntimeError, match="cannot be taken away"):
            without_header(wrapper, Protocol())

    @pytest.mark.parametrize("transport", [None, object(), socket.socket])
    def test_no_transport(self, transport: object) -> None:
        assert not is_detachable(transport)
        assert detach_socket(transport) is None

    def test_a_class_made_from_one(self) -> None:
        """Who has changed a transport has done so for a reason."""

        class Changed(tcp.Server):
            def __init__(self) -> None:
                """Not connected: it does not come to that."""

        assert not is_detachable(Changed())


class TestWrappedTransports:
    """What a wrapper hides, by the class of each layer."""

    @pytest.mark.parametrize("tls", [False, True])
    @pytest_twisted.inlineCallbacks
    def test_layers(self, tls: bool, tmp_path: Path) -> Playing:
        """TLS in the PROXY protocol: the innermost transport is TCP, and TLS cannot be half closed."""
        made: Deferred[Told] = Deferred()
        factory: Any = HAProxyWrappingFactory(ServerFactory.forProtocol(lambda: Told(made)))
        if tls:
            path = tmp_path / "tls.pem"
            path.write_bytes(self_signed())
            factory = TLSMemoryBIOFactory(
                ssl.DefaultOpenSSLContextFactory(str(path), str(path)), False, factory
            )
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        address = ("127.0.0.1", port.getHost().port)
        with socket.create_connection(address) as peer:
            if tls:
                link = yield deferToThread(_tls_to, peer)
            else:
                link = peer
            link.sendall(b"PROXY TCP4 192.0.2.9 192.0.2.1 5000 1080\r\nx")
            protocol = yield made.addTimeout(PATIENCE, reactor)
            transport = protocol.transport
            inner = innermost(transport)
            assert type(inner) is tcp.Server
            assert innermost(inner) is inner
            assert not is_tls(transport)
            assert is_tls(transport.transport) == tls
            assert can_half_close(transport) != tls
            assert can_half_close(inner)
            assert socket_of(transport) is inner.socket
            read_at_most(transport, 1234)
            assert inner.bufferSize == 1234
            link.close()
        yield protocol.lost.addTimeout(PATIENCE, reactor)
        yield port.stopListening()

    def test_another_transport(self) -> None:
        """Nothing is known of it, and nothing fails."""
        transport = object()
        assert innermost(transport) is transport
        assert socket_of(transport) is None
        assert not can_half_close(transport)
        read_at_most(transport, 1)


def _tls_to(link: socket.socket) -> Any:
    context = tls_module.create_default_context()
    context.check_hostname, context.verify_mode = False, tls_module.CERT_NONE
    return context.wrap_socket(link)


class TestReactor:
    def test_signals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Twisted's handlers are methods of the reactor; a function of another program is left alone."""
        monkeypatch.setattr(signal, "getsignal", lambda number: reactor.sigTerm)
        assert handles_signal(reactor, signal.SIGTERM)
        monkeypatch.setattr(signal, "getsignal", lambda number: lambda: None)
        assert not handles_signal(reactor, signal.SIGTERM)

    def test_resolver(self) -> None:
        assert is_default_resolver(reactor.nameResolver)
        assert not is_default_resolver(MemoryReactorClock().nameResolver)


class TestCancellers:
    def test_chain(self) -> None:
        """The innermost Deferred of a chain decides."""
        for canceller in (None, lambda gone: None):
            inner: Deferred[None] = Deferred(canceller)
            outer = succeed(None).addCallback(lambda _, inner=inner: inner)  # type: ignore[call-overload]
            assert has_canceller(outer) == has_canceller(inner) == (canceller is not None)

    def test_made_differently(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then nothing is cancelled: no avatar is lost."""
        waiting: Deferred[None] = Deferred(lambda gone: None)
        del waiting._canceller
        assert not has_canceller(waiting)


class TestEndpoints:
    @pytest.mark.parametrize(
        ("description", "place"),
        [
            ("tcp:1080:interface=127.0.0.1", ("127.0.0.1", 1080)),
            ("haproxy:tcp:1080", ("", 1080)),
            (r"tcp6:1:interface=\:\:1", ("::1", 1)),
            ("unix:/nonexistent/socks", None),
        ],
    )
    def test_place(self, description: str, place: Any) -> None:
        endpoint = serverFromString(MemoryReactorClock(), description)
        assert place_of_endpoint(endpoint) == place
        assert type(inner_endpoint(endpoint)).__module__ == "twisted.internet.endpoints"

    def test_no_place(self) -> None:
        endpoint = object()
        assert inner_endpoint(endpoint) is endpoint
        assert place_of_endpoint(endpoint) is None
        assert tls_options_of(endpoint) is None

    def test_tls(self, tmp_path: Path) -> None:
        path = tmp_path / "tls.pem"
        path.write_bytes(self_signed())
        endpoint = serverFromString(MemoryReactorClock(), f"ssl:0:privateKey={path}")
        assert isinstance(tls_options_of(endpoint), ssl.CertificateOptions)

    def test_systemd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The sockets that Twisted knows; without its parser, those in the environment."""
        passed = ListenFDs([5], ["socks"])
        monkeypatch.setattr(endpoints._SystemdParser, "_sddaemon", passed)
        assert systemd_sockets() is passed
        monkeypatch.delattr(endpoints, "_SystemdParser")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "2")
        monkeypatch.setenv("LISTEN_FDNAMES", "a:b")
        assert systemd_sockets().inheritedDescriptors() == [3, 4]

    def test_descriptor(self) -> None:
        """An endpoint whose descriptor is closed by now does not touch the number."""

        class Adopting(MemoryReactorClock):
            def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> str:
                return "port"

        endpoint = AdoptedStreamServerEndpoint(Adopting(), -1, socket.AF_INET)
        leave_descriptor_alone(endpoint)
        ports: list[Any] = []
        endpoint.listen(ServerFactory()).addCallback(ports.append)
        assert ports == ["port"]


class TestPorts:
    @pytest_twisted.inlineCallbacks
    def test_socket_stays_open(self) -> Playing:
        """A port that closes leaves the socket to another process, which accepts."""
        port = reactor.listenTCP(0, ServerFactory(), interface="127.0.0.1")
        with socket.socket(fileno=os.dup(port.fileno())) as other:
            keep_socket_open(port)
            yield port.stopListening()
            with socket.create_connection(other.getsockname()):
                other.settimeout(PATIENCE)
                other.accept()[0].close()

    @pytest_twisted.inlineCallbacks
    def test_accepting(self) -> Playing:
        """The reactor calls what is put in place, until the port has another factory."""
        first, second = ServerFactory(), ServerFactory()
        port = reactor.listenTCP(0, first, interface="127.0.0.1")
        called: Deferred[None] = Deferred()

        def accept() -> None:
            port.stopReading()
            called.callback(None)

        accept_with(port, accept)
        with socket.create_connection(("127.0.0.1", port.getHost().port)):
            yield called.addTimeout(PATIENCE, reactor)
        change_factory(port, first)
        assert port.doRead is accept
        change_factory(port, second)
        assert port.factory is second
        assert port.doRead.__func__ is tcp.Port.doRead  # type: ignore[attr-defined]
        assert (first.numPorts, second.numPorts) == (0, 1)
        yield port.stopListening()

    @pytest_twisted.inlineCallbacks
    def test_unix_file_stays(self, tmp_path: Path) -> Playing:
        """The file of a shared Unix port belongs to the process that has made it."""
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            made: Deferred[Told] = Deferred()
            factory = ServerFactory.forProtocol(lambda: Told(made))
            port = SharedUNIXPort(listening.dup(), factory, reactor)
            port.startListening()
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(path))
                protocol = yield made.addTimeout(PATIENCE, reactor)
            protocol.transport.abortConnection()
            yield protocol.lost.addTimeout(PATIENCE, reactor)
            yield port.stopListening()
            assert path.exists()
