"""Whole sessions of clients with tickets: every byte and every datagram is encapsulated."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal

from socksproxy.auth.checkers.threads import CheckThreads
from socksproxy.auth.users import Realm as Users
from socksproxy.wire.datagram import build_header, parse_datagram
from socksproxy.wire.gssapi import Level, MessageType, build_encapsulated, build_message
from socksproxy.wire.words import Address, Command
from tests.conftest import Serve
from tests.support.kerberos import Initiator, Realm, agree, read_message
from tests.support.logs import log_publisher
from tests.support.origin import Origin, answer_at_the_end, echo
from tests.support.proxy import PATIENCE, Proxy, echoes, reply5, request4, request5
from tests.support.relay import read_exactly
from tests.support.udp import Echo, is_silent, udp_socket

library = pytest.importorskip("gssapi")
if TYPE_CHECKING:
    from socksproxy.auth.checkers import gssapi
else:
    gssapi = pytest.importorskip("socksproxy.auth.checkers.gssapi")

Playing = Generator[Any, Any, None]
Protection = gssapi.Protection

levels = pytest.mark.parametrize("level", [Level.INTEGRITY, Level.CONFIDENTIALITY])


@pytest.fixture(scope="module")
def pool() -> Iterator[CheckThreads]:
    checks = CheckThreads(name="gssapi", threads=2)
    yield checks
    checks.stop()


Checker = Callable[..., gssapi.GSSAPIChecker]


@pytest.fixture(scope="module")
def checker(realm: Realm, pool: CheckThreads) -> Checker:
    """``checker(":protection=none")``: as an operator would say it."""
    return lambda more="": gssapi.make_checker(f"keytab={realm.keytab}{more}", pool)


@pytest.fixture
def portal(checker: Checker) -> Portal:
    return Portal(Users(), [checker()])


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged, but for records and failures."""
    heard: list[str] = []

    def observe(event: Any) -> None:
        if event.get("log_namespace") == "socksproxy" and {"problem", "attempt"} & set(event):
            heard.append(event["log_format"].format(**event))

    log_publisher.addObserver(observe)
    yield heard
    log_publisher.removeObserver(observe)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as running:
        yield running


def connect(proxy: Proxy, bob: dict[str, str], *arguments: Any, **more: Any) -> Any:
    """A client that has agreed with *proxy* on everything but its request."""
    return agree(proxy.connect(), Initiator(bob), *arguments, **more)


def ask(sock: Any, host: str, port: int, command: int = Command.CONNECT) -> tuple[int, Address]:
    """The reply to a request; the destination may already have sent something behind it."""
    sock.sendall(request5(host, port, command))
    return reply5(sock, 10)


@levels
@pytest.mark.parametrize("bare", [False, True], ids=["rfc", "nec"])
@pytest_twisted.inlineCallbacks
def test_connect(
    serve: Serve, portal: Portal, bob: dict[str, str], origin: Origin, level: Level, bare: bool
) -> Playing:
    """The record has the user's name, the way in which it is known, and the bytes without their covers."""
    proxy = yield serve(portal=portal)

    def scenario() -> None:
        with connect(proxy, bob, level, bare) as sock:
            code, bound = ask(sock, "127.0.0.1", origin.port)
            echoes(sock, b"ping")
            assert (code, (bound.host, bound.port)) == (0, origin.peers[0])

    yield proxy.play(scenario)
    record = yield proxy.record()
    assert (record["user"], record["method"], record["reply"]) == ("bob", "gssapi", 0)
    assert (record["sent"], record["received"], record["ended"]) == (4, 4, "client")


@pytest_twisted.inlineCallbacks
def test_no_protection(serve: Serve, checker: Checker, bob: dict[str, str], origin: Origin) -> Playing:
    """What follows is as without the exchange, and goes the way of all bytes."""
    proxy = yield serve(portal=Portal(Users(), [checker(":protection=none")]))

    def scenario() -> None:
        with connect(proxy, bob) as sock:
            assert isinstance(sock, socket.socket)
            assert ask(sock, "127.0.0.1", origin.port)[0] == 0
            echoes(sock, b"ping")

    yield proxy.play(scenario)
    record = yield proxy.record()
    assert (record["user"], record["sent"]) == ("bob", 4)


@pytest_twisted.inlineCallbacks
def test_one_byte_segments(serve: Serve, portal: Portal, bob: dict[str, str], origin: Origin) -> Playing:
    proxy = yield serve(portal=portal)

    def scenario() -> None:
        sock = proxy.connect()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def send(data: bytes) -> None:
            for at in range(len(data)):
                sock.sendall(data[at : at + 1])

        with agree(sock, Initiator(bob), send=send) as wrapped:
            send(wrapped._wrapping.wrap(request5("127.0.0.1", origin.port)))
            assert reply5(wrapped)[0] == 0
            send(wrapped._wrapping.wrap(b"ping"))
            assert wrapped.recv(100) == b"ping"

    yield proxy.play(scenario)


@pytest_twisted.inlineCallbacks
def test_all_at_once(serve: Serve, portal: Portal, bob: dict[str, str], origin: Origin) -> Playing:
    """A client that knows what it gets sends its request, and more, behind its question for the level."""
    proxy = yield serve(portal=portal)

    def scenario() -> None:
        initiator = Initiator(bob, mutual=False)
        with proxy.connect() as sock:
            sock.sendall(b"\x05\x01\x01" + initiator.first())
            wrapping = gssapi.GSSAPIWrapping(initiator.context, True)
            request = wrapping.wrap(request5("127.0.0.1", origin.port))
            sock.sendall(initiator.ask(2) + request + wrapping.wrap(b"ping"))
            assert read_exactly(sock, 2) == b"\x05\x01"
            head = read_exactly(sock, 4)
            assert initiator.told(head + read_exactly(sock, int.from_bytes(head[2:], "big"))) == 2
            answer = b""
            while not answer.endswith(b"ping"):
                answer += wrapping.unwrap(read_exactly(sock, 1))
            assert answer[:2] == b"\x05\x00"

    yield proxy.play(scenario)


@pytest_twisted.inlineCallbacks
def test_several_rounds(serve: Serve, portal: Portal, bob: dict[str, str], origin: Origin) -> Playing:
    proxy = yield serve(portal=portal)

    def scenario() -> None:
        initiator = Initiator(bob, flags=(library.RequirementFlag.dce_style,))
        with proxy.connect() as sock:
            sock.sendall(b"\x05\x01\x01" + initiator.first())
            assert sock.recv(2) == b"\x05\x01"
            third = initiator.next(read_message(sock))
            assert third
            sock.sendall(third + initiator.ask(1))
            assert initiator.told(read_message(sock)) == 1

    yield proxy.play(scenario)


def pattern(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@levels
@pytest_twisted.inlineCallbacks
def test_five_megabytes_both_ways(
    serve: Serve, portal: Portal, bob: dict[str, str], origin: Origin, level: Level
) -> Playing:
    proxy = yield serve(portal=portal)
    data = pattern(5_000_000, 1)

    def scenario() -> str:
        with connect(proxy, bob, level) as sock:
            assert ask(sock, "127.0.0.1", origin.port)[0] == 0
            sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
            sender.start()
            sha = hashlib.sha256()
            while piece := sock.recv(1 << 16):
                sha.update(piece)
            sender.join()
            return sha.hexdigest()

    assert (yield proxy.play(scenario)) == hashlib.sha256(data).hexdigest()
    record = yield proxy.record()
    assert (record["sent"], record["received"]) == (len(data), len(data))


@pytest_twisted.inlineCallbacks
def test_half_close_of_the_client(serve: Serve, portal: Portal, bob: dict[str, str]) -> Playing:
    proxy = yield serve(portal=portal)

    def scenario() -> bytes:
        with Origin(answer_at_the_end) as origin, connect(proxy, bob) as sock:
            assert ask(sock, "127.0.0.1", origin.port)[0] == 0
            sock.sendall(b"all of it")
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := sock.recv(1000):
                answer += piece
            return answer

    assert (yield proxy.play(scenario)) == f"9 {hashlib.sha256(b'all of it').hexdigest()}\n".encode()


@pytest_twisted.inlineCallbacks
def test_half_close_of_the_destination(serve: Serve, portal: Portal, bob: dict[str, str]) -> Playing:
    proxy = yield serve(portal=portal)
    heard: list[bytes] = []
    over = threading.Event()

    def serve_one(sock: socket.socket) -> None:
        sock.sendall(b"all I have")
        sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(1000):
            heard.append(piece)
        over.set()

    def scenario() -> None:
        with Origin(serve_one) as origin, connect(proxy, bob) as sock:
            assert ask(sock, "127.0.0.1", origin.port)[0] == 0
            answer = b""
            while piece := sock.recv(1000):
                answer += piece
            assert answer == b"all I have"
            sock.sendall(b"thanks")
            sock.shutdown(socket.SHUT_WR)
            assert over.wait(PATIENCE)

    yield proxy.play(scenario)
    assert b"".join(heard) == b"thanks"


# Other commands, and refusals.


@pytest_twisted.inlineCallbacks
def test_a_refusal_is_encapsulated(serve: Serve, portal: Portal, bob: dict[str, str]) -> Playing:
    proxy = yield serve(portal=portal)

    def scenario() -> int:
        with socket.socket() as bound, connect(proxy, bob) as sock:
            bound.bind(("127.0.0.1", 0))
            return ask(sock, "127.0.0.1", bound.getsockname()[1])[0]

    assert (yield proxy.play(scenario)) == 5


@pytest_twisted.inlineCallbacks
def test_bind(serve: Serve, portal: Portal, bob: dict[str, str]) -> Playing:
    proxy = yield serve(portal=portal)

    def scenario() -> None:
        with connect(proxy, bob) as sock:
            code, place = ask(sock, "127.0.0.1", 0, Command.BIND)
            assert code == 0
            with socket.create_connection((place.host, place.port), PATIENCE) as peer:
                code, came = reply5(sock)
                assert (code, (came.host, came.port)) == (0, peer.getsockname())
                peer.sendall(b"from the peer")
                assert sock.recv(100) == b"from the peer"
                sock.sendall(b"to the peer")
                assert peer.recv(100) == b"to the peer"

    yield proxy.play(scenario)


@pytest_twisted.inlineCallbacks
def test_resolve(serve: Serve, portal: Portal, bob: dict[str, str]) -> Playing:
    proxy = yield serve(portal=portal)

    def scenario() -> Address:
        with connect(proxy, bob) as sock:
            return ask(sock, "127.0.0.1", 0, Command.RESOLVE)[1]

    assert (yield proxy.play(scenario)).host == "127.0.0.1"


def is_turned_away(proxy: Proxy, token: bytes) -> bool:
    """Whether *token* is answered with FF and the end."""
    with proxy.connect() as sock:
        sock.sendall(b"\x05\x01\x01" + build_message(MessageType.AUTHENTICATION, token))
        data = b""
        while piece := sock.recv(100):
            data += piece
        return data == b"\x05\x01\x01\xff"


@pytest_twisted.inlineCallbacks
def test_a_bad_token(serve: Serve, portal: Portal, lines: list[str]) -> Playing:
    """FF and the end, and one line that says why."""
    proxy = yield serve(portal=portal)
    assert (yield proxy.play(is_turned_away, proxy, b"let me in"))
    record = yield proxy.record()
    assert record["ended"] == "refused: not authenticated"
    (line,) = lines
    assert line.endswith("method gssapi: Invalid token was supplied")
    assert line.startswith("authentication failed: 127.0.0.1 port ")


@pytest_twisted.inlineCallbacks
def test_a_clock_that_is_wrong(serve: Serve, portal: Portal, realm: Realm, lines: list[str]) -> Playing:
    proxy = yield serve(portal=portal)
    message = Initiator(realm.log_in_with_wrong_clock("bob", 7200)).first()
    assert (yield proxy.play(is_turned_away, proxy, message[4:]))
    yield proxy.record()
    assert [line.rpartition("; ")[2] for line in lines] == ["Clock skew too great"]


class Nobody(Users):
    """Knows nobody."""

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
        raise UnauthorizedLogin


@pytest_twisted.inlineCallbacks
def test_a_realm_that_says_no(serve: Serve, checker: Checker, bob: dict[str, str]) -> Playing:
    """A good ticket is not enough: the answer to the level is FF."""
    proxy = yield serve(portal=Portal(Nobody(), [checker()]))

    def scenario() -> bytes:
        initiator = Initiator(bob)
        with proxy.connect() as sock:
            sock.sendall(b"\x05\x01\x01")
            assert sock.recv(2) == b"\x05\x01"
            sock.sendall(initiator.first())
            initiator.next(read_message(sock))
            sock.sendall(initiator.ask(2))
            return sock.recv(100)  # type: ignore[no-any-return]

    assert (yield proxy.play(scenario)) == b"\x01\xff"


@pytest_twisted.inlineCallbacks
def test_others_beside(serve: Serve, checker: Checker) -> Playing:
    """Who has a ticket is asked for it, though the client would do without; who has none is nobody."""
    proxy = yield serve(portal=Portal(Users(), [AllowAnonymousAccess(), checker()]))

    def offer(methods: bytes) -> bytes:
        with proxy.connect() as sock:
            sock.sendall(bytes((5, len(methods))) + methods)
            return sock.recv(100)  # type: ignore[no-any-return]

    assert (yield proxy.play(offer, b"\x00\x01\x02")) == b"\x05\x01"
    assert (yield proxy.play(offer, b"\x00\x02")) == b"\x05\x00"
    assert (yield proxy.play(offer, b"\x02")) == b"\x05\xff"


@pytest_twisted.inlineCallbacks
def test_other_clients(serve: Serve, portal: Portal, origin: Origin) -> Playing:
    """Those of SOCKS4 have no ticket to show, others offer no method that has."""
    proxy = yield serve(portal=portal)

    def scenario() -> tuple[bytes, bytes]:
        with proxy.connect() as four, proxy.connect() as five:
            four.sendall(request4("127.0.0.1", origin.port))
            five.sendall(b"\x05\x02\x00\x02")
            return four.recv(100)[:2], five.recv(100)

    assert (yield proxy.play(scenario)) == (b"\x00\x5b", b"\x05\xff")
    assert not origin.peers


@pytest.mark.parametrize(
    "data", [b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", build_encapsulated(b"token")], ids=["bare", "wrong"]
)
@pytest_twisted.inlineCallbacks
def test_a_request_that_is_not_encapsulated(
    serve: Serve, portal: Portal, bob: dict[str, str], data: bytes, lines: list[str]
) -> Playing:
    """There is no answer that the client could trust, and none is given."""
    proxy = yield serve(portal=portal)

    def scenario() -> bytes:
        with connect(proxy, bob) as sock:
            sock._sock.sendall(data)
            try:
                return bytes(sock._sock.recv(100))
            except ConnectionResetError:
                return b""

    assert (yield proxy.play(scenario)) == b""
    record = yield proxy.record()
    assert record["ended"].startswith("protocol error: ")
    assert len(lines) == 1


@pytest_twisted.inlineCallbacks
def test_a_relay_that_is_tampered_with(
    serve: Serve, portal: Portal, bob: dict[str, str], origin: Origin, lines: list[str]
) -> Playing:
    """The session ends, and nothing of what was changed is delivered."""
    proxy = yield serve(portal=portal)

    def scenario() -> None:
        with connect(proxy, bob) as sock:
            assert ask(sock, "127.0.0.1", origin.port)[0] == 0
            echoes(sock, b"ping")
            data = bytearray(sock._wrapping.wrap(b"pong"))
            data[-1] ^= 1
            sock._sock.sendall(data)
            with pytest.raises(ConnectionResetError):
                sock.recv(100)

    yield proxy.play(scenario)
    record = yield proxy.record()
    assert (record["sent"], record["ended"]) == (4, "protocol error")
    assert len(lines) == 1


# Datagrams.


class Associated:
    """A client with an association, whose datagrams are encapsulated."""

    def __init__(self, proxy: Proxy, bob: dict[str, str], level: int = Level.CONFIDENTIALITY) -> None:
        self.tcp = connect(proxy, bob, level)
        code, bound = ask(self.tcp, "0.0.0.0", 0, Command.UDP_ASSOCIATE)
        assert code == 0
        self.relay = (bound.host, bound.port)
        self.udp = udp_socket("127.0.0.1")
        self.wrapping = self.tcp._wrapping

    def __enter__(self) -> Associated:
        return self

    def __exit__(self, *_: object) -> None:
        self.tcp.close()
        self.udp.close()

    def encapsulated(self, payload: bytes, to: tuple[str, int], fragment: int = 0) -> bytes:
        data: bytes = self.wrapping.wrap_datagram(build_header(Address.of(*to), fragment) + payload)
        return data

    def send(self, payload: bytes, to: tuple[str, int], fragment: int = 0) -> None:
        self.udp.sendto(self.encapsulated(payload, to, fragment), self.relay)

    def receive(self) -> tuple[tuple[str, int], bytes]:
        data, peer = self.udp.recvfrom(65536)
        assert peer == self.relay
        whole = self.wrapping.unwrap_datagram(data)
        datagram, start = parse_datagram(whole)
        return (datagram.address.host, datagram.address.port), whole[start:]


@pytest.fixture(params=["transports", "accepted"])
def datagrams(request: pytest.FixtureRequest, serve_as: Serve, portal: Portal) -> Callable[..., Any]:
    """Starts a proxy whose associations are on transports, or in the engine."""
    return lambda **options: serve_as(request.param, portal=portal, **options)


@levels
@pytest_twisted.inlineCallbacks
def test_datagrams(datagrams: Callable[..., Any], bob: dict[str, str], level: Level) -> Playing:
    """To two destinations, many at once, of all sizes: none is lost or goes astray."""
    proxy = yield datagrams()

    def scenario() -> int:
        total = 0
        with Echo() as one, Echo() as other, Associated(proxy, bob, level) as client:
            for size in (0, 1, 100, 1472, 9000, 60000):
                for place in (one, other):
                    client.send(pattern(size, size), place.address)
                    assert client.receive() == (place.address, pattern(size, size))
                    total += size
            for number in range(20):
                client.send(bytes((number,)) * 50, one.address)
            assert [client.receive()[1][0] for _ in range(20)] == list(range(20))
        return total + 1000

    total = yield proxy.play(scenario)
    record = yield proxy.record()
    assert (record["datagrams_sent"], record["datagrams_received"]) == (32, 32)
    assert (record["sent"], record["received"], record["user"]) == (total, total, "bob")
    assert not record["dropped"]


@pytest_twisted.inlineCallbacks
def test_datagrams_that_are_not_the_clients(datagrams: Callable[..., Any], bob: dict[str, str]) -> Playing:
    """
    Without the client's key nobody sends in its name, not even from its machine before it does.

    Nor twice what it has sent once.
    """
    proxy = yield datagrams()

    def scenario() -> None:
        with ExitStack() as stack:
            echo_ = stack.enter_context(Echo())
            client = stack.enter_context(Associated(proxy, bob))
            bare = build_header(Address.of(*echo_.address)) + b"bare"
            with udp_socket("127.0.0.1") as thief:
                thief.sendto(bare, client.relay)
                thief.sendto(build_encapsulated(b"x" * 70), client.relay)
                assert is_silent(thief)
            once = client.encapsulated(b"once", echo_.address)
            client.udp.sendto(once, client.relay)
            assert client.receive() == (echo_.address, b"once")
            client.udp.sendto(once, client.relay)
            client.udp.sendto(bare, client.relay)
            changed = bytearray(client.encapsulated(b"changed", echo_.address))
            changed[-1] ^= 1
            client.udp.sendto(changed, client.relay)
            client.send(b"the last", echo_.address)
            assert client.receive() == (echo_.address, b"the last")
            assert [data for data, _ in echo_.seen] == [b"once", b"the last"]

    yield proxy.play(scenario)
    record = yield proxy.record()
    assert record["dropped"] == {"malformed": 5}


@pytest_twisted.inlineCallbacks
def test_fragments(datagrams: Callable[..., Any], bob: dict[str, str]) -> Playing:
    """Each is encapsulated by itself."""
    proxy = yield datagrams()

    def scenario() -> None:
        with Echo() as echo_, Associated(proxy, bob) as client:
            client.send(b"first, ", echo_.address, 1)
            client.send(b"last", echo_.address, 0x82)
            assert client.receive() == (echo_.address, b"first, last")

    yield proxy.play(scenario)


@pytest_twisted.inlineCallbacks
def test_an_answer_that_is_too_long(datagrams: Callable[..., Any], bob: dict[str, str]) -> Playing:
    """With its cover it would not go into a datagram: it is dropped and counted, and others pass."""
    proxy = yield datagrams()

    def scenario() -> None:
        with Echo() as echo_, Associated(proxy, bob) as client:
            client.send(b"hello", echo_.address)
            client.receive()
            ((_, place),) = echo_.seen
            for size in (65_440, 65_480, 65_507):
                echo_.sock.sendto(bytes(size), place)
            client.send(b"again", echo_.address)
            assert client.receive() == (echo_.address, b"again")

    yield proxy.play(scenario)
    record = yield proxy.record()
    assert record["dropped"] == {"too_big": 3}


@pytest_twisted.inlineCallbacks
def test_two_clients_on_one_port(datagrams: Callable[..., Any], bob: dict[str, str]) -> Playing:
    """Of one machine, and the second one speaks first: what is encapsulated says whose it is."""
    from tests.support.udp import UDPSettings

    proxy = yield datagrams(udp=UDPSettings(port=_free_udp_port()))

    def scenario() -> None:
        with Echo() as echo_, Associated(proxy, bob) as first, Associated(proxy, bob) as second:
            assert first.relay == second.relay
            second.send(b"second", echo_.address)
            assert second.receive() == (echo_.address, b"second")
            first.send(b"first", echo_.address)
            assert first.receive() == (echo_.address, b"first")

    yield proxy.play(scenario)


def _free_udp_port() -> int:
    with udp_socket("127.0.0.1") as probe:
        number: int = probe.getsockname()[1]
        return number
