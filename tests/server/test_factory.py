"""The factory on every kind of endpoint: who its clients are, what they may do, and how many they may be."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from zope.interface.verify import verifyClass

from socksproxy import Client, SOCKSFactory
from socksproxy.errors import TooManySessions
from socksproxy.limits import Limits, ServerLimits
from socksproxy.limits.claims import PATIENCE as HEARD
from socksproxy.policy import DefaultPolicy, Rule, RulePolicy
from socksproxy.server.factory import SOCKSProtocol, client_of
from socksproxy.wire.words import Address, AddressType, Command

from ..conftest import Serve
from ..support.certificates import self_signed
from ..support.hosts import Hosts
from ..support.logs import log_publisher
from ..support.machine import needs_ipv6
from ..support.origin import Origin, answer_at_the_end, echo
from ..support.policy import Policy
from ..support.proxy import (
    PATIENCE,
    Playing,
    Proxy,
    ask4,
    ask5,
    closed_port,
    echoes,
    greeting,
    reactor,
    reply5,
    request5,
    until,
)
from ..support.relay import is_reset, read_to_end

FOREIGN = "203.0.113.9"
PLAIN_KINDS = ("transports", "detached", "accepted")


@pytest.fixture
def said() -> Iterator[list[dict[str, Any]]]:
    """What is logged, as events."""
    events: list[dict[str, Any]] = []
    log_publisher.addObserver(events.append)
    yield events
    log_publisher.removeObserver(events.append)


def complaints(said: list[dict[str, Any]]) -> list[int]:
    """The lines about too many sessions: how many were refused."""
    return [event["refused"] for event in said if isinstance(event.get("problem"), TooManySessions)]


# Who the client is.


@pytest_twisted.inlineCallbacks
def test_behind_a_balancer(serve_as: Serve) -> Playing:
    """``haproxy:``: what counts is the address in the PROXY header, and not the balancer's."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve_as("wrapped", policy=DefaultPolicy(allow_special=True))
        with proxy.connect(FOREIGN) as sock:
            port = sock.getsockname()[1]
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(echoes, sock)
        record = yield proxy.record()
    assert record["client"] == f"{FOREIGN}:{port}"
    assert record["ended"] == "client"


@pytest_twisted.inlineCallbacks
def test_balancer_looks_in(serve_as: Serve) -> Playing:
    """A health check that connects and goes, without a header, is harmless and counted for nobody."""
    proxy: Proxy = yield serve_as("wrapped", limits=ServerLimits(client=Limits(sessions=1)))
    checks = [socket.create_connection(proxy.address, PATIENCE) for _ in range(3)]
    yield until(lambda: len(proxy.sessions.live) == 3)
    assert len(proxy.sessions.context.ledger) == 0
    for check in checks:
        check.close()
    yield proxy.record(2)
    assert [record["ended"] for record in proxy.records] == ["client"] * 3


@pytest_twisted.inlineCallbacks
def test_no_header_in_time(serve_as: Serve) -> Playing:
    """The handshake's deadline holds for the PROXY header, too."""
    clock = Clock()
    proxy: Proxy = yield serve_as("wrapped", clock=clock)
    with socket.create_connection(proxy.address, PATIENCE) as sock:
        sock.sendall(b"PROXY TCP4 ")
        yield until(lambda: proxy.sessions.live)
        clock.advance(10)
        assert (yield proxy.play(is_reset, sock))
    record = yield proxy.record()
    assert record["ended"] == "handshake timeout"


@pytest.mark.parametrize("kind", PLAIN_KINDS)
@pytest_twisted.inlineCallbacks
def test_unix_socket(serve_as: Serve, kind: str, tmp_path: Path) -> Playing:
    """A client on a Unix socket has no address, and is local; the relay's two ends are of two families."""
    with Origin(answer_at_the_end) as origin:
        proxy: Proxy = yield serve_as(
            "x" + kind, listen=f"unix:{tmp_path}/socks", engine=kind != "transports"
        )
        if kind == "accepted":
            with proxy.connect():
                yield until(lambda: proxy.sessions.live)
            yield proxy.record()
            proxy.records.clear()
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            sock.sendall(bytes(200_000))
            sock.shutdown(socket.SHUT_WR)
            assert (yield proxy.play(read_to_end, sock)).startswith(b"200000 ")
        record = yield proxy.record()
    assert record["client"] == f"unix:{os.geteuid()}"
    assert record["sent"] == 200_000


@needs_ipv6
@pytest.mark.parametrize("kind", PLAIN_KINDS)
@pytest_twisted.inlineCallbacks
def test_ipv6(serve_as: Serve, kind: str) -> Playing:
    """Client, destination, reply and record, all in IPv6."""
    with Origin(echo, "::1") as origin:
        proxy: Proxy = yield serve_as(
            kind, listen=r"tcp6:0:interface=\:\:1", resolver=Hosts({"six.example": ["::1"]})
        )
        for number, host in enumerate(("::1", "[::1]", "six.example")):
            with proxy.connect() as sock:
                own = sock.getsockname()[1]
                reply, bound = yield proxy.play(ask5, sock, host, origin.port)
                yield proxy.play(echoes, sock)
                assert (reply, bound.type) == (0, AddressType.IPV6)
                assert (bound.host, bound.port) == origin.peers[number]
            record = yield proxy.record(number)
            assert record["client"] == f"[::1]:{own}"
            assert record["reached"] == f"[::1]:{origin.port}"
            assert record["outgoing"] == f"[::1]:{bound.port}"
        with proxy.connect() as sock:
            reply, bound = yield proxy.play(ask4, sock, "six.example", origin.port)
            assert (reply, bound.host) == (90, "0.0.0.0")  # SOCKS4 has no form for it
            assert bound.port
            yield proxy.play(echoes, sock)


@needs_ipv6
@pytest.mark.parametrize("kind", PLAIN_KINDS)
@pytest_twisted.inlineCallbacks
def test_dual_stack_listener(serve_as: Serve, kind: str) -> Playing:
    """On ``::`` an IPv4 client comes as ::ffff:127.0.0.1: it is told and counted as what it is."""
    proxy: Proxy = yield serve_as("x" + kind, listen=r"tcp6:0:interface=\:\:", engine=kind != "transports")
    for number in range(2 if kind == "accepted" else 1):
        with socket.create_connection(("127.0.0.1", proxy.address[1]), PATIENCE) as sock:
            own = sock.getsockname()[1]
            # Its own listener, which is everywhere.
            assert (yield proxy.play(ask5, sock, "127.0.0.1", proxy.address[1]))[0] == 2
        record = yield proxy.record(number)
        assert record["client"] == f"127.0.0.1:{own}"


@pytest.mark.parametrize("listen", ["ssl:0:interface=127.0.0.1", "haproxy:ssl:0:interface=127.0.0.1"])
@pytest_twisted.inlineCallbacks
def test_tls(serve_as: Serve, listen: str, tmp_path: Path) -> Playing:
    """The whole conversation within TLS: nothing leaves it as plain text, at the end neither."""
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    context = ssl.create_default_context(cafile=str(pem))
    proxy: Proxy = yield serve_as("tls", listen=f"{listen}:privateKey={pem}")

    def secured() -> ssl.SSLSocket:
        plain = socket.create_connection(proxy.address, PATIENCE)
        sock = context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
        if listen.startswith("haproxy"):
            sock.sendall(f"PROXY TCP4 {FOREIGN} 127.0.0.1 1234 1080\r\n".encode())
        return sock

    def refusal() -> int:
        with secured() as sock:
            reply, _ = ask5(sock, "192.0.2.1", 0)
            assert sock.recv(1) == b""  # an end in order: a cut of TLS would raise
        return reply

    def session(port: int) -> None:
        with secured() as sock:
            assert ask5(sock, "origin.example", port)[0] == 0
            echoes(sock, bytes(300_000))

    proxy.sessions.context.policy = DefaultPolicy(allow_special=True)
    proxy.sessions.context.check = proxy.sessions.context.check._replace(
        policy=Policy({"192.0.2.1": False}),
        names=type(proxy.sessions.context.names)(Hosts({"origin.example": ["127.0.0.1"]}), reactor),
    )
    with Origin(echo) as origin:
        assert (yield proxy.play(refusal)) == 2
        yield proxy.play(session, origin.port)
        yield proxy.record(1)
        records = proxy.records
    assert records[0]["ended"] == "refused: the policy denies it"
    assert (records[1]["sent"], records[1]["received"]) == (300_000, 300_000)
    if listen.startswith("haproxy"):
        assert records[1]["client"] == f"{FOREIGN}:1234"


def test_client_of() -> None:
    """Addresses of Twisted's as clients."""
    assert client_of(IPv4Address("TCP", "192.0.2.1", 5)) == Client("192.0.2.1", 5)
    assert client_of(IPv6Address("TCP", "::ffff:192.0.2.1", 5)) == Client("192.0.2.1", 5)
    assert client_of(IPv6Address("TCP", "2001:db8::1", 5)) == Client("2001:db8::1", 5)
    assert client_of(UNIXAddress(b"/run/x")) == Client(None)
    assert client_of(HostnameAddress(b"a.example", 5)) == Client(None)
    assert client_of(None) == Client(None)


# What is denied by default.


DISGUISES = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "::ffff:127.0.0.1",
    "[::ffff:127.0.0.1]",
    "::1",
    "::",
    "64:ff9b::7f00:1",
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "100.100.100.200",
    "169.254.1.1",
    "fe80::1",
    "224.0.0.1",
    "255.255.255.255",
    "localhost.example",
    "mapped.example",
    "zero.example",
    "metadata.example",
]
NAMES = {
    "localhost.example": ["127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "zero.example": ["0.0.0.0"],
    "metadata.example": ["169.254.169.254", "fd00:ec2::254"],
    "mixed.example": ["127.0.0.1", "169.254.169.254"],
}


@pytest.mark.parametrize("host", DISGUISES)
@pytest_twisted.inlineCallbacks
def test_special_addresses(serve_as: Serve, host: str) -> Playing:
    """A client that is not on this machine does not reach what is only this machine's, however it says so."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve_as("wrapped", resolver=Hosts(dict(NAMES)))
        with proxy.connect(FOREIGN) as sock:
            assert (yield proxy.play(ask5, sock, host, origin.port))[0] == 2
            assert (yield proxy.play(sock.recv, 1)) == b""
        record = yield proxy.record()
    assert record["ended"].startswith("refused: the policy denies")
    assert origin.peers == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "localhost.example"])
@pytest_twisted.inlineCallbacks
def test_local_clients_reach_them(serve_as: Serve, host: str) -> Playing:
    """A client on this machine can go there anyway; and for others an embedder may say so."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve_as("accepted", resolver=Hosts(dict(NAMES)))
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, host, origin.port))[0] == 0
            yield proxy.play(echoes, sock)


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "localhost.example"])
@pytest_twisted.inlineCallbacks
def test_no_loop(serve: Serve, host: str) -> Playing:
    """Nobody sends the proxy to itself: one request would fill it with sessions."""
    proxy: Proxy = yield serve(resolver=Hosts(dict(NAMES)))
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, host, proxy.address[1]))[0] == 2
    yield proxy.record()
    assert len(proxy.records) == 1


def test_policy_learns_the_listeners() -> None:
    """A policy serves several factories, each with its own listeners; one that has others keeps them."""
    for policy in (DefaultPolicy(allow_special=True), RulePolicy([Rule(name="all", allow=True)])):
        first, second = (SOCKSFactory(reactor, policy=policy) for _ in range(2))
        assert policy.listeners is None
        for factory, other in ((first, second), (second, first)):
            factory.listeners.add("192.0.2.1", 1080)
            in_force = factory.sessions.context.policy
            address = Address.of("192.0.2.1", 1080)
            assert not in_force.permits(Client("192.0.2.9", 1), Command.CONNECT, address)
            assert other.sessions.context.policy.permits(Client("192.0.2.9", 1), Command.CONNECT, address)
            factory.listeners.discard("192.0.2.1", 1080)
        given = policy.with_listeners(first.listeners)
        assert SOCKSFactory(reactor, policy=given).sessions.context.policy is given


# How many.


@pytest_twisted.inlineCallbacks
def test_max_sessions(serve: Serve, said: list[dict[str, Any]]) -> Playing:
    """One too many is told so by the protocol, and the operator by one line a minute; then there is room."""
    clock = Clock()
    with Origin(echo) as origin, ExitStack() as stack:
        proxy: Proxy = yield serve(clock=clock, limits=ServerLimits(server=Limits(sessions=2)))
        socks = [stack.enter_context(proxy.connect()) for _ in range(2)]
        for sock in socks:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
        for seconds in (0, 30, 29.9, 0.2):
            clock.advance(seconds)
            with proxy.connect() as sock:
                assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 2
                assert (yield proxy.play(sock.recv, 1)) == b""
            yield until(lambda: len(proxy.sessions.live) == 2)
        assert complaints(said) == [1, 3]
        assert {record["ended"] for record in proxy.records} == {"refused: too many sessions"}
        with proxy.connect() as sock:
            assert (yield proxy.play(ask4, sock, "127.0.0.1", origin.port))[0] == 91
        socks[0].close()
        yield until(lambda: len(proxy.sessions.live) == 1)
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(echoes, sock)


@pytest_twisted.inlineCallbacks
def test_patience(serve: Serve, said: list[dict[str, Any]]) -> Playing:
    """Those over the limit are listened to up to a number; who comes then is closed unheard."""
    with ExitStack() as stack:
        proxy: Proxy = yield serve(limits=ServerLimits(client=Limits(sessions=1)))

        def come() -> socket.socket:
            sock = stack.enter_context(proxy.connect())
            sock.sendall(greeting())  # behind a balancer nobody is known before that
            return sock

        socks = [come() for _ in range(1 + HEARD)]
        yield until(lambda: proxy.sessions.context.ledger.refusing == HEARD)
        late = come()
        assert (yield proxy.play(is_reset, late))
        yield until(lambda: len(proxy.sessions.live) == 1 + HEARD)
        assert len(complaints(said)) == 1
        if proxy.kind == "wrapped":  # it was not dropped before it was known
            assert [record["ended"] for record in proxy.records] == [
                "refused: too many sessions of client 127.0.0.1"
            ]
        else:
            assert proxy.records == []
        for sock, reply in ((socks[-1], 2), (socks[0], 5)):
            assert (yield proxy.play(sock.recv, 2)) == b"\x05\x00"
            sock.sendall(request5("127.0.0.1", closed_port()))
            assert (yield proxy.play(reply5, sock))[0] == reply


@pytest_twisted.inlineCallbacks
def test_max_per_client(serve_as: Serve) -> Playing:
    """Each client has its own number, behind a balancer, too, where all come from one address."""
    with Origin(echo) as origin, ExitStack() as stack:
        proxy: Proxy = yield serve_as(
            "wrapped",
            limits=ServerLimits(client=Limits(sessions=1)),
            policy=DefaultPolicy(allow_special=True),
        )
        for client, reply in (("203.0.113.1", 0), ("203.0.113.2", 0), ("203.0.113.1", 2), ("203.0.113.3", 0)):
            sock = stack.enter_context(proxy.connect(client))
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == reply


@pytest_twisted.inlineCallbacks
def test_dropped_sends_on(serve_as: Serve) -> Playing:
    """What a client dropped for its number has sent along with its header is not served."""
    with Origin(echo) as origin, ExitStack() as stack:
        proxy: Proxy = yield serve_as("wrapped", limits=ServerLimits(client=Limits(sessions=1)))
        for _ in range(1 + HEARD):
            stack.enter_context(proxy.connect()).sendall(greeting())
        yield until(lambda: proxy.sessions.context.ledger.refusing == HEARD)
        with socket.create_connection(proxy.address, PATIENCE) as sock:
            header = f"PROXY TCP4 127.0.0.1 127.0.0.1 1 {proxy.address[1]}\r\n".encode()
            sock.sendall(header + greeting() + request5("127.0.0.1", origin.port))
            assert (yield proxy.play(is_reset, sock))
        record = yield proxy.record()
        assert record["ended"] == "refused: too many sessions of client 127.0.0.1"
        assert record["version"] is None
        assert origin.peers == []


# Ways out.


@pytest_twisted.inlineCallbacks
def test_outgoing(serve: Serve) -> Playing:
    """Connections leave from where the operator says, and reply and record tell it."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(outgoing=["127.0.0.5"])
        with proxy.connect() as sock:
            reply, bound = yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            yield proxy.play(echoes, sock)
        record = yield proxy.record()
    assert (reply, bound.host) == (0, "127.0.0.5")
    assert origin.peers == [(bound.host, bound.port)]
    assert record["outgoing"] == f"127.0.0.5:{bound.port}"


@pytest_twisted.inlineCallbacks
def test_outgoing_is_not_ours(serve: Serve) -> Playing:
    """An address that has left this machine meanwhile: a refusal, and no crash."""
    proxy: Proxy = yield serve(outgoing=["192.0.2.77"])
    with Origin(echo) as origin, proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 1
    record = yield proxy.record()
    assert record["ended"].startswith("refused: ")


@pytest.mark.parametrize(
    ("outgoing", "complaint"),
    [
        (["127.0.0.1", "127.0.0.1"], "127.0.0.1: stands there already"),
        (["random"], "random: there is no address in the list"),
        (["localhost"], "localhost: not a literal IPv4 or IPv6 address"),
        ([""], "not a literal IPv4 or IPv6 address"),
        (["127.0.0.1\0"], "not a literal IPv4 or IPv6 address"),
    ],
)
def test_outgoing_is_checked(outgoing: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SOCKSFactory(reactor, outgoing=outgoing)


# The factory's life.


def test_protocol() -> None:
    verifyClass(IHalfCloseableProtocol, SOCKSProtocol)
    assert isinstance(SOCKSFactory(reactor).buildProtocol(None), SOCKSProtocol)


def test_makes_nothing_of_the_engine_it_may_not_use() -> None:
    factory = SOCKSFactory(reactor, engine=False)
    factory.doStart()
    assert factory.sessions.context.engine is None
    factory.doStop()


@pytest_twisted.inlineCallbacks
def test_several_factories(serve: Serve) -> Playing:
    """Each has its own sessions, policy and end, though the engine is one."""
    with Origin(echo) as origin:
        first: Proxy = yield serve()
        second: Proxy = yield serve(policy=Policy({"127.0.0.1": False}))
        with first.connect() as one, second.connect() as two:
            assert (yield first.play(ask5, one, "127.0.0.1", origin.port))[0] == 0
            assert (yield second.play(ask5, two, "127.0.0.1", origin.port))[0] == 2
            yield second.port.stopListening()
            second.factory.stop_sessions()
            yield first.play(echoes, one)
        assert (yield first.record())["ended"] == "client"
        assert (yield second.record())["ended"] == "refused: the policy denies it"


@pytest_twisted.inlineCallbacks
def test_one_factory_on_two_ports(serve: Serve) -> Playing:
    """Limits and records are common; one port's end is not the factory's; neither is reached by it."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(limits=ServerLimits(server=Limits(sessions=1)))
        other = yield serverFromString(reactor, "tcp:0:interface=127.0.0.2").listen(proxy.factory)
        elsewhere = ("127.0.0.2", other.getHost().port)
        for _ in range(2):
            with socket.create_connection(elsewhere, PATIENCE) as sock:
                assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
                with proxy.connect() as second:
                    assert (yield proxy.play(ask5, second, *elsewhere))[0] == 2
            yield until(lambda: not proxy.sessions.live)
        replies = [record["reply"] for record in proxy.records]
        assert sorted(replies) == [0, 0, 2, 2]
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, *elsewhere))[0] == 2
        yield until(lambda: not proxy.sessions.live)
        yield other.stopListening()
        for _ in range(2):
            with proxy.connect() as sock:
                assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
                yield proxy.play(echoes, sock)
            yield until(lambda: not proxy.sessions.live)


@pytest_twisted.inlineCallbacks
def test_sessions_outlive_the_port(serve: Serve) -> Playing:
    """Nothing is accepted any more; who is there already stays until told otherwise."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve()
        with proxy.connect() as sock:
            yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            yield proxy.port.stopListening()
            yield proxy.play(echoes, sock)
            with pytest.raises(ConnectionRefusedError):
                proxy.connect()
            sock.shutdown(socket.SHUT_WR)
            assert (yield proxy.play(sock.recv, 1)) == b""
        record = yield proxy.record()
    assert record["ended"] == "client"


@pytest_twisted.inlineCallbacks
def test_many_at_once(serve: Serve) -> Playing:
    """Clients that come together, of whom some go in the middle: each gets what is its own."""

    def session(number: int) -> None:
        with proxy.connect() as sock:
            if number % 5 == 4:
                sock.sendall(b"\x05\x01")
                return
            assert ask5(sock, "127.0.0.1", origin.port)[0] == 0
            echoes(sock, b"%d " % number * 3000)

    def all_of_them() -> None:
        problems: list[BaseException] = []

        def one(number: int) -> None:
            try:
                session(number)
            except BaseException as problem:
                problems.append(problem)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []

    with Origin(echo) as origin:
        proxy: Proxy = yield serve()
        yield proxy.play(all_of_them)
        yield proxy.record(99)
    assert sum(record["reply"] == 0 for record in proxy.records) == 80
    assert sum(record["sent"] for record in proxy.records) == sum(
        record["received"] for record in proxy.records
    )
