"""The words for what is wrong: see :mod:`socksproxy.config.words`."""

from __future__ import annotations

from typing import Any

import pytest

from socksproxy.config.words import MOST_SHOWN, OpenToAll, in_option, listed, named, nearest, place, shown
from socksproxy.values.errors import ConfigError, Path

DOCUMENT = {"rule": [{"name": "web"}, {}], "limits": {}, "users": {}}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (("udp", "ports"), "[udp] ports"),
        (("listeners", "listen", 1), "[listeners] listen[1]"),
        (("limits", "client", "daily"), "[limits.client] daily"),
        (("users", "bob", "groups", 0), "[users.bob] groups[0]"),
        (("users", "bob@example.org"), '[users."bob@example.org"]'),
        (("rule",), "[[rule]]"),
        (("rule", 0, "names", 2), '[[rule]] "web" names[2]'),
        (("rule", 1), "[[rule]] number 2"),
        (("users",), "[users]"),
        (("colour",), "colour"),
    ],
)
def test_place(path: Path, told: str) -> None:
    """A reader finds the place in the file by these words."""
    assert place(path, DOCUMENT) == told


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ("a\nb", '"a\\nb"'),
        ([1, "x"], '[1, "x"]'),
        ({"a": 1}, "{...}"),
        (1 << 5000, "a number of many digits"),
    ],
)
def test_shown(value: Any, text: str) -> None:
    assert shown(value) == text


def test_shown_in_part() -> None:
    assert shown("x" * 10_000) == '"' + "x" * (MOST_SHOWN - 1) + "..."


def test_names() -> None:
    assert named("idle-timeout") == "idle-timeout"
    assert named("a.b") == '"a.b"'
    assert nearest("idle_timeuot", ["idle-timeout", "listen"]) == "idle-timeout"
    assert nearest("colour", ["idle-timeout", "listen"]) is None
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_options() -> None:
    assert in_option(ConfigError("not a port", "x", path=("port",))) == "--port x: not a port"
    assert in_option(OpenToAll("tcp:1080 is open", path=("listen", 0))) == "tcp:1080 is open"
