"""UDP through a proxy. Numbers such as "e 18" are those of known faults of other clients."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from socksproxy.client import AssociationTransport, Proxy, errors

from ..conftest import Serve
from ..support.hosts import Hosts
from ..support.machine import needs_ipv6
from ..support.proxy import Playing, until
from ..support.scripted_proxy import Step, close, open5


class Datagrams(DatagramProtocol):
    """A caller's protocol. :ivar heard: what it was told, in order."""

    noisy = False
    transport: Any

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def startProtocol(self) -> None:
        self.heard.append("start")

    def stopProtocol(self) -> None:
        self.heard.append("stop")

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.heard.append((datagram, addr))


@pytest.fixture
def relay() -> Iterator[socket.socket]:
    """The UDP socket of a scripted proxy."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        yield sock


def proxy_at(port: int) -> Proxy:
    return Proxy.from_url(f"socks5://127.0.0.1:{port}")


def reply_for(relay: socket.socket, host: bytes = b"\x01\x7f\x00\x00\x01") -> bytes:
    """The reply that tells *relay*."""
    port: int = relay.getsockname()[1]
    return b"\x05\x00\x00" + host + port.to_bytes(2, "big")


@pytest_twisted.inlineCallbacks
def test_echo(serve_as: Serve) -> Playing:
    """Datagrams to an address and to a name, which the proxy looks up; up to the longest one."""
    server: Any = yield serve_as(resolver=Hosts({"far.test": ["127.0.0.1"]}))
    protocol = Datagrams()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as origin:
        origin.bind(("127.0.0.1", 0))
        origin.settimeout(10)
        port = origin.getsockname()[1]
        transport: Any = yield proxy_at(server.address[1]).associate(protocol)
        assert isinstance(transport, AssociationTransport)
        assert protocol.transport is transport
        for host in ("127.0.0.1", "far.test", "127.0.0.1"):
            transport.write(b"ping", (host, port))
            data, peer = yield server.play(origin.recvfrom, 65535)
            assert data == b"ping"
            origin.sendto(b"pong", peer)
            yield until(lambda: protocol.heard[-1] == (b"pong", ("127.0.0.1", port)))
            protocol.heard.pop()
        transport.write(bytes(65507 - 10), ("127.0.0.1", port))
        data, peer = yield server.play(origin.recvfrom, 65535)
        assert data == bytes(65507 - 10)
        transport.connect("127.0.0.1", port)
        transport.write(b"short")
        assert (yield server.play(origin.recvfrom, 65535))[0] == b"short"
        yield transport.stopListening()
    assert protocol.heard == ["start", "stop"]
    assert (yield transport.when_ended()) is None
    yield server.record()


@pytest_twisted.inlineCallbacks
def test_wire(scripted: Callable[..., Any], relay: socket.socket) -> Playing:
    """e 18: DST is zeros; RSV and FRAG are zeros; a source may be a name; fragments and junk are dropped."""
    server: Any = yield scripted(*open5(reply_for(relay)))
    protocol = Datagrams()
    transport: Any = yield proxy_at(server.port).associate(protocol)
    assert server.ends[0].received[3:] == b"\x05\x03\x00\x01" + bytes(6)
    transport.write(b"data", ("example.org", 53))
    data, client = relay.recvfrom(100)
    assert data == b"\x00\x00\x00\x03\x0bexample.org\x00\x35data"
    assert client == (transport.getHost().host, transport.getHost().port)
    for datagram in (b"", b"\x00", b"\0\0\0\x02abc", b"\0\0\x01\x01\xc0\0\x02\x01\0\x35fragment"):
        relay.sendto(datagram, client)
    relay.sendto(b"\0\0\0\x03\x01a\0\x35named", client)
    relay.sendto(b"\xff\xff\0\x01\xc0\0\x02\x01\0\x35numbered", client)
    yield until(lambda: len(protocol.heard) == 3)
    assert protocol.heard[1:] == [(b"named", ("a", 53)), (b"numbered", ("192.0.2.1", 53))]
    yield transport.stopListening()
    yield until(lambda: server.ends[0].ended)


@pytest_twisted.inlineCallbacks
def test_spoofed_source(scripted: Callable[..., Any], relay: socket.socket) -> Playing:
    """e 18: a datagram of another socket than the relay is not the relay's."""
    server: Any = yield scripted(*open5(reply_for(relay)))
    protocol = Datagrams()
    transport: Any = yield proxy_at(server.port).associate(protocol)
    place = transport.getHost().host, transport.getHost().port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.sendto(b"\0\0\0\x01\xc0\0\x02\x01\0\x35spoofed", place)
    relay.sendto(b"\0\0\0\x01\xc0\0\x02\x01\0\x35true", place)
    yield until(lambda: len(protocol.heard) == 2)
    assert protocol.heard[1] == (b"true", ("192.0.2.1", 53))
    transport.connect("192.0.2.9", 53)
    relay.sendto(b"\0\0\0\x01\xc0\0\x02\x01\0\x35other", place)
    relay.sendto(b"\0\0\0\x01\xc0\0\x02\x09\0\x35asked", place)
    yield until(lambda: len(protocol.heard) == 3)
    assert protocol.heard[2] == (b"asked", ("192.0.2.9", 53))
    yield transport.stopListening()


@pytest.mark.parametrize("host", [b"\x01\0\0\0\0", b"\x03\0", b"\x03\x04host", b"\x04" + bytes(16)])
@pytest_twisted.inlineCallbacks
def test_unspecified_relay(scripted: Callable[..., Any], relay: socket.socket, host: bytes) -> Playing:
    """e 18: a proxy that tells 0.0.0.0, or nothing, means its own address."""
    server: Any = yield scripted(*open5(reply_for(relay, host)))
    transport: Any = yield proxy_at(server.port).associate(Datagrams())
    transport.write(b"data", ("192.0.2.1", 53))
    assert relay.recv(100).endswith(b"data")
    yield transport.stopListening()


@pytest_twisted.inlineCallbacks
def test_end_of_the_connection(scripted: Callable[..., Any], relay: socket.socket) -> Playing:
    """e 18: the association ends with its connection, and the protocol hears it."""
    server: Any = yield scripted(*open5(reply_for(relay), b"chatter"))
    protocol = Datagrams()
    transport: Any = yield proxy_at(server.port).associate(protocol)
    ended = transport.when_ended()
    server.ends[0].transport.loseConnection()
    assert (yield ended) is not None
    assert protocol.heard == ["start", "stop"]
    transport.write(b"late", ("192.0.2.1", 53))
    relay.setblocking(False)
    with pytest.raises(BlockingIOError):
        relay.recv(100)


@pytest_twisted.inlineCallbacks
def test_relay_that_is_gone(scripted: Callable[..., Any], relay: socket.socket) -> Playing:
    """An ICMP error does not end the association: only the proxy's connection does."""
    server: Any = yield scripted(*open5(reply_for(relay)))
    protocol = Datagrams()
    transport: Any = yield proxy_at(server.port).associate(protocol)
    relay.close()
    transport.write(b"data", ("192.0.2.1", 53))
    yield deferLater(reactor, 0.02)
    transport.write(b"data", ("192.0.2.1", 53))
    assert protocol.heard == ["start"]
    transport.loseConnection()
    yield until(lambda: protocol.heard == ["start", "stop"])


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([b"\x05\x07"], errors.CommandNotSupported),
        ([b"\x05\x01\x00"], errors.GeneralFailure),
        ([close], errors.ProxyClosed),
    ],
)
@pytest_twisted.inlineCallbacks
def test_refused(scripted: Callable[..., Any], steps: list[Step], kind: type[Exception]) -> Playing:
    """e 6: every failure is one errback."""
    server: Any = yield scripted(*open5(*steps))
    protocol = Datagrams()
    with pytest.raises(kind):
        yield proxy_at(server.port).associate(protocol)
    assert protocol.heard == []


@pytest_twisted.inlineCallbacks
def test_what_cannot_be_sent(scripted: Callable[..., Any], relay: socket.socket) -> Playing:
    """The caller hears it at once."""
    server: Any = yield scripted(*open5(reply_for(relay)))
    transport: Any = yield proxy_at(server.port).associate(Datagrams())
    with pytest.raises(ValueError, match="no destination"):
        transport.write(b"data")
    with pytest.raises(errors.InvalidDestination):
        transport.write(b"data", ("fe80::1%lo", 53))
    transport.writeSequence([b"a", b"b"], ("192.0.2.1", 53))
    assert relay.recv(100).endswith(b"ab")
    assert transport.getBroadcastAllowed() is False
    yield transport.stopListening()


@pytest_twisted.inlineCallbacks
def test_cancel(scripted: Callable[..., Any]) -> Playing:
    """e 7: while the proxy is silent an association can be cancelled, and the protocol never starts."""
    server: Any = yield scripted(*open5())
    protocol = Datagrams()
    associating: Any = proxy_at(server.port).associate(protocol)
    problems: list[Any] = []
    associating.addErrback(problems.append)
    yield until(lambda: server.ends and len(server.ends[0].received) == 13)
    associating.cancel()
    yield until(lambda: server.ends[0].ended)
    assert problems[0].check(ConnectingCancelledError)
    assert protocol.heard == []


@needs_ipv6
@pytest_twisted.inlineCallbacks
def test_ipv6(serve_as: Serve) -> Playing:
    """
    e 36: over IPv6 the unspecified address in the request is that of IPv6, and so is the way to the relay.
    """
    server: Any = yield serve_as(listen=r"tcp6:0:interface=\:\:1")
    protocol = Datagrams()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as origin:
        origin.bind(("::1", 0))
        origin.settimeout(10)
        port = origin.getsockname()[1]
        transport: Any = yield Proxy.from_url(f"socks5://[::1]:{server.address[1]}").associate(protocol)
        assert transport.getHost().host == "::1"
        transport.write(b"ping", ("::1", port))
        data, peer = yield server.play(origin.recvfrom, 100)
        origin.sendto(b"pong", peer)
        yield until(lambda: protocol.heard[1:] == [(b"pong", ("::1", port))])
        assert data == b"ping"
        yield transport.stopListening()
    yield server.record()


@pytest_twisted.inlineCallbacks
def test_protocol_that_raises(scripted: Callable[..., Any], relay: socket.socket) -> Playing:
    """The caller hears at once what ``startProtocol`` raises; nothing stays open."""

    class Raises(DatagramProtocol):
        noisy = False

        def startProtocol(self) -> None:
            raise RuntimeError("no start")

    server: Any = yield scripted(*open5(reply_for(relay)))
    with pytest.raises(RuntimeError, match="no start"):
        yield proxy_at(server.port).associate(Raises())
    yield until(lambda: server.ends[0].ended)


@pytest_twisted.inlineCallbacks
def test_interface(scripted: Callable[..., Any], relay: socket.socket) -> Playing:
    server: Any = yield scripted(*open5(reply_for(relay)))
    transport: Any = yield proxy_at(server.port).associate(Datagrams())
    assert verifyObject(IUDPTransport, transport)
    yield transport.stopListening()


@pytest_twisted.inlineCallbacks
def test_connect(scripted: Callable[..., Any], relay: socket.socket) -> Playing:
    """One destination, however its address is written: datagrams of others are dropped."""
    server: Any = yield scripted(*open5(reply_for(relay)))
    protocol = Datagrams()
    transport: Any = yield proxy_at(server.port).associate(protocol)
    transport.connect("2001:DB8:0:0::1", 53)
    with pytest.raises(errors.InvalidDestination):
        transport.connect("fe80::1%lo", 53)
    transport.write(b"data")
    data, client = relay.recvfrom(100)
    header = b"\0\0\0\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\0\x35"
    assert data == header + b"data"
    relay.sendto(b"\0\0\0\x01\xc0\0\x02\x01\0\x35another", client)
    relay.sendto(header + b"answer", client)
    yield until(lambda: len(protocol.heard) == 2)
    assert protocol.heard[1] == (b"answer", ("2001:db8::1", 53))
    yield transport.stopListening()
