"""The settings of admin sockets: see :mod:`socksproxy.admin.settings`."""

from __future__ import annotations

from typing import Any

import pytest

from socksproxy.admin.settings import AdminLevel, AdminListener
from socksproxy.values.errors import ConfigError

#: Proves who asks.
TOKEN = {"token_file": "t"}


@pytest.mark.parametrize(
    ("endpoint", "more", "level"),
    [
        ("unix:/run/a", {}, AdminLevel.ADMIN),
        ("unix:/run/a", {"level": AdminLevel.MONITOR}, AdminLevel.MONITOR),
        ("systemd:domain=UNIX:name=admin", {}, AdminLevel.ADMIN),
        ("systemd:domain=INET:name=admin", {}, AdminLevel.MONITOR),
        ("tcp:9090:interface=127.0.0.1", {}, AdminLevel.MONITOR),
        ("tcp6:9090:interface=\\:\\:1", {}, AdminLevel.MONITOR),
        ("tcp:9090:interface=127.0.0.1", {"level": AdminLevel.ADMIN, **TOKEN}, AdminLevel.ADMIN),
        ("tcp:9090", TOKEN, AdminLevel.MONITOR),
        ("ssl:9090", {"client_ca": "ca", "level": AdminLevel.OPERATOR}, AdminLevel.OPERATOR),
    ],
)
def test_right(endpoint: str, more: dict[str, Any], level: AdminLevel) -> None:
    assert AdminListener(endpoint=endpoint, **more).level is level


@pytest.mark.parametrize(
    ("endpoint", "more", "key"),
    [
        ("tcp:9090", {}, "endpoint"),
        ("tcp:9090:interface=192.0.2.1", {}, "endpoint"),
        ("tcp6:9090", {}, "endpoint"),
        ("ssl:9090", {}, "endpoint"),
        ("tcp:9090:interface=127.0.0.1", {"level": AdminLevel.OPERATOR}, "level"),
        ("systemd:domain=INET:name=admin", {"level": AdminLevel.ADMIN}, "level"),
        ("haproxy:tcp:9090:interface=127.0.0.1", {}, "endpoint"),
        ("/run/admin.sock", {}, "endpoint"),
        ("", {}, "endpoint"),
        ("tcp:9090:interface=127.0.0.1", {"client_ca": "ca"}, "client-ca"),
    ],
)
def test_wrong(endpoint: str, more: dict[str, Any], key: str) -> None:
    """Off loopback, and above the level monitor, TCP needs proof."""
    with pytest.raises(ConfigError) as caught:
        AdminListener(endpoint=endpoint, **more)
    assert caught.value.path == (key,)


def test_levels() -> None:
    assert AdminLevel.called("operator") is AdminLevel.OPERATOR
    for word in ("", "Admin", "root", "MONITOR"):
        with pytest.raises(ConfigError):
            AdminLevel.called(word)
