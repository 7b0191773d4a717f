"""
A proxy in this process, on real loopback sockets, and what its clients say to it.

A scenario is a plain function on blocking sockets; it runs in a thread while
the reactor serves. Time is a ``Clock`` where the test says so.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from zope.interface import directlyProvides, providedBy

from socksproxy import SOCKSFactory
from socksproxy.relay import _engines
from socksproxy.wire import socks4, socks5
from socksproxy.wire.words import Address, Command, Request, Version

reactor: Any = _reactor

#: Seconds after which a test that waits has failed.
PATIENCE = 90.0

#: How a session is carried: by Twisted's transports alone; by a transport whose socket the
#: engine takes for the relay; by a plain socket from the start; by a transport behind a PROXY header,
#: whose socket the engine takes, too.
KINDS = ("transports", "detached", "accepted", "wrapped")

_IPV6 = "/proc/net/if_inet6"
_LISTEN = "tcp:0:interface=127.0.0.1"

Playing = Generator[Any, Any, None]


class ClockedReactor:
    """The reactor, but for its time, which is *clock*'s: only what has no delay happens by itself."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds = clock.seconds
        directlyProvides(self, providedBy(reactor))

    def callLater(self, delay: float, call: Callable[..., object], *more: Any, **named: Any) -> Any:
        """See :meth:`twisted.internet.interfaces.IReactorTime.callLater`."""
        source = self.clock if delay else reactor
        return source.callLater(delay, call, *more, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class Proxy:
    """
    A factory that listens, and what it has told of its sessions.

    :param kind: one of :data:`KINDS`.
    :param listen: an endpoint, where it is not the usual one.
    :param clock: the proxy's time; None: the real one.
    :param heard: what the test's own observer fills; None: the proxy has one of its own.
    :param options: of the factory.
    :ivar records: the events of the sessions that are over, in order. A program on the same machine may look
        at the port, as one that had the same number before: what says nothing, and is not this test's, is
        left out.
    """

    def __init__(
        self,
        kind: str = "accepted",
        *,
        listen: str | None = None,
        clock: Clock | None = None,
        heard: list[dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        self.kind = kind
        self.records: list[dict[str, Any]] = [] if heard is None else heard
        options.setdefault("observer", self._ended)
        options.setdefault("engine", kind != "transports")
        # A client that says nothing is a session like others for most tests.
        options.setdefault("log_probes", True)
        self.clock = clock
        self.factory = SOCKSFactory(reactor if clock is None else ClockedReactor(clock), **options)
        self.sessions = self.factory.sessions
        if listen is None:
            listen = f"haproxy:{_LISTEN}" if kind == "wrapped" else _LISTEN
        self._listen = listen
        self._before: set[str] = set()
        self._clients: set[str] = set()
        self.port: Any = None
        self.address: Any = None

    def _ended(self, record: dict[str, Any]) -> None:
        silent = record["version"] is None and record["end"] == "client"
        if not silent or not self._clients or record["client"] in self._clients:
            self.records.append(record)

    @inlineCallbacks
    def start(self) -> Playing:
        """Open the port."""
        self._before = open_descriptors()
        self.port = yield serverFromString(reactor, self._listen).listen(self.factory)
        host = self.port.getHost()
        self.address = (host.host, host.port) if hasattr(host, "port") else os.fsdecode(host.name)
        if self.kind == "accepted":
            yield self.play(_come_and_go, self.address)  # the first client of a port is Twisted's
            yield until(lambda: not self.sessions.live)
            self.records.clear()

    @inlineCallbacks
    def stop(self) -> Playing:
        """Close everything; no session may be left."""
        yield self.port.stopListening()
        self.factory.stop_sessions()
        yield until(lambda: not self.sessions.live)
        assert len(self.sessions.context.ledger) == 0

    @inlineCallbacks
    def gone(self) -> Playing:
        """When all proxies are stopped, nothing may be left of the engine, and no descriptor."""
        engine = _engines.get(self.factory.reactor)
        yield until(lambda: engine is None or engine.closed)
        yield until(lambda: open_descriptors() <= self._before)

    @inlineCallbacks
    def play(self, scenario: Callable[..., Any], *arguments: Any) -> Generator[Any, Any, Any]:
        """Run *scenario* in a thread; its result."""
        result = yield deferToThread(scenario, *arguments)
        return result

    @inlineCallbacks
    def record(self, number: int = 0) -> Generator[Any, Any, Any]:
        """The event of a session, when it is over."""
        yield until(lambda: len(self.records) > number)
        return self.records[number]

    def connect(self, client: str | None = None) -> socket.socket:
        """A client's connection; *client* is the address that a balancer would say it has."""
        if isinstance(self.address, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(self.address)
        else:
            sock = socket.create_connection(self.address, PATIENCE)
        own = sock.getsockname()
        if isinstance(own, tuple):
            self._clients.add(f"{client or own[0]}:{own[1]}")
        if self.kind == "wrapped":
            header = f"PROXY TCP4 {client or own[0]} 127.0.0.1 {own[1]} {self.address[1]}\r\n"
            sock.sendall(header.encode("ascii"))
        return sock


def _come_and_go(address: tuple[str, int]) -> None:
    with socket.create_connection(address, PATIENCE) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""


@inlineCallbacks
def until(condition: Callable[[], object]) -> Playing:
    """Wait until *condition* holds."""
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"waited in vain: {condition}")
        yield deferLater(reactor, 0.005)


def open_descriptors() -> set[str]:
    """What this process has open: numbers and targets, without what a test run has of its own."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own
        if target.startswith(("socket:", "anon_inode:[event", "pipe:")):
            found.add(f"{name} {target}")
    return found


def options_of(sock: Any) -> tuple[int, ...]:
    """Urgent data inline, keepalive, its idle time and interval (s), the user timeout (ms)."""
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE),
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    )


# What clients say. Each waits for its answer and gives it.


def greeting() -> bytes:
    """SOCKS5's, without authentication."""
    return socks5.build_greeting(b"\x00")


def request5(host: str, port: int, command: int = Command.CONNECT) -> bytes:
    """A SOCKS5 request."""
    return socks5.build_request(command, Address.of(host, port))


def request4(host: str, port: int, command: int = Command.CONNECT, userid: bytes = b"me") -> bytes:
    """A SOCKS4 request; SOCKS4a for a name."""
    return socks4.build_request(Request(Version.SOCKS4, command, Address.of(host, port), userid))


def greet(sock: socket.socket) -> None:
    """Agree on no authentication."""
    sock.sendall(greeting())
    assert sock.recv(100) == b"\x05\x00"


def ask5(sock: socket.socket, host: str, port: int, command: int = Command.CONNECT) -> tuple[int, Address]:
    """A whole SOCKS5 handshake: the reply's code and address, which came in one piece."""
    greet(sock)
    sock.sendall(request5(host, port, command))
    return reply5(sock)


def ask_as(sock: socket.socket, user: bytes, port: int) -> int:
    """A handshake of *user*, whose password is ``secret``, for that *port* of 127.0.0.1; the reply's code."""
    sock.sendall(b"\x05\x01\x02")
    assert sock.recv(2) == b"\x05\x02"
    sock.sendall(b"\x01" + bytes([len(user)]) + user + b"\x06secret")
    assert sock.recv(2) == b"\x01\x00"
    sock.sendall(request5("127.0.0.1", port))
    return reply5(sock)[0]


def reply5(sock: socket.socket, most: int = 1000) -> tuple[int, Address]:
    """A SOCKS5 reply, whole in one ``recv`` of *most* bytes."""
    data = sock.recv(most)
    parsed = socks5.parse_reply(data)
    assert parsed is not None, f"not a whole reply: {data!r}"
    message, taken = parsed
    assert taken == len(data), f"something stands behind the reply: {data!r}"
    return message.reply, message.address


def ask4(sock: socket.socket, host: str, port: int, command: int = Command.CONNECT) -> tuple[int, Address]:
    """A whole SOCKS4 or 4a handshake: the reply's code and address."""
    sock.sendall(request4(host, port, command))
    return reply4(sock)


def reply4(sock: socket.socket) -> tuple[int, Address]:
    """A SOCKS4 reply, whole in one ``recv``."""
    data = sock.recv(1000)
    parsed = socks4.parse_reply(data)
    assert parsed is not None, f"not a whole reply: {data!r}"
    message, taken = parsed
    assert taken == len(data), f"something stands behind the reply: {data!r}"
    return message.reply, message.address


def echoes(sock: socket.socket, data: bytes = b"ping") -> None:
    """The destination answers with what is sent."""
    sock.sendall(data)
    received = b""
    while len(received) < len(data):
        piece = sock.recv(65536)
        assert piece, f"the end, after {received!r}"
        received += piece
    assert received == data


def closed_port() -> int:
    """
    A TCP port on which no socket listens, below those that the system gives out by itself.

    So neither a connection of another test nor another process gets the port meanwhile.
    """
    family, host = (
        (socket.AF_INET6, "::") if socket.has_ipv6 and os.path.exists(_IPV6) else (socket.AF_INET, "")
    )
    for _ in range(200):
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket(family) as probe, suppress(OSError):
            probe.bind((host, port))
            return port
    raise AssertionError("no free port")
