"""The examples of the documentation, run as they are."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import PATIENCE, TWISTD, Program

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture
def shouter() -> Iterator[int]:
    """The port of a server that answers one client with what it said, in capitals."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)

        def serve() -> None:
            with contextlib.suppress(OSError):
                client, _ = listening.accept()
                with client:
                    client.sendall(client.recv(100).upper())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)  # nobody came
        thread.join(PATIENCE)


def connect_through(client: socket.socket, port: int) -> bytes:
    """Ask for 127.0.0.1 and *port*, and return what "hello" is answered with."""
    client.settimeout(PATIENCE)
    client.sendall(b"\x05\x01\x00")
    assert client.recv(2) == b"\x05\x00"
    client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
    assert client.recv(10)[:2] == b"\x05\x00"
    client.sendall(b"hello")
    answer = b""
    while data := client.recv(100):
        answer += data
    return answer


def connected(path: Path, program: Program) -> socket.socket:
    """A connection to a Unix socket, as soon as *program* listens there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        client = socket.socket(socket.AF_UNIX)
        if client.connect_ex(str(path)) == 0:
            return client
        client.close()
        ended = program.process.poll() is not None
        assert not ended, f"it ended with {program.wait()}:\n{program.output}"
        assert time.monotonic() < deadline, f"nothing listens on {path}"
        time.sleep(0.01)


def test_tac(shouter: int, tmp_path: Path, start: Callable[..., Program]) -> None:
    """Who copies the .tac file has a proxy."""
    path = tmp_path / "socks"
    program = start(
        [*TWISTD, "--pidfile=", "-ny", str(EXAMPLES / "socks.tac")], {"SOCKS_LISTEN": f"unix:{path}"}
    )
    with connected(path, program) as client:
        assert connect_through(client, shouter) == b"HELLO"


def test_embed(shouter: int, start: Callable[..., Program]) -> None:
    """Who copies the ten lines has a proxy, and sees its sessions."""
    program = start([sys.executable, str(EXAMPLES / "embed.py"), "tcp:0:interface=127.0.0.1"])
    number = int(program.wait_for(r"listening on .*port=(\d+)")[1])
    with socket.create_connection(("127.0.0.1", number), PATIENCE) as client:
        assert connect_through(client, shouter) == b"HELLO"
    program.wait_for(rf"127\.0\.0\.1:{shouter} \w+")
