"""
The soak run's UDP associations: windows of datagrams to a destination in this process, and back.

Over loopback, and with few under way at a time, none may be lost: each is checked, and their order too.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from sessions import Session, Unexpected

#: Seconds of the longest pauses.
_THINK = 1.0

_FRAGMENTED = 0.2
_GREETING = b"\x05\x01\x00"
_ASSOCIATE = b"\x05\x03\x00\x01" + bytes(6)


async def associate(session: Session) -> None:
    """Datagrams both ways, whole and in fragments, until the connection ends in one way or another."""
    tcp = await session.dial()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(tcp, _GREETING + _ASSOCIATE)
    reply = b""
    while len(reply) < 12:
        reply += await loop.sock_recv(tcp, 12 - len(reply)) or _gone()
    if reply[:3] != b"\x05\x00\x05" or reply[3]:
        raise Unexpected(f"an ASSOCIATE is answered by {reply!r}")
    client, destination = _udp(session, tcp.getsockname()[0]), _udp(session, "127.0.0.1")
    client.connect((socket.inet_ntoa(reply[6:10]), int.from_bytes(reply[10:12], "big")))
    for _ in range(session.random.randint(1, 8)):
        await _window(session, client, destination)
        await session.pause(_THINK)
    if session.random.random() < 0.3:
        tcp.shutdown(socket.SHUT_WR)
        await _window(session, client, destination)


async def _window(session: Session, client: socket.socket, destination: socket.socket) -> None:
    host, port = destination.getsockname()
    header = b"\x01" + socket.inet_aton(host) + port.to_bytes(2, "big")
    longest = session.random.choice((20, 200, 1400, 9000))
    payloads = [_payload(session, longest) for _ in range(session.random.randint(1, 8))]
    for payload in payloads:
        for fragment, part in _parts(session, payload):
            client.send(b"\0\0" + bytes((fragment,)) + header + part)
    for payload in payloads:
        data, relay = await _receive(destination)
        if data != payload:
            raise Unexpected(f"the destination has {len(data)} bytes in place of {len(payload)}")
        destination.sendto(data[::-1], relay)
        session.progress(len(data))
    for payload in payloads:
        data, _ = await _receive(client)
        if data != b"\0\0\0" + header + payload[::-1]:
            raise Unexpected(f"the client has {len(data)} bytes in place of an answer of {len(payload)}")
        session.progress(len(payload))


def _payload(session: Session, longest: int) -> bytes:
    return bytes(session.stream().piece(0, session.random.randint(0, longest)))


def _parts(session: Session, payload: bytes) -> list[tuple[int, bytes]]:
    """FRAG and what comes with it."""
    if session.random.random() > _FRAGMENTED or len(payload) < 3:
        return [(0, payload)]
    size = len(payload) // session.random.randint(1, 3)
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    return [(number | (0x80 if number == len(parts) else 0), part) for number, part in enumerate(parts, 1)]


def _udp(session: Session, host: str) -> socket.socket:
    sock = session.own(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.setblocking(False)
    sock.bind((host, 0))
    return sock


async def _receive(sock: socket.socket) -> tuple[bytes, Any]:
    """The next datagram, and where it comes from. (asyncio's own way needs Python 3.11.)"""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return sock.recvfrom(65536)
        except BlockingIOError:
            ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(sock, _set, ready)
        try:
            await ready
        finally:
            loop.remove_reader(sock)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _gone() -> bytes:
    raise Unexpected("the proxy has closed the connection instead of an answer to ASSOCIATE")
