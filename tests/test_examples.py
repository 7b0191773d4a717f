"""The examples of the documentation, run as they are."""

from __future__ import annotations

import hmac
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from twisted.internet.task import Clock

from socksproxy import Address, Client, Command
from socksproxy.auth import ISOCKSUser, Password
from socksproxy.auth.checkers.htpasswd import new_hash

from .support.modules import module_at
from .support.origin import connect_through, connected, exactly, logged_in, requested, shouter
from .support.processes import PATIENCE, TWISTD, Program

__all__ = ["shouter"]  # a fixture

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


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


# With users.


@pytest.fixture
def run_example(
    start: Callable[..., Program],
) -> Callable[[str], tuple[Program, Callable[[], socket.socket]]]:
    """``run_example(name)``: the running program, and what connects to it."""

    def run(name: str) -> tuple[Program, Callable[[], socket.socket]]:
        program = start([sys.executable, str(EXAMPLES / name), "tcp:0:interface=127.0.0.1"])
        number = int(program.wait_for(r"listening on .*port=(\d+)")[1])
        return program, lambda: socket.create_connection(("127.0.0.1", number), PATIENCE)

    return run


def test_realm(shouter: int, run_example: Any) -> None:
    """Each user has rights of their own, and each session is counted to its end."""
    program, connect = run_example("realm.py")
    with connect() as client:
        assert connect_through(client, shouter, (b"alice", b"opensesame")) == b"HELLO"
    program.wait_for("alice has left, sessions: 0")
    for name, password, port, reply in [
        (b"bob", b"hunter2", shouter, 2),
        (b"bob", b"hunter2", 443, 2),
        (b"carol", b"swordfish", 443, 2),
    ]:
        with connect() as client:
            assert logged_in(client, (name, password))
            assert requested(client, port) == reply
        program.wait_for(f"{name.decode()} has left, sessions: 0")
    with connect() as client:
        assert not logged_in(client, (b"alice", b"hunter2"))
    with connect() as client:
        assert not logged_in(client, None)


def test_realm_waits(shouter: int, run_example: Any) -> None:
    """The user whose rights somebody else knows gets through, too."""
    program, connect = run_example("realm.py")
    with connect() as client:
        assert connect_through(client, shouter, (b"carol", b"swordfish")) == b"HELLO"
    program.wait_for("carol has left, sessions: 0")


@pytest.fixture
def realm() -> ModuleType:
    """``docs/examples/realm.py``."""
    return module_at(EXAMPLES / "realm.py")


@pytest.mark.parametrize(
    ("hosts", "port", "permitted"),
    [
        (["example.com", "192.0.2.1", "2001:db8::1"], 443, True),
        (["www.example.com", "192.0.2.1"], 443, True),
        (["www.example.com"], 80, False),
        (["notexample.com", "192.0.2.1"], 443, False),
        (["example.com.example.org"], 443, False),
        (["192.0.2.1"], 443, False),
    ],
)
def test_realm_by_name(realm: ModuleType, hosts: list[str], port: int, permitted: bool) -> None:
    """The user who may reach a few names may reach their addresses, if the session has asked for the name."""
    client = Client("192.0.2.9", 4711)
    avatars: list[Any] = []
    portal = realm.make_portal(Clock())
    portal.login(Password(b"bob", b"hunter2"), client, ISOCKSUser).addCallback(avatars.append)
    [(_, bob, logout)] = avatars
    answers = {bob.permits(client, Command.CONNECT, Address.of(host, port)) for host in hosts}
    assert answers == {permitted}
    assert not bob.permits(client, Command.UDP_ASSOCIATE, Address.of(hosts[0], port))
    assert portal.realm.sessions["bob"] == 1
    logout()
    assert portal.realm.sessions["bob"] == 0


def test_realm_tac(shouter: int, tmp_path: Path, start: Callable[..., Program]) -> None:
    """Who copies the .tac file has a proxy that knows its users, and the ports of each."""
    htpasswd, path = tmp_path / "htpasswd", tmp_path / "socks"
    lines = [f"{name}:{new_hash(b'secret', cost=4).decode()}\n" for name in ("alice", "bob", "eve")]
    htpasswd.write_text("".join(lines))
    htpasswd.chmod(0o600)
    program = start(
        [*TWISTD, "--pidfile=", "-ny", str(EXAMPLES / "realm.tac")],
        {"SOCKS_LISTEN": f"unix:{path}", "SOCKS_HTPASSWD": str(htpasswd)},
    )
    with connected(path, program) as client:
        assert connect_through(client, shouter, (b"alice", b"secret")) == b"HELLO"
    for name in (b"bob", b"eve"):
        with connected(path, program) as client:
            assert logged_in(client, (name, b"secret"))
            assert requested(client, shouter) == 2
    with connected(path, program) as client:
        assert not logged_in(client, (b"alice", b"Secret"))


@pytest.mark.parametrize("pieces", [1, 2, 20])
def test_method(shouter: int, run_example: Any, pieces: int) -> None:
    """A method that we know nothing of, its messages whole and in pieces."""
    program, connect = run_example("method.py")
    with connect() as client:
        client.settimeout(PATIENCE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"\x05\x03\x00\x02\x80")
        assert exactly(client, 2) == b"\x05\x80"
        answer = b"\x03bob" + hmac.digest(b"secret", exactly(client, 16), "sha256")
        size = -(-len(answer) // pieces)
        for at in range(0, len(answer), size):
            client.sendall(answer[at : at + size])
        assert exactly(client, 1) == b"\x00"
        assert requested(client, shouter) == 0
        client.sendall(b"hello")
        assert exactly(client, 5) == b"HELLO"
        assert client.recv(1) == b""  # the destination is the first to close
    program.wait_for("bob challenge destination")


@pytest.mark.parametrize("name", [b"bob", b"eve"])
def test_method_wrong(run_example: Any, name: bytes) -> None:
    """A wrong answer is told in the method's own words; methods that are not there are not chosen."""
    program, connect = run_example("method.py")
    with connect() as client:
        client.settimeout(PATIENCE)
        client.sendall(b"\x05\x01\x80")
        assert exactly(client, 2) == b"\x05\x80"
        exactly(client, 16)
        client.sendall(bytes((len(name),)) + name + bytes(32))
        assert client.recv(10) == b"\x01"
        assert client.recv(10) == b""
    program.wait_for("None challenge refused: not authenticated")
    with connect() as client:
        client.settimeout(PATIENCE)
        client.sendall(b"\x05\x02\x00\x02")
        assert exactly(client, 2) == b"\x05\xff"
