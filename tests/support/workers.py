"""A server with workers, its load, and what ``/proc`` says of its processes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from socksproxy.workers.process import Orders
from tests.support.processes import PATIENCE, TWISTD

from .origin import Origin


def orders(**changes: Any) -> Orders:
    given: dict[str, Any] = {
        "number": 2,
        "reactor": "twisted.internet.pollreactor",
        "arguments": ["-p", "0", "--workers", "2"],
        "listeners": [[9, 10], []],
        "files": {"/a:b": 11},
        "log": (12, "/access.log"),
        "counts": (13, 2, "00ff"),
        "status": 4,
    }
    return Orders(**{**given, **changes})


#: Python 3.12 has no name for it.
_IP_BIND_ADDRESS_NO_PORT = 24

LISTENING = r"listening on tcp:127\.0\.0\.1:(\d+)"


def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def refuses(port: int) -> bool:
    """Whether nobody listens at *port*."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was waiting to be accepted when the listener went
        pass
    return False


def workers_of(pid: int) -> list[int]:
    """The processes that a supervisor has."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors_of(pid: int) -> list[str]:
    """What the descriptors of a process are of."""
    found = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it has been closed meanwhile
            found.append(os.readlink(file))
    return found


def inode_at_proxy(client: socket.socket) -> str | None:
    """The inode of the other end of *client*, a connection on IPv4 loopback."""
    ends = [f"{port:04X}" for port in (client.getpeername()[1], client.getsockname()[1])]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if [words[1].split(":")[1], words[2].split(":")[1]] == ends:
            return words[9]
    return None


def server_of(client: socket.socket, pids: Sequence[int]) -> int:
    """Which of the processes has the other end of *client*."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:  # the kernel's table misses a row when it changes while it is read
        wanted = f"socket:[{inode_at_proxy(client)}]"
        for pid in pids:
            if wanted in descriptors_of(pid):
                return pid
        time.sleep(0.02)
    raise AssertionError("no worker has this session")


def received(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError(f"closed after {data!r}")
        data += more
    return data


def connected(port: int, destination: int, source: str = "127.0.0.1") -> socket.socket:
    """A session through the proxy."""
    client = socket.socket()
    try:
        client.settimeout(PATIENCE)
        # The port is chosen with the connection: else those of connections before are all in use one day.
        client.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        client.bind((source, 0))
        client.connect(("127.0.0.1", port))
        client.sendall(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + destination.to_bytes(2, "big"))
        if received(client, 12)[3]:
            raise PermissionError("refused")
    except BaseException:
        client.close()
        raise
    return client


def echoes(client: socket.socket) -> bool:
    client.sendall(b"?")
    return received(client, 1) == b"?"


def with_each(
    port: int, origin: Origin, pids: Sequence[int], clients: list[socket.socket]
) -> dict[int, list[socket.socket]]:
    """Sessions, by the worker that serves them: at least two of each."""
    by_worker: dict[int, list[socket.socket]] = {pid: [] for pid in pids}
    deadline = time.monotonic() + PATIENCE
    while min(map(len, by_worker.values())) < 2:
        assert time.monotonic() < deadline, "one worker gets all the clients"
        # Several at once, so that those that wait find the one busy that was woken first.
        threads = [
            threading.Thread(target=lambda: clients.append(connected(port, origin.port))) for _ in range(8)
        ]
        before = len(clients)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in clients[before:]:
            by_worker[server_of(client, pids)].append(client)
    return by_worker


class Load(threading.Thread):
    """
    Opens sessions, one after the other, until it is told to stop.

    :ivar outcomes: how they went, by the name of the exception.
    """

    def __init__(self, port: int, destination: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.destination = destination
        self.stopping = False
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0

    def run(self) -> None:
        while not self.stopping:
            began = time.monotonic()
            try:
                with connected(self.port, self.destination) as client:
                    echoes(client)
                self.outcomes["served"] += 1
            except Exception as problem:
                self.outcomes[type(problem).__name__] += 1
            self.longest = max(self.longest, time.monotonic() - began)


def with_python(executable: str) -> list[str]:
    """``twistd`` whose workers are started with another Python."""
    return [*TWISTD[:2], f"import sys; sys.executable = {executable!r}; {TWISTD[2]}"]


def python_of_others() -> bool:
    """Whether somebody else may run this Python and this package."""
    command = [sys.executable, "-c", "import socksproxy.workers.worker"]
    try:
        return subprocess.run(command, user=65534, group=65534, capture_output=True).returncode == 0
    except OSError:
        return False
