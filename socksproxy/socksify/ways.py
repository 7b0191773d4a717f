"""
Where a connection or a datagram of a program goes: to our name server, straight to its destination, or
through the proxy.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address

from ..net.local import is_local
from ..wire.words import Address, AddressType
from .stand_ins import StandIns, is_stand_in

_DNS_PORT = 53


class Way(Enum):
    """What is not for the proxy."""

    #: The own name server answers.
    NAMES = "names"
    #: The destination is reached directly.
    DIRECT = "direct"


class Ways:
    """
    Decides by the destination alone.

    :param stand_ins: the names that addresses stand for.
    :param direct: the networks that are reached without the proxy.
    """

    def __init__(self, stand_ins: StandIns, direct: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._stand_ins = stand_ins
        self._direct = tuple(direct)

    def way_to(self, destination: Address) -> Way | Address:
        """
        The way to *destination*, a literal address: an address is what the proxy is asked for.

        Queries to every name server are for ours, on this machine (a stub resolver such as 127.0.0.53) and
        elsewhere.

        :raises OSError: with what the program is told, where no way leads.
        """
        host, port, _ = destination
        if port == _DNS_PORT:
            return Way.NAMES
        if is_stand_in(host):
            name = self._stand_ins.name_of(host)
            if name is None:
                raise OSError(errno.EHOSTUNREACH, "the address stands for no name")
            return Address(name, port, AddressType.DOMAIN_NAME)
        address = ip_address(host)
        if (
            address.is_loopback
            or address.is_unspecified
            or any(address in network for network in self._direct)
        ):
            return Way.DIRECT
        if (
            address.is_multicast
            or (address.is_link_local and address.version == 6)
            or host == "255.255.255.255"
        ):
            raise OSError(errno.ENETUNREACH, "no proxy leads to a group or to a link")
        return Way.DIRECT if is_local(host) else destination
