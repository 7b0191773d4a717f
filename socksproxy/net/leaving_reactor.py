"""
A reactor whose TCP connections leave by an interface, with a mark, or from a namespace.
"""

from __future__ import annotations

import socket
from typing import Any

from zope.interface import directlyProvides, providedBy

from ..twisted_internals import connect_from
from ..wire.words import Address
from .sockets import NewSocket


class LeavingReactor:
    """
    A reactor for endpoints that connect to literal addresses.

    :param reactor: does everything but make sockets.
    :param new_socket: makes the sockets of TCP connections; its OSError makes a connection fail.
    """

    def __init__(self, reactor: Any, new_socket: NewSocket) -> None:
        self._reactor = reactor
        self._new_socket = new_socket
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        """See :meth:`twisted.internet.interfaces.IReactorTCP.connectTCP`."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        link = self._new_socket(family, socket.SOCK_STREAM)
        return connect_from(self._reactor, Address.of(host, port), factory, timeout, bindAddress, link)
