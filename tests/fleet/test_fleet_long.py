"""Figures of the fleet of the documentation that take a while, and the upgrade of all of its nodes."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import ExitStack

from tests.fleet.conftest import LONG, told
from tests.support.fleet import BALANCER, CLIENTS, Fleet, until
from tests.support.fleet_load import FleetLoad
from tests.support.origin import Origin
from tests.support.programs import require

pytestmark = LONG
#: The address that one of the balancers has.
_SHARED = "10.90.0.9"
_BALANCERS = ("balancer", "reserve")


def test_reserve(fleet: Fleet, origin: Origin) -> None:
    """The address of the balancers moves to the other one when one fails, and a client to the same node."""
    keepalived = require("keepalived")
    fleet.balance("reserve")
    pairs = [
        fleet.start(machine, keepalived, "-nlP", "-p", "pid", "-r", "vrrp", "-f", "keepalived.conf")
        for machine in _BALANCERS
    ]
    try:
        until(lambda: _holder(fleet) is not None and _reached(fleet))
        nodes = [_node_of(fleet, origin)]
        machine = _holder(fleet)
        assert machine is not None
        fleet.balancers[machine].process.kill()
        took = until(lambda: _holder(fleet) not in (None, machine) and _reached(fleet))
        told("seconds until the other balancer has the address", round(took, 1))
        assert took < 20
        nodes.append(_node_of(fleet, origin))
        assert nodes[0] == nodes[1]
    finally:
        for program in pairs:
            program.stop()
        for machine in _BALANCERS:
            if fleet.balancers[machine].process.poll() is not None:
                fleet.balance(machine)
        until(lambda: _reached(fleet, BALANCER))


def _holder(fleet: Fleet) -> str | None:
    """The machine that has the address of the balancers; None: none has it, or both."""
    holders = [machine for machine in _BALANCERS if fleet.has(machine, _SHARED)]
    return holders[0] if len(holders) == 1 else None


def _reached(fleet: Fleet, address: str = _SHARED) -> bool:
    try:
        fleet.connected(CLIENTS[5], address, within=1.0).close()
    except OSError:
        return False
    return True


def _node_of(fleet: Fleet, origin: Origin) -> str:
    """The node at which a session by the address of both balancers is."""
    reply, sock = fleet.session("dave", origin.port, CLIENTS[5], to=_SHARED)
    with sock:
        assert reply == 0
        (name,) = [node.name for node in fleet.nodes.values() if node.sessions_of("dave")]
    until(lambda: fleet.sessions_of("dave") == 0)
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
                until(lambda: node.sessions_of("dave") == 0)  # noqa: B023 - it is called here
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
