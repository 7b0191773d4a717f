"""
A proxy in this process, and clients and destinations on blocking sockets, for tests of UDP ASSOCIATE.

A scenario is a plain function; it runs in a thread while the reactor relays.
"""

from __future__ import annotations

import contextlib
import errno
import random
import select
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from socksproxy import Address, Client as Who, Command, SOCKSFactory, UDPSettings
from socksproxy.wire.datagram import build_header, parse_datagram
from socksproxy.wire.socks5 import parse_reply
from socksproxy.wire.words import UNSPECIFIED

reactor: Any = _reactor

#: Seconds after which a test that waits has failed.
PATIENCE = 90.0
#: Seconds of silence after which nothing is going to come: long for loopback.
SILENCE = 0.3

KINDS = ["transports"] + (["engine"] if sys.platform == "linux" else [])


class Proxy:
    """
    A proxy of *kind*.

    :param kind: one of :data:`KINDS`.
    :param listen: a Twisted endpoint.
    :param options: further ones of :class:`~socksproxy.SOCKSFactory`.
    :ivar records: the events of the sessions that are over.
    """

    def __init__(self, kind: str, listen: str = "tcp:0:interface=127.0.0.1", **options: Any) -> None:
        self.kind = kind
        self.records: list[dict[str, Any]] = []
        options.setdefault("log_probes", True)
        self.factory = SOCKSFactory(reactor, observer=self.records.append, engine=kind == "engine", **options)
        self._listen = listen
        self._port: Any = None

    async def start(self) -> None:
        """Listen."""
        self._port = await serverFromString(reactor, self._listen).listen(self.factory)

    async def stop(self) -> None:
        """End everything."""
        self.factory.stop_sessions()
        await self._port.stopListening()

    @property
    def address(self) -> Any:
        """Where it listens, as a socket takes it."""
        host = self._port.getHost()
        if isinstance(host, (IPv4Address, IPv6Address)):
            return host.host, host.port
        return host.name

    def run(self, scenario: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Play *scenario* in a thread; its result."""
        return deferToThread(scenario, self, *arguments)

    def record(self) -> dict[str, Any]:
        """The record of the only session that has ended, as soon as it has (from a thread)."""
        wait_for(lambda: bool(self.records))
        return self.records[0]


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait in a thread until *condition* holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.01)


class Refused(Exception):
    """The proxy's reply was not 0; the argument is the reply."""


class Client:
    """
    A client with an association.

    :param proxy: where to.
    :param host: the address that TCP and UDP come from.
    :param hint: DST.ADDR and DST.PORT; None: zeros; ``True``: the UDP socket's own.
    :param relay: where datagrams are sent to; None: what the reply says.
    :param first: what is sent before the greeting.
    :param udp: the address that UDP comes from, or a socket for it; None: *host*.
    :ivar answer: what the proxy has answered on TCP.
    :ivar bound: BND.ADDR and BND.PORT.
    """

    def __init__(
        self,
        proxy: Any,
        host: str = "127.0.0.1",
        hint: Address | bool | None = None,
        relay: tuple[str, int] | None = None,
        first: bytes = b"",
        udp: str | socket.socket | None = None,
    ) -> None:
        address = proxy.address
        if isinstance(address, tuple):
            self.tcp = tcp_socket(host)
            self.tcp.connect(address)
        else:
            self.tcp = socket.socket(socket.AF_UNIX)
            self.tcp.settimeout(PATIENCE)
            self.tcp.connect(address)
        self.udp = udp if isinstance(udp, socket.socket) else udp_socket(udp or host)
        if hint is True:
            hint = Address.of(*self.udp.getsockname()[:2])
        self.tcp.sendall(
            (first or getattr(proxy, "first", b""))
            + b"\5\1\0"
            + b"\5"
            + bytes((Command.UDP_ASSOCIATE,))
            + build_header(hint or UNSPECIFIED)[2:]
        )
        data = self._read()
        while (parsed := parse_reply(data[2:])) is None:
            data += self._read()
        self.answer = data
        if parsed[0].reply:
            self.close()
            raise Refused(parsed[0].reply)
        self.bound = parsed[0].address
        self.relay = relay or (self.bound.host, self.bound.port)

    def _read(self) -> bytes:
        data = self.tcp.recv(4096)
        if not data:
            raise EOFError("the proxy has closed the connection")
        return data

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close both sockets."""
        self.tcp.close()
        self.udp.close()

    def send(
        self, payload: bytes, to: tuple[str, int], fragment: int = 0, through: socket.socket | None = None
    ) -> None:
        """Send *payload* to the destination *to*, from our socket or from *through*."""
        data = build_header(Address.of(*to), fragment) + payload
        (through or self.udp).sendto(data, self.relay)

    def receive(self) -> tuple[Address, bytes]:
        """The next datagram from the proxy, and who is said to have sent it."""
        data, peer = self.udp.recvfrom(65536)
        assert peer[:2] == self.relay[:2], "a reply from elsewhere than BND.ADDR"
        header, at = parse_datagram(data)
        assert header.fragment == 0
        return header.address, data[at:]

    def ask(self, payload: bytes, to: tuple[str, int]) -> bytes:
        """What *to* answers to *payload*."""
        self.send(payload, to)
        address, answer = self.receive()
        assert address.port == to[1]
        return answer

    def is_silent(self) -> bool:
        """Whether nothing comes for a while."""
        return is_silent(self.udp)

    def closed(self) -> bool:
        """Whether the proxy closes the TCP connection; it is waited for."""
        try:
            return self.tcp.recv(1) == b""
        except ConnectionResetError:
            return True


def tcp_socket(host: str) -> socket.socket:
    """A blocking TCP socket whose connections come from *host*."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.settimeout(PATIENCE)
    if host not in ("127.0.0.1", "::1"):
        # Linux: the port is chosen when it connects, of which there are more: others may use many.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, 24, 1)
        sock.bind((host, 0))
    return sock


def udp_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A blocking UDP socket on *host*."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind((host, port))
    sock.settimeout(PATIENCE)
    return sock


def is_silent(*socks: socket.socket, seconds: float = SILENCE) -> bool:
    """Whether nothing comes to any of *socks* for a while."""
    return not select.select(socks, [], [], seconds)[0]


class Echo:
    """
    Sends back what comes.

    :ivar address: where it is.
    :ivar seen: what came, and from where, in order.
    """

    def __init__(self, host: str = "127.0.0.1", answers: bool = True) -> None:
        self.sock = udp_socket(host)
        self.sock.settimeout(None)
        self.address: tuple[str, int] = self.sock.getsockname()[:2]
        self.seen: list[tuple[bytes, tuple[str, int]]] = []
        self._answers = answers
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread, and is an error all the same
        self._thread.join()
        self.sock.close()

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self.sock.recvfrom(65536)
            except OSError:
                return
            if not data and peer is None:
                return
            self.seen.append((data, peer[:2]))
            if self._answers:
                with contextlib.suppress(OSError):
                    self.sock.sendto(data, peer)


__all__ = ["KINDS", "PATIENCE", "Client", "Echo", "Proxy", "Refused", "UDPSettings"]


kinds = pytest.mark.parametrize("kind", KINDS)


@asynccontextmanager
async def serving(kind: str, **options: Any) -> AsyncIterator[Proxy]:
    """A proxy of *kind* that serves."""
    proxy = Proxy(kind, **options)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
        # Twisted closes UDP ports in the next turn.
        await deferLater(reactor, 0, lambda: None)


def free_udp_port() -> int:
    """A port that is free now, and that the system does not give out by itself."""
    return two_free_ports()[0]


class Ports:
    """
    Denies some ports, and names; and answers late for some.

    :ivar asked: what it was asked.
    """

    def __init__(self) -> None:
        self.denied: set[object] = set()
        self.late: dict[int, list[Deferred[bool]]] = {}
        self.asked: list[tuple[Who, Command, Address]] = []

    def permits(self, client: Who, command: Command, destination: Address) -> bool | Deferred[bool]:
        self.asked.append((client, command, destination))
        if destination.port in self.late:
            answer: Deferred[bool] = Deferred()
            self.late[destination.port].append(answer)
            return answer
        return destination.port not in self.denied and destination.host not in self.denied


def is_free(address: tuple[str, int]) -> bool:
    """Whether a UDP port can be opened there, as nobody has it."""
    try:
        udp_socket(*address).close()
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def two_free_ports() -> tuple[int, int]:
    """Two neighbours that are free now, below those that the system gives out by itself."""
    for _ in range(200):
        first = random.SystemRandom().randrange(20000, 32000)
        if is_free(("127.0.0.1", first)) and is_free(("127.0.0.1", first + 1)):
            return first, first + 1
    raise AssertionError("no two free ports")
