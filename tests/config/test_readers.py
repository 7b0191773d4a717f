"""How tables of the file are read: see :mod:`socksproxy.config.readers`."""

from __future__ import annotations

from typing import Any

import pytest

from socksproxy.config.readers import each, flag, no_such, plain, read_table, text, typed
from socksproxy.config.words import MOST_TOLD
from socksproxy.values.errors import ConfigError

READERS = {"name": plain(text), "open": plain(flag), "hosts": each(text)}


def test_one_look_finds_all() -> None:
    """What is right is read, and each mistake is noted with its path."""
    errors: list[ConfigError] = []
    table = {"name": "a", "open": "yes", "hosts": ["x", 5], "nmae": 1}
    assert read_table(table, ("t",), READERS, errors) == {"name": "a"}
    assert [(error.path, error.reason) for error in errors] == [
        (("t", "open"), "not true or false"),
        (("t", "hosts", 1), "not text in quotes"),
        (("t", "nmae"), "no such key; did you mean name?"),
    ]


def test_no_table() -> None:
    with pytest.raises(ConfigError, match="not a table"):
        read_table(5, ("t",), READERS, [])


def test_many_strange_keys() -> None:
    """They are told in part, and counted."""
    errors: list[ConfigError] = []
    read_table(dict.fromkeys(map(str, range(MOST_TOLD + 7))), ("t",), READERS, errors)
    assert len(errors) == MOST_TOLD + 1
    assert errors[-1].reason == "and 7 more such keys"


@pytest.mark.parametrize(
    ("kinds", "right", "wrong"),
    [
        ((int,), 5, True),
        ((int, float), 1.5, "1"),
        ((str,), "a", 5),
        ((bool,), False, 0),
        ((int,), 5, 1 << 70),
    ],
)
def test_types(kinds: tuple[type, ...], right: Any, wrong: Any) -> None:
    parse = typed(*kinds)
    assert parse(right) == right
    with pytest.raises(ConfigError):
        parse(wrong)


def test_no_such() -> None:
    assert no_such("colour", ["name", "open"]) == "no such key; there are name and open"
