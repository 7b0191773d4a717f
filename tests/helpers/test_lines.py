"""Squid's helper protocol: see :mod:`socksproxy.helpers.lines`."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, strategies as st

from socksproxy.helpers.lines import HelperAnswer, HelperVerdict, answer_in, question


@pytest.mark.parametrize(
    ("words", "channel", "line"),
    [
        ((b"bob", b"secret"), None, b"bob secret\n"),
        ((b"bob", b"secret"), 7, b"7 bob secret\n"),
        ((b"bob", b"a b"), None, b"bob a%20b\n"),
        ((b"b\nob", b"100%"), None, b"b%0Aob 100%25\n"),
        ((None, b""), None, b"- \n"),
        (("ü".encode(), b"\0\xff"), 0, b"0 %C3%BC %00%FF\n"),
    ],
)
def test_question(words: tuple[bytes | None, ...], channel: int | None, line: bytes) -> None:
    assert question(words, channel) == line


@given(st.lists(st.binary(min_size=1), min_size=1))
def test_no_word_breaks_the_line(words: list[bytes]) -> None:
    """Whatever a client sends, a question is one line, and the helper reads the words back."""
    line = question(words)
    assert line.count(b"\n") == 1
    assert [unquote_to_bytes(word) for word in line[:-1].split(b" ")] == words


NO_WAY = HelperAnswer(HelperVerdict.NO, {"message": 'no "way"', "log": "x"})


@pytest.mark.parametrize(
    ("line", "channels", "channel", "answer"),
    [
        (b"OK", False, None, HelperAnswer(HelperVerdict.YES)),
        (b"ERR\r", False, None, HelperAnswer(HelperVerdict.NO)),
        (b"12 OK", True, 12, HelperAnswer(HelperVerdict.YES)),
        (b"0 BH message=down", True, 0, HelperAnswer(HelperVerdict.BROKEN, {"message": "down"})),
        (b"OK user=bob%20b", False, None, HelperAnswer(HelperVerdict.YES, {"user": "bob b"})),
        (rb'ERR message="no \"way\"" log=x', False, None, NO_WAY),
        (b"OK nothing here", False, None, HelperAnswer(HelperVerdict.YES)),
    ],
)
def test_answer(line: bytes, channels: bool, channel: int | None, answer: HelperAnswer) -> None:
    assert answer_in(line, channels) == (channel, answer)


@pytest.mark.parametrize(
    ("line", "channels"),
    [
        (b"", False),
        (b"ok", False),
        (b"OK", True),
        (b"-1 OK", True),
        (b"9999999999 OK", True),
        (b"OKAY", False),
    ],
)
def test_no_answer(line: bytes, channels: bool) -> None:
    with pytest.raises(ValueError, match=r"channel number|none of OK, ERR and BH"):
        answer_in(line, channels)


@given(st.binary(), st.booleans())
def test_any_line(line: bytes, channels: bool) -> None:
    """A line is an answer or a ValueError, and nothing else."""
    with suppress(ValueError):
        answer_in(line, channels)
