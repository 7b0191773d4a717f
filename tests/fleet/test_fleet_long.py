"""Figures of the fleet of the documentation that take a while, and the upgrade of all of its nodes."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import ExitStack, suppress

from tests.fleet.conftest import LONG
from tests.support.fleet import CLIENTS, ORIGIN, Fleet, Node, until
from tests.support.fleet_load import FleetLoad
from tests.support.origin import Origin
from tests.support.processes import Program
from tests.support.programs import require
from tests.support.proxy import echoes

pytestmark = LONG
#: The address that one of the balancers has.
_SHARED = "10.90.0.9"


def told(what: str, value: object) -> None:
    """Print a figure, for ``pytest -s``."""
    print(f"\n{what}: {value}", flush=True)


def test_rate(fleet: Fleet, origin: Origin) -> None:
    """Over four nodes, as many sessions begin in ten seconds as may, within 5 percent."""
    began: list[float] = []
    stopping = threading.Event()

    def ask(number: int) -> None:
        while not stopping.is_set():
            reply, sock = fleet.session("bob", origin.port, CLIENTS[number % len(CLIENTS)])
            sock.close()
            if reply == 0:
                began.append(time.monotonic())
            number += 3
            time.sleep(0.01)

    for _ in range(3):
        began.clear()
        stopping.clear()
        before = fleet.outages
        threads = [threading.Thread(target=ask, args=[number]) for number in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(13)
        stopping.set()
        for thread in threads:
            thread.join()
        first = min(began) + 2  # the burst is over
        count = sum(first <= at < first + 10 for at in began)
        told("sessions in 10 s, of 500", (count, fleet.outages - before))
        if fleet.outages == before:
            break
        until(fleet.shares)
    assert 475 <= count <= 525


def test_bandwidth(fleet: Fleet) -> None:
    """Over four nodes, a user gets 8 MB/s in thirty seconds, within 10 percent."""

    def shout(sock: socket.socket) -> None:
        sock.recv(1)  # it begins when it is asked to
        while True:
            sock.sendall(bytes(65536))

    with fleet.inside("origin"):
        origin = Origin(shout, ORIGIN)
    with origin, ExitStack() as stack:
        socks = [
            stack.enter_context(fleet.session("carol", origin.port, client)[1]) for client in CLIENTS[:16]
        ]
        held = [node.sessions for node in fleet.nodes.values()]
        assert min(held) > 0
        for sock in socks:
            sock.sendall(b".")
            sock.setblocking(False)
        began, count = time.monotonic() + 3, 0
        while (now := time.monotonic()) < began + 30:
            for sock in select.select(socks, [], [], 0.1)[0]:
                size = len(sock.recv(1 << 20))
                count += size if now >= began else 0
    told("MB/s, of 8", (round(count / 30 / 1e6, 3), held))
    assert 7.2e6 <= count / 30 <= 8.8e6
    until(lambda: fleet.sessions == 0)


def test_killed(fleet: Fleet, origin: Origin) -> None:
    """The sessions of a node that is killed stop counting in 13 seconds; other nodes lose none."""
    with ExitStack() as stack:
        others = [stack.enter_context(fleet.session("dave", origin.port, each)[1]) for each in CLIENTS[:32]]
        for _ in range(10):  # one address, so one node
            reply, sock = fleet.session("alice", origin.port, CLIENTS[0])
            stack.enter_context(sock)
            assert reply == 0
        node = next(node for node in fleet.nodes.values() if node.sessions >= 10 and _has(node, "alice"))
        time.sleep(6)  # each count has been written again
        assert fleet.session("alice", origin.port, CLIENTS[1])[0] == 2
        node.program.process.kill()
        began = time.monotonic()
        served = 0
        while not served:
            assert time.monotonic() < began + 20
            with suppress(OSError):  # the balancer may not know yet
                served = _serves(fleet, origin, stack)
            time.sleep(0.1)
        took = time.monotonic() - began
        told("seconds until sessions of a killed node stop counting", round(took, 1))
        assert 7 < took <= 13
        lost = sum(not _goes_on(sock) for sock in others)
        assert lost < len(others)
        told("sessions of the killed node, and all", (lost, len(others)))
        alive = sum(each.sessions for each in fleet.nodes.values() if each is not node)
        assert alive >= len(others) - lost
    node.start()
    node.wait()
    until(lambda: fleet.state_of(node.name) == "UP")
    until(lambda: fleet.sessions == 0)


def _has(node: Node, user: str) -> bool:
    return bool(node.ask("GET", f"/v1/sessions?user={user}").body["sessions"])


def _serves(fleet: Fleet, origin: Origin, stack: ExitStack) -> int:
    """Whether alice gets a session."""
    reply, sock = fleet.session("alice", origin.port, CLIENTS[1])
    stack.enter_context(sock)
    return int(reply == 0)


def _goes_on(sock: socket.socket) -> bool:
    try:
        echoes(sock)
    except (AssertionError, OSError):
        return False
    return True


def test_reserve(fleet: Fleet, origin: Origin) -> None:
    """The address of the balancers moves to the other one when one fails, and a client to the same node."""
    keepalived = require("keepalived")
    fleet.balance("reserve")
    pairs = [
        fleet.start(machine, keepalived, "-nlP", "-p", "pid", "-r", "vrrp", "-f", "keepalived.conf")
        for machine in ("balancer", "reserve")
    ]
    try:
        until(lambda: _reached(fleet))
        nodes = [_node_of(fleet, origin)]
        first = next(each for each in pairs if "MASTER STATE" in _said(each))
        machine = ("balancer", "reserve")[pairs.index(first)]
        fleet.balancers[machine].process.kill()
        took = until(lambda: _reached(fleet))
        told("seconds until the other balancer has the address", round(took, 1))
        assert took < 10
        nodes.append(_node_of(fleet, origin))
        assert nodes[0] == nodes[1]
        fleet.balance(machine)
    finally:
        for program in pairs:
            program.stop()


def _said(program: Program) -> str:
    program.read()
    return program.output


def _reached(fleet: Fleet) -> bool:
    try:
        fleet.connected(CLIENTS[5], _SHARED, within=1.0).close()
    except OSError:
        return False
    return True


def _node_of(fleet: Fleet, origin: Origin) -> str:
    """The node at which a session by the address of both balancers is."""
    reply, sock = fleet.session("dave", origin.port, CLIENTS[5], to=_SHARED)
    with sock:
        assert reply == 0
        (name,) = [node.name for node in fleet.nodes.values() if node.sessions]
    until(lambda: fleet.sessions == 0)
    return name


def test_rolling_upgrade(fleet: Fleet, origin: Origin) -> None:
    """
    Each node drains, ends and starts again, at half of the rate that all can sustain.

    No session is refused or reset, and none that is long ends before its time to drain is over.
    """
    seconds, notice = 3.0, 2.0
    with FleetLoad(fleet, origin.port, threads=8) as most:
        time.sleep(8)
    assert most.outcomes == {"served": most.served}
    rate = most.served / most.seconds
    told("sessions a second that the set-up sustains", round(rate))
    ended: dict[int, float] = {}

    def watch(socks: list[socket.socket], stopping: threading.Event) -> None:
        left = list(socks)
        while left and not stopping.is_set():
            for sock in select.select(left, [], [], 0.05)[0]:
                ended[sock.fileno()] = time.monotonic()
                left.remove(sock)

    early = []
    with FleetLoad(fleet, origin.port, threads=8, rate=rate / 2) as load:
        for node in fleet.nodes.values():
            with ExitStack() as stack:
                long = [
                    stack.enter_context(fleet.session("dave", origin.port, client)[1])
                    for client in CLIENTS[:16]
                ]
                stopping = threading.Event()
                ended.clear()
                watcher = threading.Thread(target=watch, args=[long, stopping])
                watcher.start()
                due = time.monotonic() + notice + seconds
                assert node.ask("POST", "/v1/drain", {"seconds": seconds, "notice": notice}).status == 200
                until(lambda: node.sessions == 0)  # noqa: B023 - it is called here
                node.program.stop()
                node.start()
                node.wait()
                until(lambda: fleet.state_of(node.name) == "UP")  # noqa: B023
                stopping.set()
                watcher.join()
                early += [round(due - at, 2) for at in ended.values() if at < due - 0.1]
                assert 0 < len(ended) < len(long)
    told("sessions, a second", (dict(load.outcomes), round(load.served / load.seconds)))
    assert load.outcomes == {"served": load.served}
    assert early == []
