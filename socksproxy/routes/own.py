"""
Ways out of an embedder's own.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import fail
from twisted.logger import Logger
from zope.interface import Attribute, Interface

from ..errors import SOCKSError, UpstreamFailed, describe
from ..net.dial import Pending
from ..wire.words import Address, Command
from .interfaces import Trail

_log = Logger(namespace="socksproxy")


class IRoute(Interface):
    """
    A way out. Upstreams, pools and the direct way provide it, and so does a way of your own.

    A route carries CONNECT. The server refuses all other commands that would leave by it, with reply 7.
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
        self.identity: object = name, route
        self.via: str = route.via or name

    @property
    def resolves(self) -> bool:
        """See :attr:`IRoute.resolves`."""
        return bool(self._route.resolves)

    def carries(self, command: Command) -> bool:
        """See :meth:`socksproxy.routes.interfaces.Route.carries`."""
        return command is Command.CONNECT

    def dial(self, address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """See :meth:`IRoute.dial`."""
        try:
            pending: Pending = self._route.dial(address, engine, trail)
        except Exception as problem:
            # An embedder's route may raise anything, which means that it does not work.
            if not isinstance(problem, (SOCKSError, OSError)):
                _log.failure("the way out {name} failed", name=self.via)
            return fail(UpstreamFailed(f"{self.via}: {describe(problem)}", self.via))
        return pending

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        return None
