"""
What the operator may say: the options of ``twistd socks``.

Whatever can be found wrong while they are read is a
:class:`~twisted.python.usage.UsageError`, in one line that names the option.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from twisted import __version__ as twisted_version
from twisted.cred.portal import Portal
from twisted.cred.strcred import (
    AuthOptionMixin,
    InvalidAuthArgumentString,
    InvalidAuthType,
    UnsupportedInterfaces,
    makeChecker,
)
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import IHostnameResolver, IStreamServerEndpoint
from twisted.python import usage

from . import __version__
from .auth.authentication import AuthSettings
from .auth.credentials import (
    IAnonymous,
    ICertificate,
    IGSSAPIName,
    IPeerCredentials,
    IUserid,
    IUsernamePassword,
)
from .auth.portal import TrustedUserid, portal_of
from .auth.twisteds import adapted
from .commands.bind import BindSettings
from .log import FORMATS, AccessLog
from .opening import Opening
from .policy import SessionLimits, is_loopback
from .policy.listeners import is_local
from .ports import Advertised, PortRange
from .resolve import make_resolver
from .session import Timeouts
from .udp.settings import Filtering, UDPSettings
from .workers.handover import SharedOpening

#: Clients that wait to be accepted; the kernel's own limit may be lower.
BACKLOG = 1024

#: Processes are not free, and each has its place in every client's row of the shared counts.
MOST_WORKERS = 256

#: Why a listener that others can reach is not opened by itself.
OPEN_TO_ALL = "nobody has to show who they are, so everybody who reaches it could use the proxy"


class Listener(NamedTuple):
    """
    Where clients are accepted.

    :ivar description: the endpoint as the operator wrote it.
    :ivar endpoint: what listens.
    """

    description: str
    endpoint: IStreamServerEndpoint


class Options(usage.Options, AuthOptionMixin):
    """
    What the operator may say.

    The keys ``listeners``, ``timeouts``, ``limits``, ``bind``, ``udp``, ``name_resolver``,
    ``access_log``, ``drain_seconds``, ``worker_count``, ``portal``, ``auth_settings`` and ``guarded`` hold
    what the options mean, once they are parsed.

    :param reactor: for endpoints and resolvers; None: the global one.
    :param opening: opens what the options name; None: what fits the number of workers.
    :ivar opening: that one, once they are parsed.
    :ivar arguments: what was parsed, for a worker to parse it again.
    """

    synopsis = "[-i ADDRESS] [-p PORT] [-l FILE] [options]"
    longdesc = (
        "A SOCKS4, SOCKS4a and SOCKS5 proxy. Clients on this machine reach it on 127.0.0.1, port 1080, "
        "where nothing else is said. A listener that others can reach needs --auth, or --open. "
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
        ["auth-timeout", None, "8", "Seconds in which it must be known who a client is."],
        ["auth-cache", None, "60", "Seconds for which a right password is remembered; 0: not at all."],
        ["auth-failures", None, "10", "Wrong passwords in a minute for which an address is refused; 0: any."],
        ["socks4-userid", None, None, "trust: take the userid of SOCKS4 for the user's name, unverified."],
        ["max-sessions", None, None, "Most sessions at once."],
        ["max-sessions-per-client", None, None, "Most sessions at once of one client address."],
        ["bind-ports", None, None, "Ports on which BIND listens, such as 40000-40999. [default: any]"],
        ["bind-timeout", None, "120", "Seconds in which the peer of a BIND must have come."],
        ["max-binds-per-client", None, "32", "Most BINDs that wait at once, of one client address."],
        ["udp-ports", None, None, "Range of UDP ports that clients send to, such as 40000-40999; one each."],
        ["udp-port", None, None, "One UDP port that all clients send to."],
        ["udp-filter", None, "address-dependent", "From whom UDP is passed to the client (RFC 4787)."],
        ["udp-idle-timeout", None, "120", "Seconds without a datagram that end an association; 0: never."],
        ["udp-grace", None, "0", "Seconds for which an association outlives its TCP connection."],
        ["max-associations-per-client", None, "100", "Most UDP associations at once of one client address."],
        ["drain", None, "0", "Seconds that sessions may go on after SIGTERM; another one ends them."],
        ["workers", None, "1", "Processes that serve clients, or auto: one for each core."],
    ]

    optFlags = [
        ["open", None, "Accept clients from other machines although nothing says who may use the proxy."],
        ["bind-any-peer", None, "Let clients of other machines leave open whom their BIND waits for."],
        ["bind-check-port", None, "Accept a BIND's peer only from the port that the client names."],
        ["udp-relatch", None, "Let a client's datagrams come from another port of its address than before."],
        ["no-resolve-commands", None, "Do not serve RESOLVE and RESOLVE_PTR, which Tor's clients use."],
    ]

    compData = usage.Completions(
        multiUse=["auth", "listen", "outgoing", "bind-address", "advertise"],
        mutuallyExclusive=[("listen", "interface"), ("listen", "port"), ("udp-port", "udp-ports")],
        optActions={
            "interface": usage.CompleteList(["127.0.0.1", r"\:\:1"]),
            "log": usage.CompleteFiles("*.log"),
            "log-format": usage.CompleteList(FORMATS),
            # zsh ends a list at a colon that has no backslash.
            "resolver": usage.CompleteList(["system", r"dns\:"]),
            "socks4-userid": usage.CompleteList(["trust"]),
            "workers": usage.CompleteList(["auto", "2", "4", "8"]),
            "listen": usage.CompleteList([r"tcp\:", r"unix\:", r"ssl\:", r"systemd\:", r"haproxy\:tcp\:"]),
            "udp-filter": usage.CompleteList([filtering.value for filtering in Filtering]),
        },
    )

    supportedInterfaces = (
        IAnonymous,
        IUsernamePassword,
        ICertificate,
        IPeerCredentials,
        IUserid,
        IGSSAPIName,
    )

    def __init__(self, reactor: Any = None, opening: Opening | None = None) -> None:
        super().__init__()
        self._reactor = reactor
        self._opening = opening
        self.arguments: list[str] = []
        self["listen"] = []
        self["outgoing"] = []
        self["bind-address"] = []
        self["advertise"] = []
        self["credCheckers"] = []

    @property
    def reactor(self) -> Any:
        """The reactor; the global one is not imported before it is needed."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    @property
    def opening(self) -> Opening:
        """What opens endpoints and files."""
        if self._opening is None:
            kind = SharedOpening if self["worker_count"] > 1 else Opening
            self._opening = kind(self.reactor)
        return self._opening

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """See :meth:`twisted.python.usage.Options.parseOptions`."""
        self.arguments = list(sys.argv[1:] if options is None else options)
        super().parseOptions(self.arguments)

    def opt_auth(self, description: str) -> None:
        """Ask clients who they are: TYPE or TYPE:ARGUMENTS, see --help-auth. Repeatable."""
        kind = description.partition(":")[0]
        try:
            self.addChecker(adapted(makeChecker(description), self.reactor))
        except UnsupportedInterfaces:
            raise usage.UsageError(f"--auth {kind}: not for a SOCKS client, see --help-auth") from None
        except InvalidAuthType:
            raise usage.UsageError(f"--auth {kind}: no such type, see --help-auth") from None
        except Exception as problem:
            # Each type has its own parser, with its own exceptions.
            raise usage.UsageError(f"--auth {kind}: {str(problem).removeprefix(f'{kind}: ')}") from None

    def opt_listen(self, endpoint: str) -> None:
        """Listen on an endpoint, such as tcp:1080:interface=127.0.0.1, instead of -i and -p. Repeatable."""
        self["listen"].append(endpoint)

    def opt_outgoing(self, address: str) -> None:
        """Local address from which destinations are dialed; one IPv4 and one IPv6 at the most."""
        self["outgoing"].append(address)

    def opt_bind_address(self, address: str) -> None:
        """Local address on which BIND listens; one IPv4 and one IPv6 at the most."""
        self["bind-address"].append(address)

    def opt_advertise(self, address: str) -> None:
        """Address that clients are told in place of ours; ADDRESS@NETWORK for its clients. Repeatable."""
        self["advertise"].append(address)

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
            idle=_seconds(self, "idle-timeout", or_zero="for never") or None,
        )
        self["limits"] = SessionLimits(
            sessions=_count(self, "max-sessions"),
            per_client=_count(self, "max-sessions-per-client"),
        )
        self["drain_seconds"] = _seconds(self, "drain", or_zero="for none")
        self["worker_count"] = _workers(self["workers"])
        _check_addresses("outgoing", self["outgoing"])
        _check_advertised(self["advertise"])
        self["portal"] = self._portal()
        self["auth_settings"] = AuthSettings(
            timeout=_seconds(self, "auth-timeout"),
            failures=_count(self, "auth-failures", or_zero="for any number") or None,
        )
        self["bind"] = self._bind()
        self["udp"] = self._udp()
        self["listeners"] = self._listeners()
        self["name_resolver"] = self._name_resolver()
        self["access_log"] = self._access_log()

    def _portal(self) -> Portal | None:
        userid = self["socks4-userid"]
        if userid not in (None, "trust"):
            raise usage.UsageError(f"--socks4-userid {userid}: trust is all there is, else leave it out")
        if userid is not None and not self["credCheckers"]:
            raise usage.UsageError("--socks4-userid trust: without --auth nobody is asked who they are")
        if userid is not None and IUserid in self["credInterfaces"]:
            raise usage.UsageError("--socks4-userid trust: --auth ident verifies it: leave one of them out")
        remember = _seconds(self, "auth-cache", or_zero="for not at all")
        self["guarded"] = bool(self["credCheckers"]) and userid is None
        if not self["credCheckers"]:
            return None
        self["guarded"] &= IAnonymous not in self["credInterfaces"]
        checkers = [*self["credCheckers"], *([TrustedUserid()] if userid else [])]
        return portal_of(checkers, self.reactor, remember)

    def _bind(self) -> BindSettings:
        _check_addresses("bind-address", self["bind-address"])
        return BindSettings(
            ports=_ports(self, "bind-ports"),
            addresses=tuple(self["bind-address"]),
            per_client=_count(self, "max-binds-per-client"),
            timeout=_seconds(self, "bind-timeout"),
            any_peer=True if self["bind-any-peer"] else None,
            check_port=bool(self["bind-check-port"]),
        )

    def _udp(self) -> UDPSettings:
        filtering = self["udp-filter"]
        if self["udp-ports"] is not None and self["udp-port"] is not None:
            raise usage.UsageError("--udp-ports has a port for each client, --udp-port one for all: not both")
        if self["udp-port"] is not None and self["worker_count"] > 1:
            raise usage.UsageError("--udp-port: the processes of --workers cannot share one, use --udp-ports")
        if filtering not in [kind.value for kind in Filtering]:
            kinds = ", ".join(kind.value for kind in Filtering)
            raise usage.UsageError(f"--udp-filter {filtering}: none of {kinds}")
        return UDPSettings(
            ports=_ports(self, "udp-ports"),
            port=_count(self, "udp-port", most=65535),
            filtering=Filtering(filtering),
            relatch=bool(self["udp-relatch"]),
            idle=_seconds(self, "udp-idle-timeout", or_zero="for never") or None,
            grace=_seconds(self, "udp-grace", or_zero="for none"),
            per_client=_count(self, "max-associations-per-client"),
        )

    def _listeners(self) -> list[Listener]:
        if not self["listen"]:
            interface = "127.0.0.1" if self["interface"] is None else self["interface"] or "0.0.0.0"
            listeners = [_listener_on(self.opening.reactor_for(0), interface, self._port())]
        elif self["interface"] is not None or self["port"] is not None:
            raise usage.UsageError("--listen says all: leave --interface and --port out, or --listen")
        else:
            listeners = [
                _listener_from(self.opening, number, description)
                for number, description in enumerate(self["listen"])
            ]
        for description, endpoint in listeners:
            host = _interface_of(endpoint)
            if host is not None and not _only_local(host) and not (self["open"] or self["guarded"]):
                raise usage.UsageError(
                    f"{description} is not on a loopback address, and {OPEN_TO_ALL}: "
                    "listen on 127.0.0.1, [::1] or a Unix socket, add --auth, or --open"
                )
        self._ask_for_certificates(listeners)
        return listeners

    def _ask_for_certificates(self, listeners: Sequence[Listener]) -> None:
        for checker in self["credCheckers"]:
            if ICertificate not in checker.credentialInterfaces:
                continue
            from .auth.certificate import ask_for_certificates

            try:
                asking = [ask_for_certificates(endpoint, checker.ca_file) for _, endpoint in listeners]
            except InvalidAuthArgumentString as problem:
                raise usage.UsageError(f"--auth {problem}") from None
            if not any(asking):
                raise usage.UsageError("--auth tls: there is no listener with TLS, such as --listen ssl:...")

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
            return self.opening.access_log(self["log"], format or "text")
        except OSError as problem:
            raise usage.UsageError(f"--log {self['log']}: {in_words(problem)}") from None


def _seconds(options: Options, name: str, or_zero: str = "") -> float:
    text = options[name]
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds) and (seconds > 0 or (or_zero and seconds == 0)):
        return seconds
    wanted = f"a number of seconds, or 0 {or_zero}" if or_zero else "a number of seconds above 0"
    raise usage.UsageError(f"--{name} {text}: not {wanted}")


def _count(options: Options, name: str, most: int | None = None, or_zero: str = "") -> int | None:
    text = options[name]
    if text is None:
        return None
    if or_zero and text == "0":
        return 0
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= (most or int(text))):
        zero = f", or 0 {or_zero}" if or_zero else ""
        wanted = f"not a whole number above 0{zero}" if most is None else f"not a number from 1 to {most}"
        raise usage.UsageError(f"--{name} {text}: {wanted}")
    return int(text)


def _ports(options: Options, name: str) -> PortRange | None:
    if options[name] is None:
        return None
    try:
        return PortRange.parse(options[name])
    except ValueError as problem:
        raise usage.UsageError(f"--{name} {problem}") from None


def _workers(text: str) -> int:
    if text == "auto":
        return cores()
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= MOST_WORKERS):
        raise usage.UsageError(f"--workers {text}: neither auto nor a number from 1 to {MOST_WORKERS}")
    return int(text)


def cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    return min(os.cpu_count() or 1, MOST_WORKERS)


def _literal(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def _check_addresses(name: str, addresses: Sequence[str]) -> None:
    families = set()
    for text in addresses:
        address = _literal(text)
        if address is None:
            raise usage.UsageError(f"--{name} {text}: not a literal IPv4 or IPv6 address")
        if address.version in families:
            raise usage.UsageError(f"--{name} {text}: one IPv{address.version} address is enough")
        if not is_local(text):
            raise usage.UsageError(f"--{name} {text}: not an address of this machine")
        families.add(address.version)


def _check_advertised(entries: Sequence[str]) -> None:
    try:
        Advertised(entries)
    except ValueError as problem:
        raise usage.UsageError(f"--advertise {problem}") from None


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


def _listener_from(opening: Opening, number: int, description: str) -> Listener:
    try:
        return Listener(description, opening.endpoint(number, description))
    except OSError as problem:
        file = f": {problem.filename}" if problem.filename else ""
        raise usage.UsageError(f"--listen {description}: {in_words(problem)}{file}") from None
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


def in_words(problem: OSError) -> str:
    """The system's words for *problem*."""
    return (problem.strerror or str(problem)).lower()
