"""
``twistd socks``: the service that its options make.

What is wrong with an option shows while they are parsed
(:mod:`~socksproxy.options`); what shows only when the listeners open is
:class:`CannotStart`. Both end the process with one line and a status that is not 0.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from .descriptors import raise_limit
from .log import AccessLog
from .options import OPEN_TO_ALL, Listener, Options, in_words
from .policy import is_loopback
from .server import SOCKSFactory

__all__ = ["CannotStart", "Listener", "Options", "SOCKSService", "makeService"]

_log = Logger(namespace="socksproxy")


class CannotStart(SystemExit, Exception):
    """
    The service cannot start.

    An :exc:`Exception`, so that a daemonized ``twistd`` tells its parent and
    removes its PID file; and a :exc:`SystemExit`, so that the process ends
    with status 1 and no traceback.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1


class SOCKSService(Service):
    """
    Accepts clients while it runs.

    Ports are opened before ``twistd --uid`` gives up its privileges.

    :param reactor: asked to open the access log again when SIGUSR1 comes.
    :param factory: serves the clients.
    :param listeners: where they are accepted.
    :param open: whether that may be where others than this machine's own programs reach it.
    :param access_log: opened again when SIGUSR1 comes, and closed at the end.
    :ivar ports: what listens now.
    """

    def __init__(
        self,
        reactor: Any,
        factory: SOCKSFactory,
        listeners: Sequence[Listener],
        *,
        open: bool = False,
        access_log: AccessLog | None = None,
    ) -> None:
        self.reactor = reactor
        self.factory = factory
        self.listeners = listeners
        self.open = open
        self.access_log = access_log
        self.ports: list[IListeningPort] = []
        self._waiting: list[Deferred[None]] = []
        self._problem: CannotStart | None = None
        self._listening = False
        self._starting = False
        self._signal_before: Callable[[int, FrameType | None], Any] | int | None = None

    def privilegedStartService(self) -> None:
        """
        Open the listeners.

        :raises CannotStart: when one of them cannot.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        Open the listeners, if :meth:`privilegedStartService` has not (``twist`` does not call it).

        :raises CannotStart: when one of them cannot.
        """
        super().startService()
        if not self._listening:
            self._listen()
        self._watch_signal()

    def stopService(self) -> Deferred[None]:
        """
        Close the listeners, then end all sessions.

        :returns: fires when all is closed.
        """
        super().stopService()
        self._listening = False
        for waiting in list(self._waiting):
            waiting.cancel()
        ports, self.ports = self.ports, []
        closed = DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)
        return closed.addCallback(lambda _: self.factory.stop_sessions()).addCallback(self._finish)

    def _finish(self, _: object) -> None:
        if self._signal_before is not None:
            signal.signal(signal.SIGUSR1, self._signal_before)
            self._signal_before = None
        if self.access_log is not None:
            self.access_log.close()

    def _listen(self) -> None:
        self._listening = self._starting = True
        self._raise_descriptor_limit()
        for listener in self.listeners:
            waiting: Deferred[Any] = maybeDeferred(listener.endpoint.listen, self.factory)
            waiting.addCallback(self._opened, listener)
            waiting.addErrback(self._failed, listener)
            self._waiting.append(waiting)
            waiting.addBoth(self._settled, waiting)
            if self._problem is not None:
                raise self._problem
        self._starting = False

    def _raise_descriptor_limit(self) -> None:
        """A session takes two descriptors, and the usual soft limit is 1024."""
        try:
            limit = raise_limit()
        except (OSError, ValueError) as problem:
            _log.warn("the limit of descriptors stays as it is: {problem}", problem=problem)
        else:
            _log.info("descriptors: {limit} at the most", limit=limit if limit >= 0 else "any number")

    def _settled(self, _: object, waiting: Deferred[Any]) -> None:
        self._waiting.remove(waiting)

    def _opened(self, port: IListeningPort, listener: Listener) -> None:
        where, local = _place(port)
        if not local and not self.open:
            port.stopListening()
            raise CannotStart(f"{where} is not a loopback address, and {OPEN_TO_ALL}: add --open")
        self.ports.append(port)
        self.factory.opened(port)
        address: Any = port.getHost()
        if hasattr(address, "port"):
            # Before the first client asks for it: nobody may send the proxy to itself.
            self.factory.sessions.listeners.add(address.host, address.port)
        if not local:
            _log.warn(f"{{where}}: {OPEN_TO_ALL}", where=where)
        kind = listener.description.partition(":")[0]
        if kind not in ("tcp", "tcp6", "unix"):
            where = f"{where} ({listener.description})"
        _log.info("listening on {where}", where=where)

    def _failed(self, failure: Failure, listener: Listener) -> None:
        if not self._listening:
            return  # stopped meanwhile
        problem = failure.value
        if not isinstance(problem, CannotStart):
            problem = CannotStart(f"{listener.description}: {_reason(failure)}")
        _log.critical("cannot listen: {problem}", problem=problem)
        if self._starting:
            self._problem = problem
            return
        # The endpoint took its time and the reactor runs: this is how a
        # process that it runs in ends with a status that is not 0.
        signal.raise_signal(signal.SIGTERM)

    def _watch_signal(self) -> None:
        """Open the access log again on SIGUSR1, after which ``twistd`` rotates its own log."""
        access_log = self.access_log
        if access_log is None or not hasattr(signal, "SIGUSR1"):
            return
        previous = signal.getsignal(signal.SIGUSR1)

        def reopen(number: int, frame: FrameType | None) -> None:
            self.reactor.callFromThread(access_log.reopen)
            if callable(previous):
                previous(number, frame)

        signal.signal(signal.SIGUSR1, reopen)
        self._signal_before = previous


def _reason(failure: Failure) -> str:
    """Why a listener cannot open, in one line."""
    problem = failure.value
    if isinstance(problem, CannotListenError):
        problem = problem.socketError
    if isinstance(problem, OSError):
        return in_words(problem)
    return " ".join(str(problem).split()) or type(problem).__name__


def _place(port: IListeningPort) -> tuple[str, bool]:
    """Where *port* listens as an endpoint would say it, and whether only this machine can reach it."""
    address: Any = port.getHost()
    if isinstance(address, UNIXAddress):
        return f"unix:{os.fsdecode(address.name or b'')}", True
    host = getattr(address, "host", None)
    if host is None:
        return str(address), False
    if ":" in host:
        return f"tcp6:[{host}]:{address.port}", is_loopback(host)
    return f"tcp:{host}:{address.port}", is_loopback(host)


def makeService(options: Options) -> SOCKSService:
    """
    The service that *options* describe.

    :param options: parsed.
    """
    factory = SOCKSFactory(
        options.reactor,
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
    return SOCKSService(
        options.reactor,
        factory,
        options["listeners"],
        open=bool(options["open"]),
        access_log=options["access_log"],
    )
