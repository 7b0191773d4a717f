"""Requests to the admin API of one node that all nodes obey."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread

from socksproxy import SOCKSFactory
from socksproxy.admin.control import Control, LocalAsker
from socksproxy.identity import Client
from socksproxy.settings import ServerSettings
from socksproxy.shared.commands import Deed, NodeCommand
from tests.support.admin import Told, administered, asks
from tests.support.proxy import Playing, reactor, until
from tests.support.stores import Nodes
from tests.support.valkey import Valkey


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socksproxy.shared.commands.LOOKS_EVERY", 0.05)


class Reloads(Control):
    """A control that can reload, of a server that is drained."""

    def state(self) -> tuple[str, str | None]:
        return "draining", "draining"

    def reload(self) -> Deferred[list[str]]:
        return succeed(["a rule"])


def factory_of(store: Any) -> SOCKSFactory:
    return SOCKSFactory(reactor, ServerSettings(shared=store))


def session_of(factory: SOCKSFactory, user: str) -> Any:
    """A session of *user* that is there until it is aborted."""
    live: dict[Any, None] = factory.sessions.live
    session: Any = Mock(client=Client("192.0.2.1", 1024, user))
    session.abort = lambda cause: live.pop(session)
    live[session] = None
    return session


@pytest_twisted.inlineCallbacks
def test_all_nodes(valkey: Valkey, tmp_path: Path) -> Playing:
    """A user is kicked on all nodes, a reload is asked of all, and an unlock is told to all."""
    nodes = Nodes(valkey.url, 2)
    yield nodes.start()
    yield until(lambda: all(store.commands._position for store in nodes.stores))
    one, other = map(factory_of, nodes.stores)
    obeyed: list[NodeCommand] = []
    for deed in (Deed.RELOAD, Deed.UNLOCK):
        nodes.stores[1].commands.obey[deed] = obeyed.append
    for user in ("bob", "ann"):
        session_of(other, user)
    control = Reloads(reactor, 1, LocalAsker(one))
    path = tmp_path / "admin.sock"

    def ask(method: str, where: str, body: Any = None) -> Deferred[Told]:
        return deferToThread(asks, path, method, where, body)

    with administered(one, path, control=control):
        told = yield ask("POST", "/v1/users/bob/kick", {"nodes": "this"})
        assert told.body == {"ended": 0, "missing": []}
        told = yield ask("POST", "/v1/users/bob/kick")
        assert told.body == {"ended": 0, "missing": [], "nodes": "all"}
        yield until(lambda: len(other.sessions.live) == 1)
        assert [session.client.user for session in other.sessions.live] == ["ann"]
        told = yield ask("POST", "/v1/reload")
        assert told.body == {"changes": ["a rule"]}
        told = yield ask("POST", "/v1/reload", {"nodes": "all"})
        assert told.body == {"changes": ["a rule"], "nodes": "all"}
        told = yield ask("DELETE", "/v1/lockouts/192.0.2.1?nodes=this")
        assert told.status == 404
        told = yield ask("DELETE", "/v1/lockouts/192.0.2.1")
        assert told.body == {"unlocked": 0, "missing": [], "nodes": "all"}
        yield until(lambda: len(obeyed) == 2)
        assert [(told.deed, told.about) for told in obeyed] == [
            (Deed.RELOAD, ""),
            (Deed.UNLOCK, "192.0.2.1"),
        ]
        assert all(told.by for told in obeyed)
        told = yield ask("POST", "/v1/users/bob/kick", {"nodes": "some"})
        assert told.status == 400
        # Without the store, this node does what it can, and says so.
        valkey.kill()
        yield until(lambda: not nodes.one.up)
        told = yield ask("POST", "/v1/users/bob/kick")
        assert (told.status, told.body["nodes"]) == (200, "this")
        told = yield ask("POST", "/v1/users/bob/kick", {"nodes": "all"})
        assert (told.status, told.body["ended"]) == (503, 0)
        assert "the shared store is down" in told.body["error"]
        told = yield ask("DELETE", "/v1/lockouts/192.0.2.1")
        assert told.status == 404
        assert told.body["error"].endswith("the others are not told: the shared store is down")
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_no_store(tmp_path: Path) -> Playing:
    """A server that shares no store has no other nodes."""
    path = tmp_path / "admin.sock"
    factory = SOCKSFactory(reactor)

    def ask(method: str, where: str, body: Any = None) -> Deferred[Told]:
        return deferToThread(asks, path, method, where, body)

    with administered(factory, path):
        told = yield ask("POST", "/v1/users/bob/kick")
        assert told.body == {"ended": 0, "missing": []}
        told = yield ask("POST", "/v1/users/bob/kick", {"nodes": "all"})
        assert told.status == 409
        assert "[shared]" in told.body["error"]
