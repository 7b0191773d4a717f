"""What stands behind ``--auth TYPE:``: see :mod:`socksproxy.auth.checkers.arguments`."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from twisted.cred.strcred import InvalidAuthArgumentString

from socksproxy.auth.checkers.arguments import arguments
from socksproxy.values.parsers import port

NAMES = ("ca", "name")
PARSERS = {"ca": str, "name": str}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("ca=a", {"ca": ["a"]}),
        ("name=b:ca=a", {"ca": ["a"], "name": "b"}),
        ("ca=x=y", {"ca": ["x=y"]}),
        (r"ca=C\:\\a:name=b", {"ca": ["C:\\a"], "name": "b"}),
        ("ca=one:name=b:ca=two", {"ca": ["one", "two"], "name": "b"}),
    ],
)
def test_values(text: str, values: dict[str, object]) -> None:
    assert arguments("tls", text, PARSERS, repeatable=("ca",)) == values


def test_a_value_is_read() -> None:
    """What is wrong with it is told with its name."""
    assert arguments("ident", "port=113", {"port": port(1)}) == {"port": 113}
    with pytest.raises(InvalidAuthArgumentString, match=r"^ident: port=a:b is not a number from 1 to 65535$"):
        arguments("ident", r"port=a\:b", {"port": port(1)})


@given(st.lists(st.text(min_size=1)))
def test_whatever_is_quoted(values: list[str]) -> None:
    text = ":".join("ca=" + value.replace("\\", r"\\").replace(":", r"\:") for value in values)
    assert arguments("tls", text, PARSERS, repeatable=NAMES).get("ca", []) == values


@given(st.text(alphabet="ca=nme:\\x"))
def test_anything(text: str) -> None:
    """Values, or our error, and nothing is lost on the way."""
    try:
        found = arguments("tls", text, PARSERS, repeatable=NAMES)
    except InvalidAuthArgumentString:
        return
    assert bool(text) == any(found.values())
    assert sum(map(len, found.values())) <= text.count(":") + 1


def test_only_some_repeat() -> None:
    with pytest.raises(InvalidAuthArgumentString, match="name= is there twice"):
        arguments("tls", "name=a:name=b", PARSERS, repeatable=("ca",))
