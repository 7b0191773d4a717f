"""Operators, and servers that answer them what a test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from socksproxy.ctl.command import main

#: Seconds.
_PATIENCE = 90


class Operator:
    """
    Calls ``socksproxy ctl`` in this process.

    :param capture: has what it prints.
    :param path: of the admin socket.
    """

    def __init__(self, capture: pytest.CaptureFixture[str], path: Path | str) -> None:
        self._capture = capture
        self.path = path

    def __call__(self, *arguments: Any) -> tuple[int, str, str]:
        """The exit status, the output and what is on standard error."""
        self._capture.readouterr()
        try:
            status = main([str(each) for each in (*arguments[:1], "--server", self.path, *arguments[1:])])
        except SystemExit as end:
            status = int(end.code or 0)
        told = self._capture.readouterr()
        return status, told.out, told.err


def answer(body: str, status: str = "200 OK") -> bytes:
    """An answer of HTTP with *body*."""
    return f"HTTP/1.0 {status}\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()


@contextmanager
def scripted(path: Path, answers: Sequence[bytes]) -> Iterator[list[bytes]]:
    """
    A server at *path* that gives one of *answers* to each client, in order, and then goes away.

    :returns: the requests.
    """
    requests: list[bytes] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.settimeout(_PATIENCE)
    listening.bind(str(path))
    listening.listen()

    over = threading.Event()

    def serve() -> None:
        with listening:
            for each in answers:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                with client:
                    if over.is_set():
                        break  # answers are left, and the client asks no more
                    client.settimeout(_PATIENCE)
                    requests.append(client.recv(65536))
                    client.sendall(each)
        path.unlink(missing_ok=True)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield requests
    finally:
        over.set()
        if thread.is_alive():
            with socket.socket(socket.AF_UNIX) as last:
                if last.connect_ex(str(path)) == 0:
                    with suppress(OSError):  # the server has just ended
                        last.sendall(b"stop")
            if thread.is_alive():
                listening.close()
        thread.join(_PATIENCE)
