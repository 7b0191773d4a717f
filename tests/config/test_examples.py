"""The examples of configuration files: right, and proxies when they are started."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from socksproxy.command import main

from ..conftest import PATIENCE, Program
from ..support.machine import needs_ipv6
from ..test_examples import connect_through, connected, shouter

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples" / "config"

__all__ = ["shouter"]


def here(name: str, tmp_path: Path) -> Path:
    """The example of that *name*, with the addresses and files of this machine."""
    bcrypt = pytest.importorskip("bcrypt")
    (tmp_path / "users").write_bytes(b"bob:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
    text = (EXAMPLES / name).read_text("utf-8")
    for there, local in (
        ("/etc/socks/", f"{tmp_path}/"),
        ("/var/log/socks/", f"{tmp_path}/"),
        ("192.0.2.11", "127.0.0.11"),
        ("2001:db8::11", "::1"),
        ("192.0.2.10", "127.0.0.1"),
    ):
        text = text.replace(there, local)
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def test_all_are_here() -> None:
    """An example that no test starts may be wrong."""
    assert {path.name for path in EXAMPLES.iterdir()} == {"laptop.toml", "sidecar.toml", "exit.toml"}


@needs_ipv6
@pytest.mark.parametrize("name", ["laptop.toml", "sidecar.toml", "exit.toml"])
def test_no_mistakes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``socksproxy check`` finds nothing."""
    assert main(["check", str(here(name, tmp_path))]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", ["laptop.toml", "sidecar.toml"])
def test_serves(name: str, shouter: int, tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """Who copies it has a proxy. The port is not the example's, which another program may have."""
    path = tmp_path / "socks"
    program = twistd("socks", "--config", str(here(name, tmp_path)), "--listen", f"unix:{path}")
    with connected(path, program) as client:
        assert connect_through(client, shouter) == b"HELLO"
    if name == "sidecar.toml":
        program.wait_for(r'"ended":')


@needs_ipv6
def test_exit(shouter: int, tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """Users show who they are, leave by the address that the file names, and have records."""
    path = tmp_path / "socks"
    program = twistd("socks", "--config", str(here("exit.toml", tmp_path)), "--listen", f"unix:{path}")
    with connected(path, program) as client:
        client.settimeout(PATIENCE)
        client.sendall(b"\x05\x01\x00")
        assert client.recv(2) == b"\x05\xff"
    with connected(path, program) as client:
        client.settimeout(PATIENCE)
        client.sendall(b"\x05\x01\x02")
        assert client.recv(2) == b"\x05\x02"
        client.sendall(b"\x01\x03bob\x06secret")
        assert client.recv(2) == b"\x01\x00"
        client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + shouter.to_bytes(2, "big"))
        reply = client.recv(10)
        assert (reply[1], socket.inet_ntoa(reply[4:8])) == (0, "127.0.0.11")
        client.sendall(b"hello")
        assert client.recv(100) == b"HELLO"
    program.stop()
    log = (tmp_path / "access.log").read_text("utf-8")
    assert '"user":"bob"' in log
    assert '"outgoing":"127.0.0.11:' in log
