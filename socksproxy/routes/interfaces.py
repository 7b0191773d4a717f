"""
The interface of every way out.
"""

from __future__ import annotations

from typing import Protocol

from ..net.dial import Pending
from ..wire.password import Credentials
from ..wire.words import Address


class Trail:
    """
    The record of a connection that leaves through proxies.

    :param via: the proxies, the first one from here first.
    :param credentials: the credentials that the client has shown; None: it has shown none.
    :ivar tries: the number of connections to first proxies that have begun.
    :ivar asked: whether a last proxy has the request.
    :ivar reply: the number in a last proxy's reply: REP, CD or the status of HTTP; None: no reply so far.
    """

    __slots__ = ("asked", "credentials", "reply", "tries", "via")

    def __init__(self, via: str, credentials: Credentials | None = None) -> None:
        self.via = via
        self.credentials = credentials
        self.tries = 0
        self.asked = False
        self.reply: int | None = None


class Route(Protocol):
    """
    A way out. Rules, users and the server give one.

    :ivar resolves: whether the route looks names up itself. If not, it takes literal addresses only.
    :ivar via: the proxies of the route, with ``>`` between them, the first one from here first; None: the
        route leads directly to the destination. A route through proxies carries CONNECT alone.
    """

    @property
    def resolves(self) -> bool: ...

    @property
    def via(self) -> str | None: ...

    def dial(self, address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """
        Start one attempt to connect.

        :param address: the checked destination.
        :param engine: whether the client's end of the relay can be in the relay engine; both ends of a
            relay are of one kind.
        :param trail: records the attempt, where the route leads through proxies.
        :returns: fires with the connection, a :class:`~socksproxy.net.dial.Dialed`; it can be cancelled.
        """

    def source(self, address: Address) -> str | None:
        """
        The literal address of this machine by which BIND's peers at *address* know us, and from which
        datagrams to *address* leave; None: the server's settings or the system decide.
        """
