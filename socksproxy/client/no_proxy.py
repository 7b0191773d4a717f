"""
``NO_PROXY``: the destinations that are reached without a proxy.

The rules are those of Go's ``golang.org/x/net/http/httpproxy``, but for loopback, which is no exception here.
Nothing is looked up: a name matches names, and an address matches addresses.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from ..net.names import literal, plain

_IPAddress = IPv4Address | IPv6Address


class _Entry(NamedTuple):
    """One element of the list. Exactly one of *network*, *suffix* is given; None for both: every host."""

    network: IPv4Network | IPv6Network | None
    suffix: str | None
    subdomains_only: bool
    port: int | None

    def matches(self, host: str, address: _IPAddress | None, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is not None:
            return address is not None and address in self.network
        if self.suffix is None:
            return True
        if address is not None:
            return False
        return host.endswith(f".{self.suffix}") or (not self.subdomains_only and host == self.suffix)


class NoProxy:
    """
    A list of destinations.

    :param text: elements with commas or blanks between: ``*`` (every host), an address, a network
        (``10.0.0.0/8``), a name with its subdomains (``example.org``) or the subdomains
        alone (``.example.org``, ``*.example.org``). Each but a network may have a port (``example.org:8080``,
        ``[::1]:80``). An element that is none of these matches nothing.
    """

    __slots__ = ("_entries", "text")

    def __init__(self, text: str = "") -> None:
        self.text = text
        found = (_entry(element) for element in text.replace(",", " ").lower().split())
        self._entries = tuple(entry for entry in found if entry is not None)

    def matches(self, host: str | bytes, port: int) -> bool:
        """Whether *host*, a name or a literal address, and *port* are in the list."""
        if not self._entries:
            return False
        text = host.decode("ascii", "surrogateescape") if isinstance(host, bytes) else host
        numeric = literal(text)
        address = None if numeric is None else ip_address(plain(numeric))
        name = text.lower().removesuffix(".")
        return any(entry.matches(name, address, port) for entry in self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoProxy) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(self._entries)

    def __repr__(self) -> str:
        return f"NoProxy({self.text!r})"


def _entry(element: str) -> _Entry | None:
    if "/" in element:
        try:
            return _Entry(ip_network(element, strict=False), None, False, None)
        except ValueError:
            return None
    host, port = _split(element)
    address = literal(host)
    if address is not None:
        return _Entry(ip_network(plain(address)), None, False, port)
    if host == "*":
        return _Entry(None, None, False, port)
    suffix = host.removeprefix("*").removeprefix(".").removesuffix(".")
    if not suffix or "*" in suffix:
        return None
    return _Entry(None, suffix, host.startswith((".", "*.")), port)


def _split(element: str) -> tuple[str, int | None]:
    """The host and the port of *element*; an address of IPv6 without brackets has no port."""
    host, colon, port = element.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or (":" in host and not host.endswith("]")):
        return element, None
    return host, int(port)
