"""The admin listeners, over every reload: see :mod:`socksproxy.admin.ports`."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from socksproxy.admin.ports import AdminPorts, CannotOpen
from socksproxy.admin.routes import ApiRoute, Routes
from socksproxy.admin.settings import AdminLevel, AdminListener, AdminSettings
from socksproxy.admin.site import AdminRequest, Stream

from ..support.admin import asks
from ..support.certificates import self_signed
from ..support.proxy import Playing

TABLE = Routes(
    [
        ApiRoute("GET", "/x", AdminLevel.MONITOR, lambda asked: {}),
        ApiRoute("GET", "/s", AdminLevel.MONITOR, lambda asked: Endless()),
    ]
)


def opened(*listeners: AdminListener, before: AdminPorts | None = None) -> AdminPorts:
    settings = AdminSettings(listeners=listeners) if listeners else None
    return AdminPorts(reactor, settings, lambda: TABLE, lambda: None, before)


def unix(path: Path, **more: Any) -> AdminListener:
    return AdminListener(endpoint=f"unix:{path}", **more)


@pytest_twisted.inlineCallbacks
def test_reload(tmp_path: Path) -> Playing:
    """What stays the same stays open, with its new settings; what is gone closes; what is new opens."""
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    (tmp_path / "token").write_text("0123456789abcdef")
    first = opened(unix(one), unix(two))
    first.enter()
    inode = one.stat().st_ino
    second = opened(unix(one, token_file=str(tmp_path / "token")), unix(three), before=first)
    assert (yield deferToThread(asks, one, "GET", "/x")).status == 200
    second.enter()
    assert one.stat().st_ino == inode
    assert (yield deferToThread(asks, one, "GET", "/x")).status == 401
    told = yield deferToThread(asks, one, "GET", "/x", None, Authorization="Bearer 0123456789abcdef")
    assert told.status == 200
    assert (yield deferToThread(asks, three, "GET", "/x")).status == 200
    assert not two.exists()
    third = opened(before=second)
    third.enter()
    third.close()
    assert not list(tmp_path.glob("*o*e"))


class Endless(Stream):
    """A stream of which nothing comes."""

    kind = "text/event-stream"

    def start(self, request: AdminRequest) -> None:
        request.write(b"begun")


def reading(path: Path) -> socket.socket:
    """A client to whom a stream begins."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(str(path))
    client.sendall(b"GET /s HTTP/1.0\r\n\r\n")
    answer = b""
    while b"begun" not in answer:
        answer += client.recv(4096)
    return client


@pytest_twisted.inlineCallbacks
def test_streams_over_reloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Streams go on while nothing changes, and end when a token is needed, or the listener is gone."""
    stopped: list[int] = []
    monkeypatch.setattr(TABLE, "stop", lambda: stopped.append(1))
    one, two = tmp_path / "one", tmp_path / "two"
    (tmp_path / "token").write_text("0123456789abcdef")
    ports = opened(unix(one), unix(two))
    ports.enter()
    readers = []
    for path in (one, two):
        readers.append((yield deferToThread(reading, path)))
    for _ in range(2):
        ports = opened(unix(one), unix(two), before=ports)
        ports.enter()
    assert not select.select(readers, [], [], 0)[0]
    ports = opened(unix(one, token_file=str(tmp_path / "token")), before=ports)
    ports.enter()
    for reader in readers:
        assert (yield deferToThread(reader.recv, 1)) == b""
        reader.close()
    assert not stopped
    last = opened(before=ports)
    last.enter()
    assert stopped
    last.close()


@pytest_twisted.inlineCallbacks
def test_abandon(tmp_path: Path) -> Playing:
    """Where one cannot be opened, all is as it was."""
    one, two = tmp_path / "one", tmp_path / "two"
    (tmp_path / "file").write_text("")
    first = opened(unix(one))
    first.enter()
    with pytest.raises(CannotOpen, match="no socket"):
        opened(unix(one), unix(two), unix(tmp_path / "file"), before=first)
    assert not two.exists()
    opened(unix(one), unix(two), before=first).abandon()
    assert not two.exists()
    assert (yield deferToThread(asks, one, "GET", "/x")).status == 200
    first.close()
    assert not one.exists()


def test_places(tmp_path: Path) -> None:
    """The addresses of TCP are those that no client of the proxy may reach."""
    ports = opened(unix(tmp_path / "one"), AdminListener(endpoint="tcp:0:interface=127.0.0.1"))
    ports.enter()
    ((host, port),) = ports.places
    assert host == "127.0.0.1"
    assert port > 0
    ports.close()


@pytest_twisted.inlineCallbacks
def test_client_certificates(tmp_path: Path) -> Playing:
    """Over TLS, a client without a certificate of the right authority is not answered."""
    pem = tmp_path / "own.pem"
    pem.write_bytes(self_signed())
    ports = opened(
        AdminListener(
            endpoint=f"ssl:0:privateKey={pem}:interface=127.0.0.1", client_ca=str(pem), level=AdminLevel.ADMIN
        )
    )
    ports.enter()
    ((_, port),) = ports.places

    def asked(shown: bool) -> int:
        context = ssl.create_default_context(cafile=str(pem))
        if shown:
            context.load_cert_chain(str(pem))
        connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
        try:
            connection.request("GET", "/x")
            return connection.getresponse().status
        finally:
            connection.close()

    assert (yield deferToThread(asked, True)) == 200
    assert (yield deferToThread(asked, False)) == 401
    ports.close()
    (tmp_path / "empty").write_text("")
    endpoint = f"ssl:0:privateKey={pem}:interface=127.0.0.1"
    without = AdminListener(endpoint=endpoint, client_ca=str(tmp_path / "empty"))
    with pytest.raises(CannotOpen, match="no certificates in PEM"):
        opened(without)
