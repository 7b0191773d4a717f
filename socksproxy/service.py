"""
``twistd socks``: the service that its options make.

What is wrong with an option shows while they are parsed
(:mod:`~socksproxy.options`); what shows only when the listeners open is
:class:`~socksproxy.listening.CannotStart`. Both end the process with one line
and a status that is not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort

from .listening import CannotStart, ListeningService
from .log import AccessLog
from .options import Listener, Options
from .policy.listeners import path_of
from .server import SOCKSFactory

__all__ = ["CannotStart", "Listener", "Options", "SOCKSService", "makeFactory", "makeService"]


class SOCKSService(ListeningService):
    """
    Accepts clients and serves them while it runs.

    :param reactor: what the factory was given.
    :param factory: serves the clients.
    :param listeners: where they are accepted.
    :param open: whether that may be where others than this machine's own programs reach it.
    :param guarded: whether everybody has to show who they are; then it may be so anyway.
    :param access_log: opened again when SIGUSR1 comes, and closed at the end.
    :param drain: how many seconds sessions may go on when the service stops.
    """

    factory: SOCKSFactory

    def __init__(
        self,
        reactor: Any,
        factory: SOCKSFactory,
        listeners: Sequence[Listener],
        *,
        open: bool = False,
        guarded: bool = False,
        access_log: AccessLog | None = None,
        drain: float = 0.0,
    ) -> None:
        super().__init__(reactor, factory, listeners, open=open, guarded=guarded, access_log=access_log)
        self.drain = drain
        self._at_once = False

    def opened(self, port: IListeningPort, name: str | None) -> None:
        """See :meth:`ListeningService.opened`."""
        self.factory.opened(port)
        address: Any = port.getHost()
        listeners = self.factory.sessions.listeners
        if hasattr(address, "port"):
            # Before the first client asks for it: nobody may send the proxy to itself.
            listeners.add(address.host, address.port)
            if name is not None:
                listeners.name(address.host, address.port, name)
        elif isinstance(address, UNIXAddress) and name is not None:
            listeners.name_unix(path_of(address.name), name)

    def startService(self) -> None:
        """See :meth:`ListeningService.startService`."""
        self._at_once = False
        super().startService()

    def stopService(self) -> Deferred[None]:
        """
        Close the listeners, let sessions finish for as long as ``drain`` says, and end the rest.

        :returns: fires when all is closed.
        """
        super().stopService()
        return self.close_ports().addCallback(self._drain).addCallback(lambda _: self.finish())

    def end_now(self) -> None:
        """See :meth:`ListeningService.end_now`."""
        self._at_once = True
        self.factory.stop_sessions()

    def _drain(self, _: object) -> Deferred[None]:
        return self.factory.drain(0 if self._at_once else self.drain)


def makeFactory(options: Options) -> SOCKSFactory:
    """
    The factory that *options* describe.

    :param options: parsed.
    """
    return SOCKSFactory(
        options.reactor,
        policy=options["policy"],
        portal=options["portal"],
        auth=options["auth_settings"],
        resolver=options["name_resolver"],
        outgoing=options["outgoing"],
        timeouts=options["timeouts"],
        limits=options["limits"],
        observer=options["access_log"],
        bind=options["bind"],
        udp=options["udp"],
        advertise=options["advertise"],
        resolve_commands=not options["no-resolve-commands"],
    )


def makeService(options: Options) -> ListeningService:
    """
    The service that *options* describe: one process, or a supervisor and its workers.

    :param options: parsed.
    """
    if options["worker_count"] > 1:
        # One process does without the machinery for many.
        from .workers.supervisor import SupervisorService

        return SupervisorService(options)
    return SOCKSService(
        options.reactor,
        makeFactory(options),
        options["listeners"],
        open=bool(options["open"]),
        guarded=bool(options["guarded"]),
        access_log=options["access_log"],
        drain=options["drain_seconds"],
    )
