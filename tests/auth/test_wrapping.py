"""A method of somebody else's that encapsulates: what sessions do with it, without any cryptography."""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import Portal
from zope.interface import implementer

from socksproxy.auth.credentials import Anonymous, IAnonymous
from socksproxy.auth.users import Realm
from socksproxy.negotiation import IExchange, IMethod, IWrapping, LogIn
from socksproxy.wire.datagram import build_header, parse_datagram
from socksproxy.wire.words import Address, Command, ProtocolError
from tests.conftest import Serve
from tests.support.logs import heard
from tests.support.origin import Origin, echo
from tests.support.proxy import Proxy, echoes, reply5, request5
from tests.support.relay import read_exactly
from tests.support.udp import Echo, udp_socket
from tests.support.wrapping import MOST, Swapped, WrappedSocket

Playing = Generator[Any, Any, None]


@implementer(IMethod, IExchange)
class Swapping:
    """Nobody is asked for anything; all that follows is swapped."""

    number = 0x80
    name = "swapping"
    credentials = IAnonymous

    def __init__(self, wrapping: type[Any] = Swapped) -> None:
        self._wrapping = wrapping

    def begin(self, client: Any) -> IExchange:
        return self

    def receive(self, data: bytes) -> tuple[int, object]:
        return 0, LogIn(Anonymous())

    def judged(self, granted: bool) -> bytes:
        return b"\x01" if granted else b"\x00"

    def wrapping(self) -> IWrapping:
        wrapping: IWrapping = self._wrapping()
        return wrapping


class Failing(Swapped):
    """Takes out, but puts nothing in."""

    def wrap(self, data: bytes) -> bytes:
        raise ProtocolError("the context has expired")


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as running:
        yield running


def started(serve: Serve, wrapping: type[Any] = Swapped) -> Any:
    return serve(portal=Portal(Realm(), [AllowAnonymousAccess()]), methods=[Swapping(wrapping)])


def connect(proxy: Proxy) -> Any:
    sock = proxy.connect()
    sock.sendall(b"\x05\x01\x80")
    assert read_exactly(sock, 3) == b"\x05\x80\x01"
    return WrappedSocket(sock, Swapped())


@pytest_twisted.inlineCallbacks
def test_connect(serve: Serve, origin: Origin) -> Playing:
    proxy = yield started(serve)

    def scenario() -> None:
        with connect(proxy) as sock:
            # What stands behind the request is for the destination, in the same message or another.
            sock.sendall(request5("127.0.0.1", origin.port) + b"pi")
            sock.sendall(b"ng")
            assert reply5(sock, 10)[0] == 0
            echoed = b""
            while len(echoed) < 4:
                echoed += sock.recv(100)
            assert echoed == b"ping"
            echoes(sock, b"x" * 3 * MOST)

    yield proxy.play(scenario)
    record = yield proxy.record()
    assert (record["method"], record["sent"], record["received"]) == (
        "swapping",
        4 + 3 * MOST,
        4 + 3 * MOST,
    )


@pytest_twisted.inlineCallbacks
def test_associate(serve: Serve) -> Playing:
    proxy = yield started(serve)

    def scenario() -> None:
        wrapping = Swapped()
        with Echo() as place, connect(proxy) as sock, udp_socket("127.0.0.1") as udp:
            sock.sendall(request5("0.0.0.0", 0, Command.UDP_ASSOCIATE))
            bound = reply5(sock)[1]
            relay = (bound.host, bound.port)
            for size in (1, MOST - 10):
                header = build_header(Address.of(*place.address))
                udp.sendto(wrapping.wrap_datagram(header + bytes(size)), relay)
                data = wrapping.unwrap_datagram(udp.recv(65536))
                datagram, start = parse_datagram(data)
                assert (datagram.address.port, len(data) - start) == (place.address[1], size)
            # Its answer has no room for the cover.
            udp.sendto(wrapping.wrap_datagram(header + b"?"), relay)
            udp.recv(65536)
            place.sock.sendto(bytes(MOST), place.seen[0][1])
            udp.sendto(wrapping.wrap_datagram(header + b"last"), relay)
            assert wrapping.unwrap_datagram(udp.recv(65536)).endswith(b"last")

    yield proxy.play(scenario)
    record = yield proxy.record()
    assert record["dropped"] == {"too_big": 1}


@pytest.mark.parametrize("port", ["open", "closed"])
@pytest_twisted.inlineCallbacks
def test_a_reply_that_cannot_be_made(serve: Serve, origin: Origin, port: str) -> Playing:
    """Nothing is said in its place, nothing stays open."""
    proxy = yield started(serve, Failing)

    def scenario() -> bytes:
        with socket.socket() as unused, connect(proxy) as sock:
            unused.bind(("127.0.0.1", 0))
            number = origin.port if port == "open" else unused.getsockname()[1]
            sock.sendall(request5("127.0.0.1", number))
            try:
                return bytes(sock._sock.recv(100))
            except ConnectionResetError:
                return b""

    assert (yield proxy.play(scenario)) == b""
    record = yield proxy.record()
    assert record["ended"] == "protocol error: the context has expired"


@pytest_twisted.inlineCallbacks
def test_garbage_after_the_login(serve: Serve, origin: Origin) -> Playing:
    """What cannot be taken out ends the relay; the log has one line, however often that happens."""
    proxy = yield started(serve)

    def scenario() -> None:
        with connect(proxy) as sock:
            sock.sendall(request5("127.0.0.1", origin.port))
            assert reply5(sock)[0] == 0
            sock._sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                sock._sock.recv(100)

    with heard() as lines:
        for number in range(3):
            yield proxy.play(scenario)
            record = yield proxy.record(number)
            assert record["ended"] == "protocol error"
    assert len(lines) == 1
