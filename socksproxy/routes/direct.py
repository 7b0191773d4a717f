"""
The direct route, from this machine to the destination without a proxy between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import fail
from twisted.internet.interfaces import IReactorTCP
from twisted.python.failure import Failure

from ..net.dial import Connects, Pending, SocketDialer, TransportDialer
from ..net.tcp_options import SocketOption
from ..values.outgoing import Outgoing
from ..wire.words import Address
from .interfaces import Trail


class Direct:
    """
    Connects to destinations directly from this machine.

    :param reactor: makes Twisted's transports.
    :param engine: gives the present relay engine; None: there is none, and all connections are transports.
    :param outgoing: the addresses that connections and datagrams leave from.
    :param options: the options that each socket gets.
    :param otherwise: the addresses for connections of a family that has no address in *outgoing*.
    """

    resolves = False
    via = None

    def __init__(
        self,
        reactor: IReactorTCP,
        engine: Callable[[], Connects | None],
        outgoing: Outgoing,
        options: Sequence[SocketOption],
        otherwise: Outgoing = Outgoing(),
    ) -> None:
        self._engine = engine
        self._outgoing = outgoing
        self._options = options
        self._dialing = outgoing.over(otherwise)  # a strict Outgoing stays as it is
        self._transports = TransportDialer(reactor, self._dialing, options=options)
        self._sockets: SocketDialer | None = None
        self._dials_for: Connects | None = None

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
            self._sockets = SocketDialer(present, self._dialing, self._options)
        return self._sockets(address)

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        source = self._outgoing.source(address)
        return None if source is None else source[0]
