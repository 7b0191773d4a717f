"""
Foreign text, as a log or a terminal can show it.
"""

from __future__ import annotations

from typing import Any

from ..wire.words import Address, AddressType

_SHOWN = 255


def printable(text: str) -> str:
    """*text* for a log: backslashes, control and undecodable characters escaped, cut at 255 characters."""
    if text.isascii() and text.isprintable() and "\\" not in text and len(text) <= _SHOWN:
        return text
    return _cut("".join(c if c.isprintable() and c != "\\" else _escaped(c) for c in text))


def line_of_record(text: str) -> str:
    """
    *text* for a record, cut at 255 characters: control and undecodable characters are escaped.

    Backslashes stay, because the formats of records (text or JSON) escape them.
    """
    if len(text) <= _SHOWN and text.isprintable():
        return text
    return _cut(in_one_line(text))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def in_one_line(text: str) -> str:
    """*text* with control characters escaped, which a terminal could obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def escape_unknown(*streams: Any) -> None:
    """Have text *streams* escape the characters that their encoding lacks, as in the C locale."""
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # a program may have put any object in place of a stream
            stream.reconfigure(errors="backslashreplace")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def shown(destination: Address) -> str:
    """*destination* as a log may show it."""
    if destination.type is not AddressType.DOMAIN_NAME:
        return str(destination)
    host = line_of_record(destination.host)
    return str(destination if host == destination.host else destination._replace(host=host))
