"""
``twistd socks``: the command line's options, and the service that they make.

Whatever can be found wrong while the options are read is a
:class:`~twisted.python.usage.UsageError`; what shows only when the listeners
open is :class:`CannotStart`. Both end the process with one line and a status
that is not 0.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import FrameType
from typing import Any, NamedTuple

from twisted import __version__ as twisted_version
from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IHostnameResolver, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from . import __version__
from .descriptors import raise_limit
from .log import FORMATS, AccessLog, access_observer
from .policy import SessionLimits, is_loopback
from .policy.listeners import is_local
from .resolve import make_resolver
from .server import SOCKSFactory
from .session import Timeouts

__all__ = ["CannotStart", "Listener", "Options", "SOCKSService", "makeService"]

_log = Logger(namespace="socksproxy")

#: Clients that wait to be accepted; the kernel's own limit may be lower.
BACKLOG = 1024

_OPEN = "there is no authentication and no rule, so everybody who reaches it could use the proxy"


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


class Listener(NamedTuple):
    """
    Where clients are accepted.

    :ivar description: the endpoint as the operator wrote it.
    :ivar endpoint: what listens.
    """

    description: str
    endpoint: IStreamServerEndpoint


class Options(usage.Options):
    """
    What the operator may say.

    The keys ``listeners``, ``timeouts``, ``limits``, ``name_resolver`` and
    ``access_log`` hold what the options mean, once they are parsed.

    :param reactor: for endpoints and resolvers; None: the global one.
    """

    synopsis = "[-i ADDRESS] [-p PORT] [-l FILE] [options]"
    longdesc = (
        "A SOCKS4, SOCKS4a and SOCKS5 proxy. Clients on this machine reach it on 127.0.0.1, port 1080, "
        "where nothing else is said. A listener that others can reach needs --open. "
        "With -l, SIGUSR1 opens the file again, for log rotation."
    )

    optParameters = [
        ["interface", "i", None, "Local address to listen on, IPv4 or IPv6. [default: 127.0.0.1]"],
        ["port", "p", None, "Port to listen on. [default: 1080]"],
        ["log", "l", None, "File to which one line per session is appended."],
        ["log-format", None, None, "How: text or json. [default: text]"],
        ["resolver", None, "system", "Who looks names up: system, or dns:HOST[:PORT] (IPv6 in brackets)."],
        ["handshake-timeout", None, "10", "Seconds in which a client must have made its request."],
        ["connect-timeout", None, "30", "Seconds in which the destination must be reached."],
        ["idle-timeout", None, "0", "Seconds without data after which a session ends; 0: never."],
        ["max-sessions", None, None, "Most sessions at once."],
        ["max-sessions-per-client", None, None, "Most sessions at once of one client address."],
    ]

    optFlags = [
        ["open", None, "Accept clients from other machines although nothing says who may use the proxy."],
    ]

    compData = usage.Completions(
        multiUse=["listen", "outgoing"],
        mutuallyExclusive=[("listen", "interface"), ("listen", "port")],
        optActions={
            "interface": usage.CompleteNetInterfaces(),
            "log": usage.CompleteFiles("*.log"),
            "log-format": usage.CompleteList(FORMATS),
            "resolver": usage.CompleteList(["system", "dns:"]),
            "listen": usage.CompleteList(["tcp:", "unix:", "ssl:", "systemd:", "haproxy:tcp:"]),
        },
    )

    def __init__(self, reactor: Any = None) -> None:
        super().__init__()
        self._reactor = reactor
        self["listen"] = []
        self["outgoing"] = []

    @property
    def reactor(self) -> Any:
        """The reactor; the global one is not imported before it is needed."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    def opt_listen(self, endpoint: str) -> None:
        """Listen on this endpoint instead of -i and -p, such as tcp:1080:interface=127.0.0.1 or
        unix:/run/socks. Repeatable."""
        self["listen"].append(endpoint)

    def opt_outgoing(self, address: str) -> None:
        """Local address from which destinations are dialed; one IPv4 and one IPv6 at the most."""
        self["outgoing"].append(address)

    def parseArgs(self, *surplus: str) -> None:
        """Everything has a name."""
        if surplus:
            raise usage.UsageError(f"{surplus[0]}: not an option, and no option's value")

    def opt_version(self) -> None:
        """Display the versions of this proxy and of Twisted, and exit."""
        print(f"twisted-socksproxy {__version__}, Twisted {twisted_version}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """
        Check all that was said.

        :raises twisted.python.usage.UsageError: at the first thing that is wrong.
        """
        self["timeouts"] = Timeouts(
            handshake=_seconds(self, "handshake-timeout"),
            connect=_seconds(self, "connect-timeout"),
            idle=_seconds(self, "idle-timeout", or_never=True) or None,
        )
        self["limits"] = SessionLimits(
            sessions=_count(self, "max-sessions"),
            per_client=_count(self, "max-sessions-per-client"),
        )
        _check_outgoing(self["outgoing"])
        self["listeners"] = self._listeners()
        self["name_resolver"] = self._name_resolver()
        self["access_log"] = self._access_log()

    def _listeners(self) -> list[Listener]:
        if not self["listen"]:
            interface = "127.0.0.1" if self["interface"] is None else self["interface"] or "0.0.0.0"
            listeners = [_listener_on(self.reactor, interface, self._port())]
        elif self["interface"] is not None or self["port"] is not None:
            raise usage.UsageError("--listen says all: leave --interface and --port out, or --listen")
        else:
            listeners = [_listener_from(self.reactor, description) for description in self["listen"]]
        for description, endpoint in listeners:
            host = _interface_of(endpoint)
            if host is not None and not _only_local(host) and not self["open"]:
                raise usage.UsageError(
                    f"{description} is not on a loopback address, and {_OPEN}: "
                    "listen on 127.0.0.1, [::1] or a Unix socket, or add --open"
                )
        return listeners

    def _port(self) -> int:
        text = "1080" if self["port"] is None else self["port"]
        if not (text.isascii() and text.isdecimal() and int(text) < 65536):
            raise usage.UsageError(f"--port {text}: not a number from 0 to 65535")
        return int(text)

    def _name_resolver(self) -> IHostnameResolver | None:
        if self["resolver"] == "system":
            return None
        try:
            return make_resolver(self["resolver"], self.reactor)
        except ValueError as problem:
            raise usage.UsageError(f"--resolver {problem}") from None

    def _access_log(self) -> AccessLog | None:
        format = self["log-format"]
        if format is not None and format not in FORMATS:
            raise usage.UsageError(f"--log-format {format}: neither {' nor '.join(FORMATS)}")
        if self["log"] is None:
            if format is not None:
                raise usage.UsageError("--log-format needs --log FILE")
            return None
        try:
            return access_observer(self["log"], format or "text")
        except OSError as problem:
            raise usage.UsageError(f"--log {self['log']}: {_plain(problem)}") from None


def _seconds(options: Options, name: str, or_never: bool = False) -> float:
    text = options[name]
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds) and (seconds > 0 or (or_never and seconds == 0)):
        return seconds
    wanted = "a number of seconds, or 0 for never" if or_never else "a number of seconds above 0"
    raise usage.UsageError(f"--{name} {text}: not {wanted}")


def _count(options: Options, name: str) -> int | None:
    text = options[name]
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise usage.UsageError(f"--{name} {text}: not a whole number above 0")
    return int(text)


def _literal(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def _check_outgoing(addresses: Sequence[str]) -> None:
    families = set()
    for text in addresses:
        address = _literal(text)
        if address is None:
            raise usage.UsageError(f"--outgoing {text}: not a literal IPv4 or IPv6 address")
        if address.version in families:
            raise usage.UsageError(f"--outgoing {text}: one IPv{address.version} address is enough")
        if not is_local(text):
            raise usage.UsageError(f"--outgoing {text}: not an address of this machine")
        families.add(address.version)


def _listener_on(reactor: Any, interface: str, port: int) -> Listener:
    host = interface[1:-1] if interface.startswith("[") and interface.endswith("]") else interface
    if ":" not in host:
        return Listener(
            f"tcp:{host}:{port}", TCP4ServerEndpoint(reactor, port, backlog=BACKLOG, interface=host)
        )
    if _literal(host.partition("%")[0]) is None:
        raise usage.UsageError(f"--interface {interface}: not an address")
    return Listener(
        f"tcp6:[{host}]:{port}", TCP6ServerEndpoint(reactor, port, backlog=BACKLOG, interface=host)
    )


def _listener_from(reactor: Any, description: str) -> Listener:
    try:
        return Listener(description, serverFromString(reactor, description))
    except OSError as problem:
        file = f": {problem.filename}" if problem.filename else ""
        raise usage.UsageError(f"--listen {description}: {_plain(problem)}{file}") from None
    except Exception as problem:
        # Each kind of endpoint has its own parser, with its own exceptions.
        raise usage.UsageError(
            f"--listen {description}: not an endpoint such as tcp:1080:interface=127.0.0.1 ({problem})"
        ) from None


def _interface_of(endpoint: object) -> str | None:
    """
    Where *endpoint* is going to listen, or None if it does not tell.

    It is only for an error that comes early; where clients are really
    accepted is looked at before the first of them is.
    """
    inner = getattr(endpoint, "_wrappedEndpoint", None)
    if inner is not None:
        return _interface_of(inner)
    interface = getattr(endpoint, "_interface", None)
    return interface if isinstance(interface, str) else None


def _only_local(host: str) -> bool:
    return host == "localhost" or is_loopback(host)


def _plain(problem: OSError) -> str:
    """The system's words for *problem*."""
    return (problem.strerror or str(problem)).lower()


def _reason(failure: Failure) -> str:
    """Why a listener cannot open, in one line."""
    problem = failure.value
    if isinstance(problem, CannotListenError):
        problem = problem.socketError
    if isinstance(problem, OSError):
        return _plain(problem)
    return " ".join(str(problem).split()) or type(problem).__name__


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
            raise CannotStart(f"{where} is not a loopback address, and {_OPEN}: add --open")
        self.ports.append(port)
        address: Any = port.getHost()
        if hasattr(address, "port"):
            # Before the first client asks for it: nobody may send the proxy to itself.
            self.factory.sessions.listeners.add(address.host, address.port)
        if not local:
            _log.warn(f"{{where}}: {_OPEN}", where=where)
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
    )
    return SOCKSService(
        options.reactor,
        factory,
        options["listeners"],
        open=bool(options["open"]),
        access_log=options["access_log"],
    )
