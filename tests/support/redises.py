"""Debian's Redis: a server, its replica, and a Sentinel."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis

from tests.support.programs import require
from tests.support.proxy import PATIENCE, closed_port


class Redises:
    """
    The three.

    :param directory: for their files.
    :ivar first: the port of the server; :attr:`second` is that of its replica.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []
        self.first, self.second, self.sentinel = closed_port(), closed_port(), closed_port()

    def start(self) -> None:
        """Start them, and wait until each knows the others."""
        directory, server = self.directory, require("redis-server")
        self.begin(server, "--port", str(self.first))
        self.begin(server, "--port", str(self.second), "--replicaof", f"127.0.0.1 {self.first}")
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel}\ndir {directory}\n"
            f"sentinel monitor main 127.0.0.1 {self.first} 1\n"
            "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
        )
        _answers(self.first, "role:master")
        _answers(self.second, "master_link_status:up")
        self.begin(require("redis-sentinel"), str(config))
        _answers(self.sentinel, "slaves:1")

    def client(self, port: int) -> Any:
        """A client of the server on *port*."""
        return Redis(port=port, protocol=2, decode_responses=True)

    def begin(self, *command: str) -> None:
        """Start a program."""
        more = [] if command[-1].endswith(".conf") else ["--save", "", "--dir", str(self.directory)]
        self.processes.append(subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL))

    def stop(self) -> None:
        """Kill all."""
        for process in self.processes:
            process.kill()
            process.wait()


def _answers(port: int, words: str) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(Exception):
            client: Any = Redis(port=port, protocol=2, socket_timeout=1)
            if words in str(client.execute_command("INFO")).replace("': '", ":").replace("': ", ":"):
                return
        time.sleep(0.02)
    raise AssertionError(f"no Redis on port {port} says {words}")
