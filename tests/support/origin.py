"""
Origin servers on loopback, in threads: what the clients reach through the proxy.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.support.processes import PATIENCE, Program

_BLOCK = bytes(range(256)) * 256


class Origin:
    """
    Accepts connections and gives each to *serve*, in a thread of its own.

    :param host: a literal address, or the path of a Unix socket.
    :ivar port: where it listens.
    :ivar peers: the addresses of those who came, in order.
    """

    def __init__(self, serve: Callable[[socket.socket], None], host: str = "127.0.0.1") -> None:
        unix = host.startswith("/")
        family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
        self._serve = serve
        self._listening = socket.socket(family)
        self._listening.bind(host if unix else (host, 0))
        self._listening.listen(64)
        self.host = host
        self.port: int = 0 if unix else self._listening.getsockname()[1]
        self.peers: list[tuple[str, int]] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Origin:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone does not wake a thread that accepts.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                accepted, peer = self._listening.accept()
            except OSError:
                return
            self.peers.append(peer[:2])
            threading.Thread(target=self._run, args=(accepted,), daemon=True).start()

    def _run(self, accepted: socket.socket) -> None:
        with accepted:
            accepted.settimeout(60)
            try:
                self._serve(accepted)
            except OSError:
                return  # the client went away, which some tests want


def echo(sock: socket.socket) -> None:
    """Send back what comes, to the end."""
    while data := sock.recv(65536):
        sock.sendall(data)


def answer_at_the_end(sock: socket.socket) -> None:
    """Read to the FIN, and only then say how much came, and its hash: a half-close must come through."""
    size, sha = 0, hashlib.sha256()
    while data := sock.recv(65536):
        size += len(data)
        sha.update(data)
    sock.sendall(f"{size} {sha.hexdigest()}\n".encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """``/bytes/N``: N bytes."""
        size = int(self.path.rpartition("/")[2])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        for piece in blocks(size):
            self.wfile.write(piece)

    def do_PUT(self) -> None:
        """Answers with the hash of what was sent."""
        left, sha = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            piece = self.rfile.read(min(left, 1 << 16))
            left -= len(piece)
            sha.update(piece)
        body = sha.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: pytest has its own output."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.peers: list[tuple[str, int]] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each."""
        self.peers.append(client_address[:2])
        super().process_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none of the test's business."""


class _ServerIPv6(_Server):
    address_family = socket.AF_INET6


def blocks(size: int) -> list[bytes]:
    """*size* bytes, of a pattern, in pieces that share their memory."""
    whole, rest = divmod(size, len(_BLOCK))
    return [_BLOCK] * whole + ([_BLOCK[:rest]] if rest else [])


def sha256(size: int) -> str:
    """The hash of what :func:`blocks` gives."""
    sha = hashlib.sha256()
    for piece in blocks(size):
        sha.update(piece)
    return sha.hexdigest()


class HTTPOrigin:
    """
    A web server.

    :ivar port: where it listens.
    :ivar peers: the addresses of those who came, in order.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._server = (_ServerIPv6 if ":" in host else _Server)(host)
        self.host = host
        self.peers = self._server.peers
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> HTTPOrigin:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


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


def connect_through(client: socket.socket, port: int, login: tuple[bytes, bytes] | None = None) -> bytes:
    """
    Ask for 127.0.0.1 and *port*, and return what "hello" is answered with.

    :param login: a name and a password.
    """
    assert logged_in(client, login)
    assert requested(client, port) == 0
    client.sendall(b"hello")
    answer = b""
    while data := client.recv(100):
        answer += data
    return answer


def logged_in(client: socket.socket, login: tuple[bytes, bytes] | None) -> bool:
    client.settimeout(PATIENCE)
    if login is None:
        client.sendall(b"\x05\x01\x00")
        return exactly(client, 2) == b"\x05\x00"
    client.sendall(b"\x05\x01\x02")
    assert exactly(client, 2) == b"\x05\x02"
    client.sendall(b"\x01" + b"".join(bytes((len(word),)) + word for word in login))
    return exactly(client, 2) == b"\x01\x00"


def requested(client: socket.socket, port: int) -> int:
    """The reply's code."""
    client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
    return exactly(client, 10)[1]


def exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


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
