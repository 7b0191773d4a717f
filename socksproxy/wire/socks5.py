"""
The messages of RFC 1928, as the server and as the client sends them.

A parser takes bytes and returns a message and the number of its bytes, or None when more bytes are needed. It
never reads past its message.
"""

from __future__ import annotations

from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntoa, inet_ntop, inet_pton
from sys import intern
from typing import NamedTuple

from .words import Address, AddressType, ProtocolError, Reply, Request, Version

MAX_NAME = 255

_NAME_ENCODING = ("utf-8", "surrogateescape")
_IPV4, _DOMAIN_NAME, _IPV6 = AddressType.IPV4, AddressType.DOMAIN_NAME, AddressType.IPV6
_VERSION = Version.SOCKS5
_EMPTY_NAME = bytes((_DOMAIN_NAME, 0))
#: Literal addresses that are remembered.
_LITERALS = 1024


class SOCKS5Reply(NamedTuple):
    """
    An answer to a request (RFC 1928, section 6).

    :ivar reply: a :class:`~socksproxy.wire.words.Reply`, or the number of an unknown one.
    :ivar address: BND.ADDR and BND.PORT.
    """

    reply: int
    address: Address


def parse_greeting(data: bytes | bytearray) -> tuple[bytes, int] | None:
    """
    The client's greeting (RFC 1928, section 3): the methods that the client offers, one byte each.

    :raises ProtocolError: when the version is not 5.
    """
    _check_version(data)
    if len(data) < 2:
        return None
    end = 2 + data[1]
    if len(data) < end:
        return None
    return bytes(data[2:end]), end


def build_greeting(methods: bytes) -> bytes:
    """
    A greeting that offers *methods*.

    :raises ValueError: for more than 255 methods.
    """
    return bytes((_VERSION, len(methods))) + bytes(methods)


def parse_choice(data: bytes | bytearray) -> tuple[int, int] | None:
    """
    The server's choice of a method.

    :raises ProtocolError: when the version is not 5.
    """
    _check_version(data)
    return (data[1], 2) if len(data) >= 2 else None


def build_choice(method: int) -> bytes:
    """The choice of *method*."""
    return bytes((_VERSION, method))


def parse_request(data: bytes | bytearray) -> tuple[Request, int] | None:
    """
    Parse a request (RFC 1928, section 4). An unknown command keeps its number; RSV may be anything.

    :raises ProtocolError: for a version other than 5, an unknown address type or an empty name.
    """
    _check_version(data)
    parsed = parse_address(data, 3)
    if parsed is None:
        return None
    return Request(_VERSION, data[1], parsed[0]), parsed[1]


def build_request(command: int, destination: Address) -> bytes:
    """
    A request.

    :raises ValueError: for a host or port that cannot be expressed.
    """
    return bytes((_VERSION, command, 0)) + build_address(destination)


def parse_verdict(data: bytes | bytearray) -> int | None:
    """
    The REP field of a reply, the rest of which may be missing; None: more bytes are needed.

    :raises ProtocolError: for a version other than 5.
    """
    _check_version(data)
    return data[1] if len(data) >= 2 else None


def parse_reply(data: bytes | bytearray) -> tuple[SOCKS5Reply, int] | None:
    """
    Parse a reply. RSV may be anything, and the name may be empty, because some servers send that.

    :raises ProtocolError: for a version other than 5 or an unknown address type.
    """
    _check_version(data)
    if data[3:5] == _EMPTY_NAME:
        if len(data) < 7:
            return None
        return SOCKS5Reply(data[1], Address("", data[5] << 8 | data[6], _DOMAIN_NAME)), 7
    parsed = parse_address(data, 3)
    if parsed is None:
        return None
    return SOCKS5Reply(data[1], parsed[0]), parsed[1]


def build_reply(reply: int, bound: Address) -> bytes:
    """
    A reply.

    :raises ValueError: for a host or port that cannot be expressed.
    """
    return bytes((_VERSION, reply, 0)) + build_address(bound)


def parse_address(data: bytes | bytearray, at: int) -> tuple[Address, int] | None:
    """
    The fields ATYP, ADDR and PORT (RFC 1928, section 5), shared by requests, replies and datagrams.

    :param at: the index of ATYP in *data*.
    :returns: the address and the index after its last byte; None: more bytes are needed.
    :raises ProtocolError: for an unknown type (reply 8) or an empty name (reply 4).
    """
    size = len(data)
    if size <= at:
        return None
    kind = data[at]
    if kind == _IPV4:
        end = at + 7
        if size < end:
            return None
        return _literal(bytes(data[at:end])), end
    if kind == _IPV6:
        end = at + 19
        if size < end:
            return None
        return _literal(bytes(data[at:end])), end
    if kind == _DOMAIN_NAME:
        return _parse_name(data, at + 1, size)
    raise ProtocolError("unknown address type", Reply.ADDRESS_TYPE_NOT_SUPPORTED)


@lru_cache(_LITERALS)
def _literal(field: bytes) -> Address:
    """The address in *field*, which is whole: sessions to the same address share it."""
    host, kind = field[1:-2], _IPV4 if field[0] == _IPV4 else _IPV6
    text = inet_ntoa(host) if kind == _IPV4 else inet_ntop(AF_INET6, host)
    return Address(intern(text), field[-2] << 8 | field[-1], kind)


def _parse_name(data: bytes | bytearray, at: int, size: int) -> tuple[Address, int] | None:
    if size <= at:
        return None
    length = data[at]
    if not length:
        raise ProtocolError("an empty name", Reply.HOST_UNREACHABLE)
    end = at + 1 + length + 2
    if size < end:
        return None
    host = bytes(data[at + 1 : end - 2]).decode(*_NAME_ENCODING)
    return Address(host, data[end - 2] << 8 | data[end - 1], _DOMAIN_NAME), end


def build_address(address: Address) -> bytes:
    """
    The fields ATYP, ADDR and PORT.

    :raises ValueError: for a host or port that cannot be expressed.
    """
    host, port, kind = address
    if kind is _DOMAIN_NAME:
        name = host.encode(*_NAME_ENCODING)
        if not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"a name has 1 to {MAX_NAME} bytes, not {len(name)}")
        return bytes((_DOMAIN_NAME, len(name))) + name + port_bytes(port)
    try:
        packed = inet_pton(AF_INET if kind is _IPV4 else AF_INET6, host)
    except OSError:
        raise ValueError(f"{host!r} is not an address of type {kind.name}") from None
    return bytes((kind,)) + packed + port_bytes(port)


def port_bytes(port: int) -> bytes:
    """
    *port* in network order.

    :raises ValueError: when it is not 0 to 65535.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is 0 to 65535, not {port}")
    return port.to_bytes(2, "big")


def _check_version(data: bytes | bytearray) -> None:
    if data and data[0] != _VERSION:
        raise ProtocolError(f"version {data[0]} where 5 was due")
