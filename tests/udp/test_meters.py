"""How associations keep to limits of bytes, on the sockets in the engine and on the transports."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.limits.buckets import Bucket, Meter, Meters
from tests.support.limits import Purse

from ..support.udp import KINDS, Client, Echo, Proxy, reactor, serving, wait_for

#: They measure over seconds.
pytestmark = pytest.mark.slow

kinds = pytest.mark.parametrize("kind", KINDS)

SIZE = 500


def flood(client: Client, to: tuple[str, int], seconds: float, rate: float, size: int = SIZE) -> int:
    """Send datagrams, about *rate* bytes a second; how many."""
    began, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        while sent * size < rate * elapsed:
            client.send(bytes(size), to)
            sent += 1
        time.sleep(0.005)
    return sent


def fits(passed: float, most: float) -> bool:
    """Whether so many bytes are what may pass; what a busy machine does not ask for in time is lost."""
    return 0.75 * most < passed < 1.05 * most


def over_the_rate(proxy: Proxy, limits: Callable[[], float]) -> None:
    """Sent at four times the rate; what arrives keeps to the rate, and the rest is counted."""
    with Echo(answers=False) as echo, Client(proxy) as client:
        began = time.monotonic()
        sent = flood(client, echo.address, 4, 4 * limits())
        elapsed = time.monotonic() - began
        wait_for(lambda: counted(proxy)[0] + counted(proxy)[1] == sent)
        wait_for(lambda: len(echo.seen) == counted(proxy)[0])
        passed = len(echo.seen) * SIZE
        client.close()
        record = proxy.record()
    # And the burst of a quarter of a second.
    assert fits(passed, limits() * (elapsed + 0.25))
    assert record["sent"] == passed
    assert record["dropped"] == {"limited": sent - len(echo.seen)}


def counted(proxy: Proxy) -> tuple[int, int]:
    """Datagrams of the only association that passed up, and that were dropped."""
    (association,) = proxy.factory.sessions.context.associations.live
    return association.datagrams_sent, sum(association.dropped.values())


@kinds
@pytest_twisted.ensureDeferred
async def test_upload(kind: str) -> None:
    async with serving(kind, limits=ServerLimits(session=Limits(upload=Rate(100e3)))) as proxy:
        await proxy.run(over_the_rate, lambda: 100e3)


def download(proxy: Proxy) -> None:
    """The answers are limited, not what is sent; the payload counts, not the header."""
    with Echo() as echo, Client(proxy) as client:
        arrived: list[int] = []

        def receive() -> None:
            with suppress(OSError):
                while True:
                    arrived.append(len(client.receive()[1]))

        client.udp.settimeout(2)
        receiving = threading.Thread(target=receive)
        receiving.start()
        began = time.monotonic()
        sent = flood(client, echo.address, 3, 400e3)
        elapsed = time.monotonic() - began
        receiving.join()
        client.close()
        record = proxy.record()
    assert record["datagrams_sent"] == sent
    assert sum(arrived) == record["received"]
    assert fits(sum(arrived), 100e3 * (elapsed + 0.25))
    assert record["dropped"] == {"limited": sent - len(arrived)}


@kinds
@pytest_twisted.ensureDeferred
async def test_download(kind: str) -> None:
    async with serving(kind, limits=ServerLimits(session=Limits(download=Rate(100e3)))) as proxy:
        await proxy.run(download)


def fair(proxy: Proxy) -> None:
    """Three clients under one limit get equal parts, one of which sends at once what others send singly."""
    with ExitStack() as stack:
        echoes = [stack.enter_context(Echo(answers=False)) for _ in range(3)]
        clients = [stack.enter_context(Client(proxy)) for _ in range(3)]
        threads = [
            threading.Thread(target=flood, args=(client, echo.address, 4, 400e3, size))
            for client, echo, size in zip(clients, echoes, (500, 500, 1200), strict=True)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.monotonic() - began
        passed = [sum(len(data) for data, _ in echo.seen) for echo in echoes]
    assert fits(sum(passed), 300e3 * (elapsed + 0.25))
    assert passed == pytest.approx([sum(passed) / 3] * 3, rel=0.2)


@kinds
@pytest_twisted.ensureDeferred
async def test_fairness(kind: str) -> None:
    async with serving(kind, limits=ServerLimits(server=Limits(upload=Rate(300e3)))) as proxy:
        await proxy.run(fair)


@kinds
@pytest_twisted.ensureDeferred
async def test_in_place(kind: str) -> None:
    """An association gets a limit, another one, and none; ended, it has left what it waited for."""
    async with serving(kind) as proxy:
        slow, other = Bucket(reactor, Rate(0, 1000)), Bucket(reactor, Rate(0, 1500))
        with Echo() as echo:
            client: Client = await proxy.run(Client)
            (association,) = proxy.factory.sessions.context.associations.live

            def ask(proxy: Proxy, size: int) -> int:
                return len(client.ask(bytes(size), echo.address))

            async def answered(size: int) -> None:
                """A datagram of *size* bytes is answered."""
                assert await proxy.run(ask, size) == size

            async def dropped(count: int) -> None:
                client.send(bytes(10), echo.address)
                while sum(association.dropped.values()) < count:
                    await deferLater(reactor, 0.01, lambda: None)

            await answered(5000)
            association.meter(Meters(Meter([slow]), None))
            await answered(600)
            await dropped(1)
            assert slow.waiting == 1
            association.meter(Meters(None, Meter([other])))
            assert slow.waiting == 0
            await answered(1500)
            await dropped(2)
            assert other.waiting == 1
            association.meter(None)
            assert other.waiting == 0
            await answered(5000)
            association.meter(Meters(Meter([slow]), None))
            await dropped(3)
            assert slow.waiting == 1
            client.close()
            await proxy.run(Proxy.record)
        assert slow.waiting == 0
        assert proxy.records[0]["dropped"] == {"limited": 3}


@kinds
@pytest.mark.parametrize("upwards", [True, False], ids=["upload", "download"])
@pytest_twisted.ensureDeferred
async def test_quota(kind: str, upwards: bool) -> None:
    """An association whose bytes are used up ends, with its TCP connection, and says so."""
    async with serving(kind) as proxy:
        with Echo() as echo:
            client: Client = await proxy.run(Client)
            (association,) = proxy.factory.sessions.context.associations.live
            meter = Meter([Purse(2500)])
            association.meter(Meters(meter, None) if upwards else Meters(None, meter))

            def scenario(proxy: Proxy) -> dict[str, Any]:
                for _ in range(3):
                    client.ask(bytes(1000), echo.address)
                for _ in range(5):
                    client.send(bytes(1000), echo.address)
                assert client.closed()
                return proxy.record()

            record = await proxy.run(scenario)
            client.close()
    assert record["ended"] == "quota used up"
    assert record["sent" if upwards else "received"] == 3000
    assert record["dropped"]["limited"] >= 1


@pytest.mark.skipif("engine" not in KINDS, reason="there is no engine here")
@pytest_twisted.ensureDeferred
async def test_a_run_passes_in_part() -> None:
    """Of datagrams that come at once, those pass that may, the first of them."""
    async with serving("engine") as proxy:
        with Echo() as echo:
            client: Client = await proxy.run(Client)
            (association,) = proxy.factory.sessions.context.associations.live
            await proxy.run(lambda proxy: client.ask(b"known", echo.address))
            association.meter(Meters(Meter([Bucket(reactor, Rate(0, 10_000))]), None))
            for number in range(40):  # the reactor does not run meanwhile
                client.send(bytes([number]) * 1000, echo.address)

            def scenario(proxy: Proxy) -> list[int]:
                return [client.receive()[1][0] for _ in range(10)]

            assert await proxy.run(scenario) == list(range(10))
            client.close()
            record = await proxy.run(Proxy.record)
    assert record["dropped"] == {"limited": 30}


@pytest.mark.skipif("engine" not in KINDS, reason="there is no engine here")
@pytest_twisted.ensureDeferred
async def test_a_run_uses_a_quota_up() -> None:
    """Of datagrams that come at once, those that pass are sent, though there is nothing for the others."""
    async with serving("engine") as proxy:
        with Echo() as echo:
            client: Client = await proxy.run(Client)
            (association,) = proxy.factory.sessions.context.associations.live
            await proxy.run(lambda proxy: client.ask(b"known", echo.address))
            association.meter(Meters(Meter([Purse(3000)]), None))
            for number in range(9):  # the reactor does not run meanwhile
                client.send(bytes([number]) * 1000, echo.address)

            def scenario(proxy: Proxy) -> tuple[list[int], bool]:
                came = [client.receive()[1][0] for _ in range(3)]
                client.send(b"more", echo.address)
                return came, client.closed()

            assert await proxy.run(scenario) == ([0, 1, 2], True)
            client.close()
            record = await proxy.run(Proxy.record)
    assert (record["ended"], record["sent"], record["dropped"]) == ("quota used up", 3005, {"limited": 7})
