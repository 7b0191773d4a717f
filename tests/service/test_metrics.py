"""The metrics of one server with all its processes."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import twisted

from socksproxy.metrics.columns import OwnColumn
from socksproxy.metrics.table import ENDED
from socksproxy.service.metrics import ServerMetrics, config_hash


def options(*arguments: str, config: bytes | None = None) -> Any:
    return SimpleNamespace(arguments=arguments, config=config)


def test_itself() -> None:
    """What the server knows of itself, before anything has happened."""
    in_force = [options("-p", "1080")]
    draining = [False]
    metrics = ServerMetrics(2, 7, lambda: in_force[0], lambda: draining[0])
    snapshot = metrics.snapshot()
    (build,) = snapshot.families["socksproxy_build_info"].samples
    assert build.labels[1:] == (".".join(map(str, sys.version_info[:3])), twisted.__version__)
    assert snapshot.value("socksproxy_generation") == 7
    assert snapshot.value("socksproxy_draining") == 0
    assert snapshot.value("socksproxy_config_info", hash=config_hash(in_force[0])) == 1
    reloads = snapshot.families["socksproxy_reloads_total"].samples
    assert [(each.labels, each.value) for each in reloads] == [(("done",), 0), (("failed",), 0)]
    draining[0] = True
    assert metrics.snapshot().value("socksproxy_draining") == 1


def test_reloads() -> None:
    """A reload that failed leaves the hash; one that is done brings another."""
    in_force = [options(config=b"[log]\n")]
    metrics = ServerMetrics(1, 7, lambda: in_force[0], lambda: False)
    before = metrics.config_hash
    metrics.reloaded(False)
    assert metrics.config_hash == before
    in_force[0] = options(config=b"[udp]\n")
    metrics.reloaded(True)
    assert metrics.config_hash != before
    snapshot = metrics.snapshot()
    assert snapshot.value("socksproxy_reloads_total", result="failed") == 1
    assert snapshot.value("socksproxy_reloads_total", result="done") == 1


def test_deaths() -> None:
    """What a dead worker has counted stays."""
    metrics = ServerMetrics(2, 7, options, lambda: False)
    own = OwnColumn(metrics.columns, 1)
    own.counts[own.place(ENDED, "CONNECT", "client")] += 5
    own.write()
    metrics.worker_died(2, "signal")
    metrics.worker_died(1, None)
    snapshot = metrics.snapshot()
    assert snapshot.value(ENDED.name) == 5
    assert snapshot.value("socksproxy_worker_deaths_total", how="signal") == 1
    assert snapshot.value("socksproxy_worker_deaths_total") == 1


def test_workers() -> None:
    """Each state is there, also while no worker is in it."""
    metrics = ServerMetrics(2, 7, options, lambda: False)
    metrics.show_workers(lambda: ["running", "running"], ["running", "starting"])
    samples = metrics.snapshot().families["socksproxy_workers"].samples
    assert [(each.labels, each.value) for each in samples] == [(("running",), 2), (("starting",), 0)]
