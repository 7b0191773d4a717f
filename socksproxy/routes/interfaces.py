"""
The interface of every way out.
"""

from __future__ import annotations

from secrets import token_hex
from typing import Protocol, TypeAlias

from ..net.dial import Pending
from ..net.resolve import NameLookups
from ..values.outgoing import Asker
from ..wire.password import Credentials
from ..wire.words import Address
from .counters import UpstreamCounters
from .sticky import Pin

#: A literal address and a port.
_Place: TypeAlias = tuple[str, int]


class Traveller(Protocol):
    """What a route may ask about the session that it carries."""

    def ends(self) -> tuple[_Place, _Place] | None:
        """The client's address, and the address that the client has reached; None: there are none."""

    def asker(self) -> Asker:
        """The client and the user, by whom pools choose."""

    def pin(self) -> Pin | None:
        """The sticky session that the client's name asks for; None: it asks for none."""

    def name(self) -> Address | None:
        """The destination in canonical form, where the client has asked for a name; None: for an address."""


class Trail:
    """
    The record of a connection that leaves through upstreams.

    :param via: the proxies, the first one from here first; None: there is none.
    :param credentials: the credentials that the client has shown; None: it has shown none.
    :param traveller: the session; None: there is none.
    :ivar tries: the number of connections to first proxies that have begun.
    :ivar asked: whether a last proxy has the request.
    :ivar reply: the number in a last proxy's reply: REP, CD or the status of HTTP; None: no reply so far.
    :ivar entered: the upstreams that the connection occupies, from its success to :meth:`leave`.
    """

    __slots__ = ("_own", "_traveller", "asked", "credentials", "entered", "reply", "tries", "via")

    def __init__(
        self,
        via: str | None,
        credentials: Credentials | None = None,
        traveller: Traveller | None = None,
    ) -> None:
        self.via = via
        self.credentials = credentials
        self.tries = 0
        self.asked = False
        self.reply: int | None = None
        self.entered: tuple[UpstreamCounters, ...] = ()
        self._traveller = traveller
        self._own: Credentials | None = None

    @property
    def own_credentials(self) -> Credentials:
        """
        A name and a password, which are the session's alone: what a proxy keeps apart by them.

        They are random ones, or those of the sticky session, which all its connections share.
        """
        if self._own is None:
            pin = self.pin()
            secret = token_hex(32) if pin is None else pin.key.hex()
            self._own = Credentials(secret[:32].encode(), secret[32:].encode())
        return self._own

    def ends(self) -> tuple[_Place, _Place] | None:
        """See :meth:`Traveller.ends`."""
        return None if self._traveller is None else self._traveller.ends()

    def asker(self) -> Asker:
        """See :meth:`Traveller.asker`."""
        return Asker() if self._traveller is None else self._traveller.asker()

    def pin(self) -> Pin | None:
        """See :meth:`Traveller.pin`."""
        return None if self._traveller is None else self._traveller.pin()

    def name(self) -> Address | None:
        """See :meth:`Traveller.name`."""
        return None if self._traveller is None else self._traveller.name()

    def leave(self) -> None:
        """The connection has ended: it occupies no upstream any more."""
        entered, self.entered = self.entered, ()
        for counters in entered:
            counters.leave()


class Route(Protocol):
    """
    A way out. Rules, users and the server give one.

    :ivar resolves: whether the route looks names up itself. If not, it takes literal addresses only.
    :ivar via: the proxies of the route, with ``>`` between them, the first one from here first; None: the
        route leads directly to the destination. A route through proxies carries CONNECT alone.
    :ivar judges: whether the route passes on the name that the client has asked for, in place of the address
        of the name that the policy has judged. One address of the name is enough then.
    :ivar names: looks up the names of destinations for this route; None: the server's own look-ups do.
    :ivar needs_trail: whether :meth:`dial` needs a trail. The caller calls :meth:`Trail.leave` when the
        connection has ended.
    """

    @property
    def resolves(self) -> bool: ...

    @property
    def via(self) -> str | None: ...

    @property
    def judges(self) -> bool: ...

    @property
    def names(self) -> NameLookups | None: ...

    @property
    def needs_trail(self) -> bool: ...

    def dial(self, address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """
        Start one attempt to connect.

        :param address: the checked destination.
        :param engine: whether the client's end of the relay can be in the relay engine; both ends of a
            relay are of one kind.
        :param trail: records the attempt, where the route needs one.
        :returns: fires with the connection, a :class:`~socksproxy.net.dial.Dialed`; it can be cancelled.
        """

    def source(self, address: Address) -> str | None:
        """
        The literal address of this machine by which BIND's peers at *address* know us, and from which
        datagrams to *address* leave; None: the server's settings or the system decide.
        """
