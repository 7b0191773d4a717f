"""Names of sticky sessions: :mod:`socksproxy.values.sticky`."""

from __future__ import annotations

from typing import Any

import pytest

from socksproxy.values.errors import ConfigError
from socksproxy.values.sticky import StickyName, StickySettings, WrongName


@pytest.mark.parametrize(
    ("name", "settings", "user", "word", "seconds"),
    [
        (b"bob-session-abc123", {}, b"bob", "abc123", 600),
        (b"bob-session-a.B_9", {}, b"bob", "a.B_9", 600),
        (b"bob-session-" + 64 * b"x", {}, b"bob", 64 * "x", 600),
        (b"-session-session-x-session", {"separator": "-session-session-"}, b"", "", 0),
        (b"bob-for-ever-session-x", {"allow": ["for"]}, b"bob-for-ever", "x", 600),
        (b"bob-session-x-for-30", {"allow": ["for"]}, b"bob", "x", 1800),
        (b"bob-session-x-for-999999", {"allow": ["for"]}, b"bob", "x", 86400),
        (b"bob-session-x", {"allow": ["for"], "seconds": 60, "most": 90}, b"bob", "x", 60),
        (
            b"bob+session=x+for=2",
            {"separator": "+session=", "for_separator": "+for=", "allow": ["for"]},
            b"bob",
            "x",
            120,
        ),
        ("bob\xb7x".encode(), {"separator": "\xb7"}, b"bob", "x", 600),
        (b"\xff\xfe-session-x", {}, b"\xff\xfe", "x", 600),
    ],
)
def test_right(name: bytes, settings: dict[str, Any], user: bytes, word: str, seconds: float) -> None:
    if not user:
        with pytest.raises(WrongName):
            StickySettings(**settings).parse(name)
        return
    assert StickySettings(**settings).parse(name) == StickyName(user, word, seconds)


@pytest.mark.parametrize("name", [b"bob", b"bob-session", b"bob-Session-x", b"bob-for-30", b"", b"session-x"])
def test_users(name: bytes) -> None:
    """A name without the separator is the name of a user."""
    assert StickySettings(allow=("for",)).parse(name) is None


@pytest.mark.parametrize(
    "name",
    [
        b"bob-session-",
        b"-session-x",
        b"bob-session-" + 65 * b"x",
        b"bob-session-a-session-b",
        b"bob-session-a b",
        b"bob-session-\xc3\xa4",
        b"bob-session-x\n",
        b"bob-session-x-for-",
        b"bob-session-x-for-0",
        b"bob-session-x-for-1e3",
        b"bob-session-x-for-1234567",
        b"bob-session-x-for-3-for-4",
        b"bob-session-for-30",
        b"bob-session--for-30",
        b"bob-session-x-strict-1",
    ],
)
def test_wrong(name: bytes) -> None:
    with pytest.raises(WrongName):
        StickySettings(allow=("for",)).parse(name)


def test_not_allowed() -> None:
    """A parameter that users may not set is no part of a name."""
    with pytest.raises(WrongName):
        StickySettings().parse(b"bob-session-x-for-30")


@pytest.mark.parametrize(
    ("settings", "reason", "path"),
    [
        ({"separator": ""}, "not 1 to 32 characters", ("separator",)),
        ({"separator": 33 * "-"}, "not 1 to 32 characters", ("separator",)),
        ({"separator": "-\n-"}, "not 1 to 32 characters", ("separator",)),
        ({"separator": "session"}, "needs a character that no word has", ("separator",)),
        ({"for_separator": ""}, "not 1 to 32 characters", ("for-separator",)),
        ({"separator": "-", "for_separator": "-for-"}, "within the other", ("for-separator",)),
        ({"allow": ["for", "country"]}, "there is for", ("allow", 1)),
        ({"seconds": 0}, "not a number of seconds", ("for",)),
        ({"most": True}, "not a number of seconds", ("max",)),
        ({"most": 1e12}, "not a number of seconds", ("max",)),
        ({"seconds": 600, "most": 500}, "more than max", ("for",)),
    ],
)
def test_wrong_settings(settings: dict[str, Any], reason: str, path: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        StickySettings(**settings)
    assert reason in caught.value.reason
    assert caught.value.path == path
