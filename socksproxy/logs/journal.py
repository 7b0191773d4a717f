"""
Entries of the journal of systemd, in its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: What the names of our own fields begin with.
PREFIX = "SOCKS_"


def entry(name: str, priority: int, message: str, fields: Iterable[tuple[str, object]] = ()) -> bytes:
    """
    An entry, as the journal's socket takes it.

    :param name: of the program.
    :param priority: a severity of syslog.
    :param message: the text for people.
    :param fields: further fields; those whose value is None are left out.
    """
    parts = [_field("MESSAGE", message), f"PRIORITY={priority}\nSYSLOG_IDENTIFIER={name}\n".encode()]
    for field, value in fields:
        if value is not None:
            parts.append(_field(PREFIX + field.upper(), _text(value)))
    return b"".join(parts)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, int):
        return f"{value:d}"
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{count}" for key, count in value.items())
    return str(value)


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return b"%b=%b\n" % (name.encode("ascii"), data)
    # A value of several lines has its length before it.
    return b"%b\n%b%b\n" % (name.encode("ascii"), len(data).to_bytes(8, "little"), data)
