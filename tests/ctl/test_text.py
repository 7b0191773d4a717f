"""Text for a terminal: see :mod:`socksproxy.ctl.text`."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from socksproxy.ctl.text import Column, amount, cut, escaped, pairs, seconds_of, span, table, width_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bob", "bob"),
        ("a\x1b[2Jb\x07", r"a\x1b[2Jb\x07"),
        ("a\nb\rc\x9bd", r"a\nb\rc\x9bd"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("\ud800", r"\ud800"),
        ("<img onerror=x>", "<img onerror=x>"),
    ],
)
def test_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("example.org", 11, "example.org"),
        ("example.org", 8, "example~"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本~"),
        ("日本語", 4, "日~"),
        ("e\u0301" * 3, 3, "e\u0301" * 3),
        ("a" + "\u0301" * 1000, 5, "a" + "\u0301" * 19 + "~"),
        ("שלום", 3, "של~"),
        ("ab", 0, ""),
    ],
)
def test_cut(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown


@given(st.text(max_size=40), st.integers(1, 30))
def test_no_text_is_wider(text: str, width: int) -> None:
    shown = cut(escaped(text), width)
    assert width_of(shown) <= width
    assert shown.isprintable()


def test_table() -> None:
    """Elastic columns give way, the widest first; numbers stand at the right."""
    columns = [Column("ID"), Column("USER", elastic=True), Column("RATE", right=True)]
    rows = [("1.1.1", "bob", "5 B/s"), ("1.1.22", "x" * 100, "12.3 kB/s")]
    assert table(columns, rows)[1] == f"1.1.1   {'bob':100}      5 B/s"
    assert table(columns, rows, 40) == [
        f"{'ID':6}  {'USER':21}  {'RATE':>9}",
        f"{'1.1.1':6}  {'bob':21}  {'5 B/s':>9}",
        f"1.1.22  {'x' * 20}~  12.3 kB/s",
    ]
    assert {len(line) <= 20 for line in table(columns, rows, 20)} == {True}


def test_pairs() -> None:
    assert pairs([("state", "run\x1b"), ("n", "")]) == [r"state  run\x1b", "n"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (999.9, "1.0 kB"),
        (1500, "1.5 kB"),
        (99_960, "100 kB"),
        (999_600, "1.0 MB"),
        (5e15, "5000 TB"),
    ],
)
def test_amount(count: float | None, shown: str) -> None:
    assert amount(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0.9, "0s"), (59, "59s"), (61, "1m01s"), (3700, "1h01m"), (90000, "1d01h")],
)
def test_span(seconds: float | None, shown: str) -> None:
    assert span(seconds) == shown


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86400), ("0.5", 0.5)]
)
def test_seconds(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "soon", "-1", "nan", "inf", "5x", "1e12"])
def test_no_seconds(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        seconds_of(text)
