"""
The admin listeners, over every reload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from ..net.listening_reactor import PortKind, PortRequest
from ..net.own_listeners import place_of
from ..net.resources import Resources
from ..net.special_addresses import is_loopback
from ..runtime.files import read_regular_file
from ..twisted_internals import SharedUNIXPort
from .guard import Guard
from .routes import Routes
from .settings import AdminListener, AdminSettings, token_in
from .site import AdminSite
from .sockets import SocketFile, listen_at

#: The permissions of a Unix socket whose description has none.
_MODE = "600"


class CannotOpen(Exception):
    """An admin listener cannot be opened; the message is for the operator."""


class AdminResources(Resources):
    """
    Opens the admin listeners of one configuration.

    :param reactor: listens.
    :param before: the resources of the configuration before this one.
    :ivar files: by the port, the file of a Unix socket that is ours to remove.
    """

    def __init__(self, reactor: Any, before: AdminResources | None = None) -> None:
        super().__init__(reactor, before)
        self.files: dict[Any, SocketFile] = {} if before is None else before.files

    def listen(self, request: PortRequest) -> Any:
        """See :meth:`Resources.listen`; the file of a Unix socket is never open to others."""
        if request.kind is not PortKind.UNIX:
            return super().listen(request)
        path = request.place[0]
        try:
            listening = listen_at(path, request.mode)
        except OSError as problem:
            raise CannotListenError(None, path, problem) from None
        port = SharedUNIXPort(listening, request.factory, self.reactor)
        self.files[port] = SocketFile(path)
        port.startListening()
        return port


class AdminPorts:
    """
    The admin listeners of one configuration.

    :param reactor: listens and keeps time.
    :param settings: what to open; None: nothing.
    :param routes: what there is on each of them.
    :param agent: what serves the agent's listener; None: nothing is there.
    :param before: those of the configuration before, of which what stays the same stays open.
    :raises CannotOpen: when one cannot be opened; then all is as it was.
    :ivar sites: what serves the listeners.
    """

    def __init__(
        self,
        reactor: Any,
        settings: AdminSettings | None,
        routes: Callable[[], Routes],
        agent: Callable[[], Any],
        before: AdminPorts | None = None,
    ) -> None:
        self._resources: AdminResources = AdminResources(
            reactor, None if before is None else before._resources
        )
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self.sites: list[AdminSite] = []
        self._table: Routes | None = None
        self._before = before
        try:
            if settings is not None:
                self._open(settings, routes, agent)
        except BaseException:
            self.abandon()
            raise

    def _open(self, settings: AdminSettings, routes: Callable[[], Routes], agent: Callable[[], Any]) -> None:
        self._table = table = routes()
        for number, listener in enumerate(settings.listeners):
            site = AdminSite(self._reactor, table, _guard(listener, settings))
            port = self._listen(number, listener.endpoint, site, listener.client_ca)
            place = place_of(port.getHost())
            self.sites.append(site)
            if not (isinstance(place, str) or is_loopback(place[0]) or listener.proves):
                raise CannotOpen(
                    f"[[admin.listener]] {listener.endpoint}: {place[0]} is not a loopback address: "
                    "token-file, or ssl: with client-ca, is needed"
                )
        if settings.agent is not None:
            self._listen(len(settings.listeners), settings.agent, agent(), None)

    def _listen(self, number: int, description: str, factory: Any, client_ca: str | None) -> IListeningPort:
        kind = description.partition(":")[0].lower()
        if kind == "unix" and ":mode=" not in description:
            description = f"{description}:mode={_MODE}"
        try:
            endpoint = self._resources.endpoint(number, description)
            if client_ca is not None:
                _demand_certificates(endpoint, client_ca)
        except Exception as problem:
            # Each kind of endpoint has its own parser, with its own exceptions.
            raise CannotOpen(f"[admin] {description}: {problem}") from None
        opened: list[IListeningPort] = []
        failures: list[Failure] = []
        maybeDeferred(endpoint.listen, factory).addCallbacks(opened.append, failures.append)
        if failures:
            reason = getattr(failures[0].value, "socketError", failures[0].value)
            words = getattr(reason, "strerror", None) or str(reason)
            raise CannotOpen(f"[admin] {description}: {words.lower()}")
        self._ports += opened
        return opened[0]

    @property
    def places(self) -> list[tuple[str, int]]:
        """The addresses and ports of TCP, to which no client of the proxy may be connected."""
        places = (place_of(port.getHost()) for port in self._ports)
        return [place for place in places if not isinstance(place, str)]

    def enter(self) -> None:
        """These listeners are in force; those of the configuration before that are left close."""
        for port in self._resources.keeper.enter():
            self._close(port)
        before, self._before = self._before, None
        if before is not None:
            self._follow(before)
        if self._table is not None:
            self._table.start()

    def _follow(self, before: AdminPorts) -> None:
        """Streams go on where clients need the same as before; others end, for their readers may not read."""
        for old in before.sites:
            same = next((site for site in self.sites if site.guard.admits_as(old.guard)), None)
            if same is None:
                old.close_streams()
            else:
                same.take_over(old)
        if self._table is None and before._table is not None:
            before._table.stop()

    def abandon(self) -> None:
        """Close what was opened anew; the listeners of the configuration before stay."""
        for port in self._resources.keeper.fresh:
            self._close(port)

    def close(self) -> None:
        """Close all of them, and their connections."""
        ports, self._ports = self._ports, []
        for port in ports:
            self._close(port)
        for site in self.sites:
            site.close_connections()
        if self._table is not None:
            self._table.stop()
        self._resources.keeper.forget()

    def _close(self, port: Any) -> None:
        file = self._resources.files.pop(port, None)
        if file is not None:
            file.remove()
        maybeDeferred(port.stopListening).addErrback(lambda _: None)


def _guard(listener: AdminListener, settings: AdminSettings) -> Guard:
    token = None
    if listener.token_file is not None:
        try:
            token = token_in(read_regular_file(listener.token_file).data)
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise CannotOpen(f"[[admin.listener]] token-file {listener.token_file}: {reason}") from None
    return Guard(listener, settings.names, token)


def _demand_certificates(endpoint: Any, client_ca: str) -> None:
    from ..auth.checkers.tls import ask_for_certificates

    if not ask_for_certificates(endpoint, client_ca):
        raise ValueError("this endpoint cannot ask for certificates")
