"""The list of all nodes: see :mod:`socksproxy.admin.nodes`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from socksproxy import SOCKSFactory
from socksproxy.admin.control import Control, LocalAsker
from socksproxy.admin.nodes import row_of, text_of, told_of, usual_hash
from socksproxy.settings import ServerSettings
from socksproxy.shared.nodes import LONGEST, announce
from socksproxy.values.shared import NodeSettings, own_name
from tests.support.admin import administered, asks
from tests.support.proxy import Playing, reactor, until
from tests.support.stores import CALM, Nodes
from tests.support.valkey import Valkey

NOTHING = dict.fromkeys(
    (
        *("state", "why", "drain", "version", "sessions", "uptime", "hash", "loaded", "waiting", "error"),
        *("failed", "admin", "namesake"),
    )
)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    yield server
    server.stop()


class Refusing(Control):
    """A control whose last reload has failed."""

    words = "socks.toml:1: wrong \udcff" + "ü" * 500

    def node(self) -> NodeSettings:
        return NodeSettings(name="n1", admin="http://" + "x" * 290)

    def config(self) -> dict[str, Any]:
        failed = {"time": 1.0, "mistakes": [self.words, "another"]}
        return {"file": "socks.toml", "hash": "ab" * 32, "loaded": 7.0, "failed": failed}


@pytest_twisted.inlineCallbacks
def test_told() -> Playing:
    """What a node tells is read again as it was, and is never too long."""
    control = Refusing(reactor, 1, LocalAsker(SOCKSFactory(reactor)))
    told = yield told_of(control)
    assert (told["state"], told["sessions"], told["hash"], told["loaded"]) == ("running", 0, "ab" * 32, 7.0)
    assert (told["error"], told["failed"]) == (Refusing.words[:200], 1.0)
    text = text_of(told)
    assert len(text.encode()) < LONGEST
    assert row_of(text, 1.5) == {**told, "uptime": round(told["uptime"] + 1.5, 3)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[1]",
        '"running"',
        "[" * 2000,
        '{"state": 1, "sessions": "x", "uptime": true, "hash": ["a"], "admin": 5}',
        '{"sessions": -1, "uptime": NaN, "loaded": 1e999}',
        '{"sessions": 1.5, "uptime": Infinity, "loaded": ' + "9" * 1000 + "}",
        '{"admin": "/run/socksproxy/admin.sock"}',
        '{"admin": "unix:/run/socksproxy/admin.sock"}',
        json.dumps({"state": "x" * 301}),
    ],
)
def test_garbage(text: str) -> None:
    """What makes no sense is not known, and an answer can always be written."""
    assert row_of(text, 1.0) == NOTHING


def test_a_later_version() -> None:
    """What this version does not know is left out."""
    row = row_of('{"state": "resting", "sessions": 5, "colour": "red"}', 0.0)
    assert row == {**NOTHING, "state": "resting", "sessions": 5}


def _row(hash: str | None, loaded: float | None = 1.0, alive: bool = True) -> dict[str, Any]:
    return {"hash": hash, "loaded": loaded, "alive": alive}


@pytest.mark.parametrize(
    ("rows", "usual"),
    [
        ([], None),
        ([_row(None)], None),
        ([_row("a"), _row("b", 2.0), _row("b")], "b"),
        ([_row("a"), _row("b", 2.0)], "b"),
        ([_row("a", 3.0), _row("b", None)], "a"),
        ([_row("a"), _row("b", alive=False), _row("b", alive=False)], "a"),
    ],
)
def test_usual_hash(rows: list[dict[str, Any]], usual: str | None) -> None:
    assert usual_hash(rows) == usual


def ask(path: Path, where: str = "/v1/nodes") -> Deferred[Any]:
    return deferToThread(lambda: asks(path, "GET", where).body)


@pytest_twisted.inlineCallbacks
def test_no_store(tmp_path: Path) -> Playing:
    """A server that shares no store is the only node that it knows."""
    with administered(SOCKSFactory(reactor), tmp_path / "admin"):
        answer = yield ask(tmp_path / "admin")
        (row,) = answer["nodes"]
        assert (answer["node"], answer["store"], row["name"]) == (own_name(), "none", own_name())
        assert (row["state"], row["sessions"], row["alive"], row["seen"]) == ("running", 0, True, 0.0)
        status = yield ask(tmp_path / "admin", "/v1/status")
        assert status["node"] == own_name()


@pytest_twisted.inlineCallbacks
def test_all(valkey: Valkey, tmp_path: Path) -> Playing:
    """All nodes are listed: this one as it is, others as they have told, an old one by its column."""
    nodes = Nodes(valkey.url, 3, CALM)
    yield nodes.start()
    own, two, _ = nodes.stores
    yield announce(own, b'{"sessions": 999, "namesake": "process 7 on web3"}')
    yield announce(two, b'{"state": "draining", "sessions": 5, "uptime": 60, "hash": "cd"}')
    client = valkey.client()
    client.zadd("sp:{socks}:1:told", {"n4": float(client.zscore("sp:{socks}:1:told", "n2")) - 12_000})
    factory = SOCKSFactory(reactor, ServerSettings(shared=own))
    path = tmp_path / "admin"
    with administered(factory, path):
        answer = yield ask(path)
        assert (answer["node"], answer["store"], answer["hash"], answer["missing"]) == ("n1", "up", "cd", [])
        rows = {row["name"]: row for row in answer["nodes"]}
        assert list(rows) == ["n1", "n2", "n3", "n4"]
        assert (rows["n1"]["sessions"], rows["n1"]["in_step"]) == (0, None)
        assert [rows[name]["namesake"] for name in ("n1", "n2", "n3")] == ["process 7 on web3", None, None]
        assert (rows["n2"]["state"], rows["n2"]["sessions"], rows["n2"]["in_step"]) == ("draining", 5, True)
        assert rows["n2"]["uptime"] >= 60
        assert (rows["n3"]["state"], rows["n3"]["seen"], rows["n3"]["alive"]) == (None, None, True)
        assert (rows["n4"]["alive"], rows["n4"]["processes"]) == (False, 0)
        assert 12 <= rows["n4"]["seen"] < 60
        valkey.kill()
        yield until(lambda: not own.up)
        answer = yield ask(path)
        assert (answer["store"], [row["name"] for row in answer["nodes"]]) == ("down", ["n1"])
    yield nodes.stop()
