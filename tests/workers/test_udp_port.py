"""``--udp-port`` with ``--workers``, as processes: see :mod:`socksproxy.udp.routing`."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from ..support.processes import PATIENCE, TWISTD, Program
from ..support.udp import Client, Echo, free_udp_port
from ..support.workers import LISTENING, server_of, workers_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

WORKERS, CLIENTS = 4, 200
#: How often a client sends what is not answered.
TRIES = 6


class Server:
    """Several workers with one UDP port."""

    def __init__(self, start: Callable[..., Program], *options: str, reactor: str = "epoll") -> None:
        self.udp_port = free_udp_port()
        self.program = start(
            [
                *(*TWISTD, "-n", "--pidfile=", f"--reactor={reactor}", "socks", "-p", "0"),
                *(f"--workers={WORKERS}", f"--udp-port={self.udp_port}", *options),
            ]
        )
        self.deaths = 0
        self.address = "127.0.0.1", int(self.program.wait_for(LISTENING)[1])

    def await_death(self) -> None:
        """Wait until the supervisor has noticed another death, and a worker serves again in its place."""
        self.deaths += 1
        death = "has ended: signal SIGKILL.*?accepts clients.*?"
        self.program.wait_for(f"(?s)(?:{death}){{{self.deaths}}}")

    def workers(self) -> list[int]:
        """The processes."""
        return workers_of(self.program.process.pid)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as origin:
        yield origin


def exchange(clients: list[Client], echo: Echo, chance: random.Random) -> None:
    """Every client sends, in any order, and gets its own answer and no other one."""
    order = list(clients)
    chance.shuffle(order)
    for client in order:
        client.send(mark(client), echo.address)
    for client in clients:
        # As with every UDP client, a lost datagram is sent again.
        for _ in range(TRIES):
            client.udp.settimeout(PATIENCE / TRIES)
            with suppress(TimeoutError):
                assert client.receive()[1] == mark(client)
                break
            client.send(mark(client), echo.address)
        else:
            raise AssertionError(f"no answer for {client.udp}")
    for client in clients:
        client.udp.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                assert client.receive()[1] == mark(client)


def mark(client: Client) -> bytes:
    """What *client* sends, and no other one."""
    return "{}:{}".format(*client.udp.getsockname()).encode()


def lives(client: Client) -> bool:
    """Whether the worker of *client* does."""
    client.tcp.setblocking(False)
    try:
        client.tcp.recv(1)
    except BlockingIOError:
        return True
    except ConnectionResetError:
        pass
    return False


@pytest.mark.parametrize("reactor", ["epoll", "poll"])
def test_many_clients(start: Callable[..., Program], echo: Echo, reactor: str) -> None:
    """Two hundred associations on four workers, all with one port; workers die, and others go on."""
    server = Server(start, reactor=reactor)
    chance = random.Random(7)
    with ExitStack() as stack:
        # Of one address all name their ports; of the others some do.
        hosts = ["127.0.0.1"] * (CLIENTS // 2) + [
            f"127.0.1.{number}" for number in range(1, CLIENTS // 2 + 1)
        ]
        clients = [
            stack.enter_context(Client(server, host, True if host == "127.0.0.1" or number % 3 else None))
            for number, host in enumerate(hosts)
        ]
        assert {client.bound.port for client in clients} == {server.udp_port}
        for _ in range(3):
            exchange(clients, echo, chance)
        for _ in range(2):
            os.kill(server_of(clients[0].tcp, server.workers()), signal.SIGKILL)
            server.await_death()
            theirs = [client for client in clients if not lives(client)]
            assert theirs
            clients = [client for client in clients if client not in theirs]
            # Datagrams of clients whose association is gone reach no other client's.
            for client in theirs:
                client.send(b"lost", echo.address)
            exchange(clients, echo, chance)
            clients += [stack.enter_context(Client(server, "127.0.0.1", True)) for _ in theirs]
            exchange(clients, echo, chance)
    assert "Traceback" not in server.program.output


def test_clients_without_a_port(start: Callable[..., Program], echo: Echo) -> None:
    """Clients of one address that name no port, one after the other."""
    server = Server(start)
    with ExitStack() as stack:
        clients, chance = [], random.Random(1)
        for _ in range(20):
            client = stack.enter_context(Client(server))
            exchange([client], echo, chance)
            clients.append(client)
        exchange(clients, echo, chance)


def test_ends_and_reload(start: Callable[..., Program], echo: Echo) -> None:
    """The port is free when nobody has it, and a reload may bring it."""
    server = Server(start, "--udp-relatch")
    with Client(server) as client:
        assert client.ask(b"one", echo.address) == b"one"
        with Client(server, "127.0.0.2") as other:
            assert other.ask(b"two", echo.address) == b"two"
        assert client.ask(b"three", echo.address) == b"three"
    with Client(server) as client:
        assert client.ask(b"four", echo.address) == b"four"
    assert server.program.stop() == -signal.SIGTERM
