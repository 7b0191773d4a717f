"""Limits of bandwidth in a server, with real transfers through its listeners."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from socksproxy.limits import Limits, Rate, ServerLimits
from tests.support.busy import steady
from tests.support.certificates import self_signed
from tests.support.proxy import reply5, request5
from tests.support.udp import KINDS, Proxy, serving

#: They measure over seconds.
pytestmark = pytest.mark.slow

UPLOAD, DOWNLOAD = 400e3, 1e6


class Faucet:
    """
    A destination that sends without end once a byte has come, and counts what comes.

    :ivar port: where it listens.
    :ivar received: bytes that have come.
    """

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.received = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Faucet:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listening.accept()
                threading.Thread(target=self._count, args=(sock,), daemon=True).start()

    def _send(self, sock: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sock.sendall(bytes(65536))

    def _count(self, sock: socket.socket) -> None:
        with suppress(OSError):
            sock.recv(1)
            threading.Thread(target=self._send, args=(sock,), daemon=True).start()
            while chunk := sock.recv(1 << 18):
                self.received += len(chunk)


@pytest.fixture
def faucet() -> Iterator[Faucet]:
    with Faucet() as faucet:
        yield faucet


def connected(proxy: Proxy, port: int, context: ssl.SSLContext | None = None) -> socket.socket:
    """A client's socket, connected through *proxy*."""
    sock = socket.create_connection(proxy.address, 20)
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname="localhost")
    sock.sendall(b"\5\1\0" + request5("127.0.0.1", port))
    assert sock.recv(2) == b"\5\0"
    assert reply5(sock)[0] == 0
    sock.sendall(b"x")  # lest something stands behind the reply
    return sock


def transfers(
    faucet: Faucet, sockets: list[socket.socket], fit: Callable[[tuple[float, float]], bool]
) -> None:
    """Bytes a second that go up and down, of all together, after the burst: they fit, sooner or later."""
    arrived = [0] * len(sockets)

    def receive(number: int) -> None:
        with suppress(OSError):
            while chunk := sockets[number].recv(1 << 18):
                arrived[number] += len(chunk)

    for number in range(len(sockets)):
        threading.Thread(target=receive, args=(number,), daemon=True).start()

    def rates() -> tuple[float, float]:
        began, up, down = time.monotonic(), faucet.received, sum(arrived)
        time.sleep(3)
        elapsed = time.monotonic() - began
        return (faucet.received - up) / elapsed, (sum(arrived) - down) / elapsed

    time.sleep(1)
    steady(rates, fit)


def send(sock: Any) -> None:
    """Send without end."""
    with suppress(OSError):
        while True:
            sock.sendall(bytes(16384))


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_both_ways_at_once(kind: str, faucet: Faucet) -> None:
    """Each direction has its own limit, of all sessions of a client together."""
    limits = ServerLimits(network=Limits(upload=Rate(UPLOAD), download=Rate(DOWNLOAD)))
    async with serving(kind, limits=limits) as proxy:

        def scenario(proxy: Proxy) -> None:
            sockets = [connected(proxy, faucet.port) for _ in range(3)]
            for sock in sockets:
                threading.Thread(target=send, args=(sock,), daemon=True).start()
            try:
                expected = pytest.approx((UPLOAD, DOWNLOAD), rel=0.05)
                transfers(faucet, sockets, lambda rates: rates == expected)
            finally:
                for sock in sockets:
                    sock.close()

        await proxy.run(scenario)


@pytest_twisted.ensureDeferred
async def test_over_tls(faucet: Faucet, tmp_path: Path) -> None:
    """Records of TLS come as a whole, and are paid for as a whole."""
    pem = tmp_path / "server.pem"
    pem.write_bytes(self_signed())
    context = ssl.create_default_context(cafile=str(pem))
    limits = ServerLimits(session=Limits(download=Rate(DOWNLOAD)))
    listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}"
    async with serving(KINDS[-1], listen=listen, limits=limits) as proxy:

        def scenario(proxy: Proxy) -> None:
            with connected(proxy, faucet.port, context) as sock:
                transfers(faucet, [sock], lambda rates: rates[1] == pytest.approx(DOWNLOAD, rel=0.05))

        await proxy.run(scenario)


@pytest_twisted.ensureDeferred
async def test_upload_over_tls(faucet: Faucet, tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    pem.write_bytes(self_signed())
    context = ssl.create_default_context(cafile=str(pem))
    limits = ServerLimits(session=Limits(upload=Rate(UPLOAD), download=Rate(0, 1)))
    listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}"
    async with serving(KINDS[-1], listen=listen, limits=limits) as proxy:

        def scenario(proxy: Proxy) -> None:
            with connected(proxy, faucet.port, context) as sock:
                threading.Thread(target=send, args=(sock,), daemon=True).start()
                transfers(faucet, [], lambda rates: rates[0] == pytest.approx(UPLOAD, rel=0.05))

        await proxy.run(scenario)
