"""The fleet of the documentation: limits over four nodes, and what happens when one of them goes."""

from __future__ import annotations

import socket
import time
from collections import Counter
from contextlib import ExitStack
from struct import pack

from socksproxy.wire.words import Address, Command
from tests.fleet.conftest import LONG
from tests.support.fleet import BALANCER, CLIENTS, ORIGIN, Fleet, until
from tests.support.fleet_load import FleetLoad
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


def at_once(fleet: Fleet, origin: Origin) -> Counter[int]:
    """The replies to 1,000 requests of alice at once."""
    with ExitStack() as stack:
        socks = [
            stack.enter_context(fleet.logged_in("alice", CLIENTS[number % len(CLIENTS)]))
            for number in range(1000)
        ]
        for sock in socks:
            sock.sendall(request5(ORIGIN, origin.port))
        replies = Counter(reply5(sock)[0] for sock in socks)
        assert min(node.sessions for node in fleet.nodes.values()) > 100  # all nodes were asked
    until(lambda: fleet.sessions == 0)
    return replies


def test_at_once(fleet: Fleet, origin: Origin) -> None:
    """Of 1,000 attempts at once over four nodes, ten are served, as many as the user may have."""
    for _ in range(5):
        before = fleet.outages
        replies = at_once(fleet, origin)
        if fleet.outages == before:
            break
        until(fleet.shares)
    assert replies == {0: 10, 2: 990}


def test_checks(fleet: Fleet) -> None:
    """Checks of the balancer, and of plain TCP, write no line, and count in no limit and no session."""
    before = [node.said for node in fleet.nodes.values()]
    with fleet.inside("balancer"):
        for node in fleet.nodes.values():
            socket.create_connection((node.address, 1080)).close()
    time.sleep(2.5)  # HAProxy checks once a second
    for node, said in zip(fleet.nodes.values(), before, strict=True):
        assert f'"client":"{BALANCER}' not in node.records
        assert node.ask("GET", "/v1/limits?full=true").body["limits"] == []
        assert node.sessions == 0
        assert node.said == said


def test_addresses(fleet: Fleet, origin: Origin) -> None:
    """BIND and UDP answer with the address of the node that serves them, where others reach it."""
    nodes = {node.address for node in fleet.nodes.values()}
    found = set()
    with ExitStack() as stack, Datagrams(fleet) as datagrams:
        for client in CLIENTS[:16]:
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
    until(lambda: fleet.sessions == 0)


@LONG
def test_drain(fleet: Fleet, origin: Origin) -> None:
    """A node goes and comes back while sessions begin and end: none of them fails, and long ones go on."""
    with ExitStack() as stack:
        long = {
            client: stack.enter_context(fleet.session("dave", origin.port, client)[1])
            for client in CLIENTS[:16]
        }
        node = max(fleet.nodes.values(), key=lambda node: node.sessions)
        mine = node.sessions
        assert mine > 0
        with FleetLoad(fleet, origin.port, threads=2) as load:
            assert node.ask("POST", "/v1/drain", {"seconds": 60}).status == 200
            until(lambda: fleet.state_of(node.name) in ("DRAIN", "MAINT"))
            until(lambda: fleet.state_of(node.name) == "MAINT")
            until(lambda: node.sessions == mine)
            before = load.served
            until(lambda: load.served > before + 20)
            assert node.ask("POST", "/v1/undrain").status == 200
            until(lambda: fleet.state_of(node.name) == "UP")
        assert load.outcomes == {"served": load.served}
        for sock in long.values():
            echoes(sock)
    until(lambda: fleet.sessions == 0)
