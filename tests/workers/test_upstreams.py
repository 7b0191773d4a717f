"""Upstreams of a server with workers, as processes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..support.origin import Origin, echo
from ..support.processes import PATIENCE, Program
from ..support.proxy import ask5
from ..support.scripted_proxy import SUCCESS5
from ..support.workers import LISTENING, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at processes in /proc")


def _open(sock: socket.socket) -> None:
    """A proxy of SOCKS5 that says success, and echoes."""
    sock.recv(100)
    sock.sendall(b"\x05\x00")
    sock.recv(100)
    sock.sendall(SUCCESS5)
    echo(sock)


def test_max_sessions(twistd: Callable[..., Program], tmp_path: Path) -> None:
    """max-sessions holds for all workers together, and a session that ends in one makes room in all."""
    with Origin(_open) as there, ExitStack() as clients:
        (tmp_path / "socks.toml").write_text(
            '[listeners]\nlisten = ["tcp:0:interface=127.0.0.1"]\n[outgoing]\nvia = "one"\n'
            f'[upstreams.one]\ntype = "socks5"\naddress = "127.0.0.1:{there.port}"\nmax-sessions = 3\n'
        )
        program = twistd("socks", "--config", "socks.toml", "--workers", "2")
        place = ("127.0.0.1", int(program.wait_for(LISTENING)[1]))

        def asked() -> tuple[int, socket.socket]:
            sock = clients.enter_context(socket.create_connection(place, PATIENCE))
            return ask5(sock, "192.0.2.1", 80)[0], sock

        first = [asked() for _ in range(16)]
        assert sorted(reply for reply, _ in first) == [0] * 3 + [1] * 13
        assert len(there.peers) == 3
        next(sock for reply, sock in first if not reply).close()
        until(lambda: asked()[0] == 0)
        assert [asked()[0] for _ in range(6)] == [1] * 6
