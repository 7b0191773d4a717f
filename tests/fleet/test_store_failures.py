"""
Four nodes with two servers and Sentinels, while the server in use fails under traffic.

``SOCKSPROXY_AWAY`` has the seconds for which machines are cut off: 20, or 600 for the figure.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import pairwise
from statistics import median

import pytest

from socksproxy.limits.quota.records import RecordFile
from tests.fleet.conftest import LONG, running, told
from tests.support.fleet import CLIENTS, Fleet, until
from tests.support.fleet_load import FleetLoad, at_once
from tests.support.guarded import SERVERS, URL, GuardedStore
from tests.support.origin import Origin
from tests.support.proxy import echoes

pytestmark = LONG
#: Seconds for which machines are cut off, and of traffic before that and after it.
_AWAY = float(os.environ.get("SOCKSPROXY_AWAY", "20"))
_CALM = 8.0
_MORE = """
[limits]
quota-file = "/run/socksproxy/usage"
[usage]
file = "/run/socksproxy/records"
[users.dave.limits]
sessions = 400
monthly = "1 TB"
"""

#: Does something to the store, and puts it right again.
Fault = Callable[[Fleet, GuardedStore], None]


@pytest.fixture(scope="module")
def stores() -> list[GuardedStore]:
    """The store, once the fleet is there."""
    return []


@pytest.fixture(scope="module")
def fleet(stores: list[GuardedStore]) -> Iterator[Fleet]:
    def changes(name: str, text: str) -> str:
        return text.replace("redis://10.90.0.4:6379/0", URL) + _MORE if name == "common.toml" else text

    def store(fleet: Fleet) -> GuardedStore:
        stores.append(GuardedStore(fleet))
        return stores[0]

    with running(lambda directory: Fleet(directory, changes, store)) as fleet:
        yield fleet


def failed_over(fleet: Fleet, store: GuardedStore) -> None:
    """As an operator does it, before an upgrade of the server."""
    store.ask("SENTINEL FAILOVER", "mymaster")
    time.sleep(_CALM)


def killed(fleet: Fleet, store: GuardedStore) -> None:
    """It loses all that it has, and comes back as the other one's replica."""
    machine = store.master
    store.kill(machine)
    until(lambda: store.master != machine)
    store.start(machine, of=store.master)


def stopped(fleet: Fleet, store: GuardedStore) -> None:
    """It stands still, and takes itself for the master when it goes on."""
    machine = store.master
    store.signal(machine, signal.SIGSTOP)
    until(lambda: store.master != machine)
    time.sleep(_CALM)
    store.signal(machine, signal.SIGCONT)


def cut_off(fleet: Fleet, store: GuardedStore) -> None:
    """Nothing reaches it."""
    machine = store.master
    fleet.cut(machine)
    time.sleep(_AWAY)
    fleet.cut(machine, False)


def away(fleet: Fleet, store: GuardedStore) -> None:
    """Nothing reaches either of the servers, so nothing takes over."""
    for machine in SERVERS:
        fleet.cut(machine)
    time.sleep(_AWAY)
    for machine in SERVERS:
        fleet.cut(machine, False)


@pytest.mark.parametrize("fault", [failed_over, killed, stopped, cut_off, away])
def test_store_fails(fleet: Fleet, stores: list[GuardedStore], origin: Origin, fault: Fault) -> None:
    """Sessions wait once for 50 ms at the most, none of them ends, and all sums are right afterwards."""
    store, before = stores[0], used(fleet)
    until(store.settled)
    until(fleet.shares)
    with ExitStack() as stack:
        long = [stack.enter_context(fleet.session("dave", origin.port, each)[1]) for each in CLIENTS[:16]]
        with FleetLoad(fleet, origin.port, rate=40, size=1000) as load:
            time.sleep(_CALM)
            with downtime(fleet) as down, talking(long) as rounds:
                began = time.monotonic()
                fault(fleet, store)
                until(store.settled)
                time.sleep(_CALM)
        told(f"sessions while the store is {fault.__name__}", dict(load.outcomes))
        assert load.outcomes == {"served": load.served}
    calm = sorted(wait for at, wait in load.waits if at < began)
    after = sorted(wait for at, wait in load.waits if at >= began)
    usual, most = p99(calm), p99(after)
    late = sum(wait > usual + 0.05 for wait in after)
    told(
        "ms: p99 before, p99 after, the longest", [round(1000 * each, 1) for each in (usual, most, after[-1])]
    )
    told("seconds without the store", round(sum(min(later - at, 1) for at, later in pairwise(down)), 1))
    told("sessions after it that took 50 ms longer than p99 before", f"{late} of {len(after)}")
    # If each session waited anew, most of them would be 50 ms late, however busy the machine is.
    assert median(after) <= 2 * median(calm) + 0.04
    moved = 1000 * load.served + len(b"ping") * len(long) * len(rounds)
    until(lambda: used(fleet)[0] >= before[0] + moved)
    assert used(fleet) == (before[0] + moved, before[1] + moved)
    until(lambda: store.total("user dave") >= sum(used(fleet)))
    assert store.total("user dave") == sum(used(fleet))
    replies = at_once(fleet, origin, 200)
    assert replies == {0: 10, 2: replies.total() - 10}


@contextmanager
def repeated(seconds: float, step: Callable[[], bool]) -> Iterator[list[float]]:
    """Take a *step* so often, in a thread, and once at the end; the times at which it was true."""
    times: list[float] = []
    stopping = threading.Event()

    def run() -> None:
        ends = False
        while not ends:
            ends = stopping.wait(seconds)
            if step():
                times.append(time.monotonic())

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run)
        try:
            yield times
        finally:
            stopping.set()
        done.result()


def downtime(fleet: Fleet) -> AbstractContextManager[list[float]]:
    """The times at which a node was seen to be without the store; it is looked at ten times a second."""
    return repeated(0.1, lambda: not fleet.shares())


def talking(socks: list[socket.socket]) -> AbstractContextManager[list[float]]:
    """Sessions that send four bytes from time to time, and get them back; when they have."""

    def talk() -> bool:
        for sock in socks:
            echoes(sock)
        return True

    return repeated(5, talk)


def p99(waits: list[float]) -> float:
    """What 99 of 100 do not exceed."""
    return waits[len(waits) * 99 // 100]


def used(fleet: Fleet) -> tuple[int, int]:
    """The bytes of dave that the usage records of all nodes have, sent and received."""
    sent = received = 0
    for node in fleet.nodes.values():
        file = RecordFile(str(node.directory / "records"), 90)
        # As if their five minutes were over; what comes later makes more records.
        rows = [row for row in file.after(0, 100_000, time.time() + 3600) if row.user == "dave"]
        file.close()
        sent += sum(row.sent for row in rows)
        received += sum(row.received for row in rows)
    return sent, received
