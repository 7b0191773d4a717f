"""GSSAPI: a real KDC, our client and our server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.portal import Portal
from twisted.internet import error, tcp
from twisted.internet.protocol import DatagramProtocol, Factory

from socksproxy.auth.checkers.threads import CheckThreads
from socksproxy.auth.users import Realm as Users
from socksproxy.client import GSSAPILogin, Kind, Proxy, errors

from ..conftest import Serve
from ..support.hosts import Hosts
from ..support.kerberos import Realm
from ..support.origin import Origin, answer_at_the_end, echo
from ..support.proxy import Playing, ask5, greet, request5, until
from ..support.scripted_proxy import Recorders
from ..support.upstreams import upstream
from .test_endpoints import Halves

pytest.importorskip("gssapi")
server_side = pytest.importorskip("socksproxy.auth.checkers.gssapi")


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    """A realm, and bob's ticket in this process."""
    with pytest.MonkeyPatch.context() as patch, Realm() as running:
        for name, value in {**running.environment, **running.log_in("bob")}.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def pool() -> Iterator[CheckThreads]:
    checks = CheckThreads(name="gssapi", threads=2)
    yield checks
    checks.stop()


@pytest.fixture
def server(realm: Realm, pool: CheckThreads, serve_as: Serve) -> Any:
    """``yield server("protection=...")``: a proxy with the realm's keys."""

    def started(more: str = "") -> Any:
        checker = server_side.make_checker(f"keytab={realm.keytab}{more}", pool)
        return serve_as(portal=Portal(Users(), [checker]))

    return started


def proxy_at(server: Any, host: str = "localhost", **more: Any) -> Proxy:
    return Proxy(kind=Kind.SOCKS5, host="127.0.0.1", port=server.address[1], login=GSSAPILogin(host, **more))


@pytest.mark.parametrize("protection", ["confidentiality", "integrity"])
@pytest_twisted.inlineCallbacks
def test_protected(server: Any, protection: str) -> Playing:
    """All bytes are protected, those of a banner that comes with the reply, too, and half-close works."""

    def banner(sock: socket.socket) -> None:
        sock.sendall(b"220 hello\r\n")
        answer_at_the_end(sock)

    running: Any = yield server()
    with Origin(banner) as origin:
        endpoint = proxy_at(running, protection=protection).connect_endpoint("127.0.0.1", origin.port)
        protocol: Any = yield endpoint.connect(Factory.forProtocol(Halves))
        yield until(lambda: protocol.heard == ["made", b"220 hello\r\n"])
        protocol.transport.writeSequence([b"x" * 200_000, b"y"])
        protocol.transport.loseWriteConnection()
        yield until(lambda: "read" in protocol.heard)
        assert protocol.transport.getPeer().port == origin.port
        protocol.transport.loseConnection()
        yield until(lambda: protocol.heard[-1] is error.ConnectionDone)
    record = yield running.record()
    assert (record["user"], record["method"], record["sent"]) == ("bob", "gssapi", 200_001)


@pytest_twisted.inlineCallbacks
def test_no_protection(server: Any) -> Playing:
    """Where both sides want none, the plain transport is the transport."""
    running: Any = yield server(":protection=none")
    with Origin(echo) as origin:
        endpoint = proxy_at(running, protection="none").connect_endpoint("127.0.0.1", origin.port)
        protocol: Any = yield endpoint.connect(Recorders())
        assert type(protocol.transport) is tcp.Client
        protocol.transport.write(b"ping")
        yield until(lambda: protocol.heard[1:] == [b"ping"])
        protocol.transport.loseConnection()


@pytest_twisted.inlineCallbacks
def test_too_little_protection(server: Any) -> Playing:
    """A proxy that gives less than is asked for is refused, before a request goes over the wire."""
    running: Any = yield server(":protection=none")
    endpoint = proxy_at(running).connect_endpoint("192.0.2.1", 80)
    with pytest.raises(errors.ProxyRefusedLogin, match="protects less"):
        yield endpoint.connect(Recorders())


@pytest_twisted.inlineCallbacks
def test_no_ticket_for_the_proxy(server: Any) -> Playing:
    """What the library says reaches the caller."""
    running: Any = yield server()
    endpoint = proxy_at(running, "elsewhere.test").connect_endpoint("192.0.2.1", 80)
    with pytest.raises(errors.ProxyRefusedLogin, match="GSSAPI: "):
        yield endpoint.connect(Recorders())


@pytest_twisted.inlineCallbacks
def test_refused(server: Any) -> Playing:
    """A protected reply that refuses."""
    running: Any = yield server()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(errors.DestinationRefused):
        yield proxy_at(running).connect_endpoint("127.0.0.1", port).connect(Recorders())


class Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.heard.append((datagram, addr))


@pytest_twisted.inlineCallbacks
def test_datagrams(server: Any) -> Playing:
    """Datagrams are protected, too, both ways."""
    running: Any = yield server()
    protocol = Datagrams()
    transport: Any = yield proxy_at(running).associate(protocol)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as origin:
        origin.bind(("127.0.0.1", 0))
        origin.settimeout(10)
        transport.write(b"ping", origin.getsockname())
        data, peer = yield running.play(origin.recvfrom, 100)
        assert data == b"ping"
        origin.sendto(b"pong", peer)
        yield until(lambda: protocol.heard)
        assert protocol.heard == [(b"pong", origin.getsockname())]
    yield transport.stopListening()
    yield running.record()


# Upstreams of our server that want such a login.


def asks(proxy: Any, port: int) -> None:
    """A banner that comes with the reply, bulk both ways, and the end of one direction."""
    with proxy.connect() as sock:
        greet(sock)
        sock.sendall(request5("127.0.0.1", port))
        data = b""
        while not data.endswith(b"220 hello\r\n"):
            data += sock.recv(1000) or pytest.fail(f"the end after {data!r}")
        assert data[:2] == b"\x05\x00"
        sock.sendall(b"x" * 200_000)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(1000):
            answer += piece
        assert answer


@pytest.mark.parametrize("hops", [1, 2])
@pytest_twisted.inlineCallbacks
def test_upstream(server: Any, serve: Serve, hops: int) -> Playing:
    """All bytes to the upstream are protected; a second one is reached through the first's protection."""

    def banner(sock: socket.socket) -> None:
        sock.sendall(b"220 hello\r\n")
        answer_at_the_end(sock)

    running: list[Any] = []
    for _ in range(hops):
        running.append((yield server()))
    ways = {
        f"hop{number}": upstream(
            "socks5",
            each.address[1],
            host="localhost" if number else "127.0.0.1",
            login="gssapi",
            via=f"hop{number - 1}" if number else None,
        )
        for number, each in enumerate(running)
    }
    proxy: Any = yield serve(upstreams=ways, via=f"hop{hops - 1}")
    with Origin(banner) as origin:
        yield proxy.play(asks, proxy, origin.port)
    record = yield running[-1].record()
    assert (record["user"], record["method"], record["sent"]) == ("bob", "gssapi", 200_000)


@pytest_twisted.inlineCallbacks
def test_upstream_without_a_ticket(server: Any, serve_as: Serve) -> Playing:
    """The upstream's own failure, with what the library says."""
    running: Any = yield server()
    ways = {"one": upstream("socks5", running.address[1], host="elsewhere.test", login="gssapi")}
    proxy: Any = yield serve_as(upstreams=ways, via="one", resolver=Hosts({"elsewhere.test": ["127.0.0.1"]}))

    def scenario() -> int:
        with proxy.connect() as sock:
            return ask5(sock, "192.0.2.1", 80)[0]

    assert (yield proxy.play(scenario)) == 1
    record = yield proxy.record()
    assert record["end"] == "upstream"
    assert "one: the proxy refuses the login (GSSAPI: " in record["ended"]
    assert proxy.sessions.context.ways.counters["one"].own_failures == 1
