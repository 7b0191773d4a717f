"""
The server that is attacked, and what its other clients see meanwhile: for the programs beside this one.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

SLOW_MACHINE = Path(__file__).parent / "slow_machine"
PATIENCE = 10.0
#: Clients that have sessions one after the other, from addresses of their own.
VICTIMS = 4
CONNECT, BIND, ASSOCIATE = b"\x01", b"\x02", b"\x03"


def connected(port: int, source: str = "127.0.0.1") -> socket.socket:
    """A client that has said nothing yet."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def request_of(name: str, port: int, command: bytes = CONNECT) -> bytes:
    """A greeting and a request for *name*, in one go."""
    return b"\x05\x01\x00\x05" + command + bytes((0, 3, len(name))) + name.encode() + port.to_bytes(2, "big")


def requested(port: int, command: bytes, destination: int, source: str = "127.0.0.1") -> socket.socket:
    """A client whose request for a port of 127.0.0.1 is granted."""
    sock = connected(port, source)
    sock.sendall(b"\x05\x01\x00")
    assert received(sock, 2) == b"\x05\x00"
    sock.sendall(b"\x05" + command + b"\x00\x01\x7f\x00\x00\x01" + destination.to_bytes(2, "big"))
    assert received(sock, 10)[1] == 0
    return sock


def received(sock: socket.socket, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionError("closed")
        data += more
    return data


def echo_server() -> int:
    """Sends back what comes; the port."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                sock.sendall(data)

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=listening.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    port: int = listening.getsockname()[1]
    return port


class Server:
    """
    A server, and what it has logged.

    :param arguments: of ``twistd socks``, beside the port.
    :param environment: added to this process's own.
    :param descriptors: the limit on its descriptors; None: the one that there is.
    """

    def __init__(
        self,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        descriptors: int | None = None,
    ) -> None:
        def limit() -> None:
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        command = [sys.executable, "-m", "twisted", "--log-format=text", "socks", "-p", "0", *arguments]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=limit,
        )
        assert self.process.stdout is not None
        ports = (re.search(r"listening on tcp:127\.0\.0\.1:(\d+)", line) for line in self.process.stdout)
        self.port = next(int(found[1]) for found in ports if found)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def wait_for(self, words: str, seconds: float) -> float | None:
        """How long it takes until a line with *words* is logged; None: longer than *seconds*."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if any(words in line for line in self.lines):
                return time.monotonic() - began
            time.sleep(0.01)
        return None

    def end(self, seconds: float = 60.0) -> float:
        """How long it takes to end after SIGTERM."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return time.monotonic() - began


Session = Callable[[int, str, int], None]


def echoing(destination: int) -> Session:
    """A session that has something echoed by a port of 127.0.0.1."""

    def session(port: int, source: str, number: int) -> None:
        with requested(port, CONNECT, destination, source) as sock:
            sock.sendall(b"x" * 64)
            assert received(sock, 64)

    return session


def measure(label: str, port: int, seconds: float, session: Session) -> float:
    """
    Have clients begin sessions for some *seconds*, and print what they see.

    :param session: one, given the port, the client's own address and a number.
    :returns: the 99th percentile of the time of a session, in seconds.
    """
    times: list[float] = []
    failures: list[str] = []
    until = time.monotonic() + seconds

    def client(source: str) -> None:
        number = 0
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                session(port, source, number)
            except (OSError, AssertionError) as problem:
                failures.append(type(problem).__name__)
            times.append(time.monotonic() - began)
            number += 1
            time.sleep(0.002)

    threads = [threading.Thread(target=client, args=(f"127.0.0.{2 + each}",)) for each in range(VICTIMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p99 = sorted(times)[len(times) * 99 // 100]
    print(
        f"{label:34} {len(times):6} sessions, p99 {1000 * p99:8.1f} ms, most {1000 * max(times):8.1f} ms, "
        f"{len(failures)} failed",
        flush=True,
    )
    return p99


@contextlib.contextmanager
def serving(
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    descriptors: int | None = None,
) -> Iterator[Server]:
    """A server that is killed at the end, if it is still there."""
    server = Server(arguments, environment, descriptors)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
