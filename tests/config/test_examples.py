"""The examples of configuration files: right, and proxies when they are started."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from socksproxy.cli import main

from ..support.certificates import self_signed
from ..support.machine import needs_ipv6
from ..support.origin import connect_through, connected, shouter
from ..support.processes import PATIENCE, Program

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples" / "config"

ALL = [
    "laptop.toml",
    "sidecar.toml",
    "exit.toml",
    "office.toml",
    "gateway.toml",
    "limits.toml",
    "addresses.toml",
]

__all__ = ["shouter"]


def here(name: str, tmp_path: Path, port: int = 443) -> Path:
    """
    The example of that *name*, with the addresses and files of this machine.

    :param port: what rules allow.
    """
    (tmp_path / "gateway.pem").write_bytes(self_signed())
    bcrypt = pytest.importorskip("bcrypt")
    hash = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n"
    (tmp_path / "users").write_bytes(b"bob:" + hash + b"eve:" + hash + b"sue:" + hash)
    (tmp_path / "malware.txt").write_text("0.0.0.0 localhost.bad.example\n", "utf-8")
    text = (EXAMPLES / name).read_text("utf-8")
    for there, local in (
        ("/etc/socks/", f"{tmp_path}/"),
        ("/var/log/socks/", f"{tmp_path}/"),
        ("/var/lib/socks/", f"{tmp_path}/"),
        ("192.0.2.11", "127.0.0.11"),
        ("2001:db8::11", "::1"),
        ("192.0.2.12", "127.0.0.12"),
        ("2001:db8::12", "::1"),
        ("192.0.2.13", "127.0.0.13"),
        ("192.0.2.10", "127.0.0.1"),
        ("203.0.113.10", "127.0.0.1"),
        ("192.0.2.0/24", "127.0.0.0/8"),
        ("files.internal.example", "localhost"),
        ("dns:10.0.0.53", "system"),
        ("[22, 443]", f"[{port}]"),
        ("[80, 443]", f"[{port}]"),
        ('["private", "special"]', '["private"]'),
    ):
        text = text.replace(there, local)
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def test_all_are_here() -> None:
    """An example that no test starts may be wrong."""
    assert {path.name for path in EXAMPLES.iterdir()} == set(ALL)


@needs_ipv6
@pytest.mark.parametrize("name", ALL)
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


def log_in(client: socket.socket, name: bytes = b"bob") -> None:
    client.sendall(b"\x05\x01\x02")
    assert client.recv(2) == b"\x05\x02"
    client.sendall(b"\x01\x03" + name + b"\x06secret")
    assert client.recv(2) == b"\x01\x00"


def answer(client: socket.socket, destination: bytes, port: int) -> int:
    """The reply to a CONNECT."""
    client.sendall(b"\x05\x01\x00" + destination + port.to_bytes(2, "big"))
    return client.recv(100)[1]


LITERAL = b"\x01\x7f\x00\x00\x01"
NAME = b"\x03\x09localhost"


def test_office(shouter: int, tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """Everybody inside reaches the Web's ports, and only users reach others."""
    config = str(here("office.toml", tmp_path, shouter))
    program = twistd("socks", "--config", config, "--listen", "tcp:0:interface=127.0.0.1")
    address = ("127.0.0.1", int(program.wait_for(r"listening on tcp:127.0.0.1:(\d+)")[1]))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with socket.create_connection(address, PATIENCE) as client:
            client.sendall(b"\x05\x01\x00")
            assert client.recv(2) == b"\x05\x00"
            assert answer(client, LITERAL, port) == 2
        with socket.create_connection(address, PATIENCE) as client:
            log_in(client)
            assert answer(client, LITERAL, port) == 0
    with socket.create_connection(address, PATIENCE) as client:
        assert connect_through(client, shouter) == b"HELLO"
    program.stop()
    log = (tmp_path / "access.log").read_text("utf-8")
    rules = sorted(word for word in log.split() if word.startswith("rule="))
    assert rules == ["rule=admins", "rule=default", "rule=web"]


def test_gateway(shouter: int, tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """Who shows a password reaches a server by its name, and not by its address."""
    config = str(here("gateway.toml", tmp_path, shouter))
    program = twistd("socks", "--config", config, "--listen", "tcp:0:interface=127.0.0.1")
    address = ("127.0.0.1", int(program.wait_for(r"listening on tcp:127.0.0.1:(\d+)")[1]))
    with socket.create_connection(address, PATIENCE) as client:
        log_in(client)
        assert answer(client, LITERAL, shouter) == 2
    with socket.create_connection(address, PATIENCE) as client:
        log_in(client)
        assert answer(client, NAME, shouter) == 0
        client.sendall(b"hello")
        assert client.recv(100) == b"HELLO"


def way_out(client: socket.socket, name: bytes, port: int) -> str:
    """From where the user *name* connects."""
    client.settimeout(PATIENCE)
    log_in(client, name)
    client.sendall(b"\x05\x01\x00" + LITERAL + port.to_bytes(2, "big"))
    reply = client.recv(10)
    assert reply[1] == 0
    return socket.inet_ntoa(reply[4:8])


@needs_ipv6
def test_exit(shouter: int, tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """Users show who they are, leave by the address of their group or of all, and have records."""
    path = tmp_path / "socks"
    program = twistd("socks", "--config", str(here("exit.toml", tmp_path)), "--listen", f"unix:{path}")
    with connected(path, program) as client:
        client.settimeout(PATIENCE)
        client.sendall(b"\x05\x01\x00")
        assert client.recv(2) == b"\x05\xff"
    with socket.create_server(("127.0.0.1", 0)) as other, connected(path, program) as client:
        assert way_out(client, b"sue", other.getsockname()[1]) == "127.0.0.11"
    with connected(path, program) as client:
        assert way_out(client, b"bob", shouter) == "127.0.0.12"
        client.sendall(b"hello")
        assert client.recv(100) == b"HELLO"
    program.stop()
    log = (tmp_path / "access.log").read_text("utf-8")
    for name, address in (("bob", "127.0.0.12"), ("sue", "127.0.0.11")):
        assert re.search(rf'"user":"{name}".*"outgoing":"{address}:', log)


@needs_ipv6
def test_exit_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What each of them has, as the file says it."""
    config = str(here("exit.toml", tmp_path))
    for name, way, limits in (
        ("bob", "127.0.0.12, ::1", "sessions 200, download 10 MB/s"),
        ("backup", "127.0.0.13, ::1", "sessions 4, upload 20 MB/s, download 500 kB/s"),
        ("sue", "127.0.0.11, ::1", "sessions 20, download 500 kB/s"),
    ):
        assert main(["explain", config, "--user", name, "connect", "203.0.113.9:443"]) == 0
        told = capsys.readouterr().out.splitlines()
        assert told[1:3] == [f"  from {way}", f"  limits of user {name}: {limits}"]
