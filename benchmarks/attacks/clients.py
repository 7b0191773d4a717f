"""What attacks have in common: clients, a destination, and how other clients fare meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

CONNECT, BIND, ASSOCIATE = 1, 2, 3
#: Clients that are measured at once.
PROBES = 8
#: Seconds after which a client's wait counts as a failure.
PATIENCE = 5.0


class Server(NamedTuple):
    """A server: its port on 127.0.0.1, and its process."""

    port: int
    pid: int


@contextlib.contextmanager
def server(
    *options: str, environment: Mapping[str, str] | None = None, descriptors: int | None = None
) -> Iterator[Server]:
    """
    A server, until the context ends.

    :param options: of ``socks``.
    :param environment: added to this process's own.
    :param descriptors: the limit on its descriptors; None: the one that there is.
    """

    def limit() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    command = [sys.executable, "-m", "twisted", "--log-format=text", "socks", "-p", "0", *options]
    with subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    ) as process:
        try:
            assert process.stdout is not None
            ports = (re.search(r"listening on tcp:127\.0\.0\.1:(\d+)", line) for line in process.stdout)
            port = next(int(found[1]) for found in ports if found)
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield Server(port, process.pid)
        finally:
            process.kill()


def connected(port: int) -> socket.socket:
    """A client that has said nothing yet."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def requested(port: int, command: int, destination: int) -> socket.socket:
    """A client whose request is granted."""
    sock = connected(port)
    sock.sendall(b"\x05\x01\x00")
    assert sock.recv(2) == b"\x05\x00"
    sock.sendall(bytes((5, command, 0, 1, 127, 0, 0, 1)) + destination.to_bytes(2, "big"))
    assert sock.recv(100)[1] == 0
    return sock


def echo_server() -> int:
    """Sends back what comes; the port."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65536):
                sock.sendall(data)

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=listening.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    port: int = listening.getsockname()[1]
    return port


def probe(port: int, destination: int, until: float, times: list[float], failures: list[str]) -> None:
    """Sessions, one after the other."""
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            with requested(port, CONNECT, destination) as sock:
                sock.sendall(b"x" * 64)
                assert sock.recv(64)
        except (OSError, AssertionError, IndexError) as problem:
            failures.append(type(problem).__name__)
        times.append(time.monotonic() - began)


def measured(port: int, destination: int, seconds: float) -> tuple[list[float], list[str]]:
    """How long sessions take for some seconds, and what fails."""
    times: list[float] = []
    failures: list[str] = []
    arguments = (port, destination, time.monotonic() + seconds, times, failures)
    threads = [threading.Thread(target=probe, args=arguments) for _ in range(PROBES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, failures


def told(times: list[float], failures: list[str]) -> str:
    """What was measured, in a few words."""
    p99 = sorted(times)[len(times) * 99 // 100] * 1000
    return f"{len(times):6} sessions, p99 {p99:7.1f} ms, {len(failures)} failed"
