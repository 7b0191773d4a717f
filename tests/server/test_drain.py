"""Letting sessions come to their end: ``SOCKSFactory.drain``, and what SIGTERM does."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from socksproxy import SOCKSFactory

from ..support.origin import Origin, echo
from ..support.processes import PATIENCE, PYTHON_M_TWISTED, TWIST, TWISTD, Program

IN_FRONT = {
    "twistd -n": (*TWISTD, "-n", "--pidfile="),
    "twist": (*TWIST, "--log-format=text"),
    "python -m twisted": (*PYTHON_M_TWISTED, "--log-format=text"),
}


@pytest.fixture
def origin() -> Iterator[Origin]:
    """What sends back what comes."""
    with Origin(echo) as server:
        yield server


def received(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def connected(port: int, destination: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), PATIENCE)
    client.sendall(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + destination.to_bytes(2, "big"))
    assert received(client, 12)[:4] == b"\x05\x00\x05\x00"
    return client


def echoes(client: socket.socket) -> bool:
    client.sendall(b"?")
    return received(client, 1) == b"?"


def closed(client: socket.socket) -> bool:
    """Whether the proxy has closed it, sooner or later."""
    with contextlib.suppress(ConnectionResetError):
        return client.recv(1) == b""
    return True


class Proxy:
    """A factory on a port. :ivar events: of sessions that are over."""

    def __init__(self, engine: bool) -> None:
        self.events: list[Any] = []
        self.factory = SOCKSFactory(reactor, observer=self.events.append, engine=engine, log_probes=True)

    async def listen(self) -> int:
        self.port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.factory)
        number: int = self.port.getHost().port
        return number


@pytest.fixture(params=["engine", "transports"])
def proxy(request: pytest.FixtureRequest) -> Proxy:
    return Proxy(request.param == "engine")


def passed(_: object, fired: list[str]) -> None:
    fired.append("drained")


@pytest_twisted.ensureDeferred
async def test_relays_go_on(proxy: Proxy, origin: Origin) -> None:
    """Who has asked for nothing yet is closed; a relay ends when its client does, and that is the end."""
    number = await proxy.listen()
    relayed = await deferToThread(connected, number, origin.port)
    silent = await deferToThread(socket.create_connection, ("127.0.0.1", number), PATIENCE)
    while len(proxy.factory.sessions.live) < 2:
        await deferLater(reactor, 0.01)
    await proxy.port.stopListening()
    fired: list[str] = []
    draining = proxy.factory.drain(PATIENCE)
    draining.addCallback(passed, fired)
    assert await deferToThread(closed, silent)
    assert await deferToThread(echoes, relayed)
    assert fired == []
    relayed.close()
    silent.close()
    await draining
    assert sorted(event["ended"] for event in proxy.events) == ["aborted", "client"]


@pytest.mark.parametrize("seconds", [0, 0.05])
@pytest_twisted.ensureDeferred
async def test_deadline(seconds: float, proxy: Proxy, origin: Origin) -> None:
    """After their time sessions are ended, and each has its record before the end is told."""
    number = await proxy.listen()
    relayed = await deferToThread(connected, number, origin.port)
    await proxy.port.stopListening()
    await proxy.factory.drain(seconds)
    assert [event["ended"] for event in proxy.events] == ["aborted"]
    assert await deferToThread(closed, relayed)
    relayed.close()


@pytest_twisted.ensureDeferred
async def test_the_last_call_counts(proxy: Proxy, origin: Origin) -> None:
    """Who asks again with less time has it sooner, and everybody who asked is told."""
    number = await proxy.listen()
    relayed = await deferToThread(connected, number, origin.port)
    await proxy.port.stopListening()
    first = proxy.factory.drain(10 * PATIENCE)
    await proxy.factory.drain(0)
    assert first.called
    relayed.close()


@pytest_twisted.ensureDeferred
async def test_nobody_there(proxy: Proxy) -> None:
    """Without sessions there is nothing to wait for, however often one asks."""
    for _ in range(2):
        draining = proxy.factory.drain(PATIENCE)
        assert draining.called
        await draining
    await Deferred.fromCoroutine(proxy.listen())
    await proxy.port.stopListening()


# The programs.


@pytest.mark.parametrize("name", IN_FRONT)
def test_sigterm(name: str, start: Callable[..., Program], origin: Origin) -> None:
    """SIGTERM: nobody is accepted, the relay goes on, and its end is that of the process."""
    program = start([*IN_FRONT[name], "socks", "-p", "0", "--drain", "600"])
    port = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
    with connected(port, origin.port) as client, socket.create_connection(("127.0.0.1", port)) as silent:
        silent.settimeout(PATIENCE)
        assert echoes(client)  # by then the other one is accepted, too, or refused below
        program.process.terminate()
        assert closed(silent)
        with pytest.raises(ConnectionError):
            connected(port, origin.port)
        assert echoes(client)
        assert program.process.poll() is None
    assert program.wait() == -signal.SIGTERM
    assert "Traceback" not in program.output


@pytest.mark.parametrize("name", IN_FRONT)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal(
    name: str, second: signal.Signals, start: Callable[..., Program], origin: Origin
) -> None:
    """The second signal ends what the first one waits for, without a complaint."""
    program = start([*IN_FRONT[name], "socks", "-p", "0", "--drain", "600"])
    port = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
    with connected(port, origin.port) as client:
        program.process.terminate()
        program.wait_for("Received SIGTERM")
        program.process.send_signal(second)
        assert closed(client)
        assert program.wait() == -signal.SIGTERM
    assert "Traceback" not in program.output


def test_time_is_up(start: Callable[..., Program], origin: Origin) -> None:
    """What is not over in time is ended."""
    program = start([*IN_FRONT["twistd -n"], "socks", "-p", "0", "--drain", "0.1"])
    port = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
    with connected(port, origin.port) as client:
        program.process.terminate()
        assert closed(client)
        assert program.wait() == -signal.SIGTERM
    assert "Traceback" not in program.output
