"""
Addresses that stand for names.

A program looks a name up and gets an address that no host has; when it connects there, the proxy is told the
name. IPv4 addresses are of 198.18.0.0/15, the range for benchmarks (RFC 2544), IPv6 addresses of the prefix
100:0:0:1::/64, which no router forwards (RFC 9780).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

NETWORKS = (ip_network("198.18.0.0/15"), ip_network("100:0:0:1::/64"))
_FIRST4, _FIRST6 = (int(network.network_address) for network in NETWORKS)
#: As many names as the IPv4 range has hosts.
MOST = NETWORKS[0].num_addresses - 2


class StandIns:
    """
    Names and their addresses. When all addresses are in use, the name that was not used longest loses its
    own.

    :param most: how many names have an address at the same time.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        # In the order of their last use.
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def addresses_of(self, name: str) -> tuple[str, str]:
        """The IPv4 and the IPv6 address that stand for *name*, in whatever case it is written."""
        key = name.lower().removesuffix(".")
        number = self._numbers.pop(key, 0) or self._free_number()
        self._numbers[key] = number
        self._names[number] = key
        return str(IPv4Address(_FIRST4 + number)), str(IPv6Address(_FIRST6 + number))

    def name_of(self, host: str) -> str | None:
        """The name for which the literal address *host* stands; None: it stands for none."""
        address = ip_address(host)
        first = _FIRST4 if address.version == 4 else _FIRST6
        name = self._names.get(int(address) - first)
        if name is not None:
            self._numbers[name] = self._numbers.pop(name)
        return name

    def _free_number(self) -> int:
        if len(self._numbers) < self._most:
            return len(self._numbers) + 1
        oldest = next(iter(self._numbers))
        return self._numbers.pop(oldest)


def is_stand_in(host: str) -> bool:
    """Whether the literal address *host* is of a range of stand-ins."""
    address = ip_address(host)
    return any(address in network for network in NETWORKS)
