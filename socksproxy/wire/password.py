"""
The messages of RFC 1929, username/password authentication, both ways.
"""

from __future__ import annotations

from typing import NamedTuple

from .words import ProtocolError

#: The version of the sub-negotiation, not of SOCKS.
VERSION = 1
MAX_FIELD = 255
SUCCESS = 0


class Credentials(NamedTuple):
    """
    The credentials of a client. Their ``repr`` does not show the password.

    :ivar username: 1 to 255 bytes; some clients send an empty one, against the RFC.
    :ivar password: 1 to 255 bytes; some clients send an empty one, against the RFC.
    """

    username: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password=...)"


def parse_credentials(data: bytes | bytearray) -> tuple[Credentials, int] | None:
    """
    The client's username and password.

    :raises ProtocolError: for a version other than 1 or an empty field.
    """
    if data and data[0] != VERSION:
        raise _wrong_version(data)
    size = len(data)
    if size < 2:
        return None
    middle = 2 + data[1]
    if middle == 2:
        raise ProtocolError("an empty username")
    if size <= middle:
        return None
    end = middle + 1 + data[middle]
    if end == middle + 1:
        raise ProtocolError("an empty password")
    if size < end:
        return None
    return Credentials(bytes(data[2:middle]), bytes(data[middle + 1 : end])), end


def build_credentials(credentials: Credentials) -> bytes:
    """
    *credentials* as a client sends them. A field may be empty: some servers accept an empty password.

    :raises ValueError: for a field that has more than 255 bytes.
    """
    fields = bytearray((VERSION,))
    for name, field in zip(Credentials._fields, credentials, strict=True):
        if len(field) > MAX_FIELD:
            raise ValueError(f"a {name} has at most {MAX_FIELD} bytes, not {len(field)}")
        fields.append(len(field))
        fields += field
    return bytes(fields)


def parse_status(data: bytes | bytearray) -> tuple[int, int] | None:
    """
    The server's verdict; 0 is success, anything else failure.

    :raises ProtocolError: for a version other than 1.
    """
    if data and data[0] != VERSION:
        raise _wrong_version(data)
    return (data[1], 2) if len(data) >= 2 else None


def build_status(status: int) -> bytes:
    """The verdict *status*."""
    return bytes((VERSION, status))


def _wrong_version(data: bytes | bytearray) -> ProtocolError:
    return ProtocolError(f"sub-negotiation version {data[0]} where 1 was due")
