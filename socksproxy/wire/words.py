"""
The words of the SOCKS documents: commands, methods, replies, addresses, requests.

The numbers are those of RFC 1928, RFC 1929 and the notes "SOCKS: A protocol
for TCP proxy across firewalls" (SOCKS4) and "SOCKS 4A". ``RESOLVE`` and
``RESOLVE_PTR`` are Tor's extension (torspec, socks-extensions).
"""

from __future__ import annotations

from enum import IntEnum
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple


class Version(IntEnum):
    """The version byte that opens a conversation."""

    SOCKS4 = 4
    SOCKS5 = 5


class Command(IntEnum):
    """The CMD field of a request (RFC 1928, section 4)."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03
    RESOLVE = 0xF0
    RESOLVE_PTR = 0xF1


class Method(IntEnum):
    """Authentication methods (RFC 1928, section 3)."""

    NO_AUTHENTICATION = 0x00
    GSSAPI = 0x01
    USERNAME_PASSWORD = 0x02
    NO_ACCEPTABLE = 0xFF


class Reply(IntEnum):
    """The REP field of a SOCKS5 reply (RFC 1928, section 6)."""

    SUCCEEDED = 0x00
    GENERAL_FAILURE = 0x01
    NOT_ALLOWED = 0x02
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    CONNECTION_REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08


class Reply4(IntEnum):
    """The CD field of a SOCKS4 reply."""

    GRANTED = 90
    REJECTED = 91
    NO_IDENT = 92
    IDENT_MISMATCH = 93


class AddressType(IntEnum):
    """The ATYP field (RFC 1928, section 5)."""

    IPV4 = 0x01
    DOMAIN_NAME = 0x03
    IPV6 = 0x04


_IPV6 = AddressType.IPV6


class Address(NamedTuple):
    """
    A host and a port as a message carries them.

    :ivar host: the text form of an IPv4 or IPv6 address, or a name. A name from the wire is decoded as UTF-8
        with ``surrogateescape``: it is not checked yet, and not fit for a log.
    :ivar port: 0 to 65535.
    :ivar type: the form of the host.
    """

    host: str
    port: int
    type: AddressType

    @classmethod
    def of(cls, host: str, port: int) -> Address:
        """The address for *host*, with the type that its text form has."""
        for family, kind in ((AF_INET, AddressType.IPV4), (AF_INET6, AddressType.IPV6)):
            try:
                inet_pton(family, host)
            except (OSError, ValueError):
                continue
            return cls(host, port, kind)
        return cls(host, port, AddressType.DOMAIN_NAME)

    def __str__(self) -> str:
        host, port, kind = self
        return f"[{host}]:{port}" if kind is _IPV6 else f"{host}:{port}"


#: The address in a reply that has none to tell.
UNSPECIFIED = Address("0.0.0.0", 0, AddressType.IPV4)


class Request(NamedTuple):
    """
    A request of either version.

    :ivar version: the version of the protocol.
    :ivar command: a :class:`Command`, or the number of an unknown command.
    :ivar destination: DST.ADDR and DST.PORT.
    :ivar userid: the USERID of SOCKS4, as its raw bytes; empty in SOCKS5.
    """

    version: Version
    command: int
    destination: Address
    userid: bytes = b""


class SOCKSError(Exception):
    """
    The root of every error that ends a client's request.

    :cvar reply: the code of the SOCKS5 reply.
    :cvar reply4: the code of the SOCKS4 reply, which tells a reason only if identd is the cause.
    """

    reply: Reply = Reply.GENERAL_FAILURE
    reply4: Reply4 = Reply4.REJECTED


class ProtocolError(SOCKSError):
    """
    Bytes that break the protocol.

    :ivar reply: the code of the reply, if the client can still get one.
    """

    def __init__(self, message: str, reply: Reply = Reply.GENERAL_FAILURE) -> None:
        super().__init__(message)
        self.reply = reply
