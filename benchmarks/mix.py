"""
The kinds of session that a soak run is a mix of.

A kind is an ``async def play(session)``: it does what it does with
:class:`~sessions.Session`, and raises when something is not as it should be.
Whoever adds a command to the proxy adds its kind to :data:`KINDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from datagrams import associate
from sessions import End, Session, Unexpected, together

#: Seconds of the longest pauses.
THINK = 4.0
STALL = 3.0


class Kind(NamedTuple):
    """
    A kind of session.

    :ivar name: as lines about it call it.
    :ivar weight: how often it comes, compared with the others.
    :ivar play: does it.
    """

    name: str
    weight: int
    play: Callable[[Session], Awaitable[None]]


async def _opened(session: Session) -> tuple[End, End]:
    """Both ends, after they have been idle for a while."""
    ends = await session.connect()
    await session.pause(THINK)
    return ends


async def _deliver(source: End, target: End, size: int) -> None:
    """*size* bytes from one end to the other, and the end of that direction after them."""

    async def send() -> None:
        await source.send(size)
        source.finish()

    await together(send(), target.receive_to_end())
    target.check(source.stream, size)


async def download(session: Session) -> None:
    """The destination sends and ends first."""
    client, destination = await _opened(session)
    await _deliver(destination, client, session.size())
    await _deliver(client, destination, 0)


async def upload(session: Session) -> None:
    """The client sends and ends first."""
    client, destination = await _opened(session)
    await _deliver(client, destination, session.size())
    await _deliver(destination, client, 0)


async def both_ways(session: Session) -> None:
    """Both send at once."""
    client, destination = await _opened(session)
    await together(
        _deliver(client, destination, session.size()), _deliver(destination, client, session.size())
    )


async def echo(session: Session) -> None:
    """Questions and answers, with pauses between them."""
    client, destination = await _opened(session)

    async def ask() -> None:
        for _ in range(session.random.randint(1, 20)):
            size = int(2 ** session.random.uniform(0, 12))
            await together(client.send(size), client.receive(size))
            await session.pause(THINK / 10)
        client.finish()
        await client.receive_to_end()

    async def answer() -> None:
        await destination.echo()
        destination.finish()

    await together(ask(), answer())
    destination.check(client.stream, client.sent)
    client.check(client.stream, client.sent)


async def half_close(session: Session) -> None:
    """One end says that it is done, and only then, and later, the other begins."""
    ends = list(await _opened(session))
    session.random.shuffle(ends)
    first, second = ends
    await _deliver(first, second, session.size())
    await session.pause(STALL)
    await _deliver(second, first, session.size())


async def stall(session: Session) -> None:
    """The reader stops in the middle, again and again, and the writer has to wait."""
    ends = list(await _opened(session))
    session.random.shuffle(ends)
    source, target = ends
    size = session.size()

    async def send() -> None:
        await source.send(size)
        source.finish()

    async def receive() -> None:
        for _ in range(session.random.randint(1, 3)):
            await target.receive(session.random.randint(0, size - target.received))
            await session.pause(STALL)
        await target.receive_to_end()

    await together(send(), receive())
    target.check(source.stream, size)
    await _deliver(target, source, 0)


async def reset(session: Session) -> None:
    """One end is reset amid a transfer in either direction; the other must see a reset too."""
    ends = list(await _opened(session))
    session.random.shuffle(ends)
    first, second = ends
    size = session.size()
    part = session.random.randint(0, size)
    if session.random.random() < 0.5:
        await together(_send_then(first, part, first.reset), second.receive_to_reset())
    else:
        await together(_receive_then(first, part, first.reset), _send_to_reset(second, size))
    first.check(second.stream)
    second.check(first.stream)


async def kill(session: Session) -> None:
    """One end goes away amid transfers in both directions, with unread data perhaps: any end will do."""
    ends = list(await _opened(session))
    session.random.shuffle(ends)
    first, second = ends
    size = session.size()
    part = session.random.randint(0, size)

    async def survive() -> None:
        try:
            await together(second.send(size), second.receive_to_end())
        except ConnectionError:
            return

    await together(_send_then(first, part, first.close), survive())
    second.check(first.stream)


async def kill_negotiation(session: Session) -> None:
    """The client goes away before it is served."""
    sock = await session.dial()
    opening = session.opening()
    part = session.random.randint(0, len(opening))
    await asyncio.get_running_loop().sock_sendall(sock, opening[:part])
    await session.pause(THINK / 10)
    sock.close()


async def bind(session: Session) -> None:
    """The destination connects, as with FTP in active mode, and then one end sends."""
    ends = list(await session.bind())
    session.random.shuffle(ends)
    source, target = ends
    await _deliver(source, target, session.size())
    await _deliver(target, source, 0)


async def kill_bind(session: Session) -> None:
    """The client goes away before the peer comes."""
    sock, _ = await session.announced()
    await session.pause(THINK)
    sock.close()


async def refused(session: Session) -> None:
    """The destination refuses."""
    await session.refused()


async def _send_then(end: End, size: int, last: Callable[[], None]) -> None:
    await end.send(size)
    last()


async def _receive_then(end: End, size: int, last: Callable[[], None]) -> None:
    await end.receive(size)
    last()


async def _send_to_reset(end: End, size: int) -> None:
    try:
        await end.send(size)
        await end.receive_to_end()
    except ConnectionError:
        return
    raise Unexpected("a reset came through as an ordinary end")


KINDS = (
    Kind("download", 4, download),
    Kind("upload", 4, upload),
    Kind("both ways", 3, both_ways),
    Kind("echo", 6, echo),
    Kind("half-close", 3, half_close),
    Kind("stall", 3, stall),
    Kind("reset", 3, reset),
    Kind("kill", 3, kill),
    Kind("kill in the negotiation", 2, kill_negotiation),
    Kind("bind", 2, bind),
    Kind("kill of a bind", 1, kill_bind),
    Kind("refused", 1, refused),
    Kind("UDP association", 3, associate),
)
