"""
Where a connection or a datagram of a program goes: to our name server, straight to its destination, or
through the proxy.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address

from ..errors import SHORTAGES
from ..net.local import ANY_PORT
from ..wire.words import Address, AddressType
from .stand_ins import StandIns, is_stand_in

_DNS_PORT = 53


class Bypass(Enum):
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

    def way_to(self, destination: Address) -> Bypass | Address:
        """
        The way to *destination*, a literal address: an address is what the proxy is asked for.

        Queries to every name server are for ours, on this machine (a stub resolver such as 127.0.0.53) and
        elsewhere.

        :raises OSError: with what the program is told, where no way leads.
        """
        host, port, _ = destination
        if port == _DNS_PORT:
            return Bypass.NAMES
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
            return Bypass.DIRECT
        if (
            address.is_multicast
            or (address.is_link_local and address.version == 6)
            or host == "255.255.255.255"
        ):
            raise OSError(errno.ENETUNREACH, "no proxy leads to a group or to a link")
        return Bypass.DIRECT if _is_own(host) else destination


def _is_own(host: str) -> bool:
    """
    Whether the literal address *host* is an address of this machine.

    :raises OSError: (ENETUNREACH) for the broadcast address of a network, which can be bound, too; for
        want of descriptors or memory, since the answer is not known then.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError as problem:
            if problem.errno in SHORTAGES:
                raise
            return False
        try:
            probe.connect((host, ANY_PORT))
        except PermissionError:
            raise OSError(errno.ENETUNREACH, "no proxy leads to all hosts of a network") from None
    return True
