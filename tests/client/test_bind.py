"""BIND. Numbers such as "e 18" are those of known faults of other clients."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.address import IPv4Address

from socksproxy.client import Proxy, errors

from ..conftest import Serve
from ..support.proxy import PATIENCE, Playing, until
from ..support.scripted_proxy import REQUEST, SUCCESS5, Recorders, Step, close, open5

BANNER = b"220 hello\r\n"
FIRST = b"\x05\x00\x00\x01\xc0\x00\x02\x01\x10\x00"
SECOND = b"\x05\x00\x00\x01\xc0\x00\x02\x63\x00\x14"


def proxy_at(port: int, scheme: str = "socks5") -> Proxy:
    return Proxy.from_url(f"{scheme}://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
@pytest_twisted.inlineCallbacks
def test_one_connection(serve_as: Serve, scheme: str) -> Playing:
    """listen fires at the first reply; the peer's connection comes with its own address."""
    server: Any = yield serve_as()
    factory = Recorders()
    port: Any = yield proxy_at(server.address[1], scheme).listen_endpoint("127.0.0.1").listen(factory)
    assert (factory.started, factory.built) == (1, [])
    place = port.getHost()
    with socket.create_connection((place.host, place.port), PATIENCE) as peer:
        protocol: Any = yield port.when_accepted()
        assert factory.addresses == [IPv4Address("TCP", *peer.getsockname())]
        assert protocol.transport.getPeer() == factory.addresses[0]
        peer.sendall(BANNER)
        yield until(lambda: protocol.heard == ["made", BANNER])
        protocol.transport.write(b"bye")
        assert (yield server.play(peer.recv, 3)) == b"bye"
    yield until(lambda: protocol.heard[-1] is error.ConnectionDone)
    assert (yield port.when_accepted()) is protocol
    assert factory.stopped == 1
    yield port.stopListening()


@pytest.mark.parametrize("pieces", [0, 1])
@pytest_twisted.inlineCallbacks
def test_bytes_behind_the_second_reply(scripted: Callable[..., Any], pieces: int) -> Playing:
    """e 1, 18: both replies and the peer's bytes in one segment; a peer other than asked is told as it is."""
    server: Any = yield scripted(*open5(FIRST + SECOND + BANNER), pieces=pieces)
    factory = Recorders()
    port: Any = yield proxy_at(server.port).listen_endpoint("192.0.2.7").listen(factory)
    assert port.getHost() == IPv4Address("TCP", "192.0.2.1", 4096)
    protocol: Any = yield port.when_accepted()
    yield until(lambda: protocol.heard == ["made", BANNER])
    assert factory.addresses == [IPv4Address("TCP", "192.0.2.99", 20)]
    assert server.ends[0].received[3:] == b"\x05\x02\x00\x01\xc0\x00\x02\x07\x00\x00"


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([b"\x05\x07"], errors.CommandNotSupported),
        ([b"\x05\x02\x00\x01"], errors.NotAllowed),
        ([close], errors.ProxyClosed),
    ],
)
@pytest_twisted.inlineCallbacks
def test_first_reply_fails(scripted: Callable[..., Any], steps: list[Step], kind: type[Exception]) -> Playing:
    """e 18: listen fails, and no factory has started."""
    server: Any = yield scripted(*open5(*steps))
    factory = Recorders()
    with pytest.raises(kind):
        yield proxy_at(server.port).listen_endpoint("192.0.2.7").listen(factory)
    assert (factory.started, factory.built) == (0, [])


@pytest.mark.parametrize(
    ("steps", "kind"),
    [([b"\x05\x06"], errors.DestinationTimedOut), ([close], errors.ProxyClosed)],
)
@pytest_twisted.inlineCallbacks
def test_second_reply_fails(
    scripted: Callable[..., Any], steps: list[Step], kind: type[Exception]
) -> Playing:
    """e 18: an error, or the end of the connection, after the first reply reaches whoever waits."""
    server: Any = yield scripted(*open5(FIRST, *steps), pieces=1)
    factory = Recorders()
    port: Any = yield proxy_at(server.port).listen_endpoint("192.0.2.7").listen(factory)
    with pytest.raises(kind):
        yield port.when_accepted()
    with pytest.raises(kind):
        yield port.when_accepted()
    assert (factory.started, factory.stopped, factory.built) == (1, 1, [])


@pytest.mark.parametrize("bound", [b"\x01\0\0\0\0", b"\x03\0", b"\x03\x01x", b"\x04" + bytes(16)])
@pytest_twisted.inlineCallbacks
def test_unspecified_address(scripted: Callable[..., Any], bound: bytes) -> Playing:
    """e 18: a proxy that tells no address listens at its own."""
    server: Any = yield scripted(*open5(b"\x05\x00\x00" + bound + b"\x10\x00"))
    port: Any = yield proxy_at(server.port).listen_endpoint("192.0.2.7").listen(Recorders())
    assert port.getHost() == IPv4Address("TCP", "127.0.0.1", 4096)
    yield port.stopListening()


@pytest_twisted.inlineCallbacks
def test_stop(scripted: Callable[..., Any]) -> Playing:
    """A port that is closed closes the connection to the proxy, and whoever waits hears it."""
    server: Any = yield scripted(*open5(SUCCESS5))
    port: Any = yield proxy_at(server.port).listen_endpoint("192.0.2.7").listen(Recorders())
    problems: list[Any] = []
    port.when_accepted().addErrback(problems.append)
    gone = port.when_accepted()
    gone.addErrback(lambda failure: None)
    gone.cancel()
    yield port.stopListening()
    yield port.stopListening()
    assert problems[0].check(error.ConnectingCancelledError)
    yield until(lambda: server.ends[0].ended)


@pytest_twisted.inlineCallbacks
def test_cancel(scripted: Callable[..., Any]) -> Playing:
    """e 7: listening can be cancelled while the proxy is silent."""
    server: Any = yield scripted(*open5())
    listening: Any = proxy_at(server.port).listen_endpoint("192.0.2.7").listen(Recorders())
    problems: list[Any] = []
    listening.addErrback(problems.append)
    yield until(lambda: server.ends and len(server.ends[0].received) == 3 + REQUEST)
    listening.cancel()
    assert problems[0].check(error.ConnectingCancelledError)
    yield until(lambda: server.ends[0].ended)


@pytest_twisted.inlineCallbacks
def test_factory_that_raises(scripted: Callable[..., Any]) -> Playing:
    """The caller hears at once what ``startFactory`` raises, and the proxy listens no longer."""

    class Raises(Recorders):
        def startFactory(self) -> None:
            raise RuntimeError("no start")

    server: Any = yield scripted(*open5(FIRST))
    with pytest.raises(RuntimeError, match="no start"):
        yield proxy_at(server.port).listen_endpoint("192.0.2.7").listen(Raises())
    yield until(lambda: server.ends[0].ended)
