"""
From a host and a port, as a caller gives them, to a request.
"""

from __future__ import annotations

from ..errors import NameNotFound
from ..net.names import canonical, literal, unmapped
from ..wire.words import Address, AddressType, Request, Version
from .errors import InvalidDestination
from .handshake import Handshake, Login


def destination_of(host: str | bytes, port: int) -> Address:
    """
    The destination *host*, a literal address (IPv6 with or without brackets) or a name, and *port*.

    A name is turned into ASCII by IDNA 2008, and must be one that the DNS allows.

    :raises InvalidDestination: for a host or port that no request can carry, such as an address with a zone.
    """
    text = host.decode("utf-8", "surrogateescape") if isinstance(host, bytes) else host
    if not 0 <= port <= 65535:
        raise InvalidDestination(f"a port is 0 to 65535, not {port}")
    before, percent, _ = text.partition("%")
    if percent and literal(before) is not None:
        raise InvalidDestination(f"{text!r}: an address with a zone means something on this machine alone")
    address = literal(text)
    if address is not None:
        return Address.of(address, port)
    try:
        return canonical(Address(text, port, AddressType.DOMAIN_NAME))
    except NameNotFound:
        raise InvalidDestination(f"{text!r} is neither an address nor a name that the DNS allows") from None


def request_for(version: Version, command: int, destination: Address, userid: bytes = b"") -> Request:
    """The request of *command* for *destination*. SOCKS4 gets an IPv4-mapped address as the IPv4 address."""
    if version is Version.SOCKS4 and destination.type is AddressType.IPV6:
        destination = unmapped(destination.host, destination.port)
    return Request(version, command, destination, userid)


def handshake_for(request: Request, login: Login | None) -> Handshake:
    """
    The handshake for *request*.

    :raises InvalidDestination: where the protocol's version cannot express it.
    """
    try:
        return Handshake(request, login)
    except ValueError as problem:
        raise InvalidDestination(str(problem)) from None
