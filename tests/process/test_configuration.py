"""Servers that take their configuration from one URL (pitfall 31): signatures, waves, and what is wrong."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from socksproxy.service.following import turn
from socksproxy.sources.signing import signed
from tests.support.admin import asks
from tests.support.config_server import ConfigServer, config_server
from tests.support.processes import TWISTD, Program
from tests.support.sharing import until

KEY = Ed25519PrivateKey.generate()
BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
#: A node that goes first, and one that goes last.
FIRST, LAST = sorted((f"node{number}" for number in range(40)), key=turn)[::39]


def text(idle: int | str) -> bytes:
    return (
        '[listeners]\nlisten = ["tcp:0:interface=127.0.0.1"]\n'
        '[[admin.listener]]\nendpoint = "unix:admin.sock"\n'
        f"[timeouts]\nidle-timeout = {idle}\n"
    ).encode()


def content(idle: int | str, hours: int, key: Ed25519PrivateKey = KEY) -> bytes:
    return signed(text(idle), key, BEGAN + timedelta(hours=hours))


class Following:
    """A node that follows the URL."""

    def __init__(self, directory: Path, name: str, server: ConfigServer, spread: float) -> None:
        self.directory = directory / name
        self.directory.mkdir()
        (self.directory / "node.toml").write_text(f'[node]\nname = "{name}"\n')
        public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.directory / "key.pem").write_bytes(public)
        self._arguments = [
            *(f"--config={server.url}", f"--config-ca={server.ca_file}", "--config-state=state.toml"),
            *("--config-key=key.pem", "--node=node.toml", "--config-interval=0.1"),
            f"--config-spread={spread}",
        ]
        self.start()

    def start(self) -> None:
        self.program = Program([*TWISTD, "-n", "--pidfile=", "socks", *self._arguments], self.directory)
        self.program.wait_for("listening on tcp")

    @property
    def config(self) -> dict[str, Any]:
        told: dict[str, Any] = asks(self.directory / "admin.sock", "GET", "/v1/config").body
        return told

    @property
    def metrics(self) -> str:
        return asks(self.directory / "admin.sock", "GET", "/metrics").data.decode()

    @property
    def hash(self) -> str:
        found = re.search(r'socksproxy_config_info\{hash="(\w+)"\} 1', self.metrics)
        assert found
        return found[1]

    @property
    def problem(self) -> bool:
        return "\nsocksproxy_config_problem 1" in self.metrics


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture
def server(directory: Path) -> Iterator[ConfigServer]:
    (directory / "server").mkdir()
    with config_server(directory / "server", content(111, 0)) as served:
        yield served


@pytest.fixture
def follow(directory: Path, server: ConfigServer) -> Iterator[Callable[..., Following]]:
    """``follow(name, spread)``: a node; it is stopped after the test."""
    nodes: list[Following] = []

    def started(name: str, spread: float = 0.0) -> Following:
        nodes.append(Following(directory, name, server, spread))
        return nodes[-1]

    yield started
    for node in nodes:
        node.program.stop()
        assert "Traceback" not in node.program.output


def hash_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def test_pitfall_31(server: ConfigServer, follow: Callable[..., Following]) -> None:
    """
    What has a mistake, no signature, another key's or an old one changes no node, and a metric tells it. A
    node that is restarted meanwhile has the last good one, with the bad one there and without a network.
    """
    nodes = [follow("one"), follow("two")]
    server.content = content(222, 1)
    good = hash_of(server.content)
    until(lambda: [node.hash for node in nodes] == [good] * 2)
    states = [node.directory / "state.toml" for node in nodes]
    until(lambda: all(state.exists() and state.read_bytes() == server.content for state in states))
    for wrong, words in (
        (content('"soon"', 2), "idle-timeout"),
        (text(333), "has no signature"),
        (content(333, 2, Ed25519PrivateKey.generate()), "the signature does not fit"),
        (content(333, 2).replace(b"333", b"334"), "the signature does not fit"),
        (content(333, 0), "before the one in force"),
    ):
        server.content = wrong
        for node in nodes:
            until(lambda: words in (node.config["error"] or ""))  # noqa: B023 - it is called here
            assert node.problem
            assert node.hash == good
            assert node.config["hash"] == good
    one, two = nodes
    for node, answer in ((one, None), (two, lambda handler: None)):
        server.answer = answer
        node.program.stop()
        node.start()
        node.program.wait_for("the last good configuration is in force")
        assert node.hash == good
        assert node.problem
    server.answer = None
    server.content = content(333, 3)
    until(lambda: [node.hash for node in nodes] == [hash_of(server.content)] * 2)
    assert not any(node.problem for node in nodes)


def test_etag(server: ConfigServer, follow: Callable[..., Following]) -> None:
    """What has not changed is not sent again."""
    node = follow("one")
    until(lambda: server.statuses.count(304) > 3)
    assert server.statuses.count(200) == 1
    server.content = content(222, 1)
    until(lambda: node.hash == hash_of(server.content))
    count = len(server.statuses)
    until(lambda: len(server.statuses) > count + 3)
    assert server.statuses.count(200) == 2


def test_waves(server: ConfigServer, follow: Callable[..., Following]) -> None:
    """A new one comes to one node after the other; what is taken back does not reach the later ones."""
    old = hash_of(server.content)
    first, last = follow(FIRST, 60), follow(LAST, 60)
    server.content = content(222, 1)
    until(lambda: waits(last) == hash_of(server.content))
    until(lambda: first.hash == hash_of(server.content))
    assert last.hash == old
    # Back to the old one, signed anew.
    server.content = content(111, 2)
    until(lambda: waits(last) == hash_of(server.content))
    until(lambda: first.hash == hash_of(server.content))
    assert last.hash == old
    # Who asks for it does not wait.
    assert asks(last.directory / "admin.sock", "POST", "/v1/reload").status == 200
    assert last.hash == hash_of(server.content)


def waits(node: Following) -> str | None:
    """The hash of what waits for its turn."""
    waiting = node.config["waiting"]
    return None if waiting is None else str(waiting["hash"])
