"""
The header of a UDP datagram (RFC 1928, section 7), both ways.

No other module knows the place of a field in the header.
"""

from __future__ import annotations

from typing import NamedTuple

from .socks5 import build_address, parse_address
from .words import Address, AddressType, ProtocolError

#: The bit of FRAG that ends a sequence; the other bits are the fragment's position.
LAST_FRAGMENT = 0x80
_FRAG_AT, _TYPE_AT, _ADDRESS_AT, _NAME_AT = 2, 3, 3, 4
#: Bytes of the header of an IPv4 and of an IPv6 destination.
IPV4_SIZE, IPV6_SIZE = 10, 22
#: Bytes of the shortest header, for a name of one letter.
_SHORTEST = 8
#: Bytes of the longest header: RSV, FRAG, ATYP, a name of 255 bytes with its length, and a port.
LONGEST_SIZE = _NAME_AT + 1 + 255 + 2


class Header(NamedTuple):
    """
    The header before the payload of a datagram.

    :ivar fragment: FRAG; 0: the datagram is whole.
    :ivar address: from the client, the destination; to the client, the source.
    """

    fragment: int
    address: Address

    @property
    def position(self) -> int:
        """The fragment's place in its sequence, 1 to 127; 0: the datagram is whole."""
        return self.fragment & ~LAST_FRAGMENT

    @property
    def last(self) -> bool:
        """Whether the fragment ends its sequence."""
        return bool(self.fragment & LAST_FRAGMENT)


def parse_datagram(data: bytes | bytearray) -> tuple[Header, int]:
    """
    The header of the datagram *data*, and the index of its payload. RSV may be anything.

    :raises ProtocolError: when the header is cut short, its address type is unknown, or its name is empty.
    """
    parsed = parse_address(data, _ADDRESS_AT)
    if parsed is None:
        raise ProtocolError("a datagram that is shorter than its header")
    return Header(data[_FRAG_AT], parsed[0]), parsed[1]


def build_header(address: Address, fragment: int = 0) -> bytes:
    """
    The header for a datagram to or from *address*.

    :raises ValueError: for a host, port or fragment that cannot be expressed.
    """
    return bytes((0, 0, fragment)) + build_address(address)


def header_size(data: bytes | memoryview) -> int:
    """The length of the header of the datagram *data*, without parsing it; 0: there is no whole header."""
    size = len(data)
    if size < _SHORTEST:
        return 0
    kind = data[_TYPE_AT]
    if kind == AddressType.IPV4:
        end = IPV4_SIZE
    elif kind == AddressType.IPV6:
        end = IPV6_SIZE
    elif kind == AddressType.DOMAIN_NAME and data[_NAME_AT]:
        end = _NAME_AT + 1 + data[_NAME_AT] + 2
    else:
        return 0
    return end if size >= end else 0


def fragment_of(header: bytes | memoryview) -> int:
    """FRAG of a whole *header*; 0: the datagram is whole."""
    return header[_FRAG_AT]


def unfragmented(header: bytes) -> bytes:
    """The *header* of a fragment, with FRAG as in a whole datagram."""
    return bytes(_FRAG_AT + 1) + header[_FRAG_AT + 1 :]


def is_ipv4(header: bytes) -> bool:
    """Whether *header*, or its first four bytes, has an IPv4 address."""
    return header[_TYPE_AT] == AddressType.IPV4


def has_name(header: bytes) -> bool:
    """Whether a whole *header* has a name in place of an address."""
    return header[_TYPE_AT] == AddressType.DOMAIN_NAME
