"""What editors and other programs do to text that is to be UTF-8."""

from __future__ import annotations

from codecs import BOM_UTF8


class NotUTF8(ValueError):
    """Text is in another encoding; its words are for the operator."""


def without_mark(data: bytes) -> bytes:
    """
    *data*, the beginning of a text or all of it, without a byte order mark.

    :raises NotUTF8: when there is a NUL byte in it, as in all that is UTF-16 or UTF-32.
    """
    if b"\0" in data:
        raise NotUTF8("is in UTF-16, or has a NUL byte: right is UTF-8")
    return data.removeprefix(BOM_UTF8)
