"""
A reactor for endpoints that passes on what they ask for.

Strategy: an endpoint does not tell where it is going to listen, but it asks a reactor for a port. So
endpoints are made with a :class:`ListeningReactor`, which makes a :class:`PortRequest` of each call. The
function that gets the request opens the port, hands out one that is open already, or adopts a descriptor.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from twisted.internet.error import CannotListenError
from zope.interface import directlyProvides, providedBy


class PortKind(Enum):
    """The kinds of ports that an endpoint asks for."""

    TCP = "tcp"
    #: A TCP port on ``::`` that leaves IPv4 clients to another port.
    TCP_IPV6_ONLY = "tcp of IPv6 only"
    UNIX = "unix"
    #: A socket that another program has opened and passed to this process.
    ADOPTED = "adopted"


class PortRequest(NamedTuple):
    """
    A port that an endpoint asks for.

    :ivar kind: the kind of port.
    :ivar place: interface and port number of TCP; path of a Unix port, and None; descriptor and address
        family of an adopted one.
    :ivar factory: serves the clients.
    :ivar backlog: how many clients wait to be accepted.
    :ivar mode: the permissions of a Unix port's file.
    :ivar wants_pid: whether a Unix port has a lock file.
    """

    kind: PortKind
    place: tuple[Any, Any]
    factory: Any
    backlog: int = 50
    mode: int = 0o666
    wants_pid: bool = False

    @property
    def key(self) -> tuple[PortKind, Any, Any]:
        """The same for every request for the same port."""
        where, number = self.place
        return self.kind, where or "0.0.0.0", number

    def open(self, reactor: Any) -> Any:
        """
        Open the port with *reactor*.

        :returns: the port.
        :raises CannotListenError: when the system does not allow it.
        """
        where, number = self.place
        if self.kind is PortKind.ADOPTED:
            return reactor.adoptStreamPort(where, number, self.factory)
        if self.kind is PortKind.UNIX:
            return reactor.listenUNIX(where, self.factory, self.backlog, self.mode, self.wants_pid)
        if self.kind is PortKind.TCP_IPV6_ONLY:
            return self._open_ipv6_only(reactor)
        return reactor.listenTCP(number, self.factory, self.backlog, where)

    def _open_ipv6_only(self, reactor: Any) -> Any:
        """Twisted's own port on ``::`` accepts IPv4 clients, too, and so clashes with IPv4's port."""
        port = self.place[1]
        with socket.socket(socket.AF_INET6) as listening:
            listening.setblocking(False)
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.bind(("::", port))
                listening.listen(self.backlog)
            except OSError as problem:
                raise CannotListenError("::", port, problem) from None
            return reactor.adoptStreamPort(listening.fileno(), socket.AF_INET6, self.factory)


OpenPort: TypeAlias = Callable[[PortRequest], Any]


class ListeningReactor:
    """
    A reactor for endpoints.

    :param reactor: does everything but listening.
    :param open_port: is given each request, and returns the port.
    """

    def __init__(self, reactor: Any, open_port: OpenPort) -> None:
        self._reactor = reactor
        self._open_port = open_port
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See :meth:`twisted.internet.interfaces.IReactorTCP.listenTCP`."""
        return self._open_port(PortRequest(PortKind.TCP, (interface, port), factory, backlog))

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        """See :meth:`twisted.internet.interfaces.IReactorSSL.listenSSL`."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory), backlog, interface)

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        """See :meth:`twisted.internet.interfaces.IReactorUNIX.listenUNIX`."""
        return self._open_port(PortRequest(PortKind.UNIX, (address, None), factory, backlog, mode, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See :meth:`twisted.internet.interfaces.IReactorSocket.adoptStreamPort`."""
        return self._open_port(PortRequest(PortKind.ADOPTED, (fileDescriptor, addressFamily), factory))
