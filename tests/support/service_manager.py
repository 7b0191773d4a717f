"""What systemd would hear of a service."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from .processes import PATIENCE


class ServiceManager:
    """
    The socket of ``NOTIFY_SOCKET``.

    :ivar address: the path, or ``@NAME`` for an abstract one.
    :ivar heard: the lines of all messages, in their order.
    """

    def __init__(self, directory: Path, address: str | None = None) -> None:
        self.address = address or str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = self.address
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self.heard: list[str] = []

    def environment(self, watchdog: float | None = None) -> dict[str, str]:
        """What it tells a service."""
        told = {"NOTIFY_SOCKET": self.address}
        return told if watchdog is None else {**told, "WATCHDOG_USEC": str(int(watchdog * 1e6))}

    def listen(self, seconds: float = 0.0) -> list[str]:
        """Hear what is said within *seconds*, or has been said; all lines so far."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError, BlockingIOError):
            while True:
                self._socket.settimeout(max(0.0, deadline - time.monotonic()))
                self.heard += self._socket.recv(65536).decode().split("\n")
        return self.heard

    def until(self, begin: str, after: int = 0) -> int:
        """Wait for a line that begins so, among those from number *after* on; its number."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = [number for number, line in enumerate(self.heard) if line.startswith(begin)]
            for number in found:
                if number >= after:
                    return number
            assert time.monotonic() < deadline, f"{begin} was not said, but {self.heard}"
            self.listen(0.05)

    def close(self) -> None:
        self._socket.close()
