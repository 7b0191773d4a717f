"""Whole servers that share a Valkey: workers, the start with a wrong store, a reload, the end."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.origin import Origin, echo
from tests.support.processes import Program
from tests.support.proxy import PATIENCE, ask5
from tests.support.sharing import until
from tests.support.valkey import Valkey

Twistd = Callable[..., Program]
CONFIG = """
[listeners]
listen = ["tcp:0:interface=127.0.0.1"]
[workers]
workers = {workers}
[node]
name = "{name}"
[shared]
store = "unix://{path}"
{more}
[limits.network]
sessions = {sessions}
"""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


class Node:
    """A server of its own."""

    def __init__(self, twistd: Twistd, valkey: Valkey, name: str, workers: int = 1) -> None:
        self._file = valkey.directory / f"{name}.toml"
        self._words = {"name": name, "workers": workers, "path": valkey.path, "more": ""}
        self.write(3)
        self.program = twistd("socks", "--config", str(self._file))
        self.port = int(self.program.wait_for(r"listening on .*127\.0\.0\.1[: ](?:port )?(\d+)")[1])

    def write(self, sessions: int) -> None:
        self._file.write_text(CONFIG.format(**self._words, sessions=sessions))

    def reload(self, sessions: int) -> None:
        """Have another limit in force."""
        self.write(sessions)
        before = self.said("reloaded")
        self.program.process.send_signal(signal.SIGHUP)
        until(lambda: self.said("reloaded") > before)

    def said(self, words: str) -> int:
        """How often it has said that."""
        self.program.read()
        return self.program.output.count(words)

    @property
    def outages(self) -> int:
        """How often the store has been down for one of its processes."""
        return self.said("until it answers")

    @property
    def up(self) -> bool:
        """Whether all of its processes have the store: the last that each has said of it."""
        self.program.read()
        last = dict(re.findall(r"(worker \d+: )?the shared store .*(until|again)", self.program.output))
        return "until" not in last.values()

    def ask(self, origin: Origin, socks: ExitStack) -> int:
        sock = socks.enter_context(socket.create_connection(("127.0.0.1", self.port), PATIENCE))
        return ask5(sock, "127.0.0.1", origin.port)[0]


def counted(valkey: Valkey) -> list[str]:
    """What the store counts of sessions now; columns without a lease count no more."""
    client = valkey.client()
    columns = client.zrange("sp:{socks}:1:nodes", 0, -1)
    rows = [client.hmget(key, columns) for key in client.keys("sp:{socks}:1:n:*")]
    return [number for row in rows for number in row if number is not None]


def test_two_nodes(twistd: Twistd, valkey: Valkey, origin: Origin) -> None:
    """Limits hold over nodes and their workers; a reload changes them; a node that ends counts no more."""
    one, other = nodes = Node(twistd, valkey, "one", workers=2), Node(twistd, valkey, "other")
    for _ in range(5):
        outages = [node.outages for node in nodes]
        with ExitStack() as socks:
            before = [node.ask(origin, socks) for node in (one, other, one, other, one)]
            one.reload(5)
            after = [one.ask(origin, socks) for _ in range(3)]
            if [node.outages for node in nodes] == outages:
                assert (before, after) == ([0, 0, 0, 2, 2], [0, 0, 2])
                valkey.kill()
                assert other.ask(origin, socks) == 2
                break
        # On a busy machine the store may count as down for a second: each node judges alone then.
        one.reload(3)
        until(lambda: all(node.up for node in nodes) and not counted(valkey))
    else:
        raise AssertionError("the store was late in all rounds")
    other.program.stop()
    assert "Traceback" not in one.program.output + other.program.output


@pytest.mark.parametrize("workers", [1, 2])
def test_wrong_password(twistd: Twistd, valkey: Valkey, workers: int) -> None:
    """The start ends with one line and status 1; a server that does not need the store starts."""
    valkey.client().config_set("requirepass", "right")
    file = valkey.directory / "node.toml"
    words = {"name": "one", "workers": workers, "path": valkey.path, "sessions": 3}
    file.write_text(CONFIG.format(**words, more=""))
    program = twistd("socks", "--config", str(file))
    assert program.wait() == 1
    lines = [line for line in program.output.splitlines() if "shared store" in line]
    assert len(lines) == 1
    assert re.search(r"the shared store \S+valkey\.sock: refuses the login", lines[0])
    if workers > 1:
        return
    file.write_text(CONFIG.format(**words, more="required = false\nnodes = 2"))
    program = twistd("socks", "--config", str(file))
    program.wait_for(r"refuses the login .*until it answers")
