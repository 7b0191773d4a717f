"""What the access log is told of a session."""

from __future__ import annotations

import json

import pytest
from twisted.logger import LogLevel, formatEvent

from socksproxy.events import FIELDS, End, Ended
from socksproxy.identity import Client
from socksproxy.logs.access_log import FORMATS
from socksproxy.session.record import NAMESPACE, AccessRecord, shown
from socksproxy.wire.words import Address, AddressType, Command, Request, Version


def whole_record() -> AccessRecord:
    """The record of a session in which everything went its way."""
    record = AccessRecord(Client("192.0.2.9", 5000, "fred"), 100.0)
    record.method = "password"
    record.version = Version.SOCKS5
    record.request = Request(Version.SOCKS5, Command.CONNECT, Address.of("example.test", 443))
    record.requested, record.resolved, record.answered = 100.25, 101.0, 103.5
    record.rule = "web"
    record.reached = Address.of("2001:db8::1", 443)
    record.outgoing = Address.of("2001:db8::2", 40000)
    record.reply = 0
    record.sent, record.received = 70, 7000
    return record


def test_whole() -> None:
    assert whole_record().event("7.0.1", Ended(End.CLIENT, "client"), 110.0, 1_700_000_000.0) == {
        "log_namespace": NAMESPACE,
        "log_level": LogLevel.info,
        "log_time": 1_700_000_000.0,
        "log_format": whole_record().event("7.0.1", Ended(End.CLIENT, "client"), 110.0, 0.0)["log_format"],
        "client": "192.0.2.9:5000",
        "user": "fred",
        "method": "password",
        "version": 5,
        "command": "CONNECT",
        "destination": "example.test:443",
        "rule": "web",
        "reached": "[2001:db8::1]:443",
        "outgoing": "[2001:db8::2]:40000",
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
        "id": "7.0.1",
        "end": "client",
        "ended": "client",
    }


def test_nothing_said() -> None:
    """A port scanner's: None where it did not come to that, and no error."""
    event = AccessRecord(Client(None), 5.0).event("7.0.1", Ended(End.TIMEOUT, "handshake timeout"), 15.0, 0.0)
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
    event = whole_record().event("7.0.1", Ended(End.CLIENT, "client"), 110.0, 0.0)
    assert set(FIELDS) == {name for name in event if not name.startswith("log_")}


def test_literal_destination() -> None:
    """Nothing was looked up: connecting began with the request."""
    record = whole_record()
    record.resolved = None
    event = record.event("7.0.1", Ended(End.CLIENT, "client"), 110.0, 0.0)
    assert event["resolution_seconds"] is None
    assert event["connect_seconds"] == 3.25


def test_seconds_are_rounded() -> None:
    """As a float is printed, 0.1 + 0.2 would fill the line."""
    record = AccessRecord(Client("192.0.2.9", 5000), 0.1)
    record.requested = 0.1 + 0.2
    event = record.event("7.0.1", Ended(End.CLIENT, "client"), 0.1 + 0.7, 0.0)
    assert event["handshake_seconds"] == 0.2
    assert event["session_seconds"] == 0.7


def test_unknown_command() -> None:
    record = whole_record()
    record.request = Request(Version.SOCKS4, 0x99, Address.of("192.0.2.1", 80), b"fred")
    assert record.event("7.0.1", Ended(End.CLIENT, "refused"), 110.0, 0.0)["command"] == "0x99"


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
    record = whole_record()
    record.request = Request(Version.SOCKS5, Command.CONNECT, destination)
    assert record.event("7.0.1", Ended(End.CLIENT, "refused"), 110.0, 0.0)["destination"] == text


def test_user_is_made_fit() -> None:
    record = whole_record()
    record.client = Client("192.0.2.9", 5000, "fred\n127.0.0.1 all is well")
    assert (
        record.event("7.0.1", Ended(End.CLIENT, "client"), 110.0, 0.0)["user"]
        == "fred\\n127.0.0.1 all is well"
    )


def test_shown_ipv6() -> None:
    assert shown(Address.of("2001:db8::1", 80)) == "[2001:db8::1]:80"


def test_text() -> None:
    """What Twisted's own log shows of it, should an embedder send it there."""
    assert formatEvent(whole_record().event("7.0.1", Ended(End.CLIENT, "client"), 110.0, 0.0)) == (
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
    record = AccessRecord(Client("192.0.2.9", 5000, user), 100.0)
    line = FORMATS[format]("now", record.event("7.0.1", Ended(End.CLIENT, "client"), 110.0, 0.0))
    assert line.isascii()
    assert line.count("\n") == 1
    if format == "json":
        assert json.loads(line)["user"] == decoded
    else:
        word = line.partition(" user=")[2].partition(" method=")[0]
        assert (json.loads(word) if word.startswith('"') else word) == decoded


def test_destination_is_escaped_once() -> None:
    """A backslash is one when it is decoded; what a terminal could take for a command is escaped before."""
    record = AccessRecord(Client("192.0.2.9"), 100.0)
    destination = Address("a\\b\x1b", 80, AddressType.DOMAIN_NAME)
    record.request = Request(Version.SOCKS5, Command.CONNECT, destination)
    told = json.loads(FORMATS["json"]("now", record.event("7.0.1", Ended(End.CLIENT, "client"), 110.0, 0.0)))
    assert told["destination"] == "a\\b\\x1b:80"
