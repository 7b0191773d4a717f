"""
The direct route, from this machine to the destination without a proxy between.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import closing
from socket import AF_INET, AF_INET6, SOCK_DGRAM, SocketType
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, execute, fail
from twisted.internet.interfaces import IReactorTCP
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import SHORTAGES, CannotLeave, SOCKSError, UpstreamFull, reply_for
from ..net.dial import Connects, Pending, SocketDialer, TransportDialer, as_deferred
from ..net.resolve import NameLookups
from ..net.sockets import Leaving
from ..net.tcp_options import SocketOption
from ..values.outgoing import Outgoing, free_bind
from ..wire.words import UNSPECIFIED, Address, AddressType, Command, Reply
from .counters import UpstreamCounters, enter
from .interfaces import ListenHere, Trail, UpstreamAssociation, UpstreamBound
from .own import ICommandsRoute, IRoute

T = TypeVar("T")

#: The ends of connections that the other side has brought about.
_RESETS = frozenset({errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE})


def cannot_leave(problem: BaseException) -> bool:
    """Whether *problem* tells that a connection cannot leave this machine; others tell of the destination."""
    if isinstance(problem, SOCKSError):
        return isinstance(problem, CannotLeave)
    number = problem.errno if isinstance(problem, OSError) else getattr(problem, "osError", None)
    return reply_for(problem) is Reply.GENERAL_FAILURE and number not in _RESETS


@implementer(IRoute)
class Direct:
    """
    Connects to destinations directly from this machine.

    :param reactor: makes Twisted's transports.
    :param engine: gives the present relay engine; None: there is none, and all connections are transports.
    :param outgoing: the addresses that connections and datagrams leave from.
    :param options: the options that each socket gets.
    :param otherwise: the addresses for connections of a family that has no address in *outgoing*.
    :param leaving: how sockets leave this machine.
    :ivar leaves_as_others: whether sockets leave as all sockets of the system do.
    :ivar new_socket: makes sockets that leave in another way; None: they leave as all others.
    """

    resolves = judges = False
    via = None
    names = None
    needs_trail = False

    def __init__(
        self,
        reactor: IReactorTCP,
        engine: Callable[[], Connects | None],
        outgoing: Outgoing,
        options: Sequence[SocketOption],
        otherwise: Outgoing = Outgoing(),
        leaving: Leaving = Leaving(),
    ) -> None:
        self.leaves_as_others = leaving == Leaving()
        self.new_socket = None if self.leaves_as_others else leaving.new_socket
        self.identity: object = (outgoing, otherwise, leaving)
        self._engine = engine
        self._outgoing = outgoing
        self._options = options
        self._dialing = outgoing.over(otherwise)  # a strict Outgoing stays as it is
        self._transports = TransportDialer(
            reactor, self._dialing, options=options, new_socket=self.new_socket
        )
        self._sockets: SocketDialer | None = None
        self._dials_for: Connects | None = None

    def carries(self, command: Command) -> bool:
        """See :meth:`socksproxy.routes.interfaces.Route.carries`."""
        return True

    def dial(self, address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """See :meth:`socksproxy.routes.interfaces.Route.dial`."""
        if self._dialing.strict:
            try:
                self._dialing.source(address)
            except OSError:
                return fail(Failure())
        present = self._engine() if engine else None
        if present is None:
            return self._transports(address)
        if present is not self._dials_for or self._sockets is None:
            self._dials_for = present
            self._sockets = SocketDialer(present, self._dialing, self._options, self.new_socket or SocketType)
        return self._sockets(address)

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        source = self._outgoing.source(address)
        return None if source is None else source[0]

    def leaves_from(self, address: Address) -> str | None:
        """The address from which connections to *address* leave; None: the system's choice."""
        source = self._dialing.source(address)
        return None if source is None else source[0]

    def try_socket(self) -> None:
        """
        Make a socket as datagrams need it.

        :raises OSError: where none can leave.
        """
        host = self._dialing.ipv4 or self._dialing.ipv6 or "0.0.0.0"
        family, make = AF_INET6 if ":" in host else AF_INET, self.new_socket or SocketType
        with closing(make(family, SOCK_DGRAM)) as link:
            free_bind(link, host)
            link.bind((host, 0))


@implementer(ICommandsRoute)
class DirectUpstream:
    """
    A direct way with a name: an upstream of type direct.

    :param counters: its numbers.
    :param direct: leads out.
    :param names: gives what looks up the names of destinations, where sockets leave in a way of their own.
    :ivar via: the name, where sockets leave in a way of their own; None: they leave as all others.
    """

    resolves = judges = False
    needs_trail = True

    def __init__(self, counters: UpstreamCounters, direct: Direct, names: Callable[[], NameLookups]) -> None:
        self._names = names
        self.via = None if direct.leaves_as_others else counters.name
        self.identity: object = (counters.name, direct.identity)
        self._direct = direct
        self.counters = counters

    @property
    def names(self) -> NameLookups | None:
        """See :attr:`socksproxy.routes.interfaces.Route.names`."""
        return None if self._direct.leaves_as_others else self._names()

    def carries(self, command: Command) -> bool:
        """See :meth:`socksproxy.routes.interfaces.Route.carries`."""
        return True

    def dial(self, address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """See :meth:`socksproxy.routes.interfaces.Route.dial`."""
        trail = Trail(None) if trail is None else trail
        try:
            self._enter(trail)
        except UpstreamFull:
            return fail()
        return self._noted(as_deferred(self._direct.dial(address, engine)), trail)

    def associate(self, trail: Trail) -> Deferred[UpstreamAssociation]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.associate`."""
        try:
            self._enter(trail)
        except UpstreamFull:
            return fail()
        trying: Deferred[Any] = execute(self._direct.try_socket)
        trying.addCallback(lambda _: DirectAssociation(self._direct, trail))
        return self._noted(trying, trail)

    def bind(self, peer: Address, engine: bool, trail: Trail, listen: ListenHere) -> Deferred[UpstreamBound]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.bind`."""
        try:
            self._enter(trail)
        except UpstreamFull:
            return fail()
        listening = execute(listen, self._direct.leaves_from, self._direct.new_socket)

        def listens(bound: UpstreamBound) -> UpstreamBound:
            self._noted(bound.accepted, trail)
            return bound

        return listening.addCallbacks(listens, self._failed)

    def resolve(self, command: Command, destination: Address, trail: Trail) -> Deferred[Address]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.resolve`; names are looked up before."""
        trail.tries += 1
        named: Deferred[Any] = self._names().reverse(destination.host)
        return named.addCallback(lambda name: Address(name, 0, AddressType.DOMAIN_NAME))

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        return self._direct.source(address)

    def _enter(self, trail: Trail) -> None:
        """
        A try begins.

        :raises UpstreamFull: where there is no room.
        """
        enter((self.counters,))
        trail.tries += 1

    def _noted(self, trying: Deferred[T], trail: Trail) -> Deferred[T]:
        """What comes of a try is noted."""

        def entered(result: T) -> T:
            trail.entered = (self.counters,)
            return result

        return trying.addCallbacks(entered, self._failed)

    def _failed(self, failure: Failure) -> Failure:
        problem = failure.value
        self.counters.leave()
        short = isinstance(problem, OSError) and problem.errno in SHORTAGES
        if problem is not None and not short and not isinstance(problem, CancelledError):
            self.counters.failed(own=cannot_leave(problem))
        return failure


class DirectAssociation:
    """
    An :class:`~socksproxy.routes.interfaces.UpstreamAssociation` without a proxy.

    :param direct: the way of the datagrams.
    :param trail: records it.
    """

    __slots__ = ("_direct", "_trail", "new_socket", "own", "relays")

    def __init__(self, direct: Direct, trail: Trail) -> None:
        self.own = UNSPECIFIED
        self.relays: tuple[Address, ...] = ()
        self.new_socket = direct.new_socket
        self._direct = direct
        self._trail = trail

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.UpstreamAssociation.source`."""
        return self._direct.leaves_from(address)

    def watch(self, ended: Callable[[], None]) -> None:
        """See :meth:`socksproxy.routes.interfaces.UpstreamAssociation.watch`: it does not end by itself."""

    def close(self) -> None:
        """See :meth:`socksproxy.routes.interfaces.UpstreamAssociation.close`."""
        self._trail.leave()
