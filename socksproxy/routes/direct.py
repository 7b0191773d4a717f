"""
The direct route, from this machine to the destination without a proxy between.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from socket import SocketType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTCP
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import SHORTAGES, CannotLeave, SOCKSError, UpstreamFull, reply_for
from ..net.dial import Connects, Dialed, Pending, SocketDialer, TransportDialer, as_deferred
from ..net.resolve import NameLookups
from ..net.sockets import Leaving
from ..net.tcp_options import SocketOption
from ..values.outgoing import Outgoing
from ..wire.words import Address, Command, Reply
from .counters import UpstreamCounters, enter
from .interfaces import Trail
from .own import IRoute

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


@implementer(IRoute)
class DirectUpstream:
    """
    A direct way with a name: an upstream of type direct.

    :param counters: its numbers.
    :param direct: leads out.
    :param names: gives what looks up the names of destinations, where sockets leave in a way of their own.
    :ivar via: the name, where sockets leave in a way of their own: then the route carries CONNECT alone.
    """

    resolves = judges = False
    needs_trail = True

    def __init__(self, counters: UpstreamCounters, direct: Direct, names: Callable[[], NameLookups]) -> None:
        self._names = names
        self.via = None if direct.leaves_as_others else counters.name
        self.identity = direct.identity
        self._direct = direct
        self.counters = counters

    @property
    def names(self) -> NameLookups | None:
        """See :attr:`socksproxy.routes.interfaces.Route.names`."""
        return None if self._direct.leaves_as_others else self._names()

    def carries(self, command: Command) -> bool:
        """See :meth:`socksproxy.routes.interfaces.Route.carries`."""
        return self.via is None or command is Command.CONNECT

    def dial(self, address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """See :meth:`socksproxy.routes.interfaces.Route.dial`."""
        trail = Trail(None) if trail is None else trail
        way = (self.counters,)
        try:
            enter(way)
        except UpstreamFull:
            return fail()
        trail.tries += 1
        dialing: Deferred[Any] = as_deferred(self._direct.dial(address, engine))
        return dialing.addCallbacks(self._connected, self._failed, callbackArgs=(trail,))

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        return self._direct.source(address)

    def _connected(self, dialed: Dialed, trail: Trail) -> Dialed:
        trail.entered = (self.counters,)
        return dialed

    def _failed(self, failure: Failure) -> Failure:
        problem = failure.value
        self.counters.leave()
        short = isinstance(problem, OSError) and problem.errno in SHORTAGES
        if problem is not None and not short and not isinstance(problem, CancelledError):
            self.counters.failed(own=cannot_leave(problem))
        return failure
