"""
What every way out can be asked.
"""

from __future__ import annotations

from typing import Protocol

from ..net.dial import Pending
from ..wire.words import Address


class Route(Protocol):
    """
    A way out. Rules, users and the server give one.

    :ivar resolves: whether the route looks names up itself; if not, it is given literal addresses only.
    """

    @property
    def resolves(self) -> bool: ...

    def dial(self, address: Address, engine: bool) -> Pending:
        """
        Start one attempt to connect.

        :param address: the checked destination.
        :param engine: whether the client's end of the relay can be in the relay engine; both ends of a
            relay are of one kind.
        :returns: ends with the connection, a :class:`~socksproxy.net.dial.Dialed`; it can be cancelled.
        """

    def source(self, address: Address) -> str | None:
        """
        The literal address of this machine by which BIND's peers at *address* know us, and from which
        datagrams to *address* leave; None: the server's settings or the system decide.
        """
