"""The password of an upstream is in its file and on the wire to the upstream, and nowhere else."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from socksproxy.cli import main
from socksproxy.routes.tries import Try
from socksproxy.wire.password import Credentials

from ..conftest import Serve
from ..support.logs import heard
from ..support.origin import Origin
from ..support.processes import PATIENCE, Program
from ..support.proxy import Playing, Proxy, ask5
from ..support.scripted_proxy import ScriptedProxy
from ..support.upstreams import through
from ..support.workers import LISTENING, workers_of

SECRET, NEXT = "hunter2-und-mehr", "hunter3-und-mehr"


class Strict:
    """A proxy of SOCKS5 that wants a login, and refuses each. :ivar shown: the logins."""

    def __init__(self) -> None:
        self.shown: list[bytes] = []

    def serve(self, sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"\x05\x02")
        self.shown.append(sock.recv(600))
        sock.sendall(b"\x01\x01")


@pytest.fixture
def strict() -> Iterator[tuple[Strict, Origin]]:
    proxy = Strict()
    with Origin(proxy.serve) as there:
        yield proxy, there


def _config(directory: Path, port: int) -> Path:
    file = directory / "socks.toml"
    file.write_text(
        f'[listeners]\nlisten = ["tcp:0:interface=127.0.0.1"]\n[log]\nlog = "access.log"\n'
        f'[outgoing]\nvia = "one"\n[upstreams.one]\ntype = "socks5"\naddress = "127.0.0.1:{port}"\n'
        'login = { user = "office", password-file = "${CREDENTIALS_DIRECTORY}/office" }\n'
    )
    return file


def _asked(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        return ask5(sock, "192.0.2.1", 80)[0]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at processes in /proc")
def test_processes(twistd: Callable[..., Program], tmp_path: Path, strict: tuple[Strict, Origin]) -> None:
    """
    The file is a credential of systemd. A reload reads it again. Neither a process (``ps``), nor its
    environment, nor the log or the access log has the password.
    """
    proxy, there = strict
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "office").write_text(f"{SECRET}\n")
    _config(tmp_path, there.port)
    program = twistd(
        *("socks", "--config", "socks.toml", "--workers", "2"),
        environment={"CREDENTIALS_DIRECTORY": str(credentials)},
    )
    port = int(program.wait_for(LISTENING)[1])
    assert _asked(port) == 1
    (credentials / "office").write_text(f"{NEXT}\n")
    program.process.send_signal(signal.SIGHUP)
    program.wait_for("reloaded")
    deadline = time.monotonic() + PATIENCE
    while NEXT.encode() not in proxy.shown[-1]:  # each worker follows in its own time
        assert _asked(port) == 1
        assert time.monotonic() < deadline
    assert SECRET.encode() in proxy.shown[0]
    pids = [program.process.pid, *workers_of(program.process.pid)]
    seen = b"".join(
        Path(f"/proc/{pid}/{file}").read_bytes() for pid in pids for file in ("cmdline", "environ")
    )
    program.stop()
    seen += program.output.encode() + (tmp_path / "access.log").read_bytes()
    assert b"refuses the login" in seen
    assert b"-und-mehr" not in seen


@pytest.mark.parametrize("command", [["check"], ["explain", "connect", "192.0.2.1:80"]])
@pytest.mark.parametrize("wrong", ["", "\nmore lines\n"])
def test_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, command: list[str], wrong: str
) -> None:
    """``check`` and ``explain`` show no password, of a right file and of a wrong one."""
    (tmp_path / "office").write_text(SECRET + wrong)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    file = _config(tmp_path, 9)
    try:
        main([command[0], str(file), *command[1:]])
    except SystemExit:
        assert wrong
    told = capsys.readouterr()
    assert told.out + told.err
    assert SECRET not in told.out + told.err


@pytest_twisted.inlineCallbacks
def test_tracebacks(serve_as: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A fault of ours in a handshake is logged in full, without the password."""

    def fail(self: Try, data: bytes) -> None:
        hop = self._route.hops[0]
        seen = {name: getattr(hop, name) for name in hop.__slots__}
        raise RuntimeError(f"a fault with {seen} and {self._handshake!r}")

    there = yield ScriptedProxy(4, b"\x05\x02").start()
    monkeypatch.setattr(Try, "_go_on", fail)
    login = Credentials(b"office", SECRET.encode())
    proxy: Proxy = yield serve_as("transports", **through("socks5", there.port, login=login))

    def scenario() -> None:
        with proxy.connect() as sock:
            sock.sendall(b"\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50")
            while sock.recv(100):
                pass

    with heard() as lines:
        yield proxy.play(scenario)
    yield there.stop()
    assert "a fault with" in "".join(lines)
    assert SECRET not in "".join(lines)
