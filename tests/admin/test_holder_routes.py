"""The routes of users: see :mod:`socksproxy.admin.holder_routes`; ``tests/service`` has the rest of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from socksproxy import SOCKSFactory
from socksproxy.identity import Client

from ..conftest import Serve
from ..support.admin import administered, asks
from ..support.origin import Origin, echo
from ..support.proxy import Playing, Proxy, ask_as, reactor, until
from ..support.sessions import ends
from ..support.users import portal_of


@pytest.mark.parametrize("name", ["a\nb\x1b[2J", "%/?&", "x" * 255])
@pytest_twisted.inlineCallbacks
def test_names(name: str, serve_as: Serve, tmp_path: Path) -> Playing:
    """A user is found under any name, as it is and as it is shown, also when the sessions have ended."""
    proxy: Proxy = yield serve_as(portal=portal_of(**{name: None, "bob": None}))
    path = tmp_path / "admin"
    with administered(proxy.factory, path), Origin(echo) as origin:
        yield proxy.play(asks, path, "GET", "/v1/users")  # logins are noted from now on
        with proxy.connect() as bob, proxy.connect() as client:
            assert (yield proxy.play(ask_as, bob, b"bob", origin.port)) == 0
            assert (yield proxy.play(ask_as, client, name.encode(), origin.port)) == 0
            rows = (yield proxy.play(asks, path, "GET", "/v1/users?sort=name")).body["users"]
            (shown,) = {row["user"] for row in rows} - {"bob"}
            assert shown.isprintable()
            for each in (name, shown):
                told = yield proxy.play(asks, path, "GET", f"/v1/users/{quote(each, safe='')}")
                assert (told.status, told.body["user"], told.body["sessions"]) == (200, shown, 1)
            kick = f"/v1/users/{quote(shown, safe='')}/kick"
            assert (yield proxy.play(asks, path, "POST", kick)).body["ended"] == 1
            assert (yield proxy.play(ends, client))
            assert len(proxy.sessions.live) == 1
        yield until(lambda: not proxy.sessions.live)
        for each in (name, shown):
            told = yield proxy.play(asks, path, "GET", f"/v1/users/{quote(each, safe='')}")
            assert (told.status, told.body["sessions"]) == (200, 0)
            assert told.body["last_seen"] > 0
        assert (yield proxy.play(asks, path, "GET", "/v1/users/eve")).status == 404


@pytest_twisted.inlineCallbacks
def test_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Users are told page by page, in the order of their names; the total counts all."""
    monkeypatch.setattr("socksproxy.admin.holder_routes._LEAST_USERS", 1)
    monkeypatch.setattr("socksproxy.admin.holder_routes.MOST_TOLD", 2)
    factory, path = SOCKSFactory(reactor), tmp_path / "admin"
    for number, name in enumerate("edcba"):
        session = Mock(client=Client("192.0.2.1", 1024, name), service=None, number=(1, 1, number), began=0.0)
        factory.sessions.live[session] = None

    def page(query: str) -> Deferred[Any]:
        return deferToThread(asks, path, "GET", f"/v1/users?{query}")

    with administered(factory, path):
        found: list[str] = []
        for beyond in ("", "&beyond=b", "&beyond=d"):
            told = (yield page(f"sort=name&limit=2{beyond}")).body
            assert told["total"] == 5 - len(found)
            found += [row["user"] for row in told["users"]]
        assert "".join(found) == "abcde"
        assert (yield page("sort=rate&limit=2")).body["total"] == 5
        assert (yield page("beyond=b")).status == 400
    factory.sessions.live.clear()


@pytest.mark.parametrize(
    ("method", "where", "words"),
    [
        ("DELETE", "lockouts/x", "x: neither an address nor a local user such as uid 1000"),
        ("GET", "usage?from=2026-13", "from: not a month or a day such as 2026-11 or 2026-11-30"),
        ("GET", "usage?to=2026-12-32", "to: not a month or a day such as 2026-11 or 2026-11-30"),
        ("GET", "usage?from=2026-00", "from: not a month or a day such as 2026-11 or 2026-11-30"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_nonsense(method: str, where: str, words: str, tmp_path: Path) -> Playing:
    with administered(SOCKSFactory(reactor), tmp_path / "admin"):
        told = yield deferToThread(asks, tmp_path / "admin", method, f"/v1/{where}")
    assert (told.status, told.body) == (400, {"error": words})


@pytest.mark.parametrize("source", ["192.0.2.7", "2001:db8::1", "2001:db8::%2F64", "uid%201000"])
@pytest_twisted.inlineCallbacks
def test_unlock(source: str, tmp_path: Path) -> Playing:
    """What can be locked out can be asked for."""
    with administered(SOCKSFactory(reactor), tmp_path / "admin"):
        told = yield deferToThread(asks, tmp_path / "admin", "DELETE", f"/v1/lockouts/{source}")
    assert told.status == 404
