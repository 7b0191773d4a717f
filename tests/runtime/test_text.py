"""What programs do to text: see :mod:`socksproxy.runtime.text`."""

from __future__ import annotations

import pytest

from socksproxy.runtime.text import NotUTF8, without_mark


def test_mark() -> None:
    assert without_mark("\ufeffbob".encode()) == b"bob"
    assert without_mark(b"bob") == b"bob"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_encodings(encoding: str) -> None:
    with pytest.raises(NotUTF8, match="is in UTF-16, or has a NUL byte: right is UTF-8"):
        without_mark("bob".encode(encoding))
