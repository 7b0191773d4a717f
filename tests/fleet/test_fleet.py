"""
The fleet of the documentation: limits over four nodes, and what happens when one of them goes.

Figures are seen for a short time, and by ``nox -s long`` for as long as they are promised.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from struct import pack

import pytest

from socksproxy.wire.words import Address, Command
from tests.fleet.conftest import LONG, told
from tests.support.fleet import BALANCER, CLIENTS, ORIGIN, Fleet, Node, until
from tests.support.fleet_load import FleetLoad, at_once
from tests.support.origin import Origin
from tests.support.proxy import PATIENCE, echoes, reply5, request5


class Datagrams:
    """A socket of the origin that echoes one datagram after the other, in a ``with`` statement."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        with fleet.inside("origin"):
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.settimeout(PATIENCE)
        self._sock.bind((ORIGIN, 0))

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(self, *how: object) -> None:
        self._sock.close()

    def echoed(self, client: str, relay: Address) -> bool:
        """Whether a datagram of *client* comes back by *relay*."""
        with self._fleet.inside("load"):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.settimeout(PATIENCE)
            sock.bind((client, 0))
            sent = b"\0\0\0\1" + socket.inet_aton(ORIGIN) + pack("!H", self._sock.getsockname()[1]) + b"ping"
            sock.sendto(sent, (relay.host, relay.port))
            data, peer = self._sock.recvfrom(100)
            self._sock.sendto(data, peer)
            return peer[0] == relay.host and sock.recv(100) == sent


def test_at_once(fleet: Fleet, origin: Origin) -> None:
    """Of 1,000 attempts at once over four nodes, ten are served, as many as the user may have."""
    replies = at_once(fleet, origin, 1000)
    told("attempts at once", replies.total())
    assert replies == {0: 10, 2: replies.total() - 10}
    assert replies.total() > 100


def test_checks(fleet: Fleet) -> None:
    """Checks of the balancer, and of plain TCP, write no line, and count in no limit and no session."""
    before = [_lines(node) for node in fleet.nodes.values()]
    with fleet.inside("balancer"):
        for node in fleet.nodes.values():
            socket.create_connection((node.address, 1080)).close()
    time.sleep(2.5)  # HAProxy checks once a second
    for node, said in zip(fleet.nodes.values(), before, strict=True):
        assert f'"client":"{BALANCER}' not in node.records
        assert node.ask("GET", "/v1/limits?full=true").body["limits"] == []
        until(lambda: node.sessions == 0)  # noqa: B023 - it is called here
        assert _lines(node) == said


def _lines(node: Node) -> list[str]:
    """What the log of the node has; a busy machine makes lines about the store."""
    return [line for line in node.said.splitlines() if "the shared store" not in line]


def test_addresses(fleet: Fleet, origin: Origin) -> None:
    """BIND and UDP answer with the address of the node that serves them, where others reach it."""
    nodes = {node.address for node in fleet.nodes.values()}
    found: set[str] = set()
    with ExitStack() as stack, Datagrams(fleet) as datagrams:
        # A node that a busy machine does not let answer its check gets no client for a while.
        for client in CLIENTS:
            if found == nodes:
                break
            until(fleet.balances)
            sock = stack.enter_context(fleet.logged_in("dave", client))
            sock.sendall(request5(ORIGIN, 0, Command.BIND))
            reply, place = reply5(sock)
            assert (reply, place.host in nodes) == (0, True)
            found.add(place.host)
            with fleet.inside("origin"):
                peer = stack.enter_context(socket.create_connection((place.host, place.port)))
            assert reply5(sock) == (0, Address.of(*peer.getsockname()))
            peer.sendall(b"ping")
            assert sock.recv(4) == b"ping"
            sock = stack.enter_context(fleet.logged_in("dave", client))
            sock.sendall(request5("0.0.0.0", 0, Command.UDP_ASSOCIATE))
            reply, place = reply5(sock)
            assert (reply, place.host in nodes, place.port) == (0, True, 1081)
            assert datagrams.echoed(client, place)
    assert found == nodes
    for node in fleet.nodes.values():
        node.ask("POST", "/v1/users/dave/kick")  # associations end when server-fin of HAProxy is over
    until(lambda: fleet.sessions_of("dave") == 0)


@contextmanager
def asking(fleet: Fleet, origin: Origin, threads: int = 3) -> Iterator[list[float]]:
    """Sessions of bob, one after the other; the times at which they have begun."""
    began: list[float] = []
    stopping = threading.Event()

    def ask(number: int) -> None:
        while not stopping.is_set():
            reply, sock = fleet.session("bob", origin.port, CLIENTS[number % len(CLIENTS)])
            sock.close()
            if reply == 0:
                began.append(time.monotonic())
            number += threads
            time.sleep(0.01)

    askers = [threading.Thread(target=ask, args=[number]) for number in range(threads)]
    for thread in askers:
        thread.start()
    try:
        yield began
    finally:
        stopping.set()
        for thread in askers:
            thread.join()


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    # In a short time it counts that a busy machine asks too seldom, or hears late of a session.
    [(3, 0.5, 1.2), pytest.param(10, 0.95, 1.05, marks=LONG)],
)
def test_rate(fleet: Fleet, origin: Origin, seconds: int, least: float, most: float) -> None:
    """Over four nodes, as many sessions begin as may, within 5 percent."""
    for _ in range(4):
        before = fleet.outages
        with asking(fleet, origin) as began:
            time.sleep(seconds + 2.5)
        first = min(began) + 2  # the burst is over
        share = sum(first <= at < first + seconds for at in began) / seconds / 50
        told(f"new sessions in {seconds} s, of what may begin", (share, fleet.outages - before))
        if least <= share <= most:
            break
        until(fleet.shares)
    assert least <= share <= most


@pytest.fixture
def shouting(fleet: Fleet) -> Iterator[Origin]:
    """An origin that sends as much as it can, once it has a byte."""

    def shout(sock: socket.socket) -> None:
        sock.recv(1)
        while True:
            sock.sendall(bytes(65536))

    with fleet.inside("origin"):
        origin = Origin(shout, ORIGIN)
    with origin:
        yield origin


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    # In a short time it counts that a busy machine passes bytes on in jerks.
    [(3, 0.5, 1.3), pytest.param(30, 0.9, 1.1, marks=LONG)],
)
def test_bandwidth(fleet: Fleet, shouting: Origin, seconds: int, least: float, most: float) -> None:
    """Over four nodes, a user gets 8 MB/s, within 10 percent."""
    for _ in range(4):
        before = fleet.outages
        with ExitStack() as stack:
            socks = [
                stack.enter_context(fleet.session("carol", shouting.port, client)[1])
                for client in CLIENTS[:32]
            ]
            assert min(node.sessions_of("carol") for node in fleet.nodes.values()) > 0
            share = _received(socks, seconds) / seconds / 8e6
        told(f"bandwidth in {seconds} s, of 8 MB/s", (round(share, 3), fleet.outages - before))
        until(lambda: fleet.sessions_of("carol") == 0)
        if least <= share <= most:
            break
        until(fleet.shares)
    assert least <= share <= most


def _received(socks: list[socket.socket], seconds: int) -> int:
    """The bytes that come in so many seconds, once what was saved up is spent."""
    for sock in socks:
        sock.sendall(b".")
        sock.setblocking(False)
    began, count = time.monotonic() + 3, 0
    while (now := time.monotonic()) < began + seconds:
        for sock in select.select(socks, [], [], 0.1)[0]:
            size = len(sock.recv(1 << 20))
            count += size if now >= began else 0
    return count


@pytest.mark.parametrize(
    ("rewritten", "within"),
    # With the first one, a busy machine may take its time.
    [(False, 40), pytest.param(True, 13, marks=LONG)],
)
def test_killed(fleet: Fleet, origin: Origin, rewritten: bool, within: float) -> None:
    """The sessions of a node that is killed stop counting in 13 seconds; other nodes lose none."""
    with ExitStack() as stack:
        others = [stack.enter_context(fleet.session("dave", origin.port, each)[1]) for each in CLIENTS[:32]]
        for _ in range(10):  # one address, so one node
            reply, sock = fleet.session("alice", origin.port, CLIENTS[0])
            stack.enter_context(sock)
            assert reply == 0
        (node,) = [node for node in fleet.nodes.values() if node.sessions_of("alice") == 10]
        mine = node.sessions_of("dave")
        if rewritten:
            time.sleep(6)  # each count has been written again
        until(fleet.shares)
        assert fleet.session("alice", origin.port, CLIENTS[1])[0] == 2
        node.program.process.kill()
        began = time.monotonic()
        until(lambda: _is_admitted(fleet, origin, stack), within + 20)
        took = time.monotonic() - began
        told("seconds until sessions of a killed node stop counting", round(took, 1))
        assert took <= within
        lost = sum(not _goes_on(sock) for sock in others)
        told("sessions of the killed node, and all", (lost, len(others)))
        assert (lost, mine < len(others)) == (mine, True)
    node.start()
    node.wait()
    until(lambda: fleet.state_of(node.name) == "UP")
    until(lambda: fleet.sessions_of("dave") == 0)


def _is_admitted(fleet: Fleet, origin: Origin, stack: ExitStack) -> bool:
    """Whether alice gets another session by the store, and not because it was down just then."""
    before = fleet.outages
    try:
        reply, sock = fleet.session("alice", origin.port, CLIENTS[1])
    except (AssertionError, OSError):  # the balancer may not know yet
        return False
    if reply or fleet.outages > before or not fleet.shares():
        sock.close()
        return False
    stack.enter_context(sock)
    return True


def _goes_on(sock: socket.socket) -> bool:
    try:
        echoes(sock)
    except (AssertionError, OSError):
        return False
    return True


@LONG
def test_drain(fleet: Fleet, origin: Origin) -> None:
    """A node goes and comes back while sessions begin and end: none of them fails, and long ones go on."""
    with ExitStack() as stack:
        long = {
            client: stack.enter_context(fleet.session("dave", origin.port, client)[1])
            for client in CLIENTS[:16]
        }
        node = max(fleet.nodes.values(), key=lambda node: node.sessions_of("dave"))
        mine = node.sessions_of("dave")
        assert mine > 0
        with FleetLoad(fleet, origin.port, threads=2) as load:
            assert node.ask("POST", "/v1/drain", {"seconds": 60}).status == 200
            until(lambda: fleet.state_of(node.name) in ("DRAIN", "MAINT"))
            until(lambda: fleet.state_of(node.name) == "MAINT")
            until(lambda: node.sessions_of("dave") == mine)
            before = load.served
            until(lambda: load.served > before + 20)
            assert node.ask("POST", "/v1/undrain").status == 200
            until(lambda: fleet.state_of(node.name) == "UP")
        assert load.outcomes == {"served": load.served}
        for sock in long.values():
            echoes(sock)
    until(lambda: fleet.sessions_of("dave") == 0)
