"""The routes of the admin API, in one process: see :mod:`socksproxy.admin.api`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent

from socksproxy.admin.api import routes_of
from socksproxy.admin.control import control_of
from socksproxy.admin.settings import AdminLevel
from socksproxy.logs.debug import NAMES, SESSIONS
from socksproxy.server.factory import SOCKSFactory

from ..conftest import Serve
from ..support.admin import administered, asks, raw
from ..support.logs import log_publisher
from ..support.origin import Origin, echo
from ..support.proxy import Playing, Proxy, ask5, echoes, until
from ..support.sessions import connected, ends


@pytest_twisted.inlineCallbacks
def test_sessions(serve_as: Serve, tmp_path: Path) -> Playing:
    """A session is listed with what it does, found by its id, and gone when it was ended."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    with administered(proxy.factory, path), Origin(echo) as origin, proxy.connect() as client:
        yield proxy.play(ask5, client, "127.0.0.1", origin.port)
        yield proxy.play(echoes, client, b"12345")
        page = (yield proxy.play(asks, path, "GET", "/v1/sessions")).body
        (row,) = page.pop("sessions")
        assert page == {"total": 1, "live": 1, "cursor": None, "missing": []}
        assert (row["phase"], row["command"], row["version"]) == ("relaying", "CONNECT", 5)
        assert row["destination"] == row["reached"] == f"127.0.0.1:{origin.port}"
        assert (row["sent"], row["received"], row["user"], row["worker"]) == (5, 5, None, 0)
        assert row["client"] == f"127.0.0.1:{client.getsockname()[1]}"
        found = yield proxy.play(asks, path, "GET", f"/v1/sessions/{row['id']}")
        assert found.body["id"] == row["id"]
        status = (yield proxy.play(asks, path, "GET", "/v1/status")).body
        assert (status["state"], status["sessions"], status["phases"]) == ("running", 1, {"relaying": 1})
        ended = yield proxy.play(asks, path, "DELETE", f"/v1/sessions/{row['id']}")
        assert (ended.status, ended.body) == (200, {"ended": 1})
        assert (yield proxy.play(ends, client))
        for method in ("GET", "DELETE"):
            gone = yield proxy.play(asks, path, method, f"/v1/sessions/{row['id']}")
            assert gone.status == 404
    yield proxy.record(0)
    assert [(record["id"], record["end"]) for record in proxy.records] == [(row["id"], "killed")]


@pytest_twisted.inlineCallbacks
def test_pages(serve_as: Serve, tmp_path: Path) -> Playing:
    """Pages have each session once, in each order, while others come and go."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    with administered(proxy.factory, path):
        sockets = [proxy.connect() for _ in range(7)]
        yield until(lambda: len(proxy.sessions.live) == 7)
        for sort in ("age", "rate", "bytes"):
            seen: list[str] = []
            cursor = ""
            while True:
                target = f"/v1/sessions?limit=3&sort={sort}{cursor}"
                page = (yield proxy.play(asks, path, "GET", target)).body
                assert page["total"] == 7
                seen += [row["id"] for row in page["sessions"]]
                if page["cursor"] is None:
                    break
                cursor = f"&cursor={page['cursor']}"
            assert len(seen) == len(set(seen)) == 7
        for sock in sockets:
            sock.close()
        yield until(lambda: not proxy.sessions.live)


@pytest_twisted.inlineCallbacks
def test_kill(serve_as: Serve, tmp_path: Path) -> Playing:
    """Nothing ends by an empty filter, a dry run, or where another number is expected."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    kill = "/v1/sessions/kill"
    with administered(proxy.factory, path), Origin(echo) as origin:
        first = yield proxy.play(connected, proxy, origin.port)
        second = yield proxy.play(connected, proxy, origin.port)
        here, elsewhere = {"client": "127.0.0.0/8"}, {"client": "192.0.2.0/24"}
        tried = [
            ({}, 400),
            ({"filter": {}}, 400),
            ({"filter": []}, 400),
            ({"filter": {"worker": None}}, 400),
            ({"filter": {"colour": "red"}}, 400),
            ({"filter": {"client": "300.0.0.1"}}, 400),
            ({"filter": {"id": "7"}}, 400),
            ({"filter": here, "expect": 3}, 409),
            ({"filter": here, "expect": True}, 400),
            ({"filter": here, "really": True}, 400),
            ({"filter": {**here, "worker": 4}}, 404),
        ]
        for body, status in tried:
            assert (yield proxy.play(asks, path, "POST", kill, body)).status == status, body
        dry = yield proxy.play(asks, path, "POST", kill, {"filter": here, "dry_run": True})
        assert dry.body == {"matched": 2, "ended": 0, "missing": []}
        none = yield proxy.play(asks, path, "POST", kill, {"filter": elsewhere})
        assert none.body == {"matched": 0, "ended": 0, "missing": []}
        assert len(proxy.sessions.live) == 2
        both = yield proxy.play(asks, path, "POST", kill, {"filter": here, "expect": 2})
        assert both.body == {"matched": 2, "ended": 2, "missing": []}
        assert (yield proxy.play(ends, first))
        assert (yield proxy.play(ends, second))
        first.close()
        second.close()


def tricks() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Every way to change something, in every disguise."""
    for route in routes_of(control_of(SOCKSFactory(MemoryReactorClock()))).routes:
        path = route.path.replace("{id}", "1.2.3").replace("{name}", "a")
        if route.level > AdminLevel.MONITOR:
            yield route.method, path, {}
            yield route.method, path, {"X_HTTP_Method_Override": "GET"}
            yield "GET", path, {"X_HTTP_Method_Override": route.method, "X_HTTP_Method": route.method}
            yield route.method, f"/{path}", {}
            yield route.method, path.replace("/v1/", "/v1%2f", 1), {}
            yield route.method, path.replace("/v1/", "/v1/./", 1), {}
            yield route.method, path.replace("/v1/", "/x/../v1/", 1), {}
            yield route.method, path.replace("v1", "%761"), {}
            yield route.method, f"{path}/", {}
            yield route.method, f"{path}?_method={route.method}", {}
        for method in ("POST", "DELETE", "PUT", "PATCH"):
            yield method, path, {}


@pytest_twisted.inlineCallbacks
def test_monitor_changes_nothing(serve_as: Serve, tmp_path: Path) -> Playing:
    """Level monitor: no route, no method and no trick does anything."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"

    def all_of_them() -> list[tuple[Any, ...]]:
        found = []
        for method, target, headers in tricks():
            told = asks(path, method, target, None, **headers)
            if told.status not in (400, 403, 404, 405):
                found.append((method, target, headers, told))
        return found

    with administered(proxy.factory, path, AdminLevel.MONITOR), Origin(echo) as origin:
        client = yield proxy.play(connected, proxy, origin.port)
        done = yield proxy.play(all_of_them)
        reads = [each for each in done if each[0] == "GET" and each[3].status in (200, 501)]
        assert done == reads
        (session,) = proxy.sessions.live
        told = yield proxy.play(asks, path, "DELETE", f"/v1/sessions/{session.id}")
        assert told.status == 403
        line = f"DELETE /v1/sessions/{session.id} HTTP/1.0\r\nContent-Type: application/json\r\n\r\n"
        answer = yield proxy.play(raw, path, b"GET /healthz HTTP/1.0\r\n\r\n" + line.encode())
        assert answer.count(b"HTTP/1.0 ") == 1  # one request a connection
        assert len(proxy.sessions.live) == 1
        client.close()
    yield until(lambda: not proxy.sessions.live)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v2/status", 404),
        ("GET", "/v1/status/", 404),
        ("POST", "/v1/status", 405),
        ("OPTIONS", "/v1/status", 405),
        ("TRACE", "/v1/status", 405),
        ("HEAD", "/v1/status", 200),
        ("GET", "/v1/sessions?limit=0", 400),
        ("GET", "/v1/sessions?limit=1001", 400),
        ("GET", "/v1/sessions?limit=x", 400),
        ("GET", "/v1/sessions?sort=colour", 400),
        ("GET", "/v1/sessions?colour=red", 400),
        ("GET", "/v1/sessions?older=-1", 400),
        ("GET", "/v1/sessions?older=nan", 400),
        ("GET", "/v1/sessions?user=", 400),
        ("GET", "/v1/sessions?user=a&user=b", 400),
        ("GET", "/v1/sessions?cursor=1", 400),
        ("GET", "/v1/sessions?command=fly", 400),
        ("GET", "/v1/sessions?worker=1", 404),
        ("GET", "/v1/sessions/kill", 400),
        ("GET", "/v1/sessions/%ff", 400),
        ("GET", "/v1/status?x=%zz", 400),
        ("POST", "/v1/reload", 409),
    ],
)
@pytest_twisted.inlineCallbacks
def test_wrong(serve_as: Serve, tmp_path: Path, method: str, target: str, status: int) -> Playing:
    """What makes no sense is told, in JSON and in words."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    with administered(proxy.factory, path):
        told = yield proxy.play(asks, path, method, target)
    assert told.status == status
    assert told.headers["Content-Type"] == "application/json"
    if method != "HEAD" and status != 200:
        assert isinstance(told.body["error"], str)
    assert not [name for name in told.headers if name.startswith("Access-Control")]
    assert status != 405 or told.headers["Allow"] == "GET"


@pytest_twisted.inlineCallbacks
def test_log_level(serve_as: Serve, tmp_path: Path) -> Playing:
    """Debug lines on a topic are there for a while, and tell why a session is refused."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    events: list[LogEvent] = []
    log_publisher.addObserver(events.append)
    with administered(proxy.factory, path):
        for wrong in (
            {},
            {"level": "all"},
            {"level": "debug", "logger": "twisted"},
            {"level": "debug", "logger": 1},
            {"level": "debug", "seconds": -1},
        ):
            assert (yield proxy.play(asks, path, "POST", "/v1/log-level", wrong)).status == 400
        assert not SESSIONS.on
        body = {"logger": "sessions", "level": "debug", "seconds": 30}
        told = yield proxy.play(asks, path, "POST", "/v1/log-level", body)
        assert (told.status, told.body) == (200, {**body, "missing": []})
        assert (SESSIONS.on, NAMES.on) == (True, False)
        with proxy.connect() as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            yield proxy.play(client.recv, 100)
        told = yield proxy.play(asks, path, "POST", "/v1/log-level", {"level": "info"})
        assert (told.body["logger"], told.body["seconds"]) == ("socksproxy", 0)
    log_publisher.removeObserver(events.append)
    (line,) = (event for event in events if event["log_namespace"] == "socksproxy.sessions")
    assert line["log_level"].name == "debug"
    assert not SESSIONS.on
