"""Which sessions a question is about: see :mod:`socksproxy.admin.selection`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from socksproxy.admin import selection
from socksproxy.admin.errors import RequestRefused
from socksproxy.admin.selection import FILTERS, Page, Seen, SessionPlace, number_of
from socksproxy.identity import Client
from socksproxy.wire.words import Address, Command, Request, Version


def seen(number: int = 1, age: float = 1.0, moved: int = 0, rate: float = 0.0, **more: Any) -> Seen:
    destination = more.get("destination", Address.of("Example.ORG", 443))
    session: Any = SimpleNamespace(
        number=(7, 1, number),
        client=Client(more.get("host", "192.0.2.1"), 9, more.get("user", "bob")),
        request_if_any=Request(Version.SOCKS5, more.get("command", Command.CONNECT), destination, b""),
        began=100.0 - age,
        service=SimpleNamespace(
            reached=None,
            counts=lambda: SimpleNamespace(datagrams_sent=None),
            trail=SimpleNamespace(via=more.get("via"), entered=[SimpleNamespace(name="three")]),
        ),
        permission=SimpleNamespace(rule_named=lambda reached: (more.get("rule"), True)),
    )
    return Seen(session, age, moved, rate)


def matches(wanted: dict[str, Any], **more: Any) -> bool:
    return all(test(seen(**more)) for test in selection.tests_of(wanted))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"user": "bob"}, True),
        ({"user": "bo"}, False),
        ({"user": "Bob"}, False),
        ({"user": "bobby"}, False),
        ({"client": "192.0.2.1"}, True),
        ({"client": "192.0.2.0/24"}, True),
        ({"client": "192.0.2.77/24"}, True),
        ({"client": "192.0.2.2"}, False),
        ({"client": "::/0"}, False),
        ({"client": "unix"}, False),
        ({"destination": "example.org"}, True),
        ({"destination": "EXAMPLE.org:443"}, True),
        ({"destination": "example.org:44"}, False),
        ({"destination": "example"}, False),
        ({"command": "CONNECT"}, True),
        ({"command": "connect"}, True),
        ({"command": "BIND"}, False),
        ({"rule": "web"}, True),
        ({"rule": "we"}, False),
        ({"via": "one>two"}, True),
        ({"via": "two"}, True),
        ({"via": "on"}, False),
        ({"via": "three"}, True),
        ({"older": 10}, True),
        ({"older": "10"}, True),
        ({"older": 11}, False),
        ({"min_rate": 5}, True),
        ({"min_rate": 6}, False),
        ({"id": "7.1.3"}, True),
        ({"id": ["7.1.2", "7.1.3"]}, True),
        ({"id": "7.1.33"}, False),
        ({"id": "6.1.3"}, False),
        ({"user": "bob", "older": 11}, False),
    ],
)
def test_filters(wanted: dict[str, Any], expected: bool) -> None:
    """All that is said has to match, and texts match whole."""
    assert matches(wanted, number=3, age=10.0, rate=5.0, rule="web", via="one>two") is expected


def test_hostless() -> None:
    assert matches({"client": "unix"}, host=None)
    assert not matches({"client": "0.0.0.0/0"}, host=None)
    assert not matches({"client": "0.0.0.0/0"}, host="")
    assert matches({"client": "fe80::/10"}, host="fe80::1%eth0")


@pytest.mark.parametrize(
    "wanted",
    [
        {"user": ""},
        {"user": 7},
        {"user": None},
        {"user": ["bob"]},
        {"client": "bob"},
        {"client": "192.0.2.0/33"},
        {"command": ""},
        {"older": "soon"},
        {"older": True},
        {"older": []},
        {"older": 10**400},
        {"min_rate": float("inf")},
        {"min_rate": -1},
        {"id": 3},
        {"id": "7.1"},
        {"id": "7.1.x"},
        {"id": ["7.1.3"] * 1001},
        {"colour": "red"},
    ],
)
def test_wrong(wanted: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused):
        selection.tests_of(wanted)


def test_documented() -> None:
    """What can be filtered is what the documentation says."""
    assert set(FILTERS) == {
        *("id", "user", "client", "destination", "command", "listener", "rule", "via", "older", "min_rate")
    }


@given(
    keys=st.lists(st.integers(0, 3), max_size=30),
    limit=st.integers(1, 7),
    cut=st.integers(1, 9),
    order=st.sampled_from(["age", "rate", "bytes"]),
)
def test_pages(keys: list[int], limit: int, cut: int, order: str) -> None:
    """However many have the same key, and however they come, the pages have each session once, in order."""
    sessions = [seen(number, age=key, moved=key, rate=key) for number, key in enumerate(keys)]
    found: list[tuple[SessionPlace, Seen]] = []
    after = None
    while True:
        page = Page(order, limit, after)
        for start in range(0, len(sessions), cut):
            page.take(sessions[start : start + cut])
        assert page.total == len(sessions)
        found += page.sessions
        if not page.more:
            break
        assert len(page.sessions) == limit
        after = SessionPlace.parse(page.sessions[-1][0].cursor)
    assert [each.session.number for _, each in found] == [
        each.session.number for each in sorted(sessions, key=lambda each: (-each.age, each.session.number))
    ]


@pytest.mark.parametrize("cursor", ["", "@", "1", "1@2", "x@1.2.3", "1@1.2.3.4"])
def test_wrong_cursor(cursor: str) -> None:
    with pytest.raises(RequestRefused):
        SessionPlace.parse(cursor)


def test_number() -> None:
    assert number_of("1764468000000.12.345") == (1764468000000, 12, 345)
