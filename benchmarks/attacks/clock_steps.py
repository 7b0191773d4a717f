"""
The wall clock of a running server steps: what do its clients notice?

``python benchmarks/attacks/clock_steps.py [SECONDS]`` starts a server with timeouts of half an
hour and steps the server's wall clock forward and back by an hour. The program prints for each
phase the 99th percentile of the time of a whole session (connection, request, echo), the
failures, and which of the clients that wait have been ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SITE = Path(__file__).parent / "wall_clock"
HOUR = 3600
HALF = str(HOUR // 2)
COMMAND = [
    *(sys.executable, "-m", "twisted", "--log-format=text", "socks", "-p", "0"),
    *("--handshake-timeout", HALF, "--idle-timeout", HALF),
    *("--bind-timeout", HALF, "--udp-idle-timeout", HALF),
]
CONNECT, BIND, ASSOCIATE = 1, 2, 3
PROBES = 8
PATIENCE = 5.0


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


@contextlib.contextmanager
def server(step_file: Path) -> Iterator[int]:
    """A server whose wall clock is as far off as *step_file* says; its port."""
    environment = {**os.environ, "PYTHONPATH": str(SITE), "WALL_CLOCK_STEP": str(step_file)}
    with subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ports = (re.search(r"listening on tcp:127\.0\.0\.1:(\d+)", line) for line in process.stdout)
            port = next(int(found[1]) for found in ports if found)
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield port
        finally:
            process.kill()


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


def phase(name: str, port: int, destination: int, seconds: float, waiting: dict[str, socket.socket]) -> None:
    """Measure for some seconds and print what was seen."""
    times: list[float] = []
    failures: list[str] = []
    until = time.monotonic() + seconds
    arguments = (port, destination, until, times, failures)
    threads = [threading.Thread(target=probe, args=arguments) for _ in range(PROBES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p99 = sorted(times)[len(times) * 99 // 100] * 1000
    ended = [each for each, sock in waiting.items() if select.select([sock], [], [], 0)[0]]
    print(
        f"{name:24} {len(times):6} sessions, p99 {p99:7.1f} ms, {len(failures)} failed;"
        f" ended of those that wait: {', '.join(ended) or 'none'}",
        flush=True,
    )


def main(seconds: float) -> None:
    """Before, during and after both steps."""
    destination = echo_server()
    with tempfile.TemporaryDirectory() as directory:
        step_file = Path(directory) / "step"
        step_file.write_text("0".ljust(32))
        with server(step_file) as port:
            waiting = {
                "handshake": connected(port),
                "session": requested(port, CONNECT, destination),
                "BIND": requested(port, BIND, 0),
                "association": requested(port, ASSOCIATE, 0),
            }
            for name, step in (
                ("before", 0),
                ("one hour forward", HOUR),
                ("right again", 0),
                ("one hour back", -HOUR),
                ("after", 0),
            ):
                with step_file.open("r+b", buffering=0) as file:
                    file.write(str(step).ljust(32).encode())
                phase(name, port, destination, seconds, waiting)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
