"""What stands behind ``--auth TYPE:``: see :mod:`socksproxy.auth.checkers.arguments`."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from twisted.cred.strcred import InvalidAuthArgumentString

from socksproxy.auth.checkers.arguments import arguments

NAMES = ("ca", "name")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", ([], [])),
        ("ca=a", (["a"], [])),
        ("name=b:ca=a", (["a"], ["b"])),
        ("ca=x=y", (["x=y"], [])),
        (r"ca=C\:\\a:name=b", (["C:\\a"], ["b"])),
        ("ca=one:name=b:ca=two", (["one", "two"], ["b"])),
    ],
)
def test_values(text: str, values: tuple[list[str], list[str]]) -> None:
    found = arguments("tls", text, NAMES, repeatable=("ca",))
    assert (found["ca"], found["name"]) == values
    assert set(found) == set(NAMES)


@given(st.lists(st.text(min_size=1)))
def test_whatever_is_quoted(values: list[str]) -> None:
    text = ":".join("ca=" + value.replace("\\", r"\\").replace(":", r"\:") for value in values)
    assert arguments("tls", text, NAMES, repeatable=NAMES)["ca"] == values


@given(st.text(alphabet="ca=nme:\\x"))
def test_anything(text: str) -> None:
    """Values, or our error, and nothing is lost on the way."""
    try:
        found = arguments("tls", text, NAMES, repeatable=NAMES)
    except InvalidAuthArgumentString:
        return
    assert bool(text) == any(found.values())
    assert sum(map(len, found.values())) <= text.count(":") + 1


def test_only_some_repeat() -> None:
    with pytest.raises(InvalidAuthArgumentString, match="name= is there twice"):
        arguments("tls", "name=a:name=b", NAMES, repeatable=("ca",))
