"""
The proxy that a program is led through, as the calls of the program need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from socket import AF_INET, AF_INET6
from typing import NamedTuple

from ..client.handshake import Handshake, Login
from ..wire.words import Address, Command, Request, Version
from . import sockaddr


class Upstream:
    """
    A proxy with its login.

    :param hosts: its literal addresses, the best first.
    :param port: its port.
    :param version: of the protocol; SOCKS4 is SOCKS4a.
    :param login: of SOCKS5.
    :param userid: of SOCKS4.
    """

    __slots__ = ("_hosts", "_login", "_port", "_userid", "_version")

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        version: Version = Version.SOCKS5,
        login: Login | None = None,
        userid: bytes = b"",
    ) -> None:
        self._hosts = tuple(hosts)
        self._port = port
        self._version = version
        self._login = login
        self._userid = userid

    def sockaddr_for(self, family: int) -> bytes | None:
        """The proxy's address for a socket of *family*; None: it has none there."""
        of_family = [host for host in self._hosts if (":" in host) == (family == AF_INET6)]
        for host in of_family or (self._hosts if family == AF_INET6 else ()):
            return sockaddr.build(family, host, self._port)
        return None

    @property
    def family(self) -> int:
        """The family of its best address."""
        return AF_INET6 if ":" in self._hosts[0] else AF_INET

    def handshake(self, destination: Address, command: Command = Command.CONNECT) -> Handshake:
        """
        The handshake for *destination*.

        :raises ValueError: where the protocol has no form for it.
        """
        return Handshake(Request(self._version, command, destination, self._userid), self._login)


class RunSettings(NamedTuple):
    """
    How a program is led.

    :ivar upstream: the proxy.
    :ivar direct: networks that are reached without it.
    :ivar udp_direct: whether UDP goes around it.
    :ivar timeout: seconds for a connection through it.
    """

    upstream: Upstream
    direct: Sequence[IPv4Network | IPv6Network] = ()
    udp_direct: bool = False
    timeout: float = 60.0
