"""The admin API of a supervisor and its workers: see :mod:`socksproxy.workers.control`."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.admin import asks
from ..support.origin import Origin
from ..support.processes import Program
from ..support.sessions import ends
from ..support.workers import LISTENING, until, with_each, workers_of

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at processes in /proc")


def test_workers(
    twistd: Callable[..., Program], tmp_path: Path, origin: Origin, clients: list[socket.socket]
) -> None:
    """
    The API is one, whatever worker has a session: pages are merged, and a kill reaches all.

    A worker that hangs, or has died, is named, and is not waited for.
    """
    path, config = tmp_path / "admin", tmp_path / "socks.toml"
    config.write_text(f'[[admin.listener]]\nendpoint = "unix:{path}"\n')
    program = twistd("socks", "-p", "0", "--workers", "2", "--config", str(config))
    port = int(program.wait_for(LISTENING)[1])
    pids = workers_of(program.process.pid)
    by_worker = with_each(port, origin, pids, clients)
    rows = asks(path, "GET", "/v1/workers").body["workers"]
    assert [(row["number"], row["pid"], row["state"]) for row in rows] == [
        (number, pid, "running") for number, pid in enumerate(pids, 1)
    ]
    assert [row["sessions"] for row in rows] == [len(by_worker[pid]) for pid in pids]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = asks(path, "GET", f"/v1/sessions?limit=3{cursor}").body
        assert page["total"] == len(clients)
        seen += [row["id"] for row in page["sessions"]]
        cursor = None if page["cursor"] is None else f"&cursor={page['cursor']}"
    assert len(seen) == len(set(seen)) == len(clients)
    assert asks(path, "DELETE", f"/v1/sessions/{seen[-1]}").body == {"ended": 1}
    dead = by_worker[pids[0]]
    killed = asks(path, "POST", "/v1/sessions/kill", {"filter": {"worker": 1}}).body
    assert killed["matched"] == killed["ended"] >= len(dead) - 1
    assert all(ends(client) for client in dead)
    os.kill(pids[1], signal.SIGSTOP)
    began = time.monotonic()
    status = asks(path, "GET", "/v1/status").body
    assert 0.9 < time.monotonic() - began < 20
    assert (status["missing"], status["sessions"]) == ([2], 0)
    assert asks(path, "GET", "/healthz").status == 200
    os.kill(pids[1], signal.SIGKILL)
    until(lambda: asks(path, "GET", "/v1/status").body["missing"] == [])
    assert program.stop() == -signal.SIGTERM
    assert not path.exists()
