"""What a process tells of itself."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from socksproxy.metrics import process
from socksproxy.metrics.columns import HEARTBEAT, Columns, OwnColumn, new_columns
from socksproxy.metrics.process import ProcessGauges
from socksproxy.metrics.snapshot import Metrics
from socksproxy.metrics.table import CPU_SECONDS, REACTOR_LAG


def test_gauges() -> None:
    """Time, memory, lag and descriptors are there at the first look."""
    columns = Columns(new_columns(2), 2)
    own = OwnColumn(columns, 0)
    gauges = ProcessGauges(own, lambda: 77)
    gauges.update(0.25)
    own.write()
    snapshot = Metrics(columns).snapshot()
    assert own.counts[HEARTBEAT] > 0
    assert snapshot.value("socksproxy_reactor_lag_seconds", worker="1") == 0.25
    assert snapshot.value("socksproxy_worker_cpu_seconds_total") > 0
    assert snapshot.value("socksproxy_worker_resident_bytes") > 1 << 20
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert snapshot.value("socksproxy_descriptors", kind="limit") == soft
    assert snapshot.value("socksproxy_descriptors", kind="open") in (77, len(os.listdir("/proc/self/fd")) - 1)


def test_time_only_grows() -> None:
    """The processor time is counted once."""
    own = OwnColumn(Columns(new_columns(2), 2), 0)
    gauges = ProcessGauges(own, lambda: 0)
    gauges.update(-1.0)
    first = sum(own.counts)
    gauges.update(0.0)
    place = own.place(CPU_SECONDS)
    assert first > own.counts[place] > 0
    assert own.counts[own.place(REACTOR_LAG)] == 0


def test_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no /proc, the system is asked in other ways."""
    monkeypatch.setattr(process, "_PAGES", tmp_path / "none")
    monkeypatch.setattr(process, "_DESCRIPTORS", tmp_path / "none")
    assert process.resident_bytes() > 1 << 20
    assert process.open_descriptors() == 0
