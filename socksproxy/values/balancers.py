"""
The balancers in front of the server; the server accepts their PROXY headers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from .errors import ConfigError

Network: TypeAlias = IPv4Network | IPv6Network

#: Addresses for which the answer is remembered.
_REMEMBERED = 1024


class Balancers:
    """
    The addresses of the balancers, whose PROXY headers count.

    :param networks: literal addresses, and networks such as ``10.0.0.0/8``; empty: the headers of every
        client count that connects to a listener ``haproxy:``.
    :raises ConfigError: when an entry is neither an address nor a network.
    """

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self.networks = tuple(map(_network, networks))
        #: Whether the header of a client with this literal address counts.
        self.include: Callable[[str], bool] = lru_cache(_REMEMBERED)(self._include)

    def _include(self, host: str) -> bool:
        address = ip_address(host)
        return not self.networks or any(address in network for network in self.networks)


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError:
        raise ConfigError("not an address or a network such as 10.0.0.0/8", text) from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network


def balancers_of(networks: Balancers | Sequence[str]) -> Balancers:
    """The balancers of *networks*, which may be parsed already."""
    return networks if isinstance(networks, Balancers) else Balancers(networks)
