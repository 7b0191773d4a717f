"""Limits that hold across processes: see :mod:`socksproxy.workers.counts`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock

from socksproxy import Client
from socksproxy.limits import Limits, ServerLimits
from socksproxy.limits.claims import PATIENCE, Admission, Claims
from socksproxy.limits.counting import Counting
from socksproxy.limits.ledger import Ledger
from socksproxy.workers import shared_table as table_module
from socksproxy.workers.counts import SharedCounting, SharedDevices
from socksproxy.workers.shared_table import SharedTable, new_table

from ..support.logs import heard

SECRET = b"0123456789abcdef"


def each(sessions: int | None = None, per_client: int | None = None) -> ServerLimits:
    return ServerLimits(server=Limits(sessions=sessions), client=Limits(sessions=per_client))


class Count:
    """A process's ledger, and what its sessions have."""

    def __init__(self, limits: ServerLimits, counting: Counting | None = None) -> None:
        self.ledger = Ledger(Clock(), limits, counting=counting)
        self._inside: list[tuple[str | None, Claims | None]] = []
        self.last: Claims | None = None

    def admit(self, host: str | None) -> Admission:
        claims = self.ledger.arrive(Client(host, 1))
        self._inside.append((host, claims))
        self.last = claims
        return Admission.SERVE if claims is None else claims.admission

    def release(self, host: str | None) -> None:
        number = [inside for inside, _ in self._inside].index(host)
        _, claims = self._inside.pop(number)
        if claims is not None:
            claims.close()


def shared_count(limits: ServerLimits, table: SharedTable, column: int) -> Count:
    return Count(limits, SharedCounting(Clock(), table, column))


class Shared:
    """Several workers' counts, in this process."""

    def __init__(self, limits: ServerLimits, workers: int = 2) -> None:
        self.descriptor = new_table(workers)
        self.table = SharedTable(self.descriptor, workers, SECRET)
        self.counts = [shared_count(limits, self.table, number) for number in range(workers)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table for two clients."""
    monkeypatch.setattr(table_module, "_WAYS", 2)
    monkeypatch.setattr(table_module, "_PARTS", 1)
    monkeypatch.setattr(table_module, "ROWS", 2)


def test_per_client() -> None:
    """A client has as many sessions as it may have, wherever they are."""
    first, second = Shared(each(per_client=2)).counts
    assert first.admit("192.0.2.1") is Admission.SERVE
    assert second.admit("192.0.2.1") is Admission.SERVE
    assert first.admit("192.0.2.1") is Admission.REFUSE
    assert second.admit("192.0.2.1") is Admission.REFUSE
    assert second.admit("192.0.2.2") is Admission.SERVE
    first.release("192.0.2.1")  # those that are refused count for no client
    assert second.admit("192.0.2.1") is Admission.SERVE
    assert first.admit("192.0.2.1") is Admission.REFUSE
    second.release("192.0.2.1")
    assert first.admit("192.0.2.1") is Admission.SERVE


def test_total() -> None:
    """The limit of all sessions is one for all workers."""
    first, second = Shared(each(sessions=2)).counts
    assert first.admit("192.0.2.1") is Admission.SERVE
    assert second.admit("192.0.2.2") is Admission.SERVE
    assert second.admit("192.0.2.3") is Admission.REFUSE
    second.release("192.0.2.3")
    second.release("192.0.2.2")
    assert first.admit("192.0.2.4") is Admission.SERVE


CLIENTS = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "fe80::1%eth0", None, ""]


@given(
    limits=st.builds(each, st.none() | st.integers(1, 5), st.none() | st.integers(1, 3)),
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(CLIENTS), st.booleans()), max_size=60),
)
def test_as_one_process(limits: ServerLimits, steps: list[tuple[int, str | None, bool]]) -> None:
    """Three workers serve whom one process would have served."""
    shared, alone = Shared(limits, 3), Count(limits)
    open_sessions: list[tuple[Claims | None, Claims | None]] = []
    for worker, client, begins in steps:
        if begins or not open_sessions:
            served = [count.admit(client) is Admission.SERVE for count in (shared.counts[worker], alone)]
            assert served[0] is served[1]
            open_sessions.append((shared.counts[worker].last, alone.last))
        else:
            for claims in open_sessions.pop(len(open_sessions) // 2):
                if claims is not None:
                    claims.close()
    for claims, _ in open_sessions:
        if claims is not None:
            claims.close()
    assert not any(shared.table.cells)
    shared.table.close()


def test_worker_killed() -> None:
    """The sessions of a worker that is gone count no more; those of the others do."""
    shared = Shared(each(4, 2))
    first, second = shared.counts
    first.admit("192.0.2.1")
    second.admit("192.0.2.1")
    second.admit("192.0.2.2")
    shared.table.clear(0)
    replacement = shared_count(first.ledger.limits, shared.table, 0)
    assert replacement.admit("192.0.2.1") is Admission.SERVE
    assert replacement.admit("192.0.2.1") is Admission.REFUSE
    assert replacement.admit("192.0.2.2") is Admission.SERVE
    assert replacement.admit("192.0.2.3") is Admission.REFUSE  # the fifth of all
    second.release("192.0.2.2")
    assert second.admit("192.0.2.3") is Admission.SERVE


def test_drops() -> None:
    """A flood over the limit is not listened to; each worker refuses some of it in words."""
    first, second = Shared(each(per_client=1)).counts
    given = [count.admit("192.0.2.1") for _ in range(PATIENCE + 2) for count in (first, second)]
    assert given.count(Admission.SERVE) == 1
    assert given.count(Admission.REFUSE) == 2 * PATIENCE
    assert given.count(Admission.DROP) == 3


def test_kinds() -> None:
    """Each name is counted by itself."""
    table = Shared(ServerLimits()).table
    first, second = (SharedCounting(Clock(), table, number) for number in range(2))
    binds = [counting.counter("client 192.0.2.1 binds") for counting in (first, second)]
    associations = second.counter("client 192.0.2.1 associations")
    assert [counter.add() for counter in (*binds, *binds, associations)] == [1, 2, 3, 4, 1]
    for counter in (*binds, *binds, associations):
        counter.give()
    assert not any(table.cells)


def test_objects_of_one_name() -> None:
    """A count that is made anew while another of its name is left goes on where that one is."""
    table = Shared(ServerLimits()).table
    counting = SharedCounting(Clock(), table, 0)
    before, after = counting.counter("user bob sessions"), counting.counter("user bob sessions")
    assert [before.add(), after.add()] == [1, 2]
    before.give()
    after.give()
    other = counting.counter("user eve sessions")
    assert other.add() == 1
    assert before.add() == 1
    before.give()
    other.give()
    assert not any(table.cells)


def test_rows_are_given_again(small: None) -> None:
    """A client that is gone leaves its row to another, however many there were."""
    first, second = Shared(each(per_client=1)).counts
    for number in range(100):
        client = f"192.0.2.{number}"
        assert first.admit(client) is Admission.SERVE
        assert second.admit(client) is Admission.REFUSE
        first.release(client)
        second.release(client)


def test_no_room(small: None) -> None:
    """A client for which there is no row has its limit in each worker, and the log says so once."""
    shared = Shared(each(per_client=1))
    first, second = shared.counts
    first.admit("192.0.2.1")
    second.admit("192.0.2.2")
    with heard() as lines:
        assert first.admit("192.0.2.3") is Admission.SERVE
        assert first.admit("192.0.2.3") is Admission.REFUSE
        assert second.admit("192.0.2.3") is Admission.SERVE
        assert first.admit("192.0.2.1") is Admission.REFUSE
    assert len([line for line in lines if "too many limits are in use" in line]) == 1
    for count, client in ((first, "192.0.2.3"), (first, "192.0.2.3"), (second, "192.0.2.3")):
        count.release(client)
    for count, client in ((first, "192.0.2.1"), (first, "192.0.2.1"), (second, "192.0.2.2")):
        count.release(client)
    assert not any(shared.table.cells)
    assert first.admit("192.0.2.3") is Admission.SERVE
    assert second.admit("192.0.2.3") is Admission.REFUSE


@pytest.mark.parametrize("noise", [b"\x00" * 8 + b"k" * 16 + b"\x00" * 8, b"k" * 24 + b"\x00" * 8])
def test_found_where_a_row_begins(noise: bytes, small: None) -> None:
    """Bytes that look like a key, but lie across two, are none."""
    table = Shared(ServerLimits()).table
    table._memory[: len(noise)] = noise
    assert table._find(b"k" * 16, 0, 16) == (0 if noise.startswith(b"k") else None)


#: Admits and releases, and tells how many it could have served.
WORKER = """
import sys
from twisted.internet.task import Clock
from socksproxy.workers.counts import SharedCounting, SharedDevices
from socksproxy.workers.shared_table import SharedTable
descriptor, columns, column, rounds = map(int, sys.argv[1:])
table = SharedTable(descriptor, columns, b"0123456789abcdef")
counting = SharedCounting(Clock(), table, column)
counters = [counting.counter(f"client 192.0.2.{number} sessions") for number in range(5)]
served = 0
print("ready", flush=True)
for number in range(rounds):
    counter = counters[number % 5]
    served += counter.add() <= 3
    counter.give()
print(served)
"""


@pytest.fixture
def table() -> Iterator[SharedTable]:
    table = SharedTable(new_table(3), 3, SECRET)
    yield table
    table.close()


def spawned(table: SharedTable, column: int, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, *map(str, (table.fileno(), 3, column, rounds))]
    return subprocess.Popen(command, pass_fds=[table.fileno()], stdout=subprocess.PIPE, text=True)


def test_processes(table: SharedTable) -> None:
    """
    Processes that count at the same time lose nothing: 3 at once may have 3 sessions.

    Each has one at a time, so that none is ever over the limit: one that is refused was counted wrong.
    """
    workers = [spawned(table, column, 20_000) for column in range(3)]
    for worker in workers:
        out, _ = worker.communicate(timeout=120)
        assert out.split() == ["ready", "20000"]
    assert not any(table.cells)


def test_killed_with_the_lock(table: SharedTable) -> None:
    """A worker that is killed at any moment, the lock in its hands or not, stops nobody."""
    for _ in range(5):
        worker = spawned(table, 0, 10**9)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        other = shared_count(each(per_client=2), table, 1)
        for _ in range(1000):
            other.admit("192.0.2.1")
            other.release("192.0.2.1")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        table.clear(0)
        assert not any(table.cells)


def test_without_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that knows no files in memory has a nameless file."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    first, second = Shared(each(per_client=1)).counts
    assert first.admit("192.0.2.1") is Admission.SERVE
    assert second.admit("192.0.2.1") is Admission.REFUSE


class Addresses:
    """The client addresses of one user in several workers, and what a single process would count."""

    def __init__(self, workers: int = 3) -> None:
        self.table = SharedTable(new_table(workers), workers, SECRET)
        self.devices = [SharedDevices(self.table, number, "user bob devices") for number in range(workers)]
        self.here: list[tuple[int, str]] = []

    def add(self, worker: int, address: str) -> None:
        self.here.append((worker, address))
        assert self.devices[worker].add(address) == len({address for _, address in self.here})
        assert self.devices[worker].value == len({address for _, address in self.here})

    def give(self, number: int) -> None:
        worker, address = self.here.pop(number % len(self.here))
        self.devices[worker].give(address)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcd"), st.integers(0, 20))))
def test_devices(steps: list[tuple[int, str, int]]) -> None:
    """Each address is counted once, whichever workers have its sessions, and by whichever they end."""
    addresses = Addresses()
    for worker, address, number in steps:
        if addresses.here and number > 8:
            addresses.give(number)
        else:
            addresses.add(worker, address)
    while addresses.here:
        addresses.give(0)
    assert not any(addresses.table.cells)
    addresses.table.close()


def test_devices_of_a_worker_that_dies() -> None:
    """What it has counted is gone; an address that others have too counts again with its next session."""
    addresses = Addresses()
    for worker, address in ((0, "a"), (1, "a"), (0, "b")):
        addresses.add(worker, address)
    addresses.table.clear(0)
    addresses.devices[0] = SharedDevices(addresses.table, 0, "user bob devices")
    addresses.here = [(1, "a")]
    addresses.add(2, "a")
    addresses.add(0, "c")
    addresses.give(0)
    addresses.give(0)
    addresses.give(0)
    assert not any(addresses.table.cells)


@pytest.mark.usefixtures("small")
def test_devices_without_room() -> None:
    """In a table that is full a worker counts for itself, and says so once."""
    addresses = Addresses(2)
    with heard() as lines:
        for address in "abc":
            addresses.devices[0].add(address)
            addresses.devices[1].add(address)
        for address in "abc":
            addresses.devices[0].give(address)
            addresses.devices[1].give(address)
    assert len(lines) == 1
    assert not any(addresses.table.cells)
