"""Addresses that stand for an IPv4 address: mapped, translated and tunnelled."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address


def mapped(inner: bytes) -> bytes:
    return bytes(10) + b"\xff\xff" + inner


def translated(inner: bytes) -> bytes:
    """IPv4-translated (RFC 2765), the form that stateless translators had."""
    return bytes(8) + b"\xff\xff\x00\x00" + inner


def nat64(inner: bytes) -> bytes:
    return b"\x00\x64\xff\x9b" + bytes(8) + inner


def six_to_four(inner: bytes) -> bytes:
    return b"\x20\x02" + inner + bytes(9) + b"\x01"


def teredo(inner: bytes) -> bytes:
    """The client's address stands at the end, each bit turned over."""
    flipped = bytes(octet ^ 0xFF for octet in inner)
    return b"\x20\x01\x00\x00" + b"\xcb\x00\x71\x07" + b"\x80\x00\x12\x34" + flipped


def local_nat64(length: int, rest: bytes = bytes(8)) -> object:
    """RFC 6052, section 2.2, under 64:ff9b:1::/48: *rest* fills the prefix up to *length* bits."""

    def packed(inner: bytes) -> bytes:
        prefix = (b"\x00\x64\xff\x9b\x00\x01" + rest)[: length // 8]
        if length == 96:
            return prefix[:8] + b"\x00" + prefix[9:12] + inner
        octets = prefix + inner
        octets = octets[:8] + b"\x00" + octets[8:]  # bits 64 to 71 are zero, wherever the address is
        return octets + bytes(16 - len(octets))

    return packed


def isatap(number: int) -> object:
    """RFC 5214: after a prefix of any network's."""
    return lambda inner: b"\x20\x01\x0d\xb8" + bytes(4) + number.to_bytes(2, "big") + b"\x5e\xfe" + inner


DISGUISES = {
    "ISATAP": isatap(0),
    "ISATAP global": isatap(0x200),
    "mapped": mapped,
    "translated": translated,
    "NAT64": nat64,
    "6to4": six_to_four,
    "Teredo": teredo,
    "local NAT64 /48": local_nat64(48),
    "local NAT64 /56": local_nat64(56, b"\xca"),
    "local NAT64 /64": local_nat64(64, b"\xca\xfe"),
    "local NAT64 /96": local_nat64(96, b"\xca\xfe\x00\x00\x00\x00"),
    "local NAT64 /96 with more of a prefix": local_nat64(96, b"\xca\xfe\x00\x12\x34\x56"),
}


def disguised(disguise: str, host: str) -> str:
    packed = DISGUISES[disguise]
    assert callable(packed)
    return str(IPv6Address(packed(IPv4Address(host).packed)))
