"""
Special addresses, such as loopback and multicast, in all their disguises.

An address may carry another one inside: IPv4-mapped (RFC 4291), IPv4-translated (RFC 2765), NAT64 (RFC 6052,
RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380). Then the inner address counts. An address that is
IPv4-compatible (RFC 4291) or looks like one of ISATAP (RFC 5214) may lead to the inner one or not, so both
addresses count.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from ..wire.words import AddressType
from .metadata_addresses import METADATA_SERVICES


class Special(Enum):
    """What is special about an address."""

    LOOPBACK = "loopback"
    UNSPECIFIED = "unspecified"
    LINK_LOCAL = "link-local"
    MULTICAST = "multicast"
    BROADCAST = "broadcast"
    METADATA = "cloud metadata"
    RESERVED = "reserved"


def _networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(IPv6Network(text) if ":" in text else IPv4Network(text) for text in texts)


# Metadata before link-local, which holds most of it.
_SPECIAL: tuple[tuple[Special, tuple[IPv4Network | IPv6Network, ...]], ...] = (
    (Special.LOOPBACK, _networks("127.0.0.0/8", "::1/128")),
    (Special.UNSPECIFIED, _networks("0.0.0.0/8", "::/128")),
    (Special.METADATA, _networks(*(service.address for service in METADATA_SERVICES))),
    (Special.LINK_LOCAL, _networks("169.254.0.0/16", "fe80::/10")),
    (Special.MULTICAST, _networks("224.0.0.0/4", "ff00::/8")),
    (Special.BROADCAST, _networks("255.255.255.255/32")),
    # Class E; IPv4-compatible IPv6 and site-local, both deprecated.
    (Special.RESERVED, _networks("240.0.0.0/4", "::/96", "fec0::/10")),
)

_Found = tuple[Special, IPv4Network | IPv6Network] | None


def _table(version: int) -> tuple[list[int], list[_Found]]:
    """The addresses at which another answer begins, in order, and the answers: the first network counts."""
    all_networks = [
        (kind, network) for kind, networks in _SPECIAL for network in networks if network.version == version
    ]
    points = {0}
    for _, network in all_networks:
        points |= {int(network.network_address), int(network.broadcast_address) + 1}
    in_order = sorted(points)
    return in_order, [
        next(
            (
                (kind, network)
                for kind, network in all_networks
                if int(network.network_address) <= point <= int(network.broadcast_address)
            ),
            None,
        )
        for point in in_order
    ]


_TABLES = {version: _table(version) for version in (4, 6)}

_NAT64 = IPv6Network("64:ff9b::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
#: "This network" (RFC 791), and its IPv4-compatible form.
_NOWHERE, _COMPATIBLE_NOWHERE = IPv4Network("0.0.0.0/8"), IPv6Network("::/104")
#: The addresses to which the kernel connects a socket that asks for "0.0.0.0" or "::".
_LOOPBACK: dict[int, IPv4Address | IPv6Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
#: The bytes of ISATAP's interface identifiers before a private IPv4 address, and before a global one.
_ISATAP = frozenset({bytes.fromhex("00005efe"), bytes.fromhex("02005efe")})


#: A socket that is bound to a wildcard has every address of the family. A client of BIND that names a
#: wildcard does not say which peer it waits for.
WILDCARD = {AddressType.IPV4: "0.0.0.0", AddressType.IPV6: "::"}
WILDCARDS = frozenset(WILDCARD.values())


@lru_cache(maxsize=4096)
def special(host: str) -> Special | None:
    """
    What is special about the literal address *host*, or None.

    :raises ValueError: when *host* is not a literal address.
    """
    for address in carried(ip_address(host)):
        found = special_network(address)
        if found is not None:
            return found[0]
    return None


def special_network(
    address: IPv4Address | IPv6Address,
) -> _Found:
    """What is special about *address* itself, whatever it may carry, and the network that makes it so."""
    points, found = _TABLES[address.version]
    return found[bisect_right(points, int(address)) - 1]


def is_no_host(host: str) -> bool:
    """Whether the literal address *host* is in 0.0.0.0/8, in any form, so that no peer can have it."""
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address in _COMPATIBLE_NOWHERE and not address.is_loopback:
        return True
    return any(isinstance(one, IPv4Address) and one in _NOWHERE for one in carried(address))


def special_networks(kind: Special) -> tuple[IPv4Network | IPv6Network, ...]:
    """All networks whose addresses are special in the way *kind*."""
    return next(networks for one, networks in _SPECIAL if one is kind)


def carried(address: IPv4Address | IPv6Address) -> tuple[IPv4Address | IPv6Address, ...]:
    """The addresses to which *address* may lead: IPv4 addresses inside, *address* itself, or both."""
    if address.is_unspecified:
        return (address, _LOOPBACK[address.version])
    if isinstance(address, IPv4Address):
        return (address,)
    inner = address.ipv4_mapped or address.sixtofour
    if inner is not None:
        return (inner,)
    if address.teredo is not None:
        return (address.teredo[1],)
    if address in _NAT64 or address in _TRANSLATED:
        return (IPv4Address(address.packed[12:]),)
    if address in _LOCAL_NAT64:
        return _translated(address.packed)
    # "::1" carries no address.
    compatible = address in _COMPATIBLE and address.packed[12]
    if compatible or address.packed[8:12] in _ISATAP:
        return (address, IPv4Address(address.packed[12:]))
    return (address,)


def _translated(octets: bytes) -> tuple[IPv4Address, ...]:
    """
    The readings of an address with a local NAT64 prefix (RFC 6052, section 2.2).

    The length of the prefix is not known. A shorter prefix is possible if the bits behind the address are
    zero.
    """
    readings = [octets[12:]]
    for inner, rest in (
        (octets[6:8] + octets[9:11], octets[11:]),
        (octets[7:8] + octets[9:12], octets[12:]),
        (octets[9:13], octets[13:]),
    ):
        if not any(rest):
            readings.append(inner)
    # If a shorter prefix is possible, the last four octets are padding.
    return tuple(IPv4Address(reading) for reading in (readings[1:] or readings))


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """
    Whether *host* is a literal loopback address, or the IPv4-mapped form of one.

    A loopback address in another disguise belongs to another host.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
