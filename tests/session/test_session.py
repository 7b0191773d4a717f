"""
Sessions from the first byte to the record, however their bytes are carried.

Every test runs with each kind of carriage (``tests/support/proxy.py``), and
after each nothing may be left: no session, no descriptor, no handler.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, NoRouteError, TimeoutError as ConnectTimeout
from twisted.internet.task import Clock

from socksproxy.negotiation import MAX_EARLY
from socksproxy.net import descriptors
from socksproxy.net.dial import Pending
from socksproxy.relay import idle as idle_relays
from socksproxy.server.factory import SOCKSProtocol
from socksproxy.server.sockets import SocketChannel
from socksproxy.session.parts import Phase
from socksproxy.session.shared import LINGER
from socksproxy.values.timeouts import NEVER, Timeouts
from socksproxy.wire.words import Address, AddressType, Command, Reply

from ..conftest import Serve
from ..support.hosts import Hosts
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
    greet,
    greeting,
    open_descriptors,
    options_of,
    reply5,
    request5,
    until,
)
from ..support.relay import is_reset, read_exactly, read_to_end, reset
from ..support.routes import ScriptedRoute
from ..support.sessions import Stuck, in_phase, the_session

SLOW = "slow.example"


# Carried as the names of the kinds say.


@pytest_twisted.inlineCallbacks
def test_kinds(serve: Serve) -> Playing:
    """The fixtures try what they say they try."""
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        channel = the_session(proxy).channel
        assert type(channel) is (SocketChannel if proxy.kind == "accepted" else SOCKSProtocol)
        sockets = channel.detachable and proxy.sessions.context.engine is not None
        assert sockets == (proxy.kind != "transports")


# The client goes, or does not come on, in every phase.


@pytest.mark.parametrize(
    "said", [b"", b"\x05", greeting(), greeting() + b"\x05\x01\x00\x01", b"\x04\x01\x00"]
)
@pytest.mark.parametrize(
    ("leave", "ended"),
    [("close", "client"), ("half-close", "client"), ("reset", "client reset")],
)
@pytest_twisted.inlineCallbacks
def test_leaves_while_negotiating(serve: Serve, said: bytes, leave: str, ended: str) -> Playing:
    """A client that goes before it has asked is told nothing more, and recorded as what it was."""

    def scenario(sock: socket.socket) -> None:
        sock.sendall(said)
        if said[:1] == b"\x05" and len(said) > 1:
            assert sock.recv(2) == b"\x05\x00"

    def go(sock: socket.socket) -> None:
        if leave == "reset":
            reset(sock)
        elif leave == "close":
            sock.close()
        else:
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""

    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
        yield until(lambda: len(proxy.sessions.live) == 1)
        if said and said != greeting():
            yield until(lambda: the_session(proxy).negotiation.early)
        yield proxy.play(go, sock)
        record = yield proxy.record()
    assert record["ended"] == ended
    assert (record["version"], record["command"], record["destination"]) == (None, None, None)
    assert (record["reply"], record["reached"], record["handshake_seconds"]) == (None, None, None)


@pytest_twisted.inlineCallbacks
def test_stalls_while_negotiating(serve: Serve) -> Playing:
    """Whoever says nothing is cut at the handshake's deadline, neither sooner nor later."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock, timeouts=Timeouts(handshake=10))
    with proxy.connect() as sock:
        yield until(in_phase(proxy, Phase.NEGOTIATING))
        clock.advance(9.99)
        yield proxy.play(greet, sock)
        assert proxy.records == []
        clock.advance(0.01)
        assert (yield proxy.play(is_reset, sock))
    record = yield proxy.record()
    assert record["ended"] == "handshake timeout"
    assert record["session_seconds"] == 10.0
    assert record["reply"] is None


@pytest_twisted.inlineCallbacks
def test_trickles(serve: Serve) -> Playing:
    """A byte a second keeps nobody beyond the deadline: it is one for the whole handshake."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock, timeouts=Timeouts(handshake=10))
    with proxy.connect() as sock:
        yield until(in_phase(proxy, Phase.NEGOTIATING))
        session = the_session(proxy)
        sock.sendall(b"\x05\xff")
        for second in range(10):
            yield until(lambda expected=second + 2: len(session.negotiation.early) == expected)  # type: ignore[misc]
            assert session in proxy.sessions.live
            sock.sendall(b"\x01")
            clock.advance(1)
        assert (yield proxy.play(is_reset, sock))
    record = yield proxy.record()
    assert record["ended"] == "handshake timeout"


@pytest_twisted.inlineCallbacks
def test_no_handshake_timeout(serve: Serve) -> Playing:
    """None is for ever."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock, timeouts=Timeouts(handshake=NEVER))
    with proxy.connect() as sock:
        yield until(in_phase(proxy, Phase.NEGOTIATING))
        clock.advance(100_000)
        yield proxy.play(greet, sock)


def goes(leave: str) -> Callable[[socket.socket], None]:
    return {"close": socket.socket.close, "reset": reset}.get(leave, lambda s: s.shutdown(socket.SHUT_WR))


@pytest.mark.parametrize(
    ("leave", "ended"),
    [("close", "client"), ("half-close", "client"), ("reset", "client reset")],
)
@pytest_twisted.inlineCallbacks
def test_leaves_while_resolving(serve: Serve, leave: str, ended: str) -> Playing:
    """Nobody waits for a name that nobody wants any more, and it is not dialed when it comes."""
    hosts = Hosts({SLOW: None})
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(resolver=hosts)
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5(SLOW, origin.port))
            yield until(lambda: hosts.asked == [SLOW])
            goes(leave)(sock)
            record = yield proxy.record()
            assert not proxy.sessions.live
            hosts.answer(SLOW, "127.0.0.1")
        assert record["ended"] == ended
        assert record["destination"] == f"{SLOW}:{origin.port}"
        assert (record["reply"], record["reached"], record["connect_seconds"]) == (None, None, None)
        assert origin.peers == []


@pytest.mark.parametrize(
    ("leave", "ended"),
    [("close", "client"), ("half-close", "client"), ("reset", "client reset")],
)
@pytest_twisted.inlineCallbacks
def test_leaves_while_dialing(serve: Serve, leave: str, ended: str) -> Playing:
    """A connection that is being made for nobody is given up at once."""
    with Stuck() as stuck:
        proxy: Proxy = yield serve()
        before = open_descriptors()
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", stuck.port))
            yield until(in_phase(proxy, Phase.SERVING))
            yield until(lambda: len(open_descriptors() - before) == 3)
            goes(leave)(sock)
            record = yield proxy.record()
            sock.close()
            yield until(lambda: open_descriptors() <= before)
        assert record["ended"] == ended
        assert record["reply"] is None


@pytest_twisted.inlineCallbacks
def test_leaves_while_dialing_with_bytes_ahead(serve: Serve) -> Playing:
    """A reset is noticed even while no more is read from a client that has sent much ahead."""
    with Stuck() as stuck:
        clock = Clock()
        proxy: Proxy = yield serve(clock=clock)
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", stuck.port))
            yield proxy.play(sock.sendall, bytes(2 * MAX_EARLY))
            yield until(lambda: the_session(proxy).negotiation.full)
            reset(sock)
            if proxy.kind != "accepted":
                clock.advance(30)  # Twisted tells a paused transport nothing: the deadline ends it
            record = yield proxy.record()
        if proxy.kind == "accepted":
            assert record["ended"] == "client reset"
            assert record["reply"] is None


@pytest_twisted.inlineCallbacks
def test_half_closes_after_early_data(serve: Serve) -> Playing:
    """A client that has said all it has to say may wait for the answer: it is not taken for gone."""
    hosts = Hosts({SLOW: None})
    with Origin(answer_at_the_end) as origin:
        proxy: Proxy = yield serve(resolver=hosts)
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5(SLOW, origin.port) + b"all that there is")
            sock.shutdown(socket.SHUT_WR)
            yield until(lambda: hosts.asked == [SLOW])
            yield until(lambda: the_session(proxy).half_closed)
            hosts.answer(SLOW, "127.0.0.1")
            # The answer may follow at once.
            assert (yield proxy.play(reply5, sock, 10))[0] == 0
            answer = yield proxy.play(read_to_end, sock)
        sha = hashlib.sha256(b"all that there is").hexdigest()
        assert answer == f"17 {sha}\n".encode()
        record = yield proxy.record()
    assert record["ended"] == "client"
    assert (record["sent"], record["received"]) == (17, len(answer))


@pytest.mark.parametrize("size", [1, MAX_EARLY - 1, MAX_EARLY, MAX_EARLY + 1, 3_000_000])
@pytest_twisted.inlineCallbacks
def test_sends_on_while_resolving(serve: Serve, size: int) -> Playing:
    """Bytes sent ahead are kept up to a bound, then wait in the client's socket: none is lost or doubled."""
    data = hashlib.shake_128(b"early").digest(size)
    hosts = Hosts({SLOW: None})
    with Origin(answer_at_the_end) as origin:
        proxy: Proxy = yield serve(resolver=hosts)
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5(SLOW, origin.port))
            yield until(lambda: hosts.asked == [SLOW])
            sender = threading.Thread(target=sock.sendall, args=(data,))
            sender.start()
            session = the_session(proxy)
            yield until(lambda: len(session.negotiation.early) >= min(size, MAX_EARLY))
            yield until(lambda: True)
            assert len(session.negotiation.early) <= 2 * MAX_EARLY
            hosts.answer(SLOW, "127.0.0.1")
            assert (yield proxy.play(reply5, sock))[0] == 0
            yield proxy.play(sender.join)
            sock.shutdown(socket.SHUT_WR)
            answer = yield proxy.play(read_to_end, sock)
        assert answer == f"{size} {hashlib.sha256(data).hexdigest()}\n".encode()
        record = yield proxy.record()
        assert record["sent"] == size


@pytest_twisted.inlineCallbacks
def test_strangers_have_no_record(serve: Serve) -> Playing:
    """Another program that looks at the port comes first; the first record is the test's client's."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve()
        with proxy.connect() as sock:
            with socket.create_connection(proxy.address):
                pass
            yield until(lambda: len(proxy.sessions.live) == 1)
            yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            yield proxy.play(echoes, sock)
        assert (yield proxy.record())["sent"] == 4


@pytest_twisted.inlineCallbacks
def test_sends_on_to_be_refused(serve: Serve) -> Playing:
    """A client whose bytes were held back still reads its refusal."""
    hosts = Hosts({SLOW: None})
    proxy: Proxy = yield serve(resolver=hosts)
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5(SLOW, 80))
        yield until(lambda: hosts.asked == [SLOW])
        sock.sendall(bytes(MAX_EARLY + 10_000))
        yield until(lambda: the_session(proxy).negotiation.full)
        hosts.answer(SLOW)
        assert (yield proxy.play(reply5, sock))[0] == Reply.HOST_UNREACHABLE
        assert (yield proxy.play(sock.recv, 1)) == b""
    record = yield proxy.record()
    assert record["ended"] == "refused: name not found"


@pytest.mark.parametrize("dialing", [False, True], ids=["resolving", "dialing"])
@pytest_twisted.inlineCallbacks
def test_connect_timeout(serve: Serve, dialing: bool) -> Playing:
    """Looking up and connecting have one deadline; the reply says that it was time that ran out."""
    clock = Clock()
    hosts = Hosts({SLOW: None})
    with Stuck() as stuck:
        proxy: Proxy = yield serve(clock=clock, resolver=hosts, timeouts=Timeouts(connect=30))
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            before = open_descriptors()
            sock.sendall(request5("127.0.0.1" if dialing else SLOW, stuck.port))
            yield until(in_phase(proxy, Phase.SERVING))
            clock.advance(29.9)
            assert the_session(proxy).phase is Phase.SERVING
            clock.advance(0.1)
            assert (yield proxy.play(reply5, sock)) == (6, Address("0.0.0.0", 0, AddressType.IPV4))
            assert (yield proxy.play(sock.recv, 1)) == b""
            yield until(lambda: open_descriptors() <= before)
        record = yield proxy.record()
        assert record["ended"] == "refused: connect timeout"
        assert (record["reply"], record["connect_seconds"]) == (6, 30.0)


# The relay, and its record.


@pytest_twisted.inlineCallbacks
def test_record_of_a_session(serve: Serve) -> Playing:
    """What the record says is what the client and the origin saw."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(resolver=Hosts({"origin.example": ["127.0.0.1"]}))
        with proxy.connect() as sock:
            own = "{}:{}".format(*sock.getsockname())
            reply, bound = yield proxy.play(ask5, sock, "Origin.example", origin.port)
            yield proxy.play(echoes, sock, b"x" * 1000)
            (peer,) = origin.peers
            assert (bound.host, bound.port) == peer
            sock.sendall(b"yz")
            sock.shutdown(socket.SHUT_WR)
            assert (yield proxy.play(read_to_end, sock)) == b"yz"
        record = yield proxy.record()
    expected = {
        "client": own,
        "user": None,
        "method": None,
        "version": 5,
        "command": "CONNECT",
        "destination": f"Origin.example:{origin.port}",
        "reached": f"127.0.0.1:{origin.port}",
        "outgoing": "{}:{}".format(*peer),
        "reply": reply,
        "sent": 1002,
        "received": 1002,
        "ended": "client",
    }
    assert {key: record[key] for key in expected} == expected
    times = [record[f"{part}_seconds"] for part in ("handshake", "resolution", "connect")]
    assert all(time >= 0 for time in times)
    assert record["session_seconds"] >= sum(times) - 1e-5


def say_hello(sock: socket.socket) -> None:
    sock.sendall(b"hello")


def hello_and_reset(sock: socket.socket) -> None:
    sock.sendall(b"hello")
    sock.recv(1)
    reset(sock)


@pytest_twisted.inlineCallbacks
def test_destination_closes(serve: Serve) -> Playing:
    """The banner comes whole, then the end, and the record says whose."""
    with Origin(say_hello) as origin:
        proxy: Proxy = yield serve()
        with proxy.connect() as sock:
            sock.sendall(greeting() + request5("127.0.0.1", origin.port))
            everything = yield proxy.play(read_exactly, sock, 2 + 10 + 5)
            assert everything[:4] == b"\x05\x00\x05\x00"
            assert everything[-5:] == b"hello"
            assert (yield proxy.play(sock.recv, 1)) == b""
        record = yield proxy.record()
    assert record["ended"] == "destination"
    assert (record["sent"], record["received"]) == (0, 5)


@pytest_twisted.inlineCallbacks
def test_destination_resets(serve: Serve) -> Playing:
    with Origin(hello_and_reset) as origin:
        proxy: Proxy = yield serve()
        with proxy.connect() as sock:
            sock.sendall(greeting() + request5("127.0.0.1", origin.port))
            yield proxy.play(read_exactly, sock, 17)
            sock.sendall(b"x")
            assert (yield proxy.play(is_reset, sock))
        record = yield proxy.record()
    assert record["ended"] == "destination reset"


@pytest_twisted.inlineCallbacks
def test_client_resets(serve: Serve) -> Playing:
    """The destination gets a reset, too, and not a close that looks like the end of the data."""
    seen: list[bool] = []

    def watch(sock: socket.socket) -> None:
        sock.sendall(sock.recv(1))
        seen.append(is_reset(sock))

    with Origin(watch) as origin:
        proxy: Proxy = yield serve()
        sock = proxy.connect()
        yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
        yield proxy.play(echoes, sock, b"x")
        reset(sock)
        record = yield proxy.record()
        yield until(lambda: seen)
    assert seen == [True]
    assert record["ended"] == "client reset"
    assert (record["sent"], record["received"]) == (1, 1)


@pytest_twisted.inlineCallbacks
def test_urgent_data(serve: Serve) -> Playing:
    """FTP's ABOR and telnet's interrupt lose no byte, whenever they come and in both directions."""

    def answer(sock: socket.socket) -> None:
        """Urgently."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        while data := sock.recv(65536):
            sock.send(data, socket.MSG_OOB)

    def scenario(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        greet(sock)
        sock.send(request5("127.0.0.1", origin.port) + b"!", socket.MSG_OOB)
        assert reply5(sock, 10)[0] == 0
        assert read_exactly(sock, 1) == b"!"
        for _ in range(3):
            sock.send(b"\xff\xf4\xff", socket.MSG_OOB)
            sock.sendall(b"\xf2ABOR\r\n")
            assert read_exactly(sock, 10) == b"\xff\xf4\xff\xf2ABOR\r\n"
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == b""

    with Origin(answer) as origin:
        proxy: Proxy = yield serve()
        with proxy.connect() as sock:
            yield proxy.play(scenario, sock)
        record = yield proxy.record()
    assert (record["sent"], record["received"]) == (31, 31)


def mute(sock: socket.socket) -> None:
    """A destination that never closes, and says something when the test does."""
    sock.recv(1)
    spoken.wait(PATIENCE)
    with suppress(OSError):
        sock.sendall(b"word")
    while sock.recv(100):
        pass
    ended.wait(PATIENCE)


spoken, ended = threading.Event(), threading.Event()


@pytest.fixture
def mute_origin() -> Iterator[Origin]:
    spoken.clear()
    ended.clear()
    with Origin(mute) as origin:
        yield origin
        spoken.set()
        ended.set()


def half_close(sock: socket.socket, port: int) -> None:
    ask5(sock, "127.0.0.1", port)
    sock.sendall(b"x")
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("seconds", "idle", "how"),
    [
        (60, NEVER, "half-closed timeout"),
        (60, 30, "idle timeout"),
        (60, 600, "half-closed timeout"),
        (NEVER, NEVER, None),
    ],
)
@pytest_twisted.inlineCallbacks
def test_half_closed(
    serve: Serve, mute_origin: Origin, seconds: float, idle: float, how: str | None
) -> Playing:
    """A client that has gone, and a destination that does not close, hold descriptors only for a while."""
    clock = Clock()
    timeouts = Timeouts(half_closed=seconds, idle=idle)
    proxy: Proxy = yield serve(clock=clock, timeouts=timeouts)
    with proxy.connect() as sock:
        yield proxy.play(half_close, sock, mute_origin.port)
        yield until(lambda: len(proxy.sessions.context.half_closed) == 1)
        if idle != 30:
            for _ in range(11):
                clock.advance(5)
            spoken.set()
            assert (yield proxy.play(read_exactly, sock, 4)) == b"word"
            for _ in range(11):
                clock.advance(5)
            assert proxy.records == []
        for _ in range(8):
            clock.advance(5)
        if how is None:
            assert proxy.records == []
            ended.set()
        record = yield proxy.record()
    assert record["ended"] == (how or "client")
    assert len(proxy.sessions.context.half_closed) == 0


@pytest_twisted.inlineCallbacks
def test_descriptors_short(serve: Serve, mute_origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Half-closed sessions without data end, and a new client is served at once."""
    proxy: Proxy = yield serve()
    monkeypatch.setattr(idle_relays, "SPARED", 0)
    with proxy.connect() as gone:
        yield proxy.play(half_close, gone, mute_origin.port)
        yield until(lambda: len(proxy.sessions.context.half_closed) == 1)
        monkeypatch.setattr(proxy.factory._gate, "_most", 1)
        monkeypatch.setattr(descriptors, "current_limit", lambda: 17)
        with Origin(echo) as origin, proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            record = yield proxy.record()
            assert record["ended"] == "descriptors short"


@pytest_twisted.inlineCallbacks
def test_socket_options(serve: Serve) -> Playing:
    """The sockets of both sides have them, and a peer that has vanished is found out."""
    with Origin(echo) as origin:
        before = open_descriptors()
        proxy: Proxy = yield serve(timeouts=Timeouts(keepalive=61, keepalive_interval=7, user_timeout=9))
        with proxy.connect() as sock:
            yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            yield proxy.play(echoes, sock)
            found = []
            for entry in open_descriptors() - before:
                number, _, target = entry.partition(" ")
                if not target.startswith("socket:"):
                    continue
                with socket.socket(fileno=os.dup(int(number))) as each, suppress(OSError):
                    ports = {each.getsockname()[1], each.getpeername()[1]}
                    if each.fileno() and ports & {proxy.address[1], origin.port}:
                        found.append((ports, options_of(each)))
            ours = [options for ports, options in found if options != (0, 0, *options[2:4], 0)]
    assert ours == [(1, 1, 61, 7, 9000)] * 2


@pytest_twisted.inlineCallbacks
def test_idle(serve: Serve) -> Playing:
    """A relay in which nothing moves ends in its time; one in which something moves does not."""
    clock = Clock()
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(clock=clock, timeouts=Timeouts(idle=60))
        with proxy.connect() as sock:
            yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            for _ in range(3):
                for _ in range(5):  # the engine looks now and then
                    clock.advance(10)
                yield proxy.play(echoes, sock)
            assert proxy.records == []
            for _ in range(12):
                clock.advance(10)
            assert (yield proxy.play(is_reset, sock))
        record = yield proxy.record()
    assert record["ended"] == "idle timeout"
    assert 210 <= record["session_seconds"] <= 270


@pytest_twisted.inlineCallbacks
def test_handshake_deadline_ends_with_the_handshake(serve: Serve) -> Playing:
    """An established session has no deadline: neither the handshake's nor the connecting's."""
    clock = Clock()
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(clock=clock)
        with proxy.connect() as sock:
            yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            assert proxy.sessions.underway() == 0
            for _ in range(10):
                clock.advance(100)
            yield proxy.play(echoes, sock)


@pytest.mark.parametrize("phase", [Phase.NEGOTIATING, Phase.SERVING, Phase.RELAYING, Phase.FINISHING])
@pytest_twisted.inlineCallbacks
def test_stop_sessions(serve: Serve, phase: Phase) -> Playing:
    """Whatever a session is at, it ends at once, its client sees a reset, and the record says why."""
    hosts = Hosts({SLOW: None})
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(resolver=hosts)
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            host = {Phase.SERVING: SLOW, Phase.RELAYING: "127.0.0.1"}.get(phase, "nowhere.example")
            if phase is not Phase.NEGOTIATING:
                sock.sendall(request5(host, origin.port))
            if phase in (Phase.RELAYING, Phase.FINISHING):
                yield proxy.play(reply5, sock)
            yield until(in_phase(proxy, phase))
            proxy.factory.stop_sessions()
            gone = yield proxy.play(is_reset, sock)
            # Where our direction was closed in order, no reset can be seen any more.
            assert gone or phase is Phase.FINISHING
        record = yield proxy.record()
    assert record["ended"] == ("refused: name not found" if phase is Phase.FINISHING else "aborted")


# What clients are told.


NOWHERE = Address("0.0.0.0", 0, AddressType.IPV4)


@pytest.mark.parametrize("ask", [ask5, ask4])
@pytest_twisted.inlineCallbacks
def test_refused(serve: Serve, ask: Callable[..., tuple[int, Address]]) -> Playing:
    """Nobody listens there: reply 5, or 91, whole, and then an end that lets the client read it."""
    proxy: Proxy = yield serve()
    port = closed_port()
    with proxy.connect() as sock:
        reply = 5 if ask is ask5 else 91
        assert (yield proxy.play(ask, sock, "127.0.0.1", port)) == (reply, NOWHERE)
        assert (yield proxy.play(sock.recv, 1)) == b""
    record = yield proxy.record()
    assert record["ended"] == "refused: connection refused"
    assert record["reply"] == reply
    assert (record["reached"], record["outgoing"]) == (None, None)
    assert record["connect_seconds"] >= 0


def oserror(number: int) -> OSError:
    return OSError(number, errno.errorcode[number])


@pytest.mark.parametrize(
    ("problem", "reply"),
    [
        (oserror(errno.ENETUNREACH), 3),
        (oserror(errno.EHOSTUNREACH), 4),
        (oserror(errno.ECONNREFUSED), 5),
        (oserror(errno.ETIMEDOUT), 6),
        (oserror(errno.EAFNOSUPPORT), 8),
        (oserror(errno.EPERM), 2),
        (oserror(errno.EMFILE), 1),
        (NoRouteError(osError=errno.ENETUNREACH), 3),
        (ConnectError(osError=errno.EHOSTUNREACH), 4),
        (ConnectTimeout(), 6),
        (RuntimeError("a fault in a dialer"), 1),
    ],
    ids=str,
)
@pytest_twisted.inlineCallbacks
def test_replies_by_cause(
    serve: Serve, problem: Exception, reply: int, monkeypatch: pytest.MonkeyPatch
) -> Playing:
    """However dialing fails, the client is told which way."""
    proxy: Proxy = yield serve()
    monkeypatch.setattr(proxy.sessions.context, "route", ScriptedRoute(lambda _: fail(problem)))
    for ask, expected in ((ask5, reply), (ask4, 91)):
        with proxy.connect() as sock:
            assert (yield proxy.play(ask, sock, "192.0.2.1", 80)) == (expected, NOWHERE)
            assert (yield proxy.play(sock.recv, 1)) == b""
    yield proxy.record(1)
    assert [record["reply"] for record in proxy.records] == [reply, 91]
    assert all(record["ended"].startswith("refused: ") for record in proxy.records)


@pytest.mark.parametrize("name", ["nowhere.example", "a..b", "0x7f.1", ".example", "\udcff\udcfe"])
@pytest_twisted.inlineCallbacks
def test_no_such_name(serve: Serve, name: str) -> Playing:
    """Host unreachable, by a resolver's word or because nothing can have that name."""
    hosts = Hosts({})
    proxy: Proxy = yield serve(resolver=hosts)
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, name, 80)) == (4, NOWHERE)
    record = yield proxy.record()
    assert record["ended"].startswith("refused: ")
    assert record["destination"].isascii() or record["destination"].isprintable()
    assert hosts.asked == (["nowhere.example"] if name == "nowhere.example" else [])


@pytest_twisted.inlineCallbacks
def test_unknown_command(serve: Serve) -> Playing:
    """The protocol's own answer: 7, or 91."""
    proxy: Proxy = yield serve()
    for ask, expected in ((ask5, 7), (ask4, 91)):
        with proxy.connect() as sock:
            assert (yield proxy.play(ask, sock, "127.0.0.1", 80, 0x77)) == (expected, NOWHERE)
            assert (yield proxy.play(sock.recv, 1)) == b""
    record = yield proxy.record(1)
    assert [event["reply"] for event in proxy.records] == [7, 91]
    assert record["command"] == "0x77"
    assert record["ended"] == "refused: command not supported"


@pytest.mark.parametrize(
    ("said", "answer", "version", "reply", "ended"),
    [
        (b"\x05\x01\xfe", b"\x05\xff", 5, 0xFF, "protocol error: no acceptable authentication method"),
        (b"\x05\x00", b"\x05\xff", 5, 0xFF, "protocol error: "),
        (
            greeting() + b"\x05\x01\x00\x02\x00\x00\x00\x00\x00\x00",
            b"\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00",
            5,
            8,
            "protocol error: ",
        ),
        (
            greeting() + b"\x06\x01\x00\x01",
            b"\x05\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00",
            5,
            1,
            "protocol error: ",
        ),
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01" + b"u" * 600, b"\x00\x5b" + bytes(6), 4, 91, "protocol error: "),
        (b"\x16\x03\x01\x02\x00", b"", None, None, "the client speaks TLS, not SOCKS"),
        (b"\x00", b"", None, None, "the client speaks something else, not SOCKS"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_breaks_the_protocol(
    serve: Serve, said: bytes, answer: bytes, version: int | None, reply: int | None, ended: str
) -> Playing:
    """The answer that there is, then an end that lets the client read it, though it goes on sending."""
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        sock.sendall(said)
        assert (yield proxy.play(read_to_end, sock)) == answer
        sock.sendall(b"more of the same")
    record = yield proxy.record()
    assert record["ended"].startswith(ended)
    assert (record["version"], record["reply"]) == (version, reply)
    assert record["destination"] is None


@pytest_twisted.inlineCallbacks
def test_http(serve: Serve) -> Playing:
    """A browser set up wrongly shows its user what is wrong."""
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        sock.sendall(b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")
        answer = yield proxy.play(read_to_end, sock)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"This is a SOCKS proxy" in answer
    record = yield proxy.record()
    assert record["ended"] == "the client speaks HTTP, not SOCKS"
    assert record["reply"] is None


# After a refusal.


@pytest_twisted.inlineCallbacks
def test_lingers(serve: Serve) -> Playing:
    """A client that reads its refusal and does nothing is cut after a moment."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock)
    with proxy.connect() as sock:
        yield proxy.play(ask5, sock, "127.0.0.1", closed_port())
        assert (yield proxy.play(sock.recv, 1)) == b""
        yield until(in_phase(proxy, Phase.FINISHING))
        clock.advance(LINGER - 0.01)
        assert len(proxy.sessions.live) == 1
        clock.advance(0.01)
        record = yield proxy.record()
        assert record["ended"] == "refused: connection refused"
        # The reset is there, though reading tells the end that came first: writing tells.
        yield proxy.play(writes_in_vain, sock)


def writes_in_vain(sock: socket.socket) -> None:
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        sock.sendall(bytes(100_000_000))


@pytest_twisted.inlineCallbacks
def test_sends_on_after_refusal(serve: Serve) -> Playing:
    """What comes after a refusal is thrown away up to a bound, so that the reply is read; then it is over."""
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        yield proxy.play(ask5, sock, "127.0.0.1", closed_port())
        sock.sendall(bytes(1000))
        yield until(in_phase(proxy, Phase.FINISHING))
        yield until(lambda: the_session(proxy).negotiation._tolerated == MAX_EARLY - 1000)
        yield proxy.play(writes_in_vain, sock)
        record = yield proxy.record()
    assert record["ended"] == "refused: connection refused"


@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
@pytest_twisted.inlineCallbacks
def test_leaves_after_refusal(serve: Serve, leave: str) -> Playing:
    """The record keeps why it was refused."""
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        yield proxy.play(ask5, sock, "127.0.0.1", closed_port())
        goes(leave)(sock)
        record = yield proxy.record()
    assert record["ended"] == "refused: connection refused"


@pytest_twisted.inlineCallbacks
def test_refused_after_half_close(serve: Serve) -> Playing:
    """A client that has closed its direction reads its refusal, and there is nothing to wait for."""
    hosts = Hosts({SLOW: None})
    clock = Clock()
    proxy: Proxy = yield serve(resolver=hosts, clock=clock)
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5(SLOW, 80) + b"early")
        sock.shutdown(socket.SHUT_WR)
        yield until(lambda: hosts.asked == [SLOW])
        yield until(lambda: the_session(proxy).half_closed)
        hosts.answer(SLOW)
        assert (yield proxy.play(reply5, sock))[0] == 4
        record = yield proxy.record()
        assert (yield proxy.play(sock.recv, 1)) == b""
    assert record["ended"] == "refused: name not found"


# The policy.


def raises() -> bool:
    raise ZeroDivisionError("a fault in a policy")


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (True, 0),
        (False, 2),
        (lambda: succeed(True), 0),
        (lambda: succeed(False), 2),
        (raises, 2),
        (lambda: fail(ZeroDivisionError("a fault")), 2),
        (1, 0),
        (None, 2),
    ],
    ids=["yes", "no", "yes later", "no later", "raises", "fails", "truthy", "nothing"],
)
@pytest.mark.parametrize("named", [False, True], ids=["address", "name"])
@pytest_twisted.inlineCallbacks
def test_policy(serve: Serve, answer: Any, reply: int, named: bool) -> Playing:
    """Its word counts, in whatever form it comes, and no word is a no."""
    policy = Policy({"127.0.0.1": answer})
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(policy=policy, resolver=Hosts({"origin.example": ["127.0.0.1"]}))
        with proxy.connect() as sock:
            host = "origin.example" if named else "127.0.0.1"
            assert (yield proxy.play(ask5, sock, host, origin.port))[0] == reply
            if not reply:
                yield proxy.play(echoes, sock)
        record = yield proxy.record()
    assert record["reply"] == reply
    assert bool(origin.peers) == (not reply)
    asked = [(client.host, command, destination.host) for client, command, destination in policy.asked]
    hosts = (["origin.example"] if named else []) + ["127.0.0.1"]
    assert asked == [("127.0.0.1", Command.CONNECT, host) for host in hosts]


@pytest_twisted.inlineCallbacks
def test_policy_is_awaited(serve: Serve) -> Playing:
    """A policy may take its time; a client that does not wait cancels it."""
    cancelled: list[object] = []
    waiting: list[Deferred[bool]] = []

    def answer() -> Deferred[bool]:
        waiting.append(Deferred(cancelled.append))
        return waiting[-1]

    with Origin(echo) as origin:
        proxy: Proxy = yield serve(policy=Policy({"127.0.0.1": answer}))
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", origin.port))
            yield until(lambda: waiting)
        record = yield proxy.record()
        assert record["ended"] == "client"
        assert cancelled == waiting
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", origin.port))
            yield until(lambda: len(waiting) == 2)
            assert origin.peers == []
            waiting[1].callback(True)
            assert (yield proxy.play(reply5, sock))[0] == 0
            yield proxy.play(echoes, sock)


@pytest_twisted.inlineCallbacks
def test_only_checked_addresses_are_dialed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A name may resolve to what its owner likes, and anew each time: only permitted addresses are dialed."""
    policy = Policy({"127.0.0.2": False, "127.0.0.3": lambda: succeed(False)})
    hosts = Hosts({"rebind.example": ["127.0.0.2", "127.0.0.3", "127.0.0.1"]})
    dialed: list[str] = []
    clock = Clock()
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(policy=policy, resolver=hosts, clock=clock)
        real = proxy.sessions.context.route

        def attempt(destination: Address) -> Pending:
            dialed.append(destination.host)
            return real.dial(destination, the_session(proxy).channel.detachable)

        monkeypatch.setattr(proxy.sessions.context, "route", ScriptedRoute(attempt))
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "rebind.example", origin.port))[0] == 0
            yield proxy.play(echoes, sock)
        yield proxy.record()
        hosts.hosts["rebind.example"] = ["127.0.0.2", "127.0.0.3"]
        clock.advance(60)  # answers are remembered for a moment
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "rebind.example", origin.port))[0] == 2
        record = yield proxy.record(1)
        clock.advance(60)
    assert hosts.asked == ["rebind.example"] * 2
    assert dialed == ["127.0.0.1"]
    assert record["ended"] == "refused: the policy denies every address of the name"
    assert proxy.records[0]["reached"] == f"127.0.0.1:{origin.port}"


# Faults of others and of ours cost what they must, no more.


class FailingObserver:
    """Fails with every event once it is *armed*."""

    def __init__(self, seen: list[dict[str, Any]]) -> None:
        self.seen = seen
        self.armed = False

    def __call__(self, event: dict[str, Any]) -> None:
        self.seen.append(event)
        if self.armed:
            raise ZeroDivisionError("a fault in an observer")


@pytest_twisted.inlineCallbacks
def test_observer_raises(serve: Serve) -> Playing:
    """An observer that fails costs its event: sessions end, and deadlines come, all the same."""
    clock = Clock()
    observer = FailingObserver([])
    proxy: Proxy = yield serve(clock=clock, observer=observer, heard=observer.seen)
    observer.armed = True
    for number in (1, 3):
        with proxy.connect() as first, proxy.connect() as second:
            yield until(lambda: len(proxy.sessions.live) == 2)
            clock.advance(10)
            assert (yield proxy.play(is_reset, first))
            assert (yield proxy.play(is_reset, second))
        yield until(lambda: not proxy.sessions.live)
        assert [event["ended"] for event in observer.seen[number - 1 :]] == ["handshake timeout"] * 2
    resumed: list[None] = []
    proxy.sessions.when_ended = lambda: resumed.append(None)
    with proxy.connect() as first, proxy.connect() as second:
        yield until(lambda: len(proxy.sessions.live) == 2)
        proxy.factory.stop_sessions()
        assert (yield proxy.play(is_reset, first))
        assert (yield proxy.play(is_reset, second))
        yield until(lambda: len(resumed) == 2)
    assert [event["ended"] for event in observer.seen[4:]] == ["aborted"] * 2


class Fatal(BaseException):
    """What is no exception of anybody's request."""


@pytest_twisted.inlineCallbacks
def test_fault_of_ours(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """It costs the one session in which it happens, which ends and says so."""
    proxy: Proxy = yield serve()
    with monkeypatch.context() as patch, proxy.connect() as sock:
        patch.setattr(proxy.sessions.context, "route", ScriptedRoute(lambda _: fail(Fatal())))
        yield proxy.play(greet, sock)
        sock.sendall(request5("192.0.2.1", 80))
        assert (yield proxy.play(is_reset, sock))
        record = yield proxy.record()
        yield until(lambda: not proxy.sessions.live)
    assert record["ended"] == "internal error"
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", closed_port()))[0] == 5


@pytest_twisted.inlineCallbacks
def test_policy_that_cannot_be_cancelled(serve: Serve) -> Playing:
    """A policy's own fault while it is cancelled keeps no other session beyond its deadline."""
    waiting: list[Deferred[bool]] = []

    def cannot(_: object) -> None:
        raise ZeroDivisionError("a fault in a canceller")

    def answer() -> Deferred[bool]:
        waiting.append(Deferred(cannot))
        return waiting[-1]

    clock = Clock()
    proxy: Proxy = yield serve(clock=clock, policy=Policy({"192.0.2.1": answer}))
    with proxy.connect() as first, proxy.connect() as second:
        for sock in (first, second):
            yield proxy.play(greet, sock)
            sock.sendall(request5("192.0.2.1", 80))
        yield until(lambda: len(waiting) == 2)
        clock.advance(30)
        for sock in (first, second):
            assert (yield proxy.play(reply5, sock))[0] == 6
    yield proxy.record(1)


@pytest_twisted.inlineCallbacks
@pytest.mark.parametrize("command", [Command.CONNECT, Command.BIND])
def test_policy_that_permits_when_it_is_cancelled(serve: Serve, command: Command) -> Playing:
    """Nothing comes of it: the client has been refused."""
    waiting: list[Deferred[bool]] = []

    def answer() -> Deferred[bool]:
        waiting.append(Deferred(lambda answer: answer.callback(True)))
        return waiting[-1]

    clock = Clock()
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(clock=clock, policy=Policy({"127.0.0.1": answer}))
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", origin.port, command))
            yield until(lambda: waiting)
            clock.advance(30)
            assert (yield proxy.play(reply5, sock))[0] == 6
            assert (yield proxy.play(read_to_end, sock)) == b""
        record = yield proxy.record()
        assert record["reply"] == 6
        assert origin.peers == []
        assert len(proxy.sessions.context.ledger) == 0


@pytest_twisted.inlineCallbacks
@pytest.mark.parametrize("command", [Command.CONNECT, Command.BIND])
def test_policy_that_permits_a_client_that_has_gone(serve: Serve, command: Command) -> Playing:
    """Nor here: no connection, and no listener that nobody would close."""
    waiting: list[Deferred[bool]] = []

    def cannot(_: object) -> None:
        raise ZeroDivisionError("a fault in a canceller")

    def answer() -> Deferred[bool]:
        waiting.append(Deferred(cannot))
        return waiting[-1]

    with Origin(answer_at_the_end) as origin:
        proxy: Proxy = yield serve(policy=Policy({"127.0.0.1": answer}))
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", origin.port, command))
            yield until(lambda: waiting)
        record = yield proxy.record()
        assert record["ended"] == "client"
        waiting[0].callback(True)
        assert origin.peers == []
        assert len(proxy.sessions.context.ledger) == 0
