"""Headers of the PROXY protocol, as balancers send them."""

from __future__ import annotations

from struct import pack

from socksproxy.wire.proxy import crc32c

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def vector(kind: int, value: bytes) -> bytes:
    """A type, a length and a value."""
    return pack("!BH", kind, len(value)) + value


def header2(data: bytes, *, command: int = 0x21, kind: int = 0x11) -> bytes:
    """A header of version 2 with *data* behind its fixed part."""
    return SIGNATURE + pack("!BBH", command, kind, len(data)) + data


def summed(data: bytes, *, kind: int = 0x11) -> bytes:
    """Likewise, with a checksum at the end."""
    zeroed = header2(data + vector(0x03, bytes(4)), kind=kind)
    return zeroed[:-4] + pack("!I", crc32c(zeroed))
