"""
Addresses of this machine, at most one of each family: what connections leave from, and what BIND listens on.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, NamedTuple

from ..wire.words import Address, AddressType
from .errors import ConfigError


class Outgoing(NamedTuple):
    """
    The addresses that connections leave from; None: the system's choice.

    :ivar ipv4: a literal address of this machine, for IPv4 destinations.
    :ivar ipv6: the same for IPv6 destinations.
    """

    ipv4: str | None = None
    ipv6: str | None = None

    def source(self, destination: Address) -> tuple[str, int] | None:
        """What to bind to before connecting to *destination*."""
        host = self.ipv6 if destination.type is AddressType.IPV6 else self.ipv4
        return None if host is None else (host, 0)

    def over(self, other: Outgoing) -> Outgoing:
        """These addresses, and *other*'s where there is none."""
        return Outgoing(self.ipv4 or other.ipv4, self.ipv6 or other.ipv6)


def outgoing_of(hosts: Iterable[Any]) -> Outgoing:
    """
    The addresses in *hosts*.

    :param hosts: at most one literal address of each family; an :class:`Outgoing` stays what it is.
    :raises ConfigError: for anything else; its path has the number of the entry.
    """
    if isinstance(hosts, Outgoing):
        return hosts
    if isinstance(hosts, (str, bytes)) or not isinstance(hosts, Iterable):
        raise ConfigError("not a list")
    found: dict[int, str] = {}
    for number, host in enumerate(hosts):
        try:
            version = ip_address(host).version if isinstance(host, str) and "%" not in host else None
        except ValueError:
            version = None
        if version is None:
            raise ConfigError("not a literal IPv4 or IPv6 address", host, path=(number,))
        if version in found:
            raise ConfigError(f"one IPv{version} address is enough", host, path=(number,))
        found[version] = host
    return Outgoing(found.get(4), found.get(6))
