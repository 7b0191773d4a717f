"""
Ports of our own for BIND and UDP ASSOCIATE, and the addresses that clients are told for them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Any, TypeVar

from ..values.ports import PortRange
from ..wire.words import AddressType
from .names import plain
from .tcp_options import HasOptions

T = TypeVar("T")

#: The buffers of a UDP socket: room for some of the largest datagrams.
BUFFERS = 1 << 20

_VERSIONS = {AddressType.IPV4: 4, AddressType.IPV6: 6}


def host_of(name: tuple[Any, ...]) -> str:
    """
    The literal address in *name*, the address of a socket; an IPv4-mapped address stands as IPv4.

    The number of its zone stands behind a link-local address (RFC 4007, section 11), as in ``fe80::1%2``: a
    socket cannot be bound there without it.
    """
    host = plain(name[0])
    return f"{host}%{name[3]}" if len(name) > 3 and name[3] and "%" not in host else host


def bindable(host: str, port: int) -> tuple[Any, ...]:
    """*host*, as :func:`host_of` gives it, and *port*, as a socket takes them, with the zone apart."""
    host, _, zone = host.partition("%")
    return (host, port, 0, int(zone)) if zone else (host, port)


def enlarge_buffers(link: HasOptions) -> None:
    """Give the UDP socket *link* larger buffers; the system may give less than this asks for."""
    for option in (SO_RCVBUF, SO_SNDBUF):
        link.setsockopt(SOL_SOCKET, option, BUFFERS)


def opened(ports: PortRange | None, open_port: Callable[[int], T], chance: Callable[[int], int]) -> T:
    """
    Open the first free port of *ports*, from a random one on.

    The first one is random so that outsiders cannot guess the next port.

    :param ports: None: the system chooses.
    :param open_port: opens a port (0: any), or raises an OSError.
    :param chance: gives a random number below its argument (:func:`random.randrange`).
    :returns: the result of *open_port*.
    :raises OSError: with ``EADDRINUSE`` when all ports are taken; any other error of *open_port* at once.
    """
    if ports is None:
        return open_port(0)
    count = ports.last - ports.first + 1
    start = chance(count)
    for step in range(count):
        try:
            return open_port(ports.first + (start + step) % count)
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"all ports from {ports.first} to {ports.last} are taken")


class Advertised:
    """
    Addresses that clients are told in place of our sockets' own, behind NAT or in a container.

    :param entries: ``ADDRESS``, for every client, or ``ADDRESS@NETWORK``, for clients of that network, as in
        ``203.0.113.5@10.0.0.0/8``. The narrowest network of a client counts.
    :raises ValueError: with one line that says what is wrong with an entry.
    """

    def __init__(self, entries: Sequence[str] = ()) -> None:
        parsed = [_entry(text) for text in entries]
        self._entries = sorted(parsed, key=_narrowest_first)

    def address(self, client: str | None, type: AddressType) -> str | None:
        """
        The address of the family *type* that the client is told; None: the address of our socket.

        :param client: the client's literal address; None: the client is on a Unix socket.
        """
        if not self._entries:
            return None
        host = None if client is None else ip_address(plain(client))
        for address, network in self._entries:
            if address.version == _VERSIONS.get(type) and (network is None or (host and host in network)):
                return str(address)
        return None


_Entry = tuple["IPv4Address | IPv6Address", "IPv4Network | IPv6Network | None"]


def _entry(text: str) -> _Entry:
    address, at, network = text.partition("@")
    try:
        told = ip_address(address)
    except ValueError:
        raise ValueError(f"{text!r}: {address!r} is not a literal address") from None
    if told.is_unspecified:
        raise ValueError(f"{text!r}: no client can reach {address}")
    if not at:
        return told, None
    try:
        return told, ip_network(network)
    except ValueError:
        raise ValueError(f"{text!r}: {network!r} is not a network such as 10.0.0.0/8") from None


def _narrowest_first(entry: _Entry) -> int:
    network = entry[1]
    # A client is in networks of one family only, so the widths of different families never compete.
    return 129 if network is None else network.max_prefixlen - network.prefixlen


def advertised_of(entries: Advertised | Sequence[str]) -> Advertised:
    """*entries*, parsed if they are not yet."""
    return entries if isinstance(entries, Advertised) else Advertised(entries)
