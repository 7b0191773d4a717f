"""Sockets in the engine: batches, runs, turns, and what an association costs."""

from __future__ import annotations

import errno
import gc
import resource
import socket
import sys
import tracemalloc
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from socksproxy.limits import Limits, ServerLimits
from socksproxy.relay.engine import RelayEngine
from socksproxy.udp import batch as batch_module, registry as associations, sockets
from socksproxy.udp.batch import SLOTS, Batch
from socksproxy.udp.demux import SharedDemux
from socksproxy.udp.sockets import ClientPort, SocketOutlet
from socksproxy.udp.transports import ClientTransport
from socksproxy.values.udp import UDPSettings

from ..support.udp import Client, Echo, Proxy, free_udp_port, reactor, serving, udp_socket, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no engine")

Pair = tuple[socket.socket, socket.socket]


def all_lengths(proxy: Proxy) -> None:
    """Runs that end in a shorter one, in an empty one, in a longer one, in another destination."""
    with Echo() as echo, Echo("::1") as other, Echo("::1") as third, Client(proxy) as client:
        for destination in (echo, other, third):
            assert client.ask(b"x", destination.address) == b"x"
        lengths = [5, 5, 5, 4, 5, 0, 0, 5, 6, 6, 1, 1, 0, 9, 8, 7, 6, 5, 5, 0, 5, 5] * 3
        for destinations in ([echo], [other, third, third], [echo, echo, other, other, third]):
            for start in range(0, len(lengths), 22):
                sent: dict[int, list[bytes]] = {}
                for number, length in enumerate(lengths[start : start + 22]):
                    address = destinations[number % len(destinations)].address
                    sent.setdefault(address[1], []).append(bytes([number]) * length)
                    client.send(bytes([number]) * length, address)
                came: dict[int, list[bytes]] = {}
                for _ in range(22):
                    source, payload = client.receive()
                    came.setdefault(source.port, []).append(payload)
                assert came == sent
        client.close()
        record = proxy.record()
        assert record["dropped"] == {}
        assert record["sent"] == record["received"] == 3 + 9 * sum(lengths[:22])
        assert record["datagrams_sent"] == record["datagrams_received"] == 3 + 9 * 22


@pytest_twisted.ensureDeferred
async def test_all_lengths() -> None:
    async with serving("engine") as proxy:
        await proxy.run(all_lengths)


# When the kernel does not do it.


def many(proxy: Proxy, size: int) -> None:
    with Echo() as echo, Client(proxy) as client:
        for start in range(0, 256, 32):
            payloads = [bytes([number]) * size for number in range(start, start + 32)]
            for payload in payloads:
                client.send(payload, echo.address)
            assert [client.receive()[1] for _ in payloads] == payloads
        client.close()
        assert proxy.record()["dropped"] == {}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.EAGAIN])
@pytest_twisted.ensureDeferred
async def test_without_segmentation(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interface that cannot, a way that is too narrow: one by one, in order, none lost."""
    refused = []

    def send(self: Batch, link: Any, to: Any, start: int, stop: int, offset: int, longer: int) -> bool:
        if stop - start < 2:
            return False
        refused.append(self.sizes[start] + longer)
        raise OSError(number, "no")

    monkeypatch.setattr(Batch, "send", send)
    async with serving("engine") as proxy:
        # All of it waits when it is read, or there would be nothing to send together.
        monkeypatch.setattr(proxy.factory.sessions.context.engine, "turn_bytes", 1 << 30)
        await proxy.run(many, 100)
        if number != errno.EAGAIN:
            assert len(refused) <= 2, "it is tried again and again"


@pytest_twisted.ensureDeferred
async def test_sizes_beyond_segmentation() -> None:
    async with serving("engine") as proxy:
        await proxy.run(many, 9000)


@pytest_twisted.ensureDeferred
async def test_without_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without it has Twisted's transports, and everything still works."""
    monkeypatch.setattr(batch_module, "_receive", None)
    async with serving("engine") as proxy:
        opener = proxy.factory.sessions.context.associations._opener(proxy.factory.sessions.context.engine)
        assert isinstance(opener, partial)
        assert opener.func is ClientTransport
        await proxy.run(many, 100)


def test_with_everything() -> None:
    """Else all tests of the engine's sockets are tests of the transports."""
    assert batch_module.available()
    assert associations.batch is batch_module  # type: ignore[attr-defined]


# Turns.


def crowd(proxy: Proxy) -> None:
    """Floods wait in the kernel's buffers, and everybody has a turn."""
    with ExitStack() as stack:
        sink = stack.enter_context(udp_socket())
        echo = stack.enter_context(Echo())
        floods = [stack.enter_context(Client(proxy)) for _ in range(4)]
        quiet = stack.enter_context(Client(proxy))
        for _ in range(10):
            for client in floods:
                for _ in range(100):
                    client.send(bytes(500), sink.getsockname())
            assert quiet.ask(b"x", echo.address) == b"x"
        live = proxy.factory.sessions.context.associations.live
        wait_for(lambda: all(association.datagrams_sent for association in live))


@pytest_twisted.ensureDeferred
async def test_turns_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a budget of less than one batch for all of them."""
    async with serving("engine") as proxy:
        engine = proxy.factory.sessions.context.engine
        monkeypatch.setattr(engine, "turn_bytes", 4096)
        await proxy.run(crowd)


class Reader(sockets.SocketPort):
    """Notes when it has its turn."""

    def __init__(self, engine: RelayEngine, link: socket.SocketType, turns: list[Any]) -> None:
        super().__init__(engine, link, False)
        self.turns = turns

    def take(self, batch: Batch, count: int) -> None:
        self.turns.append((self, count))

    def abort(self) -> None:
        self.close()


def test_a_turn_has_a_bound() -> None:
    """One that always has more goes on in the next turn, behind those who waited."""
    engine = RelayEngine(reactor, turn_bytes=3 * SLOTS * sockets._COST)
    turns: list[Any] = []
    readers = [Reader(engine, sockets.bound("127.0.0.1", 0), turns) for _ in range(3)]
    with udp_socket() as source:
        for reader in readers:
            for _ in range(SLOTS * sockets._TURNS * 2):
                source.sendto(b"", reader.link.getsockname())
    engine.doRead()
    assert sum(count for _, count in turns) <= 5 * SLOTS
    assert {reader for reader in readers if reader.queued}, "somebody waits for the next turn"
    for _ in range(4):
        engine._turn()
        if engine._next_turn is not None and engine._next_turn.active():
            engine._next_turn.cancel()
        engine._next_turn = None
    assert {reader for reader, _ in turns} == set(readers)
    engine.close()
    assert all(reader._fd == -1 for reader in readers)


# A failure of ours.


@pytest_twisted.ensureDeferred
async def test_a_fault_costs_one_association(monkeypatch: pytest.MonkeyPatch) -> None:
    def scenario(proxy: Proxy) -> None:
        with Echo() as echo, Client(proxy) as client, Client(proxy) as other:
            assert client.ask(b"x", echo.address) == b"x"
            assert other.ask(b"x", echo.address) == b"x"
            monkeypatch.setattr(sockets.SocketOutlet, "from_destinations", lambda *_: 1 / 0)
            client.send(b"x", echo.address)
            assert client.closed()
            monkeypatch.undo()
            assert other.ask(b"x", echo.address) == b"x"

    async with serving("engine") as proxy:
        await proxy.run(scenario)
        assert proxy.records[0]["ended"] == "aborted"


@pytest_twisted.ensureDeferred
async def test_no_room_in_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told, and no port is left open."""
    from ..support.udp import Refused

    def scenario(proxy: Proxy) -> int:
        with pytest.raises(Refused) as caught:
            Client(proxy)
        return int(caught.value.args[0])

    async with serving("engine") as proxy:
        engine = proxy.factory.sessions.context.engine
        assert engine is not None
        real = engine.register

        def register(fd: int, handler: Any, *mask: int) -> None:
            if isinstance(handler, sockets.SocketPort):
                raise OSError(errno.ENOSPC, "no space left")
            real(fd, handler, *mask)

        monkeypatch.setattr(engine, "register", register)
        assert await proxy.run(scenario) == 1
        assert not proxy.factory.sessions.context.associations.live
        opener = proxy.factory.sessions.context.associations._opener(engine)
        assert isinstance(opener, partial)
        assert opener.func is ClientPort


# Cost.

ASSOCIATIONS = 2000


def open_many(proxy: Proxy, echo: Echo, clients: list[Client]) -> None:
    for _ in range(ASSOCIATIONS):
        client = Client(proxy)
        clients.append(client)
        assert client.ask(b"hello", echo.address) == b"hello"


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_two_thousand_associations() -> None:
    """Each has sent and received, and costs at most 4 KiB of Python's memory; the kernel's is apart."""
    wanted = 6 * ASSOCIATIONS + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} descriptors are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    clients: list[Client] = []
    try:
        with Echo() as echo:
            async with serving("engine", limits=ServerLimits(client=Limits())) as proxy:
                warm = await proxy.run(Client)
                await proxy.run(lambda _: warm.ask(b"x", echo.address))
                gc.collect()
                tracemalloc.start()
                await proxy.run(open_many, echo, clients)
                gc.collect()
                await deferLater(reactor, 0, lambda: None)
                ours = tracemalloc.take_snapshot().filter_traces(
                    [
                        tracemalloc.Filter(False, "*/tests/*"),
                        tracemalloc.Filter(False, socket.__file__),  # the test's own sockets
                    ]
                )
                tracemalloc.stop()
                assert len(proxy.factory.sessions.context.associations.live) == ASSOCIATIONS + 1
                each = sum(trace.size for trace in ours.traces) / ASSOCIATIONS
                print(f"\n{each:.0f} bytes of Python memory for each association")
                assert each <= 4096
                # All of them still work.
                for client in clients[:: ASSOCIATIONS // 50]:
                    assert await proxy.run(lambda _, client=client: client.ask(b"y", echo.address)) == b"y"
            assert len(proxy.records) == ASSOCIATIONS + 1
            warm.close()
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Faults of ours.


def one_fails(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as good, Client(proxy, host="127.0.0.2") as bad:
        for _ in range(2):
            assert good.ask(b"good", echo.address) == b"good"
        bad.send(b"bad", echo.address)
        assert bad.closed()
        assert good.ask(b"good", echo.address) == b"good"


@pytest_twisted.ensureDeferred
async def test_a_fault_on_a_port_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs one client its association, and the others on the port nothing."""
    from_client = SocketOutlet.from_client

    def fail_for_one(outlet: SocketOutlet, *arguments: Any) -> None:
        if outlet.association.host == "127.0.0.2":
            raise RuntimeError("unforeseen")
        from_client(outlet, *arguments)

    monkeypatch.setattr(SocketOutlet, "from_client", fail_for_one)
    async with serving("engine", udp=UDPSettings(port=free_udp_port())) as proxy:
        await proxy.run(one_fails)


@pytest_twisted.ensureDeferred
async def test_a_fault_of_the_demultiplexer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise where it is not even known to which association the datagram belongs."""
    find = SharedDemux.find

    def fail_for_one(demux: SharedDemux, host: str, *arguments: Any) -> Any:
        if host == "127.0.0.2":
            raise RuntimeError("unforeseen")
        return find(demux, host, *arguments)

    def scenario(proxy: Proxy) -> None:
        with Echo() as echo, Client(proxy) as good, Client(proxy, host="127.0.0.2") as bad:
            assert good.ask(b"good", echo.address) == b"good"
            bad.send(b"bad", echo.address)
            assert bad.is_silent()
            assert good.ask(b"good", echo.address) == b"good"

    monkeypatch.setattr(SharedDemux, "find", fail_for_one)
    async with serving("engine", udp=UDPSettings(port=free_udp_port())) as proxy:
        await proxy.run(scenario)
