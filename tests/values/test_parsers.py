"""Text of options, and what it means: see :mod:`socksproxy.values.parsers`."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from socksproxy.values.errors import ConfigError
from socksproxy.values.parsers import MOST_WORKERS, Parser, cores, count, one_of, port, seconds, workers
from socksproxy.values.timeouts import NEVER


@pytest.mark.parametrize(
    ("parse", "text", "meaning"),
    [
        (seconds(), "1.5", 1.5),
        (seconds(or_zero="for never", zero=NEVER), "0", NEVER),
        (seconds(or_zero="for none"), "0.0", 0),
        (count(), "7", 7),
        (count(or_zero="for any number", zero=None), "0", None),
        (port(0), "0", 0),
        (port(1), "65535", 65535),
        (one_of(["a", "b"], "neither a nor b"), "b", "b"),
        (workers, "3", 3),
        (workers, str(MOST_WORKERS), MOST_WORKERS),
    ],
)
def test_right(parse: Parser, text: str, meaning: Any) -> None:
    assert parse(text) == meaning


@pytest.mark.parametrize(
    ("parse", "texts", "reason"),
    [
        (seconds(), ["0", "-1", "inf", "nan", "", "1s"], "not a number of seconds above 0"),
        (seconds(or_zero="for never"), ["-1", "x"], "not a number of seconds, or 0 for never"),
        (count(), ["0", "1.5", "-1", "9" * 5000, "٣"], "not a whole number above 0"),
        (count(most=9, or_zero="for none"), ["10"], "not a whole number from 1 to 9, or 0 for none"),
        (port(1), ["0", "65536", "http"], "not a number from 1 to 65535"),
        (one_of(["a"], "only a"), ["b", ""], "only a"),
        (workers, ["0", str(MOST_WORKERS + 1), "all"], "neither auto nor a number from 1 to 256"),
    ],
)
def test_wrong(parse: Parser, texts: list[str], reason: str) -> None:
    """The reason says what would be right, and the error has the text."""
    for text in texts:
        with pytest.raises(ConfigError) as caught:
            parse(text)
        assert (caught.value.reason, caught.value.value) == (reason, text)


@given(st.text())
def test_any_text(text: str) -> None:
    """No text does more than to be wrong."""
    for parse in (seconds(), count(), port(0), workers):
        with suppress(ConfigError):
            assert parse(text) >= 0


def test_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many processes as cores that this process may use, and never too many."""
    assert workers("auto") == cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(1000))
    assert cores() == MOST_WORKERS
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
