"""Steps of the wall clock: see :mod:`socksproxy.runtime.clocks`."""

from __future__ import annotations

import asyncio
import json
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from socksproxy import SOCKSFactory, use_monotonic_clock
from socksproxy.app import Options, makeService
from socksproxy.runtime import clocks
from socksproxy.wire.datagram import build_header, parse_datagram
from socksproxy.wire.words import Address, Command

from ..support.origin import Origin, echo
from ..support.processes import PATIENCE, TWISTD, Program
from ..support.proxy import ask5, echoes, greet, reply5, request5
from ..support.wall_clock import WallClock

HOUR = 3600


def _asyncio_reactor() -> ReactorBase:
    return AsyncioSelectorReactor(asyncio.SelectorEventLoop())


@pytest.fixture(params=[SelectReactor, PollReactor, _asyncio_reactor], ids=["select", "poll", "asyncio"])
def own_reactor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A reactor that is not the process's."""
    reactor = request.param()
    yield reactor
    for call in reactor.getDelayedCalls():
        call.cancel()
    for reader in reactor.removeAll():
        reader.connectionLost(None)


class Times:
    """Both clocks of a process, in place of the real ones."""

    def __init__(self) -> None:
        self.wall, self.run = 1e9, 50.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.run


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    times = Times()
    monkeypatch.setattr(clocks, "time", times)
    monkeypatch.setattr(ReactorBase, "seconds", staticmethod(times.time))
    return times


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_calls_come_at_their_time(own_reactor: Any, times: Times, step: int) -> None:
    """Those that were scheduled before the change, and those that come later."""
    called: list[str] = []
    own_reactor.callLater(10, called.append, "before")
    use_monotonic_clock(own_reactor)
    own_reactor.callLater(20, called.append, "after")
    for wall, run, expected in [
        (step, 9, []),
        (-step, 2, ["before"]),
        (step, 8, ["before"]),
        (0, 2, ["before", "after"]),
    ]:
        times.wall += wall
        times.run += run
        own_reactor.runUntilCurrent()
        assert called == expected
        waits = own_reactor.timeout()
        assert waits is None or waits <= 20


def test_goes_on_from_the_present_time(own_reactor: Any, times: Times) -> None:
    use_monotonic_clock(own_reactor)
    assert own_reactor.seconds() == times.wall
    times.wall += HOUR
    times.run += 1.5
    assert own_reactor.seconds() == 1e9 + 1.5


def test_only_once(own_reactor: Any, times: Times) -> None:
    """The second call would make a step of its own."""
    use_monotonic_clock(own_reactor)
    times.wall += HOUR
    use_monotonic_clock(own_reactor)
    assert own_reactor.seconds() == 1e9


def test_replaced_by_others(own_reactor: Any) -> None:
    own_reactor.seconds = seconds = lambda: 5.0
    use_monotonic_clock(own_reactor)
    assert own_reactor.seconds is seconds


@pytest.mark.parametrize("clock", [Clock, MemoryReactorClock])
def test_no_reactor_of_twisted(clock: Callable[[], Clock]) -> None:
    reactor = clock()
    use_monotonic_clock(reactor)
    assert "seconds" not in vars(reactor)


def test_the_factory_changes_no_reactor(own_reactor: Any, times: Times) -> None:
    """A program that embeds the proxy decides; its factories follow, even those that were made before."""
    factory = SOCKSFactory(own_reactor, engine=False)
    assert "seconds" not in vars(own_reactor)
    use_monotonic_clock(own_reactor)
    times.wall -= HOUR
    assert factory.sessions.context.seconds() == 1e9


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_changes_its_reactor(own_reactor: Any, times: Times, workers: str) -> None:
    options = Options(own_reactor)
    options.parseOptions(["-p", "0", "--workers", workers])
    makeService(options)
    times.wall -= HOUR
    times.run += 1
    assert own_reactor.seconds() == 1e9 + 1


# Processes.

_CONFIG = """
[listeners]
port = 0
[workers]
workers = {workers}
[log]
log = "access.log"
log-format = "json"
[limits.session]
download = {{ rate = "100 kB/s", burst = "40 kB" }}
[timeouts]
handshake-timeout = {seconds}
idle-timeout = {seconds}
[bind]
bind-timeout = {seconds}
[udp]
udp-idle-timeout = {seconds}
"""


def _wait_on(sock: socket.socket, seconds: float) -> bool:
    return bool(select.select([sock], [], [], seconds)[0])


class Clients:
    """
    One client for each kind of wait, and what shows that the wait goes on.

    :param port: where the proxy listens.
    :param echo_port: the destination's, for TCP.
    """

    def __init__(self, port: int, echo_port: int, opened: ExitStack) -> None:
        self._port, self._echo_port, self._opened = port, echo_port, opened
        self.silent = self.connect()
        self.greeted = self.connect()
        greet(self.greeted)
        self.session = self.connect()
        assert ask5(self.session, "127.0.0.1", echo_port)[0] == 0
        self.bind = self.connect()
        reply, self._bound = ask5(self.bind, "127.0.0.1", 0, Command.BIND)
        assert reply == 0
        self.associate = self.connect()
        reply, self._relay = ask5(self.associate, "0.0.0.0", 0, Command.UDP_ASSOCIATE)
        assert reply == 0
        self._udp, self._destination = self._datagrams(), self._datagrams()
        self.datagram()

    def connect(self) -> socket.socket:
        return self._opened.enter_context(socket.create_connection(("127.0.0.1", self._port), PATIENCE))

    def _datagrams(self) -> socket.socket:
        sock = self._opened.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        return sock

    def turns(self) -> None:
        """The reactor of the process turns; all that is due happens."""
        for _ in range(3):
            echoes(self.session)

    def datagram(self) -> None:
        """There and back."""
        header = build_header(Address.of(*self._destination.getsockname()))
        self._udp.sendto(header + b"ping", (self._relay.host, self._relay.port))
        data, origin = self._destination.recvfrom(100)
        assert data == b"ping"
        self._destination.sendto(b"pong", origin)
        answer = self._udp.recv(100)
        assert answer[parse_datagram(answer)[1] :] == b"pong"

    def all_go_on(self) -> None:
        """Nothing has ended, and each comes to its end as it should."""
        for waiting in (self.silent, self.greeted, self.bind, self.associate):
            assert not _wait_on(waiting, 0.1)
        self.datagram()
        self.greeted.sendall(request5("127.0.0.1", self._echo_port))
        assert reply5(self.greeted)[0] == 0
        echoes(self.greeted)
        with socket.create_connection((self._bound.host, self._bound.port), PATIENCE) as peer:
            assert reply5(self.bind)[0] == 0
            peer.sendall(b"hello")
            assert self.bind.recv(100) == b"hello"

    def all_end(self) -> None:
        """Each wait has its timeout."""
        for waiting in (self.silent, self.greeted, self.bind, self.associate, self.session):
            assert _wait_on(waiting, 15)


@pytest.fixture
def wall_clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


Proxied = Callable[[str, int, int], tuple[Program, Clients]]


@pytest.fixture
def proxied(
    tmp_path: Path, start: Callable[..., Program], wall_clock: WallClock, opened: ExitStack
) -> Proxied:
    """``proxied(reactor, workers, seconds)``: a server with that timeout everywhere, and its clients."""

    def started(reactor: str, workers: int, seconds: int) -> tuple[Program, Clients]:
        (tmp_path / "proxy.toml").write_text(_CONFIG.format(workers=workers, seconds=seconds))
        command = [*TWISTD, "-r", reactor, "-n", "--pidfile=", "socks", "--config", "proxy.toml"]
        program = start(command, wall_clock.environment)
        port = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
        origin = opened.enter_context(Origin(echo))
        return program, Clients(port, origin.port, opened)

    return started


RUNS = [("epoll", 1), ("asyncio", 1), ("epoll", 2)]


@pytest.mark.parametrize(("reactor", "workers"), RUNS)
def test_forward(
    reactor: str, workers: int, proxied: Proxied, wall_clock: WallClock, opened: ExitStack, tmp_path: Path
) -> None:
    """Nothing ends because the wall clock is put forward, and a session's duration is its own."""
    program, clients = proxied(reactor, workers, HOUR // 2)
    wall_clock.step(HOUR)
    clients.turns()
    clients.all_go_on()
    opened.close()
    assert program.stop() == -signal.SIGTERM
    lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    durations = [value for line in lines for key, value in line.items() if key.endswith("_seconds") and value]
    assert durations
    assert max(durations) < HOUR // 2
    ends = [line["time"] for line in lines]
    assert min(ends) > time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() + HOUR - 300))


@pytest.mark.parametrize(("reactor", "workers"), RUNS)
def test_back(reactor: str, workers: int, proxied: Proxied, wall_clock: WallClock) -> None:
    """Rates and timeouts go on when the wall clock is put back."""
    _, clients = proxied(reactor, workers, 2)
    wall_clock.step(-HOUR)
    echoes(clients.session, bytes(100_000))
    clients.all_end()
