"""The soak run, in short; and that it notices what it is there to notice."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

import peers
import proc
import soak
from mix import KINDS
from peers import Peer
from proc import Holding
from processes import Server
from sessions import REQUESTS, Block, Session, Stream, Unexpected, World, together

from ..support.benchmarks import run


def test_three_seconds() -> None:
    """All is well, and the seed is told."""
    said = run("soak.py", "--seconds", "3", "--sessions", "30", "--seed", "7")
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[0].startswith("seed 7:")
    assert said.stdout.splitlines()[-1] == "all is well, seed 7"
    assert " 0 sessions" not in said.stdout


def test_the_seed_decides_the_mix() -> None:
    """The same one brings the same kinds, another one others; and every kind comes."""

    def kinds(seed: int) -> list[str]:
        choices = soak.choices(seed)
        return [next(choices).name for _ in range(500)]

    assert kinds(1) == kinds(1)
    assert kinds(1) != kinds(2)
    assert set(kinds(1)) == {kind.name for kind in KINDS}


# A proxy of the test's own, with faults.

Relay = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Without a fault, as far as data and its end go."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def damage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One bit is wrong; the token is let through."""
    writer.write(await reader.read(8))
    while data := await reader.read(65536):
        writer.write(bytes([data[0] ^ 1]) + data[1:])
        await writer.drain()
    writer.write_eof()


async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The last byte is missing; the token is let through."""
    writer.write(await reader.read(8))
    held = b""
    while data := await reader.read(65536):
        writer.write(held + data[:-1])
        held = data[-1:]
        await writer.drain()
    writer.write_eof()


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Data comes through, and its end does not."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    await asyncio.sleep(3600)


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every reset becomes an ordinary end."""
    try:
        await forward(reader, writer)
    except ConnectionError:
        with suppress(OSError, RuntimeError):
            writer.write_eof()
        # What is left unread when it closes would be a reset after all.
        with suppress(OSError):
            while await reader.read(65536):
                pass


class Proxy:
    """SOCKS5 to IPv4 addresses, which relays as *relay* does."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        await asyncio.gather(task, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(3)
            writer.write(b"\x05\x00")
            request = await reader.readexactly(10)
            there = await asyncio.open_connection("127.0.0.1", int.from_bytes(request[8:], "big"))
            writer.write(b"\x05\x00\x00\x01" + bytes(6))
            try:
                await asyncio.gather(self._relay(reader, there[1]), self._relay(there[0], writer))
            finally:
                there[1].close()
        finally:
            writer.close()


class Binder(Proxy):
    """
    SOCKS5's BIND, for a peer at an IPv4 address.

    :param admits: whom it lets in.
    :param told: the port of the second reply, given the peer's.
    """

    def __init__(self, admits: Callable[[str], bool], told: Callable[[int], int]) -> None:
        super().__init__(forward)
        self._admits = admits
        self._told = told

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def accepted(*ends: Any) -> None:
            if self._admits(ends[1].get_extra_info("peername")[0]) and not came.done():
                came.set_result(ends)
            else:
                ends[1].close()

        listening = await asyncio.start_server(accepted, "127.0.0.1", 0)
        try:
            await reader.readexactly(3)
            writer.write(b"\x05\x00")
            await reader.readexactly(10)
            port: int = listening.sockets[0].getsockname()[1]
            writer.write(b"\x05\x00\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
            there = await came
            host, port = there[1].get_extra_info("peername")
            address = socket.inet_aton(host) + self._told(port).to_bytes(2, "big")
            writer.write(b"\x05\x00\x00\x01" + address)
            await asyncio.gather(self._relay(reader, there[1]), self._relay(there[0], writer))
            there[1].close()
        finally:
            listening.close()
            writer.close()


def play(relay: Relay, kind: str, proxy: Proxy | None = None) -> list[str]:
    """What is wrong with some sessions of *kind* through *proxy*, or one that relays so."""

    async def main() -> list[str]:
        async with proxy or Proxy(relay) as port:
            world = World(port, 1, largest=1 << 20, haste=0.01, requests=REQUESTS[:1])
            try:
                crowd = soak.Crowd(world, 3, [each for each in KINDS if each.name == kind])
                while crowd.over.total() < 3:  # a busy machine begins fewer in that time
                    await crowd.run(0.2, "test", os.getpid())
            finally:
                world.close()
            return crowd.failures

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["download", "upload", "both ways", "half-close", "stall"])
def test_a_good_relay(kind: str) -> None:
    """What has no fault has none."""
    assert play(forward, kind) == []


@pytest.mark.parametrize("kind", ["download", "upload", "both ways", "half-close", "stall"])
def test_a_wrong_bit(kind: str) -> None:
    """Every byte is looked at."""
    failures = play(damage, kind)
    assert failures
    assert all("are not those that were sent" in failure for failure in failures)


def test_a_wrong_bit_of_an_echo() -> None:
    """On its way there, at the least; twice wrong may be right again."""
    assert play(damage, "echo")


@pytest.mark.parametrize("kind", ["download", "upload", "half-close"])
def test_a_missing_byte(kind: str) -> None:
    """An end that comes too early is none."""
    failures = play(cut, kind)
    assert failures
    assert all("bytes came of" in failure for failure in failures)


@pytest.mark.parametrize("kind", ["download", "upload", "half-close"])
def test_an_end_that_does_not_come(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that waits for it has stalled, and says which it is."""
    monkeypatch.setattr(soak, "STALLED", 0.5)
    failures = play(hold, kind)
    assert len(failures) >= 3
    assert all(f"({kind}, SOCKS5) has stalled" in failure for failure in failures)


def test_a_reset_that_becomes_an_end() -> None:
    """Whoever reads must be told the truth."""
    failures = play(swallow, "reset")
    assert any("a reset came through as an ordinary end" in failure for failure in failures)


def test_a_refusal_that_is_not_one() -> None:
    """A proxy that says anything else than "refused" is wrong."""

    async def main() -> None:
        async with Proxy(forward) as port:
            world = World(port, 1)
            try:
                session = Session(1, world, "refused")
                await asyncio.wait_for(session.refused(), 30)
            finally:
                session.close()
                world.close()

    with pytest.raises(Unexpected):
        asyncio.run(main())


def is_peer(host: str) -> bool:
    return host == "127.0.0.251"


def test_a_good_bind() -> None:
    """What has no fault has none."""
    assert play(forward, "bind", Binder(is_peer, lambda port: port)) == []


def test_another_peer_is_told() -> None:
    """The second reply is looked at."""
    failures = play(forward, "bind", Binder(is_peer, lambda port: port ^ 1))
    assert failures
    assert all("the second reply does not tell the peer's address" in failure for failure in failures)


def test_a_stranger_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer comes in vain, or the stranger is never sent away."""
    monkeypatch.setattr(soak, "STALLED", 0.5)
    monkeypatch.setattr(random.Random, "random", lambda self: 0.1)
    assert play(forward, "bind", Binder(lambda host: True, lambda port: port))


def test_pauses_are_no_stalls() -> None:
    """Only what has not been decided on counts."""

    async def main() -> float:
        world = World(1, 1, haste=1000.0)
        try:
            session = Session(1, world, "any")
            pausing = asyncio.ensure_future(session.pause(1000.0))
            await asyncio.sleep(0.01)
            quiet = session.quiet
            pausing.cancel()
            return quiet
        finally:
            world.close()

    assert asyncio.run(main()) < 0


# Streams.


def test_a_stream_goes_on_round_its_block() -> None:
    """Any offset, any length, and the hash is that of the bytes."""
    stream = Stream(Block(1, 100), 90)
    data = b"".join(bytes(stream.piece(start, 1)) for start in range(250))
    assert data[:100] == data[100:200]
    assert len(set(data)) > 50
    assert stream.digest(250) == hashlib.sha256(data).digest()


def test_what_fails_ends_the_others() -> None:
    """One part that fails cancels those that wait."""

    async def fail() -> None:
        raise Unexpected("so")

    async def main() -> None:
        await asyncio.wait_for(together(asyncio.sleep(3600), fail()), 30)

    with pytest.raises(Unexpected, match="so"):
        asyncio.run(main())


# What the proxy holds, and how it ends.


def a_holding(anonymous: int = 0, **descriptors: int) -> Holding:
    return Holding(Counter(descriptors), anonymous << 20, 0, 0)


def test_kept_descriptors() -> None:
    """A socket too many is a leak; some pipes may wait for the next bulk session."""
    idle = a_holding(socket=1, pipe=4)
    assert soak.compare(idle, idle, a_holding(socket=1, pipe=50)) == []
    assert soak.compare(idle, idle, a_holding(socket=2, pipe=4)) == [
        "the proxy keeps descriptors of sessions that are over: {'socket': 1}"
    ]
    assert "'pipe'" in soak.compare(idle, idle, a_holding(socket=1, pipe=100))[0]


def test_grown_memory() -> None:
    """A little may be the heap's holes."""
    idle, before = a_holding(), a_holding(anonymous=30)
    assert soak.compare(idle, before, a_holding(anonymous=33)) == []
    assert soak.compare(idle, before, a_holding(anonymous=40)) == [
        "the proxy's own memory has grown by 10.0 MiB since the warm-up"
    ]


def test_holding() -> None:
    """The kernel's figures are this process's own."""
    before = proc.holding(os.getpid())
    data = b"x" * (64 << 20)  # so much is always mapped anew
    with socket.socket(), socket.socket():
        after = proc.holding(os.getpid())
    assert after.descriptors["socket"] - before.descriptors["socket"] == 2
    assert after.anonymous - before.anonymous > len(data) // 2
    assert after.rss >= after.pss > 0


PROGRAM = """
import signal, socket, sys, time
listening = socket.create_server(("127.0.0.1", {port}))
signal.signal(signal.SIGTERM, lambda *_: sys.exit({last}))
while True:
    time.sleep(0.01)
"""


def dismissed(last: str) -> list[str]:
    """What is wrong with a server that ends so."""
    with Server(lambda port, _: [sys.executable, "-c", PROGRAM.format(port=port, last=last)]) as server:
        return soak.dismiss(server)


@pytest.mark.process
def test_how_the_proxy_ends() -> None:
    """In order, with its last words, and without complaints; a failure otherwise."""
    assert dismissed("print('Server Shut Down.')") == []
    assert "did not shut down in order" in dismissed("print('Good night.')")[0]
    assert "status 3" in dismissed("print('Server Shut Down.') or 3")[0]
    assert dismissed("print('Traceback (most recent call last):\\nServer Shut Down.')") == [
        "the proxy said: Traceback (most recent call last):"
    ]


@pytest.mark.process
def test_a_proxy_that_died() -> None:
    """Whatever else there was, this is said."""
    with Server(lambda port, _: [sys.executable, "-c", PROGRAM.format(port=port, last="0")]) as server:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        assert "has ended by itself with status -9" in soak.dismiss(server)[0]


@pytest.mark.process
def test_a_proxy_that_dies_meanwhile(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The run ends then, as failed, with the reason."""
    dies = PROGRAM + "    listening.accept(); listening.accept(); sys.exit('out of memory')\n"
    broken = Peer("", "", lambda _, port, there: [sys.executable, "-c", dies.format(port=port, last=0)], "")
    monkeypatch.setattr(peers, "ours", lambda: broken)
    assert soak.main(["--seconds", "2", "--sessions", "3"]) == 1
    said = capfd.readouterr().err
    assert "the proxy has ended by itself with status 1:\nout of memory" in said
