"""The settings of the store that several nodes share."""

from __future__ import annotations

import re

import pytest

from socksproxy.values.errors import ConfigError
from socksproxy.values.shared import SharedSettings, StoreAddress, check_name, own_name


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("redis://valkey", StoreAddress(places=(("valkey", 6379),)), "valkey:6379"),
        ("redis://[::1]:7000/3", StoreAddress(places=(("::1", 7000),), database=3), "[::1]:7000"),
        (
            "rediss://bob:s%40crt@valkey.example.org/",
            StoreAddress(places=(("valkey.example.org", 6379),), tls=True, user="bob", password="s@crt"),
            "valkey.example.org:6379",
        ),
        (
            "unix:///run/valkey.sock?db=2",
            StoreAddress(path="/run/valkey.sock", database=2),
            "/run/valkey.sock",
        ),
        (
            "redis+sentinel://one,two:5000/main/1",
            StoreAddress(places=(("one", 26379), ("two", 5000)), service="main", database=1),
            "one:26379,two:5000 (main)",
        ),
        (
            "rediss+sentinel://:secret@one/main",
            StoreAddress(places=(("one", 26379),), service="main", tls=True, password="secret"),
            "one:26379 (main)",
        ),
    ],
)
def test_addresses(url: str, expected: StoreAddress, shown: str) -> None:
    address = StoreAddress.of(url)
    assert address == expected
    assert str(address) == shown
    assert "crt" not in repr(SharedSettings(store=address))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "valkey:6379",
        "http://hunter2@valkey",
        "redis://",
        "redis://:hunter2@",
        "redis://one,two",
        "redis://one:0",
        "redis://one:99999",
        "redis://one/x",
        "redis://one/1/2",
        "redis://one/?db=1",
        "redis+sentinel://one",
        "redis+sentinel://one/",
        "redis+sentinel://one,/main",
        "unix://relative",
        "unix:",
        "unix:///run/valkey.sock?db=x",
        "redis://[::1",
    ],
)
def test_wrong_addresses(url: str) -> None:
    """The message shows no part of the URL, which may hold a password."""
    with pytest.raises(ConfigError, match=re.escape("not the URL of a store, such as redis://")) as caught:
        StoreAddress.of(url)
    assert "hunter2" not in str(caught.value)
    assert not caught.value.shown


def test_names() -> None:
    assert check_name("node-1.example_org") == "node-1.example_org"
    assert check_name(own_name())
    for name in ("", "a/b", "a b", "{a}", "-a", "x" * 65, "ä"):
        with pytest.raises(
            ConfigError, match=r"a name has up to 64 letters.*, and begins with a letter or a digit"
        ):
            check_name(name)
