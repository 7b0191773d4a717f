"""What the access log is told of a session."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.logger import LogLevel, formatEvent

from socksproxy.commands.service import Counts
from socksproxy.events import FIELDS, Cause, End, Ended
from socksproxy.identity import Client
from socksproxy.logs.access_log import FORMATS, values_of
from socksproxy.logs.printable import shown
from socksproxy.negotiation import Negotiation
from socksproxy.session.record import NAMESPACE, Recorder, record_of
from socksproxy.wire.words import Address, AddressType, Command, Request, Version

#: The reactor's seconds when the sessions of these tests end.
NOW = 110.0


def a_session(client: Client, began: float = 100.0, *, now: float = NOW, **parts: Any) -> Any:
    """What the record of a session is derived from, where nothing has happened but *parts*."""
    context = SimpleNamespace(reactor=SimpleNamespace(seconds=lambda: now))
    nothing: dict[str, Any] = {
        "context": context,
        "id": "7.0.1",
        "client": client,
        "login": None,
        "permission": None,
        "negotiation": Negotiation(),
        "request_if_any": None,
        "service": None,
        "reply": None,
        "began": began,
        "requested": None,
        "answered": None,
        "ended": Ended(End.CLIENT, "client"),
    }
    return SimpleNamespace(**(nothing | parts))


def event_of(session: Any) -> dict[str, Any]:
    """The record of *session*, which has one."""
    events: list[dict[str, Any]] = []
    session.heard = True
    Recorder(events.append, probes=False).ended(session, record_of(session))
    (event,) = events
    return event


def whole_session(resolved: float | None = 101.0, **parts: Any) -> Any:
    """A session in which everything went its way."""
    service = SimpleNamespace(
        reached=Address.of("2001:db8::1", 443),
        outgoing=Address.of("2001:db8::2", 40000),
        resolved=resolved,
        announced=None,
        strangers=None,
        trail=None,
        counts=lambda: Counts(70, 7000),
    )
    whole: dict[str, Any] = {
        "login": SimpleNamespace(method="password", pin=SimpleNamespace(word="abc")),
        "permission": SimpleNamespace(rule_named=lambda reached: ("web", True)),
        "request_if_any": Request(Version.SOCKS5, Command.CONNECT, Address.of("example.test", 443)),
        "service": service,
        "requested": 100.25,
        "answered": 103.5,
        "reply": 0,
    }
    return a_session(**({"client": Client("192.0.2.9", 5000, "fred")} | whole | parts))


def test_whole() -> None:
    event = event_of(whole_session())
    assert event == {
        "log_namespace": NAMESPACE,
        "log_level": LogLevel.info,
        "log_time": event["log_time"],
        "log_format": event["log_format"],
        "client": "192.0.2.9:5000",
        "user": "fred",
        "method": "password",
        "version": 5,
        "command": "CONNECT",
        "destination": "example.test:443",
        "rule": "web",
        "reached": "[2001:db8::1]:443",
        "outgoing": "[2001:db8::2]:40000",
        "via": None,
        "tries": None,
        "sticky": "abc",
        "upstream_reply": None,
        "announced": None,
        "strangers": None,
        "reply": 0,
        "sent": 70,
        "received": 7000,
        "datagrams_sent": None,
        "datagrams_received": None,
        "dropped": None,
        "handshake_seconds": 0.25,
        "resolution_seconds": 0.75,
        "connect_seconds": 2.5,
        "session_seconds": 10.0,
        "unique_id": None,
        "tls_name": None,
        "id": "7.0.1",
        "end": "client",
        "ended": "client",
    }


def test_nothing_said() -> None:
    """A port scanner's: None where it did not come to that, and no error."""
    event = event_of(a_session(Client(None), 100.0, ended=Cause.HANDSHAKE.value))
    assert {name: event[name] for name in FIELDS if event[name] is not None} == {
        "client": "unix",
        "sent": 0,
        "received": 0,
        "session_seconds": 10.0,
        "id": "7.0.1",
        "end": "timeout",
        "ended": "handshake timeout",
    }


def test_every_field_of_the_log() -> None:
    """The log and the record know the same words, or the log has a column that is always empty."""
    event = event_of(whole_session())
    assert set(FIELDS) == {name for name in event if not name.startswith("log_")}


def test_literal_destination() -> None:
    """Nothing was looked up: connecting began with the request."""
    event = event_of(whole_session(resolved=None))
    assert event["resolution_seconds"] is None
    assert event["connect_seconds"] == 3.25


def test_seconds_are_rounded() -> None:
    """As a float is printed, 0.1 + 0.2 would fill the line."""
    event = event_of(a_session(Client("192.0.2.9", 5000), 0.1, requested=0.1 + 0.2, now=0.1 + 0.7))
    assert event["handshake_seconds"] == 0.2
    assert event["session_seconds"] == 0.7


def test_unknown_command() -> None:
    request = Request(Version.SOCKS4, 0x99, Address.of("192.0.2.1", 80), b"fred")
    assert event_of(whole_session(request_if_any=request))["command"] == "0x99"


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("example.test", "example.test:80"),
        ("a\nb", "a\\nb:80"),
        ("\x1b[2J", "\\x1b[2J:80"),
        ("\udcff\udcfe", "\\udcff\\udcfe:80"),
        ("n" * 300, "n" * 252 + "...:80"),
    ],
)
def test_what_a_client_sent_is_made_fit(host: str, text: str) -> None:
    """Whatever bytes the name has, they do not get into the log raw."""
    destination = Address(host, 80, AddressType.DOMAIN_NAME)
    assert shown(destination) == text
    request = Request(Version.SOCKS5, Command.CONNECT, destination)
    assert event_of(whole_session(request_if_any=request))["destination"] == text


def test_user_is_made_fit() -> None:
    client = Client("192.0.2.9", 5000, "fred\n127.0.0.1 all is well")
    assert event_of(whole_session(client=client))["user"] == "fred\\n127.0.0.1 all is well"


def test_shown_ipv6() -> None:
    assert shown(Address.of("2001:db8::1", 80)) == "[2001:db8::1]:80"


def test_text() -> None:
    """What Twisted's own log shows of it, should an embedder send it there."""
    assert formatEvent(event_of(whole_session())) == (
        "192.0.2.9:5000 CONNECT example.test:443 reply 0, 70 bytes sent, 7000 received, "
        "10.000 s, ended: client"
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("user", "decoded"),
    [
        ("DOMAIN\\user", "DOMAIN\\user"),
        ("CORP\\nina", "CORP\\nina"),
        ('a "quoted" \\" name', 'a "quoted" \\" name'),
        ("two\nlines", "two\\nlines"),
        ("b\u00fccher", "b\u00fccher"),
        ("\udcff\udcfe", "\\udcff\\udcfe"),
        ("x" * 300, "x" * 252 + "..."),
    ],
)
def test_user_is_escaped_once(format: str, user: str, decoded: str) -> None:
    """Who decodes the line has the name that somebody has vouched for."""
    line = FORMATS[format]("now", values_of(event_of(a_session(Client("192.0.2.9", 5000, user)))))
    assert line.isascii()
    assert line.count("\n") == 1
    if format == "json":
        assert json.loads(line)["user"] == decoded
    else:
        word = line.partition(" user=")[2].partition(" method=")[0]
        assert (json.loads(word) if word.startswith('"') else word) == decoded


def test_destination_is_escaped_once() -> None:
    """A backslash is one when it is decoded; what a terminal could take for a command is escaped before."""
    destination = Address("a\\b\x1b", 80, AddressType.DOMAIN_NAME)
    session = a_session(
        Client("192.0.2.9"), request_if_any=Request(Version.SOCKS5, Command.CONNECT, destination)
    )
    told = json.loads(FORMATS["json"]("now", values_of(event_of(session))))
    assert told["destination"] == "a\\b\\x1b:80"
