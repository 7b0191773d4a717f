"""
From a destination as a client sent it to one that can be looked up or dialed.

A name that is a literal address counts as that address. Every other name consists of labels of letters,
digits, hyphens and underscores in any order (RFC 2181, section 11). IDNA 2008 (RFC 5891) turns a label that
is not ASCII into such a label, after the mapping of UTS 46, non-transitional.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

import idna

from ..errors import NameNotFound
from ..wire.words import Address, AddressType

_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
# The numbers that inet_aton reads: "0x7f", "0177", "2130706433".
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_MAX_LENGTH = 253
# The ends of "1", "0x7f", "0x" and "1.".
_ENDS_OF_NUMBERS = frozenset("0123456789abcdefx.")
_IMPOSSIBLE = "the destination's name is not one that the DNS allows"


def canonical(destination: Address, defines: Callable[[str], bool] = lambda _: False) -> Address:
    """
    *destination* with a host that is a literal address or a name in ASCII and lower case.

    An IPv4-mapped IPv6 address becomes the IPv4 address that it is.

    :param defines: whether the hosts file defines a name that :func:`reads_as_address`.
    :raises NameNotFound: when the host cannot be the name of a host.
    """
    if destination.type is AddressType.IPV4:
        return destination
    host, port = destination.host, destination.port
    if destination.type is AddressType.IPV6:
        return unmapped(host, port)
    address = literal(host)
    if address is not None:
        return unmapped(address, port)
    name = _checked(host)
    if reads_as_address(name) and (literal(name) is not None or not defines(name)):
        raise NameNotFound(_IMPOSSIBLE)
    return Address(name, port, AddressType.DOMAIN_NAME)


def unmapped(host: str, port: int) -> Address:
    """
    The literal address *host* and *port*, with the family of its packets.

    An IPv4-mapped address would evade the rules and the outgoing address for IPv4.
    """
    host = plain(host)
    return Address(host, port, AddressType.IPV6 if ":" in host else AddressType.IPV4)


def literal(host: str) -> str | None:
    """The literal address *host* as the system writes it; None: it is no literal address."""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    for family in (AF_INET, AF_INET6):
        try:
            return inet_ntop(family, inet_pton(family, host))
        except (OSError, ValueError):
            continue
    return None


def _checked(host: str) -> str:
    name = host.lower() if host.isascii() else _to_ascii(host)
    if len(bare := bare_name(name)) > _MAX_LENGTH or not _NAME.fullmatch(bare):
        raise NameNotFound(_IMPOSSIBLE)
    return name


def _to_ascii(host: str) -> str:
    """
    *host* in ASCII: labels that UTS 46 maps to ASCII as they are, the other labels as A-labels.

    The whole of :func:`idna.encode` would also refuse ASCII labels that are in use, such as ``_dmarc``.
    """
    try:
        labels = idna.uts46_remap(host, std3_rules=False, transitional=False).split(".")
        return ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in labels)
    except UnicodeError:
        raise NameNotFound(_IMPOSSIBLE) from None


def bare_name(name: str) -> str:
    """*name* without a dot at its end."""
    return name[:-1] if name.endswith(".") else name


def is_localhost(name: str) -> bool:
    """Whether *name*, in lower case, means this machine (RFC 6761, section 6.3)."""
    bare = bare_name(name)
    return bare == "localhost" or bare.endswith(".localhost")


def reads_as_address(name: str) -> bool:
    """
    Whether a C library reads *name* as an address: ``127.1``, ``0x7f000001``, ``1.2.3.4.``.

    Such a name must not reach a resolver, which would turn it into an address that no rule has seen. Dotted
    numbers that are too large (``256.1.1.1``) count, too, because no host has such a name. A single number
    that is too large, such as the container's name ``123456789012``, does not count.

    :param name: in lower case and ASCII.
    """
    if name[-1:] not in _ENDS_OF_NUMBERS:
        return False
    parts = bare_name(name).split(".")
    if len(parts) > 4 or not all(map(_NUMBER.fullmatch, parts)):
        return False
    return len(parts) > 1 or _number(parts[0]) < 1 << 32


def _number(text: str) -> int:
    """The number that a C library reads in *text*; some C libraries take 8 and 9 for octal digits."""
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") and not set(text) & set("89") else 10)


def plain(host: str) -> str:
    """The literal address *host*; an IPv4-mapped one (RFC 4291, section 2.5.5.2) as the IPv4 address."""
    # "::ffff:0:192.0.2.1" is another kind of address, which stays.
    return host[7:] if host.startswith("::ffff:") and "." in host and ":" not in host[7:] else host
