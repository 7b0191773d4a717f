"""
From a destination as a client sent it to one that can be looked up or dialed.

A name that is a literal address counts as that address; other names must be
such as the DNS allows (RFC 1035, section 2.3.1, with underscores, which are in
use), or be turned into such by IDNA (RFC 3490, what the C library does).
"""

from __future__ import annotations

import re
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any

from .errors import NameNotFound
from .wire.words import Address, AddressType

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)
# What inet_aton takes: "127.1", "0x7f.1", "2130706433", "0177.0.0.1". A resolver would
# turn them into addresses that no rule on names or addresses has seen.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}", re.IGNORECASE)
_MAX_LENGTH = 253
_SHOWN = 255


def canonical(destination: Address) -> Address:
    """
    *destination* with a host that is a literal address or a name in ASCII and lower case.

    An IPv4-mapped IPv6 address becomes the IPv4 address that it is.

    :raises NameNotFound: for what cannot be the name of a host.
    """
    if destination.type is AddressType.IPV4:
        return destination
    host, port = destination.host, destination.port
    if destination.type is AddressType.IPV6:
        return unmapped(host, port)
    address = literal(host)
    if address is not None:
        return unmapped(address, port)
    return Address(_checked(host), port, AddressType.DOMAIN_NAME)


def unmapped(host: str, port: int) -> Address:
    """
    The literal address *host* and *port*, of the family that its packets have.

    An IPv4-mapped address would go round the rules and the outgoing address for IPv4.
    """
    host = plain(host)
    return Address(host, port, AddressType.IPV6 if ":" in host else AddressType.IPV4)


def literal(host: str) -> str | None:
    """*host*, if it is a literal address, as the system writes it; None: it is none."""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    for family in (AF_INET, AF_INET6):
        try:
            return inet_ntop(family, inet_pton(family, host))
        except (OSError, ValueError):
            continue
    return None


def _checked(host: str) -> str:
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise NameNotFound("the destination's name is not one that the DNS allows") from None
    bare = name[:-1] if name.endswith(".") else name
    if not bare or len(bare) > _MAX_LENGTH or _NUMERIC.fullmatch(bare):
        raise NameNotFound("the destination's name is not one that the DNS allows")
    if not all(_LABEL.fullmatch(label) for label in bare.split(".")):
        raise NameNotFound("the destination's name is not one that the DNS allows")
    return name.lower()


def printable(text: str) -> str:
    """*text* for a log: backslashes, control and undecodable characters escaped, cut at 255 characters."""
    if text.isascii() and text.isprintable() and "\\" not in text and len(text) <= _SHOWN:
        return text
    return _cut("".join(c if c.isprintable() and c != "\\" else _escaped(c) for c in text))


def line_of_record(text: str) -> str:
    """
    *text* for a record, cut at 255 characters: control and undecodable characters are escaped.

    Backslashes are not: whoever writes the record as text or JSON escapes them.
    """
    return _cut(in_one_line(text))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def in_one_line(text: str) -> str:
    """*text* without anything that a terminal could take for more than a character of its line."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def escape_unknown(*streams: Any) -> None:
    """Have text *streams* escape the characters that their encoding lacks, as those of the C locale do."""
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # a stand-in for a stream may be any object
            stream.reconfigure(errors="backslashreplace")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def plain(host: str) -> str:
    """The literal address *host* without its IPv4-mapped disguise (RFC 4291, section 2.5.5.2)."""
    # "::ffff:0:192.0.2.1" is another disguise, which stays on.
    return host[7:] if host.startswith("::ffff:") and "." in host and ":" not in host[7:] else host
