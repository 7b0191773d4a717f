"""Whether a client that has closed its direction is still there."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from socksproxy.net.liveness import ask, has_ended

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A client and our end."""
    if request.param == "unix":
        client, ours = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname())
            ours, _ = listening.accept()
    with client, ours:
        yield client, ours


def ends(ours: socket.socket) -> bool:
    """Whether *ours* turns out to have ended."""
    deadline = time.monotonic() + 0.2
    while not has_ended(ours) and time.monotonic() < deadline:
        time.sleep(0.01)
    return has_ended(ours)


@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_gone(pair: Pair, how: str) -> None:
    client, ours = pair
    client.close() if how == "close" else client.shutdown(socket.SHUT_RDWR)
    assert ours.recv(1) == b""
    ask(ours)
    assert ends(ours)
    ask(ours)  # which fails, and that is no error


def test_there(pair: Pair) -> None:
    """The client reads nothing but what is said to it."""
    client, ours = pair
    client.shutdown(socket.SHUT_WR)
    assert ours.recv(1) == b""
    for _ in range(2):
        ask(ours)
        assert not ends(ours)
    ours.sendall(b"still")
    client.settimeout(5)
    assert client.recv(100)[-5:] == b"still"
