"""A reader of the journal's protocol, written from its description."""

from __future__ import annotations


def fields_of(entry: bytes) -> dict[str, str]:
    """The fields of an *entry*."""
    found = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(entry[:8], "little")
            value, entry = entry[8 : 8 + size], entry[8 + size :]
            assert entry[:1] == b"\n"
            entry = entry[1:]
        assert name.replace(b"_", b"").isalnum()
        assert name.isupper()
        found[name.decode()] = value.decode()
    return found
