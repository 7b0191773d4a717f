"""
Ways out of an embedder's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from zope.interface import Attribute, Interface

from ..errors import SOCKSError, UpstreamFailed, describe
from ..net.dial import Pending
from ..wire.words import Address, Command
from .interfaces import ListenHere, Trail, UpstreamAssociation, UpstreamBound

_log = Logger(namespace="socksproxy")


class IRoute(Interface):
    """
    A way out. Upstreams, pools and the direct way provide it, and so does a way of your own.

    A route carries CONNECT. The server refuses all other commands that would leave by it, with reply 7,
    unless the route provides :class:`~socksproxy.routes.ICommandsRoute`.
    """

    resolves: bool = Attribute(
        """
        Whether the route takes names of destinations. If not, the server looks them up, asks its policy about
        each address, and the route gets the addresses that are permitted.
        """
    )

    via: str | None = Attribute("The words for the route in the access log; None: its name.")

    def dial(address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """
        Start one attempt to connect.

        :param address: the destination, which is permitted.
        :param engine: whether the connection may be a plain socket of the relay engine.
        :param trail: the record of the connection: who asks (:meth:`.Trail.asker`), and what the access log
            shows. A route that leads on by another one passes it on.
        :returns: a Deferred that fires with the connection, a :class:`~socksproxy.net.dial.Dialed`; it can
            be cancelled. It fails with a :class:`~socksproxy.SOCKSError`, whose reply the client gets, or
            with an :class:`OSError`. The server never connects in another way instead.
        """


class ICommandsRoute(IRoute):
    """
    A way out that carries other commands than CONNECT, too. A route of your own leads them on by a ready-made
    way of :meth:`.SOCKSFactory.way`, all of which provide this interface.

    All methods get the record of the request, as :meth:`IRoute.dial` does. Each returns a Deferred that can
    be cancelled, and that fails as the one of :meth:`IRoute.dial` does.
    """

    def carries(command: Command) -> bool:
        """
        Whether requests for *command* can leave by this way. If not, the client gets reply 7.

        :param command: a :class:`~socksproxy.Command`.
        """

    def associate(trail: Trail) -> Deferred[UpstreamAssociation]:
        """
        Ask for an association, for all datagrams of a client that leave by this way. The destinations are not
        known yet.

        :returns: what the method of a ready-made way has returned.
        """

    def bind(peer: Address, engine: bool, trail: Trail, listen: ListenHere) -> Deferred[UpstreamBound]:
        """
        Listen for a connection from *peer*. A route of your own decides by itself, also where the client has
        a connection to that host already.

        :param engine: as for :meth:`IRoute.dial`.
        :param listen: listens at this machine; for ready-made ways.
        :returns: what the method of a ready-made way has returned.
        """

    def resolve(command: Command, destination: Address, trail: Trail) -> Deferred[Address]:
        """
        Look up a name (RESOLVE) or an address (RESOLVE_PTR). Names come only where
        :attr:`IRoute.resolves` is true.

        :returns: fires with the answer: an :class:`~socksproxy.Address` with an address, or with a name.
        """


class OwnRoute:
    """
    The way out *route* of an embedder, as the server uses it.

    :param name: its name in the settings.
    """

    needs_trail = True
    judges = False
    names = None

    def __init__(self, name: str, route: Any) -> None:
        self._route = route
        self._more = ICommandsRoute.providedBy(route)
        self.identity: object = name, route
        self.via: str = route.via or name

    @property
    def resolves(self) -> bool:
        """See :attr:`IRoute.resolves`."""
        return bool(self._route.resolves)

    def carries(self, command: Command) -> bool:
        """See :meth:`socksproxy.routes.interfaces.Route.carries`."""
        if command is Command.CONNECT:
            return True
        try:
            return self._more and bool(self._route.carries(command))
        except Exception:
            _log.failure("the way out {name} failed", name=self.via)
            return False

    def dial(self, address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """See :meth:`IRoute.dial`."""
        pending: Pending = self._asked(lambda: self._route.dial(address, engine, trail))
        return pending

    def associate(self, trail: Trail) -> Deferred[UpstreamAssociation]:
        """See :meth:`ICommandsRoute.associate`."""
        asked: Deferred[UpstreamAssociation] = self._asked(lambda: self._route.associate(trail))
        return asked

    def bind(self, peer: Address, engine: bool, trail: Trail, listen: ListenHere) -> Deferred[UpstreamBound]:
        """See :meth:`ICommandsRoute.bind`."""
        asked: Deferred[UpstreamBound] = self._asked(lambda: self._route.bind(peer, engine, trail, listen))
        return asked

    def resolve(self, command: Command, destination: Address, trail: Trail) -> Deferred[Address]:
        """See :meth:`ICommandsRoute.resolve`."""
        asked: Deferred[Address] = self._asked(lambda: self._route.resolve(command, destination, trail))
        return asked

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """What *ask* returns; whatever it raises means that the route does not work."""
        try:
            return ask()
        except Exception as problem:
            if not isinstance(problem, (SOCKSError, OSError)):
                _log.failure("the way out {name} failed", name=self.via)
            return fail(UpstreamFailed(f"{self.via}: {describe(problem)}", self.via))

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        return None
