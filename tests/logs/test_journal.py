"""Entries of the journal: see :mod:`socksproxy.logs.journal`."""

from __future__ import annotations

from hypothesis import given, strategies as st

from socksproxy.logs.journal import entry
from socksproxy.wire.words import Version

from ..support.journal import fields_of


def test_fields() -> None:
    made = entry(
        "socksproxy",
        6,
        "a line",
        [
            ("user", "bob"),
            ("version", Version.SOCKS5),
            ("reply", 0),
            ("session_seconds", 1.5),
            ("dropped", {"denied": 3, "filtered": 1}),
            ("rule", None),
        ],
    )
    assert fields_of(made) == {
        "MESSAGE": "a line",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "socksproxy",
        "SOCKS_USER": "bob",
        "SOCKS_VERSION": "5",
        "SOCKS_REPLY": "0",
        "SOCKS_SESSION_SECONDS": "1.500000",
        "SOCKS_DROPPED": "denied:3,filtered:1",
    }


@given(message=st.text(), user=st.text())
def test_no_value_makes_a_field(message: str, user: str) -> None:
    """A user named like a field, with newlines, stays a value."""
    found = fields_of(entry("socksproxy", 6, message, [("user", user)]))
    assert set(found) == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "SOCKS_USER"}
    expected = [each.encode("utf-8", "backslashreplace").decode() for each in (message, user)]
    assert [found["MESSAGE"], found["SOCKS_USER"]] == expected
