"""Two whole servers that share a Valkey, one of them with workers, and ``ctl`` for both."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from socksproxy.auth.checkers.htpasswd import new_hash
from socksproxy.ctl.fleet import STORE_DOWN
from tests.service.test_holders import session
from tests.support.admin import asks
from tests.support.ctl import Operator
from tests.support.origin import Origin, echo
from tests.support.processes import Program
from tests.support.proxy import echoes
from tests.support.valkey import Valkey
from tests.support.workers import LISTENING, until

Twistd = Callable[..., Program]

_COMMON = """
[listeners]
listen = ["tcp:0:interface=127.0.0.1"]
[shared]
store = "unix://{store}"
[limits.user]
daily = "1 GB"
[users.bob]
password = "{hash}"
[users.ann]
password = "{hash}"
"""

_NODE = """
[node]
name = "{name}"
admin = "http://127.0.0.1:{port}"
[workers]
workers = {workers}
[limits]
quota-file = "{directory}/{name}.sqlite"
[[admin.listener]]
endpoint = "unix:{directory}/{name}.sock"
[[admin.listener]]
endpoint = "tcp:{port}:interface=127.0.0.1"
level = "admin"
token-file = "{directory}/token"
"""


class Node:
    """A server of its own; its admin listener at an address has a port that nobody else gets."""

    def __init__(self, twistd: Twistd, directory: Path, name: str, workers: int = 1) -> None:
        self.held = socket.socket()
        self.held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.held.bind(("127.0.0.1", 0))
        port = self.held.getsockname()[1]
        words = {"name": name, "port": port, "workers": workers, "directory": directory}
        self.admin = directory / f"{name}.sock"
        own = directory / f"{name}.toml"
        own.write_text(_NODE.format(**words))
        self.program = twistd(
            *("socks", "--config", str(directory / "common.toml"), "--node", str(own)),
            *("--config-interval", "0.2"),
        )
        self.port = int(self.program.wait_for(LISTENING)[1])


class Pair:
    """Two nodes, and an operator who is at the first one."""

    def __init__(self, twistd: Twistd, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.valkey = Valkey(directory)
        (directory / "token").write_text("0123456789abcdef\n")
        hashed = new_hash(b"pw", 4).decode()
        self.config = _COMMON.format(store=self.valkey.path, hash=hashed)
        (directory / "common.toml").write_text(self.config)
        self.one, self.two = Node(twistd, directory, "n1"), Node(twistd, directory, "n2", 2)
        self._ctl = Operator(capture, self.one.admin)
        until(lambda: [row["state"] for row in self.nodes().values()] == ["running", "running"])

    def ctl(self, *arguments: str) -> tuple[int, str, str]:
        """What ``ctl`` prints, with the token; on a busy machine the store may be late for a moment."""
        until(lambda: STORE_DOWN not in self.at_once(*arguments)[2])
        return self.last

    def at_once(self, *arguments: str) -> tuple[int, str, str]:
        """The same, also if the store is down."""
        self.last = self._ctl(*arguments, "--token-file", self.directory / "token")
        return self.last

    def got(self, *arguments: str) -> Any:
        """The JSON that ``ctl`` prints."""
        status, told, complaints = self.ctl(*arguments, "--json")
        assert (status, complaints) == (0, "")
        return json.loads(told)

    def nodes(self) -> dict[str, Any]:
        """All nodes, by their names."""
        return {row["name"]: row for row in self.got("nodes")["nodes"]}

    def push(self, config: str) -> str:
        """Give all nodes another configuration; returns its hash."""
        (self.directory / "new").write_text(config)
        os.replace(self.directory / "new", self.directory / "common.toml")
        return sha256(config.encode()).hexdigest()

    def stop(self) -> None:
        """End the store; the fixture ends the servers."""
        self.valkey.stop()
        self.one.held.close()
        self.two.held.close()


@pytest.fixture
def pair(twistd: Twistd, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Pair]:
    pair = Pair(twistd, tmp_path, capsys)
    yield pair
    pair.stop()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


def test_all_nodes(pair: Pair, origin: Origin) -> None:
    """Sessions, users and usage of both nodes are listed in one; each node can be asked by its name."""
    with ExitStack() as stack:
        for node, user in ((pair.one, b"bob"), (pair.two, b"bob"), (pair.two, b"ann")):
            echoes(stack.enter_context(session(node.port, origin.port, user)), b"x" * 100)
        until(lambda: pair.nodes()["n2"]["sessions"] == 2)
        assert pair.nodes()["n2"]["processes"] == 2
        answer = pair.got("sessions", "--all-nodes", "--sort", "bytes")
        assert (answer["total"], answer["nodes"]) == (3, ["n1", "n2"])
        assert (answer["silent"], answer["missing"]) == ({}, [])
        found = sorted((row["node"], row["user"]) for row in answer["sessions"])
        assert found == [("n1", "bob"), ("n2", "ann"), ("n2", "bob")]
        lines = pair.ctl("sessions", "--all-nodes", "--user", "ann")[1].splitlines()
        assert [line.split()[0] for line in lines] == ["NODE", "n2"]
        users = {row["user"]: row for row in pair.got("users", "--all-nodes")["users"]}
        assert (users["bob"]["sessions"], users["bob"]["nodes"]) == (2, ["n1", "n2"])
        assert (users["bob"]["sent"], users["ann"]["nodes"]) == (200, ["n2"])
        assert pair.got("status", "--node", "n2")["node"] == "n2"
        assert pair.got("status", "--node", "n1")["node"] == "n1"
        (id_,) = [row["id"] for row in answer["sessions"] if row["user"] == "ann"]
        assert pair.ctl("show", id_)[0] == 1
        assert pair.got("show", "--node", "n2", id_)["user"] == "ann"
        assert pair.ctl("kill", "--node", "n2", id_)[:2] == (0, "1 sessions ended\n")
        matched = pair.got("kill", "--all-nodes", "--user", "bob", "--dry-run")
        assert (matched["matched"], list(matched["nodes"])) == (2, ["n1", "n2"])
        pair.ctl("kill", "--all-nodes", "--user", "bob", "--yes")
        until(lambda: pair.got("sessions", "--all-nodes")["total"] == 0)
    hashes = {row["hash"][:8] for row in pair.nodes().values()}
    told = pair.ctl("reload", "--all-nodes", "--timeout", "90")
    assert told == (0, f"n1: nothing has changed\nn2: {hashes.pop()} is in force\n", "")
    until(lambda: len(pair.got("usage", "--all-nodes")) == 3)
    rows = [(row["holder"], row["node"], row["bytes"]) for row in pair.got("usage", "--all-nodes")]
    assert rows == [("user ann", "n2", 200), ("user bob", "n1", 200), ("user bob", "n2", 200)]
    last = pair.ctl("usage", "--all-nodes")[1].splitlines()[-1]
    assert last.split()[-5:] == ["user", "bob", "400", "B", "(all)"]
    assert '"user bob",200,n1' in pair.ctl("usage", "--all-nodes", "--csv")[1]


def test_bad_configuration(pair: Pair) -> None:
    """A bad configuration changes no node, and both tell it; n2 is shown when it alone refuses one."""
    good = sha256(pair.config.encode()).hexdigest()
    pair.push(f'{pair.config}[timeouts]\nidle-timeout = "soon"\n')
    until(lambda: all(row["error"] for row in pair.nodes().values()))
    nodes = pair.nodes()
    assert {row["hash"] for row in nodes.values()} == {good}
    status, told, _ = pair.ctl("nodes")
    assert status == 0
    for name in nodes:
        assert f"{name}: refuses the new configuration: " in told
    assert "[timeouts] idle-timeout" in told
    assert f"  {good[:8]}  " in told
    new = pair.push(pair.config + "[limits.network]\nsessions = 9\n")
    until(lambda: all(row["hash"] == new and not row["error"] for row in pair.nodes().values()))
    # What n2 alone has makes it refuse the next one.
    own = pair.directory / "n2.toml"
    own.write_text(own.read_text() + "[timeouts]\nidle-timeout = -5\n")
    newer = pair.push(pair.config + "[limits.network]\nsessions = 8\n")
    until(lambda: pair.nodes()["n1"]["hash"] == newer and pair.nodes()["n2"]["error"])
    nodes = pair.nodes()
    assert (nodes["n2"]["hash"], nodes["n2"]["in_step"], nodes["n1"]["in_step"]) == (new, False, True)
    told = pair.ctl("nodes")[1]
    assert "n2: has another configuration than n1" in told
    assert "n2: refuses the new configuration: " in told


def test_drain(pair: Pair, origin: Origin) -> None:
    """A node is drained by its name under load: no session fails. Once it has stopped, it is not listed."""
    outcomes: Counter[str] = Counter()
    stopping = threading.Event()

    def work() -> None:
        """As a balancer does: to n2 as long as it is ready, then to n1."""
        while not stopping.is_set():
            ready = asks(pair.two.admin, "GET", "/readyz").status == 200
            try:
                with session((pair.two if ready else pair.one).port, origin.port) as client:
                    echoes(client)
                    outcomes["n2" if ready else "n1"] += 1
            except Exception as problem:
                outcomes[repr(problem)] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: outcomes["n2"] > 20)
        drained = pair.ctl("drain", "--node", "n2", "60", "--notice", "5", "--wait", "--timeout", "60")
        assert drained == (0, "drained\n", "")
        before = outcomes["n1"]
        until(lambda: outcomes["n1"] > before + 20)
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    assert set(outcomes) == {"n1", "n2"}
    until(lambda: pair.nodes()["n2"]["drain"] == "closed")
    assert (pair.nodes()["n2"]["sessions"], pair.nodes()["n2"]["state"]) == (0, "draining")
    assert pair.ctl("undrain", "--node", "n2")[0] == 0
    until(lambda: pair.nodes()["n2"]["state"] == "running")
    pair.two.program.stop()
    until(lambda: list(pair.nodes()) == ["n1"])


def test_gone(pair: Pair) -> None:
    """A node that is killed is shown as gone; without the store a node knows itself alone."""
    pair.two.program.process.send_signal(signal.SIGKILL)
    pair.two.program.process.wait()
    until(lambda: not pair.nodes()["n2"]["alive"])
    assert "n2: gone, last seen " in pair.ctl("nodes")[1]
    status, _, complaints = pair.ctl("users", "--all-nodes")
    assert (status, complaints.startswith("socksproxy ctl: without n2: gone, last seen ")) == (5, True)
    assert pair.ctl("status", "--node", "n2")[0] == 3
    words = "socksproxy ctl: n3: there is no such node; there are n1, n2\n"
    assert pair.ctl("status", "--node", "n3") == (1, "", words)
    pair.valkey.kill()
    until(lambda: pair.at_once("nodes")[0] == 5)
    assert [line.split()[0] for line in pair.last[1].splitlines()] == ["NODE", "n1"]
    assert pair.last[2] == f"socksproxy ctl: {STORE_DOWN}\n"
    assert pair.at_once("sessions", "--all-nodes")[0] == 5
    assert pair.at_once("status", "--node", "n1")[0] == 0
