"""See :mod:`socksproxy.logs.printable`."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from socksproxy.auth.users import name_of
from socksproxy.logs.printable import printable


class TestPrintable:
    """Whatever a client sends, a line of a log stays one line, and can be told from what it is not."""

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("", ""),
            ("example.test", "example.test"),
            ("a b", "a b"),
            ("b\u00fccher", "b\u00fccher"),
            ("a\nb", "a\\nb"),
            ("a\r\tb", "a\\r\\tb"),
            ("\x00\x1b[31m\x7f", "\\x00\\x1b[31m\\x7f"),
            ("\x9b", "\\x9b"),
            ("\u202egnp.exe", "\\u202egnp.exe"),
            ("\u2028", "\\u2028"),
            ("\udcff", "\\udcff"),
            ("\U000e0001", "\\U000e0001"),
            # Escaped itself, so that nobody can spell an escape.
            ("a\\nb", "a\\\\nb"),
            ("\u00fc\\n", "\u00fc\\\\n"),
        ],
    )
    def test_escapes(self, text: str, shown: str) -> None:
        assert printable(text) == shown

    @pytest.mark.parametrize("letter", ["a", "\u00fc"])
    def test_cut(self, letter: str) -> None:
        assert printable(letter * 255) == letter * 255
        assert printable(letter * 256) == letter * 252 + "..."

    def test_cut_after_escaping(self) -> None:
        """255 control characters are 1020 characters once they can be shown."""
        assert printable("\x01" * 255) == "\\x01" * 63 + "..."

    @given(st.text(st.characters(codec=None), max_size=300) | st.binary(max_size=300).map(name_of))
    def test_any_text(self, text: str) -> None:
        shown = printable(text)
        assert shown.isprintable()
        assert len(shown) <= 255
        shown.encode("utf-8")

    @given(st.text(max_size=20), st.text(max_size=20))
    @example("a\n", "a\\n")
    def test_two_texts_never_look_alike(self, one: str, other: str) -> None:
        assert (printable(one) == printable(other)) is (one == other)
