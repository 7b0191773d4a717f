"""
A session of the soak run: the client's end, the destination's end, and the bytes between them.

Both ends are in this process, so each knows what the other has sent. What is
sent is a part of one long block of random bytes, from an offset on: it can be
hashed again at any time, to any length.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)

#: Addresses the clients come from, so that ports do not run out.
_SOURCES = 200

#: Where the peers of BINDs come from, and others who are not wanted.
_PEER, _STRANGER = "127.0.0.251", "127.0.0.252"

#: Bytes with which a client tells the origin which session it is.
TOKEN = 8


class Unexpected(Exception):
    """Something came otherwise than it should; what, in one line."""


class Block:
    """
    Random bytes that all streams are cut from, without an end.

    :param seed: of the bytes.
    """

    def __init__(self, seed: int, size: int = 1 << 20) -> None:
        self._size = size
        data = random.Random(seed).randbytes(size)
        self._twice = memoryview(data + data)

    def piece(self, start: int, size: int) -> memoryview:
        """*size* bytes from *start* on, which are no more than the block has."""
        start %= self._size
        return self._twice[start : start + min(size, self._size)]


class Stream(NamedTuple):
    """What one end sends: the block from an offset on."""

    block: Block
    offset: int

    def piece(self, start: int, size: int) -> memoryview:
        """Some of the bytes after the first *start*: *size*, or fewer."""
        return self.block.piece(self.offset + start, min(size, _CHUNK))

    def digest(self, size: int) -> bytes:
        """The hash of the first *size* bytes."""
        sha, done = hashlib.sha256(), 0
        while done < size:
            piece = self.piece(done, size - done)
            sha.update(piece)
            done += len(piece)
        return sha.digest()


class End:
    """
    One end of a session.

    :param session: that it belongs to.
    :param sock: connected, non-blocking.
    :param stream: what it sends.
    :ivar sent: bytes that it has sent of it.
    :ivar received: bytes that have come.
    """

    def __init__(self, session: Session, sock: socket.socket, stream: Stream) -> None:
        self.stream = stream
        self.sent = 0
        self.received = 0
        self._session = session
        self._socket = sock
        self._sha = hashlib.sha256()
        self._loop = asyncio.get_running_loop()

    async def send(self, size: int) -> None:
        """Send the next *size* bytes of the stream."""
        end = self.sent + size
        while self.sent < end:
            piece = self.stream.piece(self.sent, end - self.sent)
            await self._loop.sock_sendall(self._socket, piece)
            self.sent += len(piece)
            self._session.progress(len(piece))

    async def receive(self, size: int) -> None:
        """
        Receive *size* bytes.

        :raises Unexpected: when the stream ends before.
        """
        end = self.received + size
        while self.received < end:
            if not await self._receive(end - self.received):
                raise Unexpected(f"the end came after {self.received} of {end} bytes")

    async def receive_to_end(self) -> None:
        """Receive all that comes before the end."""
        while await self._receive(_CHUNK):
            pass

    async def receive_to_reset(self) -> None:
        """
        Receive all that comes before a reset.

        :raises Unexpected: when an ordinary end comes instead.
        """
        try:
            await self.receive_to_end()
        except ConnectionError:
            return
        raise Unexpected("a reset came through as an ordinary end")

    async def echo(self) -> None:
        """Send back what comes, to the end."""
        while data := await self._receive(_CHUNK):
            await self._loop.sock_sendall(self._socket, data)
            self._session.progress(len(data))

    def finish(self) -> None:
        """Send no more: a half-close."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both directions, whatever may have come and was not read."""
        self._socket.close()

    def reset(self) -> None:
        """Close with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()

    def check(self, other: Stream, size: int | None = None) -> None:
        """
        See that what came is what was sent.

        :param other: the stream that the other end sent.
        :param size: so much of it must have come; None: any part, from its beginning.
        :raises Unexpected: when it is not.
        """
        if size is not None and self.received != size:
            raise Unexpected(f"{self.received} bytes came of {size}")
        if self._sha.digest() != other.digest(self.received):
            raise Unexpected(f"the {self.received} bytes that came are not those that were sent")

    async def _receive(self, most: int) -> bytes:
        data = await self._loop.sock_recv(self._socket, min(most, _CHUNK))
        self._sha.update(data)
        self.received += len(data)
        self._session.progress(len(data))
        return data


class Session:
    """
    One session.

    :param number: of this session; with the seed it decides everything that happens in it.
    :param world: what all sessions share.
    :param kind: what it is called.
    :ivar random: its own.
    """

    def __init__(self, number: int, world: World, kind: str) -> None:
        self.number = number
        self.world = world
        self.kind = kind
        self.random = random.Random(f"{world.seed} {number} {kind}")
        self.moved = 0
        self._loop = asyncio.get_running_loop()
        self._quiet_since = self._loop.time()
        self._sockets: list[socket.socket] = []
        self._visited: asyncio.Future[socket.socket] = self._loop.create_future()
        self._request = self.random.choice(world.requests)

    def __str__(self) -> str:
        return f"session {self.number} ({self.kind}, {self._request.name})"

    # What the watch looks at.

    @property
    def quiet(self) -> float:
        """Seconds without any progress, deliberate pauses apart."""
        return self._loop.time() - self._quiet_since

    def progress(self, size: int = 0) -> None:
        """Something has happened; *size* bytes of it."""
        self.moved += size
        self._quiet_since = max(self._quiet_since, self._loop.time())

    async def pause(self, longest: float) -> None:
        """Do nothing for a while, on purpose: *longest* seconds at the most, or fewer in a short run."""
        seconds = self.random.uniform(0, longest * self.world.haste)
        self._quiet_since = max(self._quiet_since, self._loop.time() + seconds)
        await asyncio.sleep(seconds)

    # What kinds of session are made of.

    def stream(self) -> Stream:
        """A stream for one of the ends."""
        return Stream(self.world.block, self.random.randrange(1 << 20))

    def size(self) -> int:
        """Of a transfer: from one byte to some megabytes, and now and then far more."""
        if self.random.random() < 0.01:
            return self.world.largest
        return int(2 ** self.random.uniform(0, 22))

    async def dial(self) -> socket.socket:
        """A connection to the proxy, and nothing said on it yet."""
        sock = self.own(socket.socket())
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((f"127.0.0.{1 + self.number % _SOURCES}", 0))
        await self._loop.sock_connect(sock, ("127.0.0.1", self.world.proxy_port))
        self.progress()
        return sock

    async def connect(self) -> tuple[End, End]:
        """A CONNECT that was granted: the client's end and the destination's."""
        sock = await self.dial()
        self.world.visitors[self.number] = self._visited
        try:
            await self._negotiate(sock)
            destination = self.own(await self._visited)
        finally:
            del self.world.visitors[self.number]
        self.progress()
        return End(self, sock, self.stream()), End(self, destination, self.stream())

    async def refused(self) -> None:
        """
        A CONNECT to a port where nobody is.

        :raises Unexpected: when the proxy says anything else than that.
        """
        sock = await self.dial()
        await self._loop.sock_sendall(
            sock, b"\x05\x01\x00\x05\x01\x00" + self._address(self.world.closed_port)
        )
        if await self._read(sock, 12) != b"\x05\x00" + b"\x05\x05\x00\x01" + bytes(6):
            raise Unexpected('the reply to a CONNECT to a closed port is not "refused"')
        if await self._loop.sock_recv(sock, 1):
            raise Unexpected("there is more after a refusal")

    async def bind(self) -> tuple[End, End]:
        """
        A BIND whose peer has come, perhaps behind somebody else: the client's end and the peer's.

        :raises Unexpected: when somebody else is let in, or the client is told another peer.
        """
        sock, place = await self.announced()
        if self.random.random() < 0.3:
            await self._turned_away(place)
        peer = await self._come(_PEER, place)
        if await self._place(sock) != peer.getsockname():
            raise Unexpected("the second reply does not tell the peer's address")
        return End(self, sock, self.stream()), End(self, peer, self.stream())

    async def announced(self) -> tuple[socket.socket, tuple[str, int]]:
        """A BIND that waits: the client's connection, and where the peer is to connect."""
        sock = await self.dial()
        host, port = socket.inet_aton(_PEER), _two(21)
        if self._request.greeting:
            await self._loop.sock_sendall(sock, self._request.greeting)
            await self._replies_to_greeting(sock)
            await self._loop.sock_sendall(sock, b"\x05\x02\x00\x01" + host + port)
        else:
            await self._loop.sock_sendall(sock, b"\x04\x02" + port + host + b"soak\x00")
        return sock, await self._place(sock)

    async def _place(self, sock: socket.socket) -> tuple[str, int]:
        """The address in a granting reply."""
        if self._request.greeting:
            reply = await self._read(sock, 10)
            if reply[:4] != b"\x05\x00\x00\x01":
                raise Unexpected(f"SOCKS5 reply {reply[1]} to a BIND")
            return socket.inet_ntoa(reply[4:8]), int.from_bytes(reply[8:], "big")
        reply = await self._read(sock, 8)
        if reply[:2] != b"\x00\x5a":
            raise Unexpected(f"SOCKS4 reply {reply[1]} to a BIND")
        return socket.inet_ntoa(reply[4:]), int.from_bytes(reply[2:4], "big")

    async def _come(self, source: str, place: tuple[str, int]) -> socket.socket:
        sock = self.own(socket.socket())
        sock.setblocking(False)
        sock.bind((source, 0))
        await self._loop.sock_connect(sock, place)
        self.progress()
        return sock

    async def _turned_away(self, place: tuple[str, int]) -> None:
        stranger = await self._come(_STRANGER, place)
        try:
            data = await self._loop.sock_recv(stranger, 1)
        except ConnectionError:
            data = b""
        if data:
            raise Unexpected("somebody else than the peer of a BIND was let in")

    def opening(self) -> bytes:
        """All that a client says until it is served."""
        return self._request.opening(self.world.port_for(self._request, self.random)) + self.token

    @property
    def token(self) -> bytes:
        """Tells the origin which session it is."""
        return self.number.to_bytes(TOKEN, "big")

    def own(self, sock: socket.socket) -> socket.socket:
        """*sock* is closed with the session."""
        self._sockets.append(sock)
        return sock

    def close(self) -> None:
        """Close what is still open."""
        for sock in self._sockets:
            sock.close()
        if self._visited.done() and not self._visited.cancelled():
            self._visited.result().close()

    async def _negotiate(self, sock: socket.socket) -> None:
        """In one segment, byte by byte, or as most clients do."""
        request = self._request
        port = self.world.port_for(request, self.random)
        manner = self.random.random()
        if manner < 0.3:
            await self._loop.sock_sendall(sock, request.opening(port) + self.token)
            await self._replies(sock, request.greeting != b"")
            return
        if request.greeting:
            await self._say(sock, request.greeting, manner > 0.8)
            await self._replies_to_greeting(sock)
        await self._say(sock, request.connect(port), manner > 0.8)
        await self._replies(sock, False)
        await self._loop.sock_sendall(sock, self.token)

    async def _say(self, sock: socket.socket, data: bytes, slowly: bool) -> None:
        if not slowly:
            await self._loop.sock_sendall(sock, data)
            return
        for position in range(len(data)):
            await self._loop.sock_sendall(sock, data[position : position + 1])
            await asyncio.sleep(0)
        self.progress()

    async def _replies_to_greeting(self, sock: socket.socket) -> None:
        if await self._read(sock, 2) != b"\x05\x00":
            raise Unexpected("the greeting was refused")

    async def _replies(self, sock: socket.socket, greeted: bool) -> None:
        if greeted:
            await self._replies_to_greeting(sock)
        if not self._request.greeting:
            reply = await self._read(sock, 8)
            if reply[:2] != b"\x00\x5a":
                raise Unexpected(f"SOCKS4 reply {reply[1]}")
            return
        reply = await self._read(sock, 4)
        if reply[1]:
            raise Unexpected(f"SOCKS5 reply {reply[1]}")
        await self._read(sock, {1: 6, 4: 18}[reply[3]])

    async def _read(self, sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self._loop.sock_recv(sock, size - len(data))
            if not more:
                raise Unexpected(f"the proxy closed in the negotiation, after {data!r}")
            data += more
        self.progress()
        return data

    @staticmethod
    def _address(port: int) -> bytes:
        return b"\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")


class Request(NamedTuple):
    """
    A way to ask for the origin.

    :ivar greeting: what SOCKS5 says first.
    :ivar connect: the request, for a port.
    :ivar ipv6: whether the origin's IPv6 address is meant.
    """

    name: str
    greeting: bytes
    connect: Callable[[int], bytes]
    ipv6: bool = False

    def opening(self, port: int) -> bytes:
        """All of it at once."""
        return self.greeting + self.connect(port)


def _two(port: int) -> bytes:
    return port.to_bytes(2, "big")


_GREETING = b"\x05\x01\x00"
_LOCALHOST = b"localhost"
REQUESTS = (
    Request("SOCKS5", _GREETING, lambda port: b"\x05\x01\x00\x01\x7f\x00\x00\x01" + _two(port)),
    Request(
        "SOCKS5, IPv6", _GREETING, lambda port: b"\x05\x01\x00\x04" + bytes(15) + b"\x01" + _two(port), True
    ),
    Request("SOCKS5, name", _GREETING, lambda port: b"\x05\x01\x00\x03\x09" + _LOCALHOST + _two(port)),
    Request("SOCKS4", b"", lambda port: b"\x04\x01" + _two(port) + b"\x7f\x00\x00\x01soak\x00"),
    Request(
        "SOCKS4a",
        b"",
        lambda port: b"\x04\x01" + _two(port) + b"\x00\x00\x00\x01soak\x00" + _LOCALHOST + b"\x00",
    ),
)


class World:
    """
    What all sessions share: the proxy's port, the origin's doors, and the bytes.

    :param proxy_port: the proxy's, on 127.0.0.1.
    :param seed: of everything that is random.
    :param largest: bytes of the largest transfers.
    :param haste: what all pauses are multiplied with.
    :param requests: the ways in which the origin is asked for.
    :ivar visitors: sessions that wait for their connection to arrive at the origin.
    :ivar closed_port: a port where nobody is.
    """

    #: So many doors, because a pair of addresses has only so many ports.
    DOORS = 8

    def __init__(
        self,
        proxy_port: int,
        seed: int,
        largest: int = 32 << 20,
        haste: float = 1.0,
        requests: Sequence[Request] = REQUESTS,
    ) -> None:
        self.proxy_port = proxy_port
        self.seed = seed
        self.largest = largest
        self.haste = haste
        self.block = Block(seed)
        self.visitors: dict[int, asyncio.Future[socket.socket]] = {}
        self._loop = asyncio.get_running_loop()
        self._doors = [_listening(socket.AF_INET, "127.0.0.1") for _ in range(self.DOORS)]
        ipv6 = _has_ipv6()
        self._doors_ipv6 = [_listening(socket.AF_INET6, "::1") for _ in range(self.DOORS if ipv6 else 0)]
        self.requests = [request for request in requests if ipv6 or not request.ipv6]
        self._arriving: set[asyncio.Task[None]] = set()
        # Bound, and so nobody else's; but it does not listen.
        self._closed = socket.socket()
        self._closed.bind(("127.0.0.1", 0))
        self.closed_port: int = self._closed.getsockname()[1]
        for door in (*self._doors, *self._doors_ipv6):
            self._loop.add_reader(door, self._accept, door)

    def port_for(self, request: Request, source: random.Random) -> int:
        """One of the origin's ports."""
        port: int = source.choice(self._doors_ipv6 if request.ipv6 else self._doors).getsockname()[1]
        return port

    def close(self) -> None:
        """Close the doors."""
        for door in (*self._doors, *self._doors_ipv6):
            self._loop.remove_reader(door)
            door.close()
        for task in self._arriving:
            task.cancel()
        self._closed.close()

    def _accept(self, door: socket.socket) -> None:
        while True:
            try:
                sock, _ = door.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._arrive(sock))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _arrive(self, sock: socket.socket) -> None:
        """Give the connection to the session that it belongs to; it may be gone already."""
        token = b""
        try:
            while len(token) < TOKEN:
                more = await self._loop.sock_recv(sock, TOKEN - len(token))
                if not more:
                    break
                token += more
        except OSError:
            token = b""
        waiting = self.visitors.get(int.from_bytes(token, "big")) if len(token) == TOKEN else None
        if waiting is None or waiting.done():
            sock.close()
        else:
            waiting.set_result(sock)


def _has_ipv6() -> bool:
    """Whether there is an IPv6 loopback: containers may have none."""
    try:
        _listening(socket.AF_INET6, "::1").close()
    except OSError:
        return False
    return True


def _listening(family: int, host: str) -> socket.socket:
    sock = socket.socket(family)
    sock.bind((host, 0))
    sock.listen(1024)
    sock.setblocking(False)
    return sock


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Do *parts* at once; when one of them fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
