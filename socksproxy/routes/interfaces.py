"""
The interface of every way out.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from typing import NamedTuple, Protocol, TypeAlias, cast

from twisted.internet.defer import Deferred

from ..net.dial import Dialed, Pending
from ..net.resolve import NameLookups
from ..net.sockets import NewSocket
from ..values.outgoing import Asker
from ..wire.password import Credentials
from ..wire.words import Address, Command
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

    def branch(self) -> Trail:
        """A trail of the same session, for an attempt beside this one."""
        trail = Trail(self.via, self.credentials, self._traveller)
        trail._own = self._own
        return trail

    @property
    def own_credentials(self) -> Credentials:
        """
        A name and a password, which are the session's alone: what a proxy keeps apart by them.

        They are random ones, or those of the sticky session, which all its connections share.
        """
        if self._own is None:
            pin = self.pin()
            secret = token_hex(32) if pin is None else pin.login.hex()
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
        route leads directly to the destination.
    :ivar judges: whether the route passes on the name that the client has asked for, in place of the address
        of the name that the policy has judged. One address of the name is enough then.
    :ivar names: looks up the names of destinations for this route; None: the server's own look-ups do.
    :ivar needs_trail: whether :meth:`dial` needs a trail. The caller calls :meth:`Trail.leave` when the
        connection has ended.
    :ivar identity: equal to that of a route which leads the same way, with the same settings.
    """

    @property
    def resolves(self) -> bool: ...

    @property
    def identity(self) -> object: ...

    @property
    def via(self) -> str | None: ...

    @property
    def judges(self) -> bool: ...

    @property
    def names(self) -> NameLookups | None: ...

    @property
    def needs_trail(self) -> bool: ...

    def carries(self, command: Command) -> bool:
        """Whether requests for *command* can leave by this way."""

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


def through_proxies(route: Route) -> ProxyRoute | None:
    """*route*, where it leads through proxies; else None."""
    return None if route.via is None else cast("ProxyRoute", route)


#: Gives the literal address of this machine from which something leaves to an address; None: the usual one.
#: It raises an OSError where there is no address of the family.
SourceTo: TypeAlias = Callable[[Address], str | None]


class UpstreamAssociation(Protocol):
    """
    The associations with all proxies of a route, or the way of datagrams that leave without a proxy.

    :ivar own: the address at this end of the connection to the first proxy.
    :ivar relays: where the proxies take datagrams, the first proxy first; its address is literal. Empty:
        there is no proxy.
    :ivar new_socket: makes sockets that leave as the connection to the first proxy does, or as datagrams do
        without a proxy; None: as all others.
    """

    own: Address
    relays: tuple[Address, ...]
    new_socket: NewSocket | None

    def source(self, address: Address) -> str | None:
        """Without a proxy, the address from which datagrams to *address* leave, as :data:`SourceTo`."""

    def watch(self, ended: Callable[[], None]) -> None:
        """Call *ended* once, when a proxy ends its association; at once, if one has done so already."""

    def close(self) -> None:
        """End the associations."""


class UpstreamBound(NamedTuple):
    """
    The last proxy of a route listens, or this machine does.

    :ivar address: where the peer is to connect.
    :ivar accepted: fires with the peer's connection, whose :attr:`~socksproxy.net.dial.Dialed.bound` is the
        peer's address as the proxy tells it; cancelling it closes the connection to the proxy.
    :ivar here: whether this machine listens, and has judged the peer.
    """

    address: Address
    accepted: Deferred[Dialed]
    here: bool = False


#: Listens at this machine, at the address from which the peer is reached, by sockets that leave in a way of
#: their own (None: as all others). It raises a SOCKSError or an OSError where that cannot be.
ListenHere: TypeAlias = Callable[[SourceTo, NewSocket | None], UpstreamBound]


class ProxyRoute(Route, Protocol):
    """
    A route through proxies, or a direct one with a name. :meth:`Route.carries` tells which of its methods can
    succeed.
    """

    def associate(self, trail: Trail) -> Deferred[UpstreamAssociation]:
        """
        Ask each proxy for an association.

        :param trail: records the attempt.
        :returns: fires with the associations, which the caller closes; it can be cancelled.
        :raises SOCKSError: (by the Deferred) when a proxy fails or refuses.
        """

    def bind(self, peer: Address, engine: bool, trail: Trail, listen: ListenHere) -> Deferred[UpstreamBound]:
        """
        Have the last proxy listen for a connection from *peer*.

        :param engine: as for :meth:`Route.dial`.
        :param listen: listens, if there is no proxy.
        :returns: fires when it listens; it can be cancelled.
        :raises SOCKSError: (by the Deferred) when a proxy fails or refuses.
        """

    def resolve(self, command: Command, destination: Address, trail: Trail) -> Deferred[Address]:
        """
        Have the last proxy look up a name (RESOLVE) or an address (RESOLVE_PTR).

        :returns: fires with the answer: an address or a name; it can be cancelled.
        :raises SOCKSError: (by the Deferred) when a proxy fails or refuses.
        """
