"""
A real Prometheus scrapes a server with two workers under load, one of which is killed.

It takes a few seconds; with SOCKSPROXY_LONG in the environment, as by ``nox -s long``, two minutes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import Proxy
from tests.support.origin import Origin, echo
from tests.support.processes import PATIENCE, Program
from tests.support.programs import require
from tests.support.workers import connected, received, workers_of

SECONDS = 120 if os.environ.get("SOCKSPROXY_LONG") else 4
#: Bytes that each session sends, and gets back.
SIZE = 1000

SERVER = """
[workers]
workers = 2

[metrics]

[[admin.listener]]
endpoint = "tcp:{port}:interface=127.0.0.1"
"""

PROMETHEUS = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}
scrape_configs:
  - job_name: socksproxy
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        data: bytes = answer.read()
        return data


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Prometheus:
    """
    A Prometheus that scrapes.

    :param directory: where it keeps everything.
    :param target: the port that it scrapes.
    """

    def __init__(self, directory: Path, target: int) -> None:
        (directory / "prometheus.yml").write_text(PROMETHEUS.format(port=target))
        self._port = free_port()
        self._program = Program(
            [
                require("prometheus"),
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            directory,
        )
        self._program.wait_for("Server is ready to receive web requests")

    def value(self, query: str) -> float | None:
        """The only value of *query*; None: there is none."""
        url = f"http://127.0.0.1:{self._port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        found: list[Any] = json.loads(fetched(url))["data"]["result"]
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def stop(self) -> None:
        """End it."""
        self._program.stop()


@pytest.fixture
def admin_port() -> int:
    return free_port()


@pytest.fixture
def server(tmp_path: Path, admin_port: int) -> Iterator[Proxy]:
    file = tmp_path / "socks.toml"
    file.write_text(SERVER.format(port=admin_port))
    server = Proxy(tmp_path, "--config", str(file))
    yield server
    server.stop()


@pytest.fixture
def prometheus(tmp_path: Path, server: Proxy, admin_port: int) -> Iterator[Prometheus]:
    prometheus = Prometheus(tmp_path, admin_port)
    yield prometheus
    prometheus.stop()


def load(port: int, origin: int, seconds: float) -> int:
    """How many sessions four threads have had in *seconds*, one after the other."""
    end = time.monotonic() + seconds

    def visit(number: int) -> int:
        done = 0
        while time.monotonic() < end:
            with connected(port, origin) as client:
                client.sendall(b"x" * SIZE)
                received(client, SIZE)
            done += 1
        return done

    with ThreadPoolExecutor(4) as threads:
        return sum(threads.map(visit, range(4)))


def test_prometheus(
    server: Proxy, prometheus: Prometheus, record_property: Callable[[str, object], None]
) -> None:
    """Five queries are answered rightly, and no counter has gone back when a worker was killed."""
    with Origin(echo) as origin:
        sessions = load(server.port, origin.port, SECONDS / 2)
        ended = 'sum(socksproxy_sessions_ended_total{command="CONNECT",reason="client"})'
        until(lambda: prometheus.value(ended) == sessions, f"not all of {sessions} have ended")
        os.kill(workers_of(server.pid)[0], signal.SIGKILL)
        deaths = 'socksproxy_worker_deaths_total{how="signal"}'
        until(lambda: prometheus.value(deaths) == 1, "the death is not counted")
        server.wait_for(r"another starts at once(?s:.)*accepts clients")
        sessions += load(server.port, origin.port, SECONDS / 2)
    until(lambda: prometheus.value(ended) == sessions, f"not all of {sessions} have ended")
    for query, value in (
        ("sum(socksproxy_connections_total)", sessions),
        ('sum(socksproxy_bytes_total{command="CONNECT",direction="sent"})', sessions * SIZE),
        ('sum(socksproxy_replies_total{version="5",code="0"})', sessions),
        ('sum(socksproxy_session_seconds_bucket{le="+Inf"})', sessions),
        ('socksproxy_workers{state="running"}', 2),
        ('min_over_time(up{job="socksproxy"}[1h])', 1),
        ("max(resets(socksproxy_sessions_ended_total[1h]))", 0),
        ("max(resets(socksproxy_session_seconds_bucket[1h]))", 0),
        ("max(resets(socksproxy_worker_cpu_seconds_total[1h]))", 0),
        ('socksproxy_descriptors{worker="1",kind="open"} > bool 3', 1),
    ):
        assert prometheus.value(query) == value, query
    until(lambda: prometheus.value("sum(socksproxy_sessions)") == 0, "sessions stay")
    record_property("sessions", sessions)
    record_property("slowest scrape", prometheus.value("max_over_time(scrape_duration_seconds[1h])"))
    assert (prometheus.value("min_over_time(scrape_duration_seconds[1h])") or 1) < 0.05
