"""The metrics of one server with all its processes."""

from __future__ import annotations

import sys
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import attrs
import pytest_twisted
import twisted

from socksproxy.metrics.columns import OwnColumn
from socksproxy.metrics.table import ENDED
from socksproxy.service.metrics import ServerMetrics
from socksproxy.service.server import SOCKSService
from socksproxy.values.metrics import MetricsSettings
from tests.conftest import Serve
from tests.support.origin import Origin, echo
from tests.support.proxy import Playing, Proxy, ask5, until
from tests.support.service import parsed


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
    assert snapshot.value("socksproxy_config_info", hash="") == 1
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
    assert metrics.config_hash == sha256(b"[udp]\n").hexdigest()
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


@pytest_twisted.inlineCallbacks
def test_service(serve_as: Serve) -> Playing:
    """A service counts as its plan says, from its start to its end, and follows a reload."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve_as()
        options = parsed(reactor=proxy.factory.reactor)
        options.plan = attrs.evolve(options.plan, listeners=[], metrics=MetricsSettings())
        service = SOCKSService(options, proxy.factory)
        port: Any = proxy.port
        service.opened(port, "front")
        service.startService()
        metrics, counters = service.metrics, proxy.factory.context.counters
        assert metrics is not None
        assert counters is not None
        with proxy.connect() as client:
            yield proxy.play(ask5, client, "127.0.0.1", origin.port)
        yield until(lambda: not proxy.sessions.live)
        counters.update(0.0)
        assert metrics.snapshot().value("socksproxy_connections_total", listener="front") == 1
        for wanted in (None, MetricsSettings(users=5)):
            options.plan = attrs.evolve(options.plan, metrics=wanted)
            yield service.reload(options)
            assert (proxy.factory.context.counters is None) is (wanted is None)
        # What was counted before stays.
        snapshot = metrics.snapshot()
        assert snapshot.value("socksproxy_connections_total", listener="front") == 1
        assert snapshot.value("socksproxy_user_sessions", user="") == 0
        yield service.stopService()
        assert service.metrics is None
        assert proxy.factory.context.counters is None
