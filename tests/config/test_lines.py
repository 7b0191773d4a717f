"""Where keys stand: see :mod:`socksproxy.config.lines`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from time import thread_time
from typing import Any

import pytest
from hypothesis import given, strategies as st

from socksproxy.config.lines import lines_of as lines_of_tokens, tokens_of, too_deep
from socksproxy.values.errors import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def lines_of(text: str) -> dict[Path, int]:
    """The lines of *text*."""
    return lines_of_tokens(tokens_of(text))


TEXT = '''# a comment with [brackets] and key = 1
top = 1 # and another one = 2

[first]
plain = "a string = [not a key] # nor a comment"
'literal # key' = 'C:\\'
"escaped \\u0041\\t\\"" = 1.5
many = """
inner = 1
[inner]
\\""" still
"""
raw = \'\'\'
inner = 2\'\'\'
when = 1979-05-27 07:32:00
dotted.deep.key = true
dotted . deep . other = false
list = [ # one
    1, 2,
    # none
    [3,
     4], { a = 5, b = [
     6 ] },
]
[first.second]
x = {}
[[rule]]
name = "a"
[rule.inside]
y = [ ]
[[rule]]
name = "b"
  [[rule.several]]
  z = 1
  [[ rule . several ]]
  z = 2
'''

EXPECTED: dict[Path, int] = {
    ("top",): 2,
    ("first",): 4,
    ("first", "plain"): 5,
    ("first", "literal # key"): 6,
    ("first", 'escaped A\t"'): 7,
    ("first", "many"): 8,
    ("first", "raw"): 13,
    ("first", "when"): 15,
    ("first", "dotted"): 16,
    ("first", "dotted", "deep"): 16,
    ("first", "dotted", "deep", "key"): 16,
    ("first", "dotted", "deep", "other"): 17,
    ("first", "list"): 18,
    ("first", "list", 0): 19,
    ("first", "list", 1): 19,
    ("first", "list", 2): 21,
    ("first", "list", 2, 0): 21,
    ("first", "list", 2, 1): 22,
    ("first", "list", 3): 22,
    ("first", "list", 3, "a"): 22,
    ("first", "list", 3, "b"): 22,
    ("first", "list", 3, "b", 0): 23,
    ("first", "second"): 25,
    ("first", "second", "x"): 26,
    ("rule",): 27,
    ("rule", 0): 27,
    ("rule", 0, "name"): 28,
    ("rule", 0, "inside"): 29,
    ("rule", 0, "inside", "y"): 30,
    ("rule", 1): 31,
    ("rule", 1, "name"): 32,
    ("rule", 1, "several"): 33,
    ("rule", 1, "several", 0): 33,
    ("rule", 1, "several", 0, "z"): 34,
    ("rule", 1, "several", 1): 35,
    ("rule", 1, "several", 1, "z"): 36,
}


def paths(value: Any, above: Path = ()) -> Iterator[Path]:
    """All paths in what ``tomllib`` makes of a text."""
    if above:
        yield above
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in pairs:
        yield from paths(inner, (*above, step))


def test_all_of_toml() -> None:
    """Each key is found where it stands, and nothing else is taken for one."""
    assert lines_of(TEXT) == EXPECTED


def test_the_same_paths() -> None:
    """What is found is what ``tomllib`` finds."""
    assert set(lines_of(TEXT)) == set(paths(tomllib.loads(TEXT)))


@pytest.mark.parametrize("quotes", ['"""', "'''"])
@pytest.mark.parametrize("inside", ["", "a", "a\n\n", "a\n"])
@pytest.mark.parametrize("more", [0, 1, 2])
def test_quotes_at_the_end(quotes: str, inside: str, more: int) -> None:
    """Up to two quotes may stand before the three that end a text."""
    text = f"a = {quotes}\n{inside}x{quotes[:more]}{quotes}\nb = 1\n"
    assert set(tomllib.loads(text)) == {"a", "b"}
    assert lines_of(text)[("b",)] == text.count("\n", 0, text.index("b = 1")) + 1


def test_deep() -> None:
    """What is nested too deeply is not looked at."""
    assert lines_of("a = 1\nb = " + "[" * 50000 + "]" * 50000)[("a",)] == 1


@given(st.text("[]{}=.,\"'#\\ab1 \n"))
def test_any_text(text: str) -> None:
    """Of whatever is TOML, it finds all."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError):
        return
    assert set(lines_of(text)) == set(paths(document))


@given(st.text("[]{}=.,\"'#\\ab1 \n"))
def test_deep_in_any_text(text: str) -> None:
    """No key of valid TOML with fewer parts is too deep, and a deeper one is, wherever it stands."""
    assert too_deep(tokens_of(f"{text}\n{'.'.join('a' * 9)} = 1"), 10) is None or text.count(".") >= 10
    try:
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError):
        return
    line = text.count("\n") + 2
    assert too_deep(tokens_of(f"{text}\n[{'.'.join('a' * 40)}]"), 39) == line


@pytest.mark.parametrize(
    "text",
    ["a = '{}'", '"{}" = 1', "#{}", "a = '''\n{}'''"],
)
def test_dots_that_count_for_nothing(text: str) -> None:
    """Dots in strings and comments make no key deeper."""
    assert too_deep(tokens_of(text.format("a." * 100)), 64) is None


@pytest.mark.parametrize(
    "text",
    ['\\"""\n' * 50_000, "\\'''\n" * 50_000, '"""' * 50_001 + "\\", '"' + "\\" * 100_001, "'" * 100_001],
    ids=["double", "single", "many", "backslashes", "quotes"],
)
def test_time_of_a_scan(text: str) -> None:
    """Strings without an end take no more time than others: the scan goes over each character a few times."""
    began = thread_time()
    assert too_deep(tokens_of(text), 64) is None
    assert thread_time() - began < 5
