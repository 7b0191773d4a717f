"""Limits that hold across processes: see :mod:`socksproxy.workers.counts`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st
from twisted.logger import globalLogPublisher

from socksproxy.policy import Admission, SessionCount, SessionLimits
from socksproxy.policy.limits import PATIENCE
from socksproxy.workers import counts as module
from socksproxy.workers.counts import SharedClientCount, SharedCount, SharedTable, new_table

SECRET = b"0123456789abcdef"


class Shared:
    """Several workers' counts, in this process."""

    def __init__(self, limits: SessionLimits, workers: int = 2) -> None:
        self.descriptor = new_table(workers)
        self.table = SharedTable(self.descriptor, workers, SECRET)
        self.counts = [SharedCount(limits, self.table, number) for number in range(workers)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table for two clients."""
    monkeypatch.setattr(module, "_WAYS", 2)
    monkeypatch.setattr(module, "_BUCKETS", 1)
    monkeypatch.setattr(module, "ROWS", 2)


def test_per_client() -> None:
    """A client has as many sessions as it may have, wherever they are."""
    first, second = Shared(SessionLimits(per_client=2)).counts
    assert first.admit("192.0.2.1") is Admission.SERVE
    assert second.admit("192.0.2.1") is Admission.SERVE
    assert first.admit("192.0.2.1") is Admission.REFUSE
    assert second.admit("192.0.2.1") is Admission.REFUSE
    assert second.admit("192.0.2.2") is Admission.SERVE
    for _ in range(2):
        first.release("192.0.2.1")
    assert second.admit("192.0.2.1") is Admission.REFUSE
    second.release("192.0.2.1")
    second.release("192.0.2.1")
    assert first.admit("192.0.2.1") is Admission.SERVE


def test_total() -> None:
    """The limit of all sessions is one for all workers."""
    first, second = Shared(SessionLimits(sessions=2)).counts
    assert first.admit("192.0.2.1") is Admission.SERVE
    assert second.admit("192.0.2.2") is Admission.SERVE
    assert second.admit("192.0.2.3") is Admission.REFUSE
    second.release("192.0.2.3")
    second.release("192.0.2.2")
    assert first.admit("192.0.2.4") is Admission.SERVE


CLIENTS = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "fe80::1%eth0", None, ""]


@given(
    limits=st.builds(SessionLimits, st.none() | st.integers(1, 5), st.none() | st.integers(1, 3)),
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(CLIENTS), st.booleans()), max_size=60),
)
def test_as_one_process(limits: SessionLimits, steps: list[tuple[int, str | None, bool]]) -> None:
    """Three workers decide what one process would have decided."""
    shared, alone = Shared(limits, 3), SessionCount(limits)
    open_sessions: list[tuple[int, str | None]] = []
    for worker, client, begins in steps:
        if begins or not open_sessions:
            assert shared.counts[worker].admit(client) is alone.admit(client)
            open_sessions.append((worker, client))
        else:
            worker, client = open_sessions.pop(len(open_sessions) // 2)
            shared.counts[worker].release(client)
            alone.release(client)
    for worker, client in open_sessions:
        shared.counts[worker].release(client)
    assert not any(shared.table.cells)
    shared.table.close()


def test_worker_killed() -> None:
    """The sessions of a worker that is gone count no more; those of the others do."""
    shared = Shared(SessionLimits(sessions=4, per_client=2))
    first, second = shared.counts
    first.admit("192.0.2.1")
    second.admit("192.0.2.1")
    second.admit("192.0.2.2")
    shared.table.clear(0)
    replacement = SharedCount(first.limits, shared.table, 0)
    assert replacement.admit("192.0.2.1") is Admission.SERVE
    assert replacement.admit("192.0.2.1") is Admission.REFUSE
    assert replacement.admit("192.0.2.2") is Admission.REFUSE  # the fifth of all
    second.release("192.0.2.2")
    assert second.admit("192.0.2.3") is Admission.REFUSE  # the fifth again


def test_drops() -> None:
    """A flood over the limit is not listened to, even where every worker sees a half of it."""
    first, second = Shared(SessionLimits(per_client=1)).counts
    given = [count.admit("192.0.2.1") for _ in range(PATIENCE) for count in (first, second)]
    assert given.count(Admission.SERVE) == 1
    assert given.count(Admission.REFUSE) == PATIENCE
    assert given.count(Admission.DROP) == PATIENCE - 1


def test_of_other_kinds() -> None:
    """BINDs and associations are counted together, too, and apart from sessions and each other."""
    table = Shared(SessionLimits()).table
    sessions = SharedCount(SessionLimits(per_client=1), table, 0)
    binds = [SharedClientCount(2, table, number, "bind") for number in range(2)]
    associations = SharedClientCount(1, table, 1, "association")
    assert sessions.admit("192.0.2.1") is Admission.SERVE
    assert binds[0].take("192.0.2.1")
    assert binds[1].take("192.0.2.1")
    assert not binds[0].take("192.0.2.1")
    assert associations.take("192.0.2.1")
    assert not associations.take("192.0.2.1")
    binds[1].give("192.0.2.1")
    assert binds[0].take("192.0.2.1")
    assert not binds[1].take("192.0.2.1")
    assert binds[1].take(None)
    for client in ("192.0.2.1", "192.0.2.1"):
        binds[0].give(client)
    binds[1].give(None)
    associations.give("192.0.2.1")
    sessions.release("192.0.2.1")
    assert not any(table.cells)


def test_of_other_kinds_without_limit() -> None:
    """What has no limit is not counted."""
    table = Shared(SessionLimits()).table
    count = SharedClientCount(None, table, 0, "bind")
    assert all(count.take("192.0.2.1") for _ in range(1000))
    assert not any(table.cells)
    count.give("192.0.2.1")
    assert not any(table.cells)


def test_rows_are_given_again(small: None) -> None:
    """A client that is gone leaves its row to another, however many there were."""
    first, second = Shared(SessionLimits(per_client=1)).counts
    for number in range(100):
        client = f"192.0.2.{number}"
        assert first.admit(client) is Admission.SERVE
        assert second.admit(client) is Admission.REFUSE
        first.release(client)
        second.release(client)


def test_no_room(small: None) -> None:
    """A client for which there is no row has its limit in each worker, and the log says so once."""
    warned: list[str] = []
    shared = Shared(SessionLimits(per_client=1))
    first, second = shared.counts
    first.admit("192.0.2.1")
    second.admit("192.0.2.2")

    def observe(event: dict[str, object]) -> None:
        warned.append(str(event["log_format"]))

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
    try:
        assert first.admit("192.0.2.3") is Admission.SERVE
        assert first.admit("192.0.2.3") is Admission.REFUSE
        assert second.admit("192.0.2.3") is Admission.SERVE
        assert first.admit("192.0.2.1") is Admission.REFUSE
    finally:
        globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]
    assert len([line for line in warned if "more clients than" in line]) == 2  # one each
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
    table = Shared(SessionLimits()).table
    table._memory[: len(noise)] = noise
    assert table._find(b"k" * 16, 0, 16) == (0 if noise.startswith(b"k") else None)


#: Admits and releases, and tells how many it could have served.
WORKER = """
import sys
from socksproxy.policy import Admission, SessionLimits
from socksproxy.workers.counts import SharedCount, SharedTable
descriptor, columns, column, rounds = map(int, sys.argv[1:])
table = SharedTable(descriptor, columns, b"0123456789abcdef")
count = SharedCount(SessionLimits(per_client=3), table, column)
served = 0
print("ready", flush=True)
for number in range(rounds):
    client = f"192.0.2.{number % 5}"
    if count.admit(client) is Admission.SERVE:
        served += 1
    count.release(client)
print(served, len(count._rows.places))
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
        assert out.split() == ["ready", "20000", "0"]
    assert not any(table.cells)


def test_killed_with_the_lock(table: SharedTable) -> None:
    """A worker that is killed at any moment, the lock in its hands or not, stops nobody."""
    for _ in range(5):
        worker = spawned(table, 0, 10**9)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        other = SharedCount(SessionLimits(per_client=2), table, 1)
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
    first, second = Shared(SessionLimits(per_client=1)).counts
    assert first.admit("192.0.2.1") is Admission.SERVE
    assert second.admit("192.0.2.1") is Admission.REFUSE
