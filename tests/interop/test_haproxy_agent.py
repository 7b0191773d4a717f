"""HAProxy, which asks the agent of ``[admin]``: see :mod:`socksproxy.admin.agent`."""

from __future__ import annotations

import csv
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.admin import asks
from ..support.origin import Origin, echo
from ..support.processes import Program
from ..support.workers import LISTENING, connected, echoes, until

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")

_CONFIG = """
global
    stats socket {directory}/haproxy.sock mode 600 level admin
defaults
    mode tcp
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout check 2s
    retries 0
listen socks
    bind 127.0.0.1:{front}
    server one 127.0.0.1:{ports[0]} agent-check agent-port {agents[0]} agent-inter 200ms weight 100
    server two 127.0.0.1:{ports[1]} agent-check agent-port {agents[1]} agent-inter 200ms weight 100
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def status_of(directory: Path, server: str) -> tuple[str, int]:
    """What HAProxy has for *server*: its status and its weight."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(directory / "haproxy.sock"))
        client.sendall(b"show stat\n")
        text = b"".join(iter(lambda: client.recv(65536), b"")).decode().removeprefix("# ")
    (row,) = [row for row in csv.DictReader(text.splitlines()) if row["svname"] == server]
    return row["status"], int(row["weight"] or 0)


def test_drain(start: Callable[..., Program], twistd: Callable[..., Program], tmp_path: Path) -> None:
    """
    A server that is drained still serves while HAProxy has yet to hear of it, so no client fails.

    HAProxy moves on, and comes back when the drain is taken back. Each line of the agent is understood.
    """
    ports, agents = [], [free_port(), free_port()]
    for name, agent in zip("ab", agents, strict=True):
        config = tmp_path / f"{name}.toml"
        config.write_text(
            f'[admin]\nagent = "tcp:{agent}:interface=127.0.0.1"\nnotice = 1.5\n'
            f'[[admin.listener]]\nendpoint = "unix:{tmp_path / name}"\n'
        )
        program = twistd("socks", "-p", "0", "--config", str(config))
        ports.append(int(program.wait_for(LISTENING)[1]))
    front = free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(_CONFIG.format(directory=tmp_path, front=front, ports=ports, agents=agents))
    start(["haproxy", "-db", "-f", str(config)])
    until((tmp_path / "haproxy.sock").exists)
    until(lambda: 90 <= status_of(tmp_path, "one")[1] <= 100)
    failed: list[Exception] = []
    stopping = threading.Event()

    def load(port: int) -> None:
        while not stopping.is_set():
            try:
                with connected(front, port) as client:
                    assert echoes(client)
            except Exception as problem:
                failed.append(problem)
            time.sleep(0.01)

    with Origin(echo) as origin:
        threads = [threading.Thread(target=load, args=[origin.port]) for _ in range(2)]
        for thread in threads:
            thread.start()
        told = asks(tmp_path / "a", "POST", "/v1/drain", {"seconds": 30})
        assert told.body == {"stage": "notice", "seconds": 30, "notice": 1.5, "missing": []}
        ready = asks(tmp_path / "a", "GET", "/readyz")
        assert (ready.status, ready.body) == (503, {"ready": False, "why": "draining"})
        until(lambda: status_of(tmp_path, "one")[0].startswith("DRAIN"))
        until(lambda: status_of(tmp_path, "one")[0].startswith("MAINT"))
        assert asks(tmp_path / "a", "POST", "/v1/undrain").status == 200
        until(lambda: status_of(tmp_path, "one")[0] in ("UP", "no check"))
        until(lambda: status_of(tmp_path, "one")[1] > 90)
        stopping.set()
        for thread in threads:
            thread.join()
        assert asks(tmp_path / "a", "GET", "/readyz").status == 200
        with connected(ports[0], origin.port) as client:
            assert echoes(client)
    assert failed == []
