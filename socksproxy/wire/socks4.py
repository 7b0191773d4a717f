"""
The messages of SOCKS4 and SOCKS4a, as the server and as the client sends them.

The sources are Ying-Da Lee's notes "SOCKS: A protocol for TCP proxy across firewalls" and "SOCKS 4A: A Simple
Extension to SOCKS 4 Protocol". They set no bounds for USERID and the name. We do, because otherwise a client
could fill our memory.
"""

from __future__ import annotations

from socket import AF_INET, inet_ntoa, inet_pton
from typing import NamedTuple

from .socks5 import MAX_NAME, port_bytes
from .words import Address, AddressType, ProtocolError, Request, Version

MAX_USERID = 512

_USERID_AT = 8
_VERSION = Version.SOCKS4
# An address 0.0.0.x with x nonzero, which no host has.
_NAME_FOLLOWS = b"\x00\x00\x00\x01"


class SOCKS4Reply(NamedTuple):
    """
    An answer to a request.

    :ivar reply: a :class:`~socksproxy.wire.words.Reply4`, or the number of an unknown one.
    :ivar address: the DSTIP and DSTPORT fields.
    """

    reply: int
    address: Address


def parse_request(data: bytes | bytearray) -> tuple[Request, int] | None:
    """
    Parse a request of SOCKS4, or of SOCKS4a if the address is 0.0.0.x with x nonzero.

    :raises ProtocolError: for a version other than 4, a USERID of more than 512 bytes, or a name that is
        empty or has more than 255 bytes.
    """
    if data and data[0] != _VERSION:
        raise ProtocolError(f"version {data[0]} where 4 was due")
    userid_end = _find_nul(data, _USERID_AT, MAX_USERID, "USERID")
    if userid_end is None:
        return None
    port = data[2] << 8 | data[3]
    userid = bytes(data[_USERID_AT:userid_end])
    if not _name_follows(data[4:8]):
        address = Address(inet_ntoa(data[4:8]), port, AddressType.IPV4)
        return Request(_VERSION, data[1], address, userid), userid_end + 1
    name_end = _find_nul(data, userid_end + 1, MAX_NAME, "name")
    if name_end is None:
        return None
    name = bytes(data[userid_end + 1 : name_end])
    if not name:
        raise ProtocolError("an empty name")
    address = Address(name.decode("utf-8", "surrogateescape"), port, AddressType.DOMAIN_NAME)
    return Request(_VERSION, data[1], address, userid), name_end + 1


def build_request(request: Request) -> bytes:
    """
    A request, of SOCKS4a if the destination is a name.

    :raises ValueError: for a destination that SOCKS4 cannot express: an IPv6 address, an address from 0.0.0.1
        to 0.0.0.255, an empty name, or a field with a NUL or too many bytes.
    """
    destination = request.destination
    head = bytes((_VERSION, request.command)) + port_bytes(destination.port)
    userid = _field(request.userid, MAX_USERID, "USERID")
    if destination.type is not AddressType.DOMAIN_NAME:
        packed = _packed(destination)
        if _name_follows(packed):
            raise ValueError(f"SOCKS4a reads {destination.host} as the sign of a name")
        return head + packed + userid
    if not destination.host:
        raise ValueError("a name has at least one byte")
    name = _field(destination.host.encode("utf-8", "surrogateescape"), MAX_NAME, "name")
    return head + _NAME_FOLLOWS + userid + name


def parse_verdict(data: bytes | bytearray) -> int | None:
    """
    The CD field of a reply, the rest of which may be missing; None: more bytes are needed.

    The version in a reply is 0; a server that sends 4 is understood, too.

    :raises ProtocolError: for any other version.
    """
    if data and data[0] not in (0, _VERSION):
        raise ProtocolError(f"version {data[0]} where 0 was due")
    return data[1] if len(data) >= 2 else None


def parse_reply(data: bytes | bytearray) -> tuple[SOCKS4Reply, int] | None:
    """
    A reply.

    :raises ProtocolError: for a version other than 0 and 4.
    """
    if parse_verdict(data) is None or len(data) < 8:
        return None
    address = Address(inet_ntoa(data[4:8]), data[2] << 8 | data[3], AddressType.IPV4)
    return SOCKS4Reply(data[1], address), 8


def build_reply(reply: int, address: Address) -> bytes:
    """
    A reply. It has 0.0.0.0 in place of an address that is not IPv4, with the port.

    :raises ValueError: for a port that cannot be expressed.
    """
    packed = _packed(address) if address.type is AddressType.IPV4 else bytes(4)
    return bytes((0, reply)) + port_bytes(address.port) + packed


def _name_follows(packed: bytes | bytearray) -> bool:
    """Whether the address *packed* is 0.0.0.x with x nonzero."""
    return packed[3] != 0 and not any(packed[:3])


def _find_nul(data: bytes | bytearray, start: int, most: int, field: str) -> int | None:
    if len(data) <= start:
        return None
    end = data.find(0, start, start + most + 1)
    if end >= 0:
        return end
    if len(data) > start + most:
        raise ProtocolError(f"a {field} of more than {most} bytes")
    return None


def _packed(address: Address) -> bytes:
    try:
        return inet_pton(AF_INET, address.host)
    except OSError:
        raise ValueError(f"SOCKS4 has no form for the address {address.host!r}") from None


def _field(value: bytes, most: int, field: str) -> bytes:
    if len(value) > most or 0 in value:
        raise ValueError(f"a {field} has at most {most} bytes and no NUL")
    return value + b"\x00"
