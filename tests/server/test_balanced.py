"""Clients that come through balancers, on the engine's channels and on Twisted's."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from socksproxy.policy import DefaultPolicy
from socksproxy.server.factory import SOCKSProtocol
from socksproxy.server.sockets import BalancedSocketChannel
from socksproxy.session.session import UNIDENTIFIED, Session
from socksproxy.values.limits import Limits, Rate, ServerLimits

from ..conftest import Serve
from ..support.balancer import header2, summed, vector
from ..support.certificates import self_signed
from ..support.logs import log_publisher
from ..support.origin import Origin, echo
from ..support.proxy import PATIENCE, Playing, Proxy, ask5, echoes, greeting, reply5, request5, until
from ..support.relay import is_reset

ADDRESSES = bytes([192, 0, 2, 7, 203, 0, 113, 5]) + b"\x13\x88\x04\x38"
MAPPED = bytes(10) + b"\xff\xff" + ADDRESSES[:4] + bytes(15) + b"\x01" + ADDRESSES[8:]
HEADER1 = b"PROXY TCP4 192.0.2.7 203.0.113.5 5000 1080\r\n"
ALICE = vector(0x20, b"\x07" + bytes(4) + vector(0x22, b"alice"))
KINDS = ["engine", "transports", "tls", "unix", "unix transports"]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The lines of the log, as people read them; a traceback belongs to its line."""
    lines: list[str] = []

    def note(event: Any) -> None:
        failure = event.get("log_failure")
        traceback = "" if failure is None else failure.getTraceback()
        lines.append(f"{formatEvent(event)}{traceback}")

    log_publisher.addObserver(note)
    yield lines
    log_publisher.removeObserver(note)


class Balanced:
    """A proxy behind a balancer, and what the balancer does."""

    def __init__(self, serve_as: Serve, kind: str, directory: Path, **options: Any) -> None:
        self._pem = directory / "proxy.pem"
        self._tls = kind == "tls"
        place = f"unix:{directory}/socks" if "unix" in kind else "tcp:0:interface=127.0.0.1"
        if self._tls:
            self._pem.write_bytes(self_signed())
            place = f"ssl:0:interface=127.0.0.1:privateKey={self._pem}"
        options.setdefault("policy", DefaultPolicy(allow_special=True))
        engine = "transports" not in kind
        starting = serve_as(kind, listen=f"haproxy:{place}", engine=engine, **options)
        self.starting = starting.addCallback(self._started)

    def _started(self, proxy: Proxy) -> Proxy:
        proxy.factory.opened(proxy.port)  # else the first client is Twisted's
        return proxy

    def connect(self, proxy: Proxy) -> socket.socket:
        """The connection of a balancer."""
        sock = proxy.connect()
        if not self._tls:
            return sock
        context = ssl.create_default_context(cafile=str(self._pem))
        return context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)


def session(sock: socket.socket, port: int, pieces: list[bytes]) -> None:
    """A whole session, whose first bytes are *pieces*."""
    with sock:
        for piece in pieces:
            sock.sendall(piece)
        assert ask5(sock, "127.0.0.1", port)[0] == 0
        echoes(sock)


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.inlineCallbacks
def test_headers(serve_as: Serve, origin: Origin, tmp_path: Path, kind: str) -> Playing:
    """Every valid header, however it comes: what it tells is in the record, and the balancer elsewhere."""
    balanced = Balanced(serve_as, kind, tmp_path)
    proxy: Proxy = yield balanced.starting
    unique = vector(0x05, b"\x1b[1m id\xff")
    headers: list[tuple[bytes, Any]] = [
        (HEADER1, "192.0.2.7:5000"),
        (header2(ADDRESSES), "192.0.2.7:5000"),
        (header2(MAPPED, kind=0x21), "192.0.2.7:5000"),
        (header2(ADDRESSES + unique + ALICE + vector(0x04, bytes(60_000))), "192.0.2.7:5000"),
        (summed(ADDRESSES + ALICE), "192.0.2.7:5000"),
        (b"PROXY UNKNOWN\r\n", None),
        (header2(b"", command=0x20), None),
        (header2(b"", kind=0), None),
        (header2(b"/run/client".ljust(108, b"\0") * 2, kind=0x31), None),
    ]
    for number, (header, client) in enumerate(headers):
        sock: socket.socket = yield proxy.play(balanced.connect, proxy)
        own = "unix" if "unix" in kind else "{}:{}".format(*sock.getsockname())
        yield proxy.play(session, sock, origin.port, [header])
        record = yield proxy.record(number)
        assert record["client"] == (own if client is None else client)
        assert record["end"] == "client"
        assert record["unique_id"] == ("\\x1b[1m id\\udcff" if unique in header else None)
        assert record["tls_name"] == ("alice" if ALICE in header else None)


@pytest.mark.parametrize("kind", ["engine", "transports", "unix"])
@pytest_twisted.inlineCallbacks
def test_header_in_parts(serve_as: Serve, origin: Origin, tmp_path: Path, kind: str) -> Playing:
    """A header that is cut anywhere, with the client's first bytes in the same segment or not."""
    balanced = Balanced(serve_as, kind, tmp_path)
    proxy: Proxy = yield balanced.starting
    number = 0
    for header in (HEADER1, summed(ADDRESSES + ALICE)):
        data = header + greeting()
        for cut in range(1, len(data) + 1):
            with balanced.connect(proxy) as sock:
                if kind != "unix":
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                before = len(proxy.sessions.live)
                sock.sendall(data[:cut])
                if cut < len(header):
                    yield until(partial(_more, proxy, before))
                    assert not any(each.heard for each in proxy.sessions.live)
                sock.sendall(data[cut:])
                assert (yield proxy.play(sock.recv, 10)) == b"\x05\x00"
                sock.sendall(request5("127.0.0.1", origin.port))
                assert (yield proxy.play(reply5, sock))[0] == 0
            assert (yield proxy.record(number))["client"] == "192.0.2.7:5000"
            number += 1


@pytest_twisted.inlineCallbacks
def test_channels(serve_as: Serve, origin: Origin, tmp_path: Path) -> Playing:
    """Behind a balancer the engine carries the bytes, as without one."""
    for kind, channel in (("engine", BalancedSocketChannel), ("transports", SOCKSProtocol)):
        balanced = Balanced(serve_as, kind, tmp_path)
        proxy: Proxy = yield balanced.starting
        with balanced.connect(proxy) as sock:
            yield until(partial(_more, proxy, 0))
            (live,) = proxy.sessions.live
            assert type(live.channel) is channel
            assert live.client is UNIDENTIFIED
            sock.sendall(HEADER1)
            yield until(partial(_identified, live))
            # What the client has reached, and where we are.
            assert live.channel.local_address() == ("203.0.113.5", 1080)
            assert live.channel.local() == "127.0.0.1"
            assert live.channel.reached() == proxy.address
            assert live.channel.shows() is None
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            engine = proxy.sessions.context.engine
            assert (
                engine is not None and engine._registered - len(engine._listeners) == 2
            ) or kind == "transports"


WRONG = [
    greeting(),
    b"\x04\x01\x00\x50\x7f\0\0\x01\0",
    b"PROXY TCP4  192.0.2.8 1 2\r\n",
    b"PROXY TCP4 192.0.2.300 192.0.2.8 1 2\r\n",
    b"PROXY TCP4 \x1b[31mred\x07 192.0.2.8 1 2\r\n",
    b"PROXY TCP4 192.0.2.7\nFAKE LINE\r\n",
    b"PROXY " + b"x" * 300,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    header2(ADDRESSES, kind=0x41),
    header2(ADDRESSES + b"\x05\xff\xff"),
    summed(ADDRESSES)[:-1] + b"!",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.inlineCallbacks
def test_wrong_headers(serve_as: Serve, tmp_path: Path, kind: str, said: list[str]) -> Playing:
    """The connection closes, one line says why, and again only after a while; no traceback."""
    balanced = Balanced(serve_as, kind, tmp_path)
    proxy: Proxy = yield balanced.starting

    def send(header: bytes) -> None:
        with balanced.connect(proxy) as sock:
            sock.sendall(header + greeting() * 3)
            with suppress(OSError):
                assert sock.recv(1) == b""

    for number, header in enumerate([*WRONG, *WRONG]):
        yield proxy.play(send, header)
        record = yield proxy.record(number)
        assert record["end"] == "protocol"
        assert record["ended"].startswith("protocol error: ")
        assert record["client"].startswith("unix" if "unix" in kind else "127.0.0.1:")
    lines = [line for line in said if "PROXY header" in line]
    assert 5 <= len(lines) == len({line.partition(" ")[2] for line in lines})
    assert all(line.isascii() and line.isprintable() for line in said)
    assert not any(word in line for line in said for word in ("red", "FAKE", "Traceback", "Host"))


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.inlineCallbacks
def test_mutated_headers(serve_as: Serve, tmp_path: Path, kind: str, said: list[str]) -> Playing:
    """Hundreds of mutated headers cost a handful of lines and nothing else."""
    balanced = Balanced(serve_as, kind, tmp_path, log_probes=False)
    proxy: Proxy = yield balanced.starting
    chance = random.Random(13)
    whole = [HEADER1, header2(ADDRESSES + ALICE), summed(MAPPED, kind=0x21)]

    def mutated() -> bytes:
        header = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(header))
            header[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
        return bytes(header)

    def play() -> None:
        for _ in range(30):  # more may not wait to be accepted
            with balanced.connect(proxy) as sock:
                sock.sendall(mutated())

    for _ in range(10):
        yield proxy.play(play)
        yield until(lambda: not proxy.sessions.live)
    assert len(said) < 30
    for line in said:
        assert line.isascii()
        assert line.isprintable()
        assert "Traceback" not in line


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.inlineCallbacks
def test_half_a_header(serve_as: Serve, tmp_path: Path, kind: str, said: list[str]) -> Playing:
    """A balancer that looks in says nothing and costs no line; one that stops halfway costs one."""
    balanced = Balanced(serve_as, kind, tmp_path)
    proxy: Proxy = yield balanced.starting
    before = len(said)
    balanced.connect(proxy).close()
    assert (yield proxy.record())["ended"] == "client"
    assert said[before:] == []
    with balanced.connect(proxy) as sock:
        sock.sendall(HEADER1[:-1])
        sock.shutdown(socket.SHUT_WR)
        assert (yield proxy.play(is_reset, sock))
    assert (yield proxy.record(1))["ended"] == "protocol error: a PROXY header that is cut short"
    assert len(said) == before + 1


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.inlineCallbacks
def test_too_late(serve_as: Serve, tmp_path: Path, kind: str) -> Playing:
    """The header has as long as the handshake, and not longer because it comes byte by byte."""
    clock = Clock()
    balanced = Balanced(serve_as, kind, tmp_path, clock=clock)
    proxy: Proxy = yield balanced.starting
    with balanced.connect(proxy) as sock:
        yield until(lambda: proxy.sessions.live)
        for piece in (HEADER1[:5], HEADER1[5:9]):
            sock.sendall(piece)
            clock.advance(4)
        assert proxy.sessions.live
        clock.advance(2)
        assert (yield proxy.play(is_reset, sock))
    record = yield proxy.record()
    assert record["ended"] == "handshake timeout"
    assert record["client"].startswith("127.0.0.1:")


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.inlineCallbacks
def test_other_clients(
    serve_as: Serve, origin: Origin, tmp_path: Path, kind: str, said: list[str]
) -> Playing:
    """Who is no balancer cannot claim an address, and is told nothing; a reload decides anew."""
    balanced = Balanced(serve_as, kind, tmp_path, proxy_from=["192.0.2.0/24", "::1"])
    proxy: Proxy = yield balanced.starting
    for _ in range(3):
        with balanced.connect(proxy) as sock:
            assert (yield proxy.play(is_reset, sock))
    assert [line.partition(" ")[2] for line in said if "--proxy-from" in line] == [
        "refused: no balancer of --proxy-from"
    ]
    assert not proxy.sessions.live
    assert len(proxy.sessions.context.ledger) == 0
    for networks in (["127.0.0.0/8"], ["::ffff:127.0.0.1"], []):
        proxy.factory.reconfigure(proxy_from=networks)
        yield proxy.play(session, balanced.connect(proxy), origin.port, [HEADER1])
    with pytest.raises(ValueError, match=r"10.0.0.1/8.*not an address or a network"):
        proxy.factory.reconfigure(proxy_from=["10.0.0.1/8"])


@pytest_twisted.inlineCallbacks
def test_a_unix_socket_has_permissions(serve_as: Serve, origin: Origin, tmp_path: Path) -> Playing:
    """They say who may be a balancer there."""
    balanced = Balanced(serve_as, "unix", tmp_path, proxy_from=["192.0.2.1"])
    proxy: Proxy = yield balanced.starting
    yield proxy.play(session, balanced.connect(proxy), origin.port, [HEADER1])
    assert (yield proxy.record())["client"] == "192.0.2.7:5000"


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.inlineCallbacks
def test_limits(serve_as: Serve, origin: Origin, tmp_path: Path, kind: str) -> Playing:
    """They count clients as headers tell them; a header without an address counts for the balancer."""
    balanced = Balanced(serve_as, kind, tmp_path, limits=ServerLimits(client=Limits(sessions=1)))
    proxy: Proxy = yield balanced.starting

    def ask(sock: socket.socket, header: bytes) -> int:
        sock.sendall(header)
        return ask5(sock, "127.0.0.1", origin.port)[0]

    for header in (HEADER1, header2(b"", kind=0), b"PROXY UNKNOWN\r\n"):
        other = HEADER1.replace(b".7", b".8")
        with ExitStack() as stack:
            for first, expected in ((header, 0), (header, 2), (other, 0)):
                sock: socket.socket = yield proxy.play(balanced.connect, proxy)
                stack.enter_context(sock)
                assert (yield proxy.play(ask, sock, first)) == expected
        yield until(lambda: not proxy.sessions.live)
    assert len(proxy.sessions.context.ledger) == 0


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.inlineCallbacks
def test_early_data_and_an_end(serve_as: Serve, origin: Origin, tmp_path: Path, kind: str) -> Playing:
    """A client may close its direction behind the header, and what it has said before still counts."""
    balanced = Balanced(serve_as, kind, tmp_path)
    proxy: Proxy = yield balanced.starting
    with balanced.connect(proxy) as sock:
        sock.sendall(HEADER1 + greeting() + request5("127.0.0.1", origin.port) + b"last words")
        sock.shutdown(socket.SHUT_WR)
        assert (yield proxy.play(_all_of, sock))[-10:] == b"last words"
    record = yield proxy.record()
    assert (record["sent"], record["received"]) == (10, 10)


def _more(proxy: Proxy, than: int) -> bool:
    return len(proxy.sessions.live) > than


def _identified(live: Session) -> bool:
    return live.client is not UNIDENTIFIED


def _all_of(sock: socket.socket) -> bytes:
    found = b""
    sock.settimeout(PATIENCE)
    while data := sock.recv(4096):
        found += data
    return found


@pytest.mark.parametrize("command", [0x20, 0x21])
@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.inlineCallbacks
def test_checks(serve_as: Serve, origin: Origin, tmp_path: Path, kind: str, command: int) -> Playing:
    """A balancer's own check may greet: it has no record, and takes nothing of a rate. A request does."""
    limits = ServerLimits(server=Limits(new_sessions=Rate(0.001, 1)))
    balanced = Balanced(serve_as, kind, tmp_path, log_probes=False, limits=limits)
    proxy: Proxy = yield balanced.starting
    header = header2(b"", command=command, kind=0)
    for _ in range(3):
        with balanced.connect(proxy) as sock:
            sock.sendall(header + b"\x05\x01\x00")
            assert (yield proxy.play(sock.recv, 2)) == b"\x05\x00"
        yield until(lambda: not proxy.sessions.live)
    assert proxy.records == []
    for reply in (0, 2):
        with balanced.connect(proxy) as sock:
            sock.sendall(header)
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == reply
        yield until(lambda: not proxy.sessions.live)
    assert [record["reply"] for record in proxy.records] == [0, 2]
