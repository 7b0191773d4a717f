"""
What other SOCKS servers do wrong, one fault a test: each passes here and would fail there.

Rows that concern CONNECT. What they do wrong with many clients is in ``test_capacity.py``.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from socksproxy import Timeouts
from socksproxy.net.dial import Pending
from socksproxy.wire.words import Address, AddressType, Command

from ..conftest import Serve
from ..support.hosts import Hosts
from ..support.machine import needs_ipv6
from ..support.origin import Origin, answer_at_the_end, echo
from ..support.proxy import (
    Playing,
    Proxy,
    ask4,
    ask5,
    closed_port,
    echoes,
    greet,
    greeting,
    reply4,
    reply5,
    request4,
    request5,
    until,
)
from ..support.relay import is_reset, read_exactly, read_to_end, reset
from ..support.routes import ScriptedRoute

# The protocol, row by row.


@pytest_twisted.inlineCallbacks
def test_socks4(serve: Serve) -> Playing:
    """Several speak SOCKS5 alone; one refuses SOCKS4 while authentication is on."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve()
        for userid in (b"", b"me", b"u" * 512):
            with proxy.connect() as sock:
                sock.sendall(request4("127.0.0.1", origin.port, userid=userid))
                assert (yield proxy.play(reply4, sock))[0] == 90
                yield proxy.play(echoes, sock)


@pytest.mark.parametrize("last", [1, 7, 127, 255])
@pytest_twisted.inlineCallbacks
def test_socks4a(serve: Serve, last: int) -> Playing:
    """Some dial the literal 0.0.0.x, or the literal 0.0.0.1, instead of the name behind it."""
    hosts = Hosts({"four.example": ["127.0.0.1"]})
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(resolver=hosts)
        port = origin.port.to_bytes(2, "big")
        with proxy.connect() as sock:
            sock.sendall(b"\x04\x01" + port + bytes((0, 0, 0, last)) + b"me\0four.example\0")
            assert (yield proxy.play(reply4, sock))[0] == 90
            yield proxy.play(echoes, sock)
        record = yield proxy.record()
    assert record["destination"] == f"four.example:{origin.port}"
    assert record["reached"] == f"127.0.0.1:{origin.port}"


@pytest.mark.parametrize("host", ["0.1.2.3", "0.0.1.1", "0.0.0.0", "1.0.0.1"])
@pytest_twisted.inlineCallbacks
def test_not_socks4a(serve: Serve, host: str, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """One takes any 0.x.x.x for the sign of a name, and waits for a name that never comes."""
    dialed: list[Address] = []

    def dialer(destination: Address) -> Deferred[Any]:
        dialed.append(destination)
        return fail(OSError(errno.EHOSTUNREACH, "No route to host"))

    proxy: Proxy = yield serve()
    monkeypatch.setattr(proxy.sessions.context, "route", ScriptedRoute(dialer))
    with proxy.connect() as sock:
        sock.sendall(b"\x04\x01\x00\x50" + socket.inet_aton(host) + b"me\0")
        assert (yield proxy.play(reply4, sock))[0] == 91
    assert dialed == [Address(host, 80, AddressType.IPV4)]


@pytest.mark.parametrize(
    "family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=needs_ipv6)], ids=["v4", "v6"]
)
@pytest.mark.parametrize("named", [False, True], ids=["address", "name"])
@pytest_twisted.inlineCallbacks
def test_socks5(serve: Serve, family: int, named: bool) -> Playing:
    """Every address type; one server hangs on any SOCKS5 greeting, others know no IPv6."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with Origin(echo, host) as origin:
        proxy: Proxy = yield serve(resolver=Hosts({"five.example": [host]}))
        with proxy.connect() as sock:
            reply, bound = yield proxy.play(ask5, sock, "five.example" if named else host, origin.port)
            assert reply == 0
            assert bound.type is (AddressType.IPV4 if family == socket.AF_INET else AddressType.IPV6)
            yield proxy.play(echoes, sock)


@pytest.mark.parametrize(
    ("host", "reply"),
    [("127.0.0.1", 5), ("nowhere.example", 4), ("refusing.example", 5), ("192.0.2.1", 3), ("192.0.2.2", 4)],
)
@pytest_twisted.inlineCallbacks
def test_true_reply(serve: Serve, host: str, reply: int, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Some always say 3, or 4, or 1 or 8 for a bad name; some say success before they dial."""
    proxy: Proxy = yield serve(resolver=Hosts({"refusing.example": ["127.0.0.1"]}))
    port = closed_port()
    if host.startswith("192."):
        number = errno.ENETUNREACH if reply == 3 else errno.EHOSTUNREACH
        dialer = lambda destination: fail(OSError(number, "no way"))  # noqa: E731
        monkeypatch.setattr(proxy.sessions.context, "route", ScriptedRoute(dialer))
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, host, port))[0] == reply
    with proxy.connect() as sock:
        assert (yield proxy.play(ask4, sock, host, port))[0] == 91


@pytest.mark.parametrize("ask", [ask4, ask5])
@pytest_twisted.inlineCallbacks
def test_true_bound_address(serve: Serve, ask: Callable[..., tuple[int, Address]]) -> Playing:
    """Instead of the outgoing address others tell zeros, their listener, the target or what was asked."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve()
        with proxy.connect() as sock:
            _, bound = yield proxy.play(ask, sock, "127.0.0.1", origin.port)
            yield proxy.play(echoes, sock)
            assert (bound.host, bound.port) == origin.peers[0]
            assert bound.port not in (origin.port, proxy.address[1], sock.getsockname()[1])


@pytest.mark.parametrize("command", [0x00, 0x04, 0x7F, 0xFF])
@pytest_twisted.inlineCallbacks
def test_unknown_command(serve: Serve, command: int) -> Playing:
    """Several close without a word; one takes commands that it does not know for CONNECT."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve()
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port, command))[0] == 7
            assert (yield proxy.play(sock.recv, 1)) == b""
        with proxy.connect() as sock:
            assert (yield proxy.play(ask4, sock, "127.0.0.1", origin.port, command))[0] == 91
    assert origin.peers == []


@pytest.mark.parametrize("methods", [b"\x01", b"\x02", b"\x01\x02", b"\x80\xfe", bytes(range(1, 256))])
@pytest_twisted.inlineCallbacks
def test_no_acceptable_method(serve: Serve, methods: bytes) -> Playing:
    """Some answer 00 though nobody offered it, or close without FF."""
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        sock.sendall(bytes((5, len(methods))) + methods)
        assert (yield proxy.play(read_to_end, sock)) == b"\x05\xff"


@pytest_twisted.inlineCallbacks
def test_half_close_by_the_client(serve: Serve) -> Playing:
    """Many take either end for both, or cut the other direction after 2, 5 or 10 seconds."""

    def slowly(sock: socket.socket) -> None:
        received = read_to_end(sock)
        for _ in range(5):
            sock.sendall(b"%d " % len(received))
            go_on.wait(10)
            go_on.clear()

    go_on = threading.Event()
    clock = Clock()
    with Origin(slowly) as origin:
        proxy: Proxy = yield serve(clock=clock)
        with proxy.connect() as sock:
            yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            sock.sendall(bytes(100_000))
            sock.shutdown(socket.SHUT_WR)
            for _ in range(5):
                assert (yield proxy.play(read_exactly, sock, 7)) == b"100000 "
                clock.advance(3600)
                go_on.set()
            assert (yield proxy.play(sock.recv, 1)) == b""


@pytest_twisted.inlineCallbacks
def test_half_close_by_the_destination(serve: Serve) -> Playing:
    """The same the other way round: the destination is done, and the client is not."""
    received: list[bytes] = []

    def done_first(sock: socket.socket) -> None:
        sock.sendall(b"done")
        sock.shutdown(socket.SHUT_WR)
        received.append(read_to_end(sock))

    clock = Clock()
    with Origin(done_first) as origin:
        proxy: Proxy = yield serve(clock=clock)
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", origin.port))
            assert (yield proxy.play(read_exactly, sock, 14))[10:] == b"done"
            assert (yield proxy.play(sock.recv, 1)) == b""
            for _ in range(3):
                clock.advance(200)  # less than the half-closed timeout
                yield proxy.play(sock.sendall, bytes(50_000))
        yield until(lambda: received)
    assert received == [bytes(150_000)]


SPLITS = ["byte by byte", "all at once"]


@pytest.mark.parametrize("way", SPLITS)
@pytest.mark.parametrize("version", [4, 5])
@pytest_twisted.inlineCallbacks
def test_split_and_pipelined(serve: Serve, version: int, way: str) -> Playing:
    """Some fail on a handshake that is cut into segments or comes in one, or lose what stands behind it."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(resolver=Hosts({"origin.example": ["127.0.0.1"]}))
        if version == 5:
            said, answer = greeting() + request5("origin.example", origin.port), 2 + 10
        else:
            said, answer = request4("origin.example", origin.port), 8
        said += b"and what is behind"

        def speak(sock: socket.socket) -> bytes:
            if way == "all at once":
                sock.sendall(said)
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in said:
                    sock.sendall(bytes((byte,)))
            return read_exactly(sock, answer + 18)

        with proxy.connect() as sock:
            received = yield proxy.play(speak, sock)
        assert received[:2] == (b"\x05\x00" if version == 5 else b"\x00\x5a")
        assert received[answer:] == b"and what is behind"


@pytest_twisted.inlineCallbacks
def test_handshake_deadline(serve: Serve) -> Playing:
    """Many have none, or one for each read, so that a byte now and then holds a place for ever."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock, timeouts=Timeouts(handshake=10))
    with proxy.connect() as silent, proxy.connect() as trickling:
        yield until(lambda: len(proxy.sessions.live) == 2)
        yield proxy.play(greet, trickling)
        for byte in b"\x05\x01\x00\x01":
            clock.advance(2)
            trickling.sendall(bytes((byte,)))
            yield until(
                lambda seen=byte: any(s.negotiation.early[-1:] == bytes((seen,)) for s in proxy.sessions.live)  # type: ignore[misc]
            )
        clock.advance(2)
        assert (yield proxy.play(is_reset, silent))
        assert (yield proxy.play(is_reset, trickling))
    yield proxy.record(1)
    assert [record["ended"] for record in proxy.records] == ["handshake timeout"] * 2


@pytest.mark.parametrize("said", [b"GET / HTTP/1.0\r\n\r\n", b"CONNECT a.example:443 HTTP/1.1\r\n\r\n", b"P"])
@pytest_twisted.inlineCallbacks
def test_http(serve: Serve, said: bytes) -> Playing:
    """One says in HTML that this is no HTTP proxy; the others hang or close, and the user learns nothing."""
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        sock.sendall(said)
        answer = yield proxy.play(read_to_end, sock)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"Content-Length: %d" % len(body) in head
    assert b"SOCKS" in body


# What their users complain about.


@pytest.mark.parametrize("cut", range(1, 13))
@pytest_twisted.inlineCallbacks
def test_any_cut(serve_as: Serve, cut: int) -> Playing:
    """A handshake in two segments, wherever it is cut: "fails if split or coalesced", closed unfixed."""
    proxy: Proxy = yield serve_as("accepted")
    said = greeting() + request5("127.0.0.1", closed_port())
    with proxy.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(said[:cut])
        (session,) = yield sessions_of(proxy)
        yield until(lambda: len(session.negotiation.early) == (cut if cut < 3 else cut - 3))
        sock.sendall(said[cut:])
        received = yield proxy.play(read_to_end, sock)
    assert received == b"\x05\x00\x05\x05\x00\x01" + bytes(6)


def sessions_of(proxy: Proxy) -> Deferred[Any]:
    """The sessions, when there are any."""
    return until(lambda: proxy.sessions.live).addCallback(lambda _: proxy.sessions.live)


@needs_ipv6
@pytest.mark.parametrize("alive", ["127.0.0.1", "::1"])
@pytest_twisted.inlineCallbacks
def test_one_family_is_dead(serve: Serve, alive: str) -> Playing:
    """A name with both families of which one answers: "no fallback", "won't fix"."""
    hosts = Hosts({"dual.example": ["::1", "127.0.0.1"]})
    with Origin(echo, alive) as origin:
        proxy: Proxy = yield serve(resolver=hosts)
        for ask in (ask5, ask4):
            with proxy.connect() as sock:
                assert (yield proxy.play(ask, sock, "dual.example", origin.port))[0] in (0, 90)
                yield proxy.play(echoes, sock)
        record = yield proxy.record()
    assert record["reached"] == str(Address.of(alive, origin.port))


@needs_ipv6
@pytest_twisted.inlineCallbacks
def test_one_family_is_silent(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """The same where the dead one does not even refuse: a quarter of a second is waited, not two minutes."""
    hosts = Hosts({"dual.example": ["2001:db8::1", "127.0.0.1"]})
    clock = Clock()
    cancelled: list[str] = []
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(resolver=hosts, clock=clock)
        real = proxy.sessions.context.route

        def attempt(destination: Address) -> Pending:
            if destination.type is AddressType.IPV6:
                return Deferred(lambda _: cancelled.append(destination.host))
            return real.dial(destination, proxy.kind in ("detached", "accepted"))

        monkeypatch.setattr(proxy.sessions.context, "route", ScriptedRoute(attempt))
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("dual.example", origin.port))
            yield until(lambda: hosts.asked)
            clock.advance(0.25)
            assert (yield proxy.play(reply5, sock))[0] == 0
            yield proxy.play(echoes, sock)
    assert cancelled == ["2001:db8::1"]


def in_close_wait(*ports: int) -> int:
    """How many sockets of this machine with one of *ports* have an end that nobody has closed."""
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state = line.split()[:4]
        if state == "08" and {int(end.rpartition(":")[2], 16) for end in (local, remote)} & set(ports):
            found += 1
    return found


@pytest.mark.parametrize(
    "first", ["client", "destination", "client, data unread", "destination, data unread"]
)
@pytest_twisted.inlineCallbacks
def test_no_close_wait(serve: Serve, first: str) -> Playing:
    """Sockets in CLOSE_WAIT pile up where a half-close is forgotten, or bytes are left unread."""

    def serve_one(sock: socket.socket) -> None:
        if first == "client":
            read_to_end(sock)
        elif first == "destination":
            sock.sendall(b"bye")
        elif first == "client, data unread":
            sock.settimeout(20)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                sock.sendall(bytes(50_000_000))
        else:
            sock.recv(1)

    def session() -> None:
        sock = proxy.connect()
        greet(sock)
        sock.sendall(request5("127.0.0.1", origin.port))
        assert read_exactly(sock, 10)[:2] == b"\x05\x00"
        if first == "destination":
            assert read_to_end(sock) == b"bye"
        elif first == "client, data unread":
            assert sock.recv(1000)
        elif first == "destination, data unread":
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                sock.sendall(bytes(50_000_000))
        sock.close()

    with Origin(serve_one) as origin:
        proxy: Proxy = yield serve()
        for _ in range(8):
            yield proxy.play(session)
        yield proxy.record(7)
        yield until(lambda: not in_close_wait(proxy.address[1], origin.port))


@pytest_twisted.inlineCallbacks
def test_no_success_for_a_closed_port(serve: Serve) -> Playing:
    """ "Success" for a port that is closed or filtered misleads fail-over clients and scanners."""
    hosts = Hosts({"slow.example": None})
    proxy: Proxy = yield serve(resolver=hosts)
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("slow.example", closed_port()))
        yield until(lambda: hosts.asked)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.settimeout(10)
        hosts.answer("slow.example", "127.0.0.1")
        assert (yield proxy.play(reply5, sock))[0] == 5


@pytest_twisted.inlineCallbacks
def test_half_close_with_much_in_flight(serve: Serve) -> Playing:
    """ "Half-close lost in the relay": the end comes after the last byte, and the answer after the end."""
    with Origin(answer_at_the_end) as origin:
        proxy: Proxy = yield serve()
        with proxy.connect() as sock:
            yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            yield proxy.play(sock.sendall, bytes(5_000_000))
            sock.shutdown(socket.SHUT_WR)
            answer = yield proxy.play(read_to_end, sock)
        assert answer.startswith(b"5000000 ")


@pytest_twisted.inlineCallbacks
def test_form_of_replies(serve: Serve) -> Playing:
    """Small clients read ten bytes, or eight, in one go, and refuse all that is not as the RFC has it."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(resolver=Hosts({"origin.example": ["127.0.0.1"]}))
        for host in ("127.0.0.1", "origin.example"):
            with proxy.connect() as sock:
                yield proxy.play(greet, sock)
                sock.sendall(request5(host, origin.port))
                reply = yield proxy.play(sock.recv, 1000)
                assert len(reply) == 10
                assert reply[:8] == b"\x05\x00\x00\x01\x7f\x00\x00\x01"
            with proxy.connect() as sock:
                sock.sendall(request4(host, origin.port))
                reply = yield proxy.play(sock.recv, 1000)
                assert len(reply) == 8
                assert (reply[:2], reply[4:]) == (b"\x00\x5a", b"\x7f\x00\x00\x01")
        for host, code in (("127.0.0.1", 5), ("nowhere.example", 4)):
            with proxy.connect() as sock:
                yield proxy.play(greet, sock)
                sock.sendall(request5(host, closed_port()))
                assert (yield proxy.play(sock.recv, 1000)) == bytes((5, code, 0, 1)) + bytes(6)
            with proxy.connect() as sock:
                sock.sendall(request4(host, closed_port()))
                assert (yield proxy.play(sock.recv, 1000)) == b"\x00\x5b" + bytes(6)


@pytest_twisted.inlineCallbacks
def test_accept_runs_out(serve_as: Serve) -> Playing:
    """An accept that fails with EMFILE kills one server; here it is a pause; then the client is served."""
    clock = Clock()
    proxy: Proxy = yield serve_as("accepted", clock=clock)
    acceptor = proxy.port.doRead.__self__
    accept = acceptor._accept
    tried: list[None] = []

    def exhausted() -> Any:
        tried.append(None)
        raise OSError(errno.EMFILE, "Too many open files")

    acceptor._accept = exhausted
    with proxy.connect() as sock:
        yield until(lambda: proxy.factory._gate.paused)
        assert len(tried) == 1
        acceptor._accept = accept
        clock.advance(1)
        yield proxy.play(greet, sock)


@pytest_twisted.inlineCallbacks
def test_client_resets_at_once(serve: Serve) -> Playing:
    """A client that asks and vanishes in one go takes nobody with it, and leaves no connection behind."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve()
        for _ in range(20):
            sock = proxy.connect()
            sock.sendall(greeting() + request5("127.0.0.1", origin.port, Command.CONNECT) + b"data")
            reset(sock)
        yield until(lambda: not proxy.sessions.live)
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(echoes, sock)
