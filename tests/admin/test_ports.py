"""The admin listeners, over every reload: see :mod:`socksproxy.admin.ports`."""

from __future__ import annotations

import http.client
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

from ..support.admin import asks
from ..support.certificates import self_signed
from ..support.proxy import Playing

TABLE = Routes([ApiRoute("GET", "/x", AdminLevel.MONITOR, lambda asked: {})])


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
