"""Places of logs: see :mod:`socksproxy.values.logs`."""

from __future__ import annotations

import os
from typing import Any

import pytest

from socksproxy.values.errors import ConfigError
from socksproxy.values.logs import FACILITIES, LogKind, log_place


@pytest.mark.parametrize(
    ("text", "kind", "fields"),
    [
        ("/var/log/a.log", LogKind.FILE, {"path": "/var/log/a.log"}),
        ("a.log", LogKind.FILE, {"path": os.path.abspath("a.log")}),
        ("./syslog", LogKind.FILE, {"path": os.path.abspath("syslog")}),
        ("syslogs:x", LogKind.FILE, {"path": os.path.abspath("syslogs:x")}),
        ("/dev/stdout", LogKind.FILE, {"path": "/dev/stdout"}),
        ("journald", LogKind.JOURNALD, {"path": "/run/systemd/journal/socket", "name": "socksproxy"}),
        ("journald:/run/j:name=proxy", LogKind.JOURNALD, {"path": "/run/j", "name": "proxy"}),
        ("syslog", LogKind.LOCAL, {"path": "/dev/log", "facility": 3, "old": False}),
        ("syslog:facility=local7", LogKind.LOCAL, {"path": "/dev/log", "facility": 23}),
        (r"syslog:/run/a\:b:format=rfc3164", LogKind.LOCAL, {"path": "/run/a:b", "old": True}),
        ("syslog:tcp:logs.example:601", LogKind.TCP, {"host": "logs.example", "port": 601}),
        ("syslog:tcp:[2001:db8::1]:601:name=a", LogKind.TCP, {"host": "2001:db8::1", "name": "a"}),
        ("syslog:tls:192.0.2.1:6514:ca=/c.pem", LogKind.TLS, {"host": "192.0.2.1", "ca": "/c.pem"}),
    ],
)
def test_places(text: str, kind: LogKind, fields: dict[str, Any]) -> None:
    place = log_place(text)
    assert place.kind is kind
    assert {name: getattr(place, name) for name in fields} == fields
    assert place.is_file is (kind is LogKind.FILE)
    assert log_place(place.text) == place


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("syslog:tcp:logs.example", "needs a host and a port"),
        ("syslog:tcp::601", "needs a host and a port"),
        ("syslog:tcp:logs.example:0", "needs a host and a port"),
        ("syslog:tcp:logs.example:65536", "needs a host and a port"),
        ("syslog:tls:logs.example:6514:601", "needs a host and a port"),
        ("syslog:udp:logs.example:514", "not the path of a socket, or a server"),
        ("syslog:logs.example:514", "not the path of a socket, or a server"),
        ("syslog:/a:/b", "not the path of a socket, or a server"),
        ("journald:socket", "not the path of a socket"),
        ("syslog:facility=kern", "facility is none of user, "),
        ("syslog:name=two words", "name is at most 48"),
        ("syslog:format=json", "format is neither"),
        ("syslog:level=info", "level: no such key; there is facility, name, format and ca"),
        ("journald:facility=daemon", "facility: no such key; there is name alone"),
        ("syslog:name=a:/dev/log", "the keys stand at the end"),
        ("syslog:tcp:logs.example:601:ca=/c.pem", "ca is for syslog:tls"),
        ("syslog:tcp:logs.example:601:format=rfc3164", "format=rfc3164 is for the socket"),
    ],
)
def test_mistakes(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as problem:
        log_place(text)
    assert problem.value.value == text


def test_facilities() -> None:
    """RFC 5424, table 1."""
    assert (FACILITIES["daemon"], FACILITIES["local0"], FACILITIES["local7"]) == (3, 16, 23)
