"""
The header of a UDP datagram (RFC 1928, section 7), both ways.
"""

from __future__ import annotations

from typing import NamedTuple

from .socks5 import build_address, parse_address
from .words import Address, ProtocolError

#: The bit of FRAG that ends a sequence; the rest is the fragment's position.
LAST_FRAGMENT = 0x80
_ADDRESS_AT = 3


class Header(NamedTuple):
    """
    What stands before the data of a datagram.

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
    The header of the datagram *data*, and where its payload begins. RSV may be anything.

    :raises ProtocolError: when it is cut short (a datagram comes whole or not
        at all), or its address type is unknown, or its name empty.
    """
    parsed = parse_address(data, _ADDRESS_AT)
    if parsed is None:
        raise ProtocolError("a datagram that is shorter than its header")
    return Header(data[2], parsed[0]), parsed[1]


def build_header(address: Address, fragment: int = 0) -> bytes:
    """
    The header for a datagram to or from *address*.

    :raises ValueError: for a host, port or fragment that cannot be expressed.
    """
    return bytes((0, 0, fragment)) + build_address(address)
