"""
A relay of either kind between real loopback sockets, for the contract tests.

A scenario is a plain function on two blocking sockets, the client's and the
destination's; it runs in a thread while the reactor relays.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from socksproxy.limits.buckets import Meters
from socksproxy.net.dial import adopted
from socksproxy.net.tcp_options import SOCKET_OPTIONS, set_options
from socksproxy.relay.engine import RelayEngine
from socksproxy.relay.interfaces import IRelay
from socksproxy.relay.pump import BUFFER_SIZE
from socksproxy.relay.transports import TransportsRelay
from socksproxy.values.timeouts import NEVER
from tests.support.wrapping import Swapped, WrappedSocket

reactor: Any = _reactor

#: Seconds after which a test that waits has failed.
PATIENCE = 60.0

#: "wrapped": over transports, and the client's end is encapsulated.
KINDS = ["transports", "wrapped"] + (["engine"] if sys.platform == "linux" else [])


def socket_pair(family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets on loopback: the test's, which blocks, and the relay's, which does not."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        listening.listen(1)
        mine = socket.create_connection(listening.getsockname()[:2])
        relays, _ = listening.accept()
    mine.settimeout(PATIENCE)
    relays.setblocking(False)
    return mine, relays


class Owner:
    """Owns a relay: *ended* is called with the relay when that has ended."""

    def __init__(self, ended: Callable[[IRelay], object]) -> None:
        self._ended = ended

    def relay_half_closed(self, relay: IRelay) -> None:
        """Nothing is done about it."""

    def relay_ended(self, relay: IRelay) -> None:
        self._ended(relay)


def reset(sock: socket.socket) -> None:
    """Close *sock* with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_to_end(sock: socket.socket) -> bytes:
    """Everything up to the peer's FIN."""
    chunks = []
    while chunk := sock.recv(1 << 18):
        chunks.append(chunk)
    return b"".join(chunks)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """*size* bytes, neither more nor less."""
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(min(size - len(data), 1 << 18))
        if not chunk:
            raise EOFError(f"{len(data)} of {size} bytes")
        data += chunk
    return bytes(data)


def is_reset(sock: socket.socket) -> bool:
    """Whether the peer ends the connection with a reset, whatever comes before it."""
    try:
        read_to_end(sock)
    except ConnectionResetError:
        return True
    return False


def raw(sock: socket.socket) -> socket.SocketType:
    """The C socket of *sock*, as the engine wants it."""
    family, kind, proto = sock.family, sock.type, sock.proto
    taken = socket.SocketType(family, kind, proto, sock.detach())
    taken.setblocking(False)
    return taken


def send_what_fits(sock: socket.socket, data: bytes) -> int:
    """Send *data* until there is no room for more at the moment; how much that was."""
    patience, sent = sock.gettimeout(), 0
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while sent < len(data):
            sent += sock.send(memoryview(data)[sent:])
    sock.settimeout(patience)
    return sent


def open_descriptors() -> set[str]:
    """What this process has open, by number and target."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue  # the listing's own
    return found


class Harness:
    """
    One relay of *kind*.

    :param clock: of the transports relay; the engine has its own.
    :ivar client: the client's own socket, for the test.
    :ivar destination: the destination's own socket, for the test.
    :ivar relay: the relay, once started.
    :ivar ended: fires with the relay when it has ended; :attr:`endings` counts.
    :ivar halved: how often the relay has told that one direction is closed.
    """

    def __init__(self, kind: str, engine: RelayEngine | None = None, clock: Any = reactor) -> None:
        self.kind = kind
        self.engine = engine
        self.clock = clock
        self.client: Any
        self.client, self._client = socket_pair()
        self._wrapping: Any = None
        if kind == "wrapped":
            self.client, self._wrapping = WrappedSocket(self.client, Swapped()), Swapped()
        self.destination, self._destination = socket_pair()
        for sock in (self._client, self._destination):
            set_options(sock, SOCKET_OPTIONS)
        self.ended: Deferred[IRelay] = Deferred()
        self.endings = 0
        self.halved = 0
        self.relay: Any = None

    def limit_buffers(self, size: int) -> int:
        """Bound the kernel's buffers on the way from the client to the destination; their sum in bytes."""
        total = 0
        for sock, option in (
            (self.client, socket.SO_SNDBUF),
            (self._client, socket.SO_RCVBUF),
            (self._destination, socket.SO_SNDBUF),
            (self.destination, socket.SO_RCVBUF),
        ):
            sock.setsockopt(socket.SOL_SOCKET, option, size)
            total += sock.getsockopt(socket.SOL_SOCKET, option)
        return total

    def fill(self, data: bytes) -> int:
        """
        Let as much of *data* as fits wait for the relay to begin: it is bulk then, whoever is the faster one.

        :returns: how much of it is sent.
        """
        self.limit_buffers(1 << 20)
        sent = send_what_fits(self.client, data)
        # Two full buffers tell the relay that it is bulk, and there is more.
        assert self.waiting() > 3 * BUFFER_SIZE
        return sent

    def waiting(self) -> int:
        """Bytes of the client that have come to the relay's socket and that it has not read."""
        return int(struct.unpack("i", fcntl.ioctl(self._client, termios.FIONREAD, bytes(4)))[0])

    def start(
        self,
        early: bytes = b"",
        idle: float = NEVER,
        client_eof: bool = False,
        meters: Meters | None = None,
    ) -> None:
        """Begin relaying."""
        if self.kind == "engine":
            assert self.engine is not None
            self.relay = self.engine.relay(
                raw(self._client),
                raw(self._destination),
                self,
                early,
                idle,
                meters,
            )
            return
        client, destination = adopted(reactor, self._client), adopted(reactor, self._destination)
        self.relay = TransportsRelay(
            client.transport,
            destination.transport,
            self.clock,
            self,
            idle,
            self._wrapping,
            meters,
        )
        client.end, destination.end = self.relay.client, self.relay.destination
        self.relay.start(early, client_eof)

    def relay_half_closed(self, relay: IRelay) -> None:
        assert self.relay in (None, relay)
        self.halved += 1

    def relay_ended(self, relay: IRelay) -> None:
        self.endings += 1
        if self.endings == 1:
            self.ended.callback(relay)

    @inlineCallbacks
    def run(self, scenario: Callable[[socket.socket, socket.socket], Any]) -> Generator[Any, Any, Any]:
        """Play *scenario* on the two sockets, in a thread; its result."""
        result = yield deferToThread(scenario, self.client, self.destination)
        return result

    def finished(self) -> Deferred[IRelay]:
        """The relay, when it has ended; a failure after a while."""
        return self.ended.addTimeout(PATIENCE, reactor)

    def close(self) -> None:
        """Close what the scenario left open."""
        self.client.close()
        self.destination.close()
        if self.relay is None:
            self._client.close()
            self._destination.close()


class Timed:
    """The reactor, but for what is later, which is up to *clock*."""

    def __init__(self, clock: Clock) -> None:
        self.callLater = clock.callLater
        self.seconds = clock.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


@contextmanager
def an_engine(in_reactor: Any = reactor, **options: Any) -> Generator[RelayEngine, None, None]:
    """An engine of the test's own."""
    engine = RelayEngine(in_reactor, **options)
    engine.use()
    try:
        yield engine
    finally:
        engine.close()
