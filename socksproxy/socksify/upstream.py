"""
The proxy that a program is led through, as the calls of the program need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from socket import AF_INET6
from typing import NamedTuple

from ..client.connecting import Conversation
from ..client.endpoints import http_handshake
from ..client.proxy import Kind, Proxy
from ..wire.words import Address, Command
from . import sockaddr


class RunProxy:
    """
    A proxy whose connections become those of programs.

    :param proxy: the proxy: SOCKS or HTTP, without TLS.
    :param hosts: its literal addresses, the best first.
    :raises ValueError: for a proxy whose connection needs more than the kernel, or that takes no names.
    """

    __slots__ = ("_hosts", "proxy")

    def __init__(self, proxy: Proxy, hosts: Sequence[str]) -> None:
        self.proxy = proxy
        self._hosts = tuple(hosts)
        if proxy.kind is Kind.HTTPS or proxy.via is not None:
            raise ValueError(
                "the program gets the connection to the proxy as its own, without TLS and without a chain: "
                "use socksproxy forward for those"
            )
        if proxy.kind is Kind.SOCKS4:
            raise ValueError("names of programs go to the proxy, which takes socks4a or socks5, not socks4")

    def sockaddr_for(self, family: int) -> bytes | None:
        """The proxy's address for a socket of *family*; None: it has none there."""
        of_family = [host for host in self._hosts if (":" in host) == (family == AF_INET6)]
        for host in of_family or (self._hosts if family == AF_INET6 else ()):
            return sockaddr.build(family, host, self.proxy.port)
        return None

    def handshake(self, destination: Address) -> Conversation:
        """
        The handshake of CONNECT to *destination*.

        :raises ProxiedConnectError: where the protocol has no form for it.
        """
        if self.proxy.kind is Kind.HTTP:
            return http_handshake()(destination, self.proxy.login)
        handshake: Conversation
        handshake, _ = self.proxy.request(Command.CONNECT, destination.host, destination.port)
        return handshake


class RunSettings(NamedTuple):
    """
    How a program is led.

    :ivar upstream: the proxy.
    :ivar direct: networks that are reached without it.
    :ivar udp_direct: whether UDP goes around it.
    :ivar timeout: seconds for a connection through it.
    """

    upstream: RunProxy
    direct: Sequence[IPv4Network | IPv6Network] = ()
    udp_direct: bool = False
    timeout: float = 60.0
