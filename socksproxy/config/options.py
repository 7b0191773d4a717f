"""
What the operator may say: the options of ``twistd socks``.

Whatever can be found wrong while they are read is a
:class:`~twisted.python.usage.UsageError`, in one line that names the option.
"""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import evolve
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

from .. import __version__
from ..auth.checkers.ident import TrustedUserid
from ..auth.checkers.threads import Checks
from ..auth.checkers.twisted_checkers import adapted
from ..auth.credentials import (
    IAnonymous,
    ICertificate,
    IGSSAPIName,
    IPeerCredentials,
    IUserid,
    IUsernamePassword,
)
from ..auth.directory import Directory, DirectoryRealm
from ..auth.portal import portal_of
from ..errors import describe
from ..limits.quota.usage import UsageFile
from ..logs.access_log import FORMATS, AccessLog
from ..logs.printable import escape_unknown, in_one_line
from ..net.endpoints import BACKLOG, WrongSystemd, check_keys, place_asked_for
from ..net.local import is_local
from ..net.ports import Advertised
from ..net.resolve import make_resolver
from ..net.special_addresses import is_loopback
from ..net.tcp_options import LONGEST_KEEPALIVE, LONGEST_USER_TIMEOUT
from ..runtime.reactor import global_reactor
from ..service.daemon import prepare_files
from ..service.resources import Resources, check_access_log
from ..values.auth import AuthSettings
from ..values.bind import BindSettings
from ..values.errors import ConfigError
from ..values.limits import Limits, ServerLimits
from ..values.outgoing import Outgoing, outgoing_of
from ..values.parsers import (
    Parser,
    count,
    one_of,
    port,
    seconds,
    workers,
)
from ..values.ports import port_range
from ..values.timeouts import Timeouts
from ..values.udp import Filtering, UDPSettings
from ..workers.descriptor_passing import SupervisorResources
from .listeners import named_listener
from .loading import Unreadable, read_file
from .mistakes import OpenToAll, in_option

if TYPE_CHECKING:
    from .file import Configured
    from .listeners import Listening

#: Why a listener that others can reach is not opened by itself.
OPEN_TO_ALL = "nobody has to show who they are, so everybody who reaches it could use the proxy"

#: How the options are read that mean the same whatever else is said.
_PARSERS: dict[str, Parser] = {
    "port": port(0),
    "log-format": one_of(FORMATS, f"neither {' nor '.join(FORMATS)}"),
    "handshake-timeout": seconds(),
    "connect-timeout": seconds(),
    "idle-timeout": seconds(or_zero="for never"),
    "half-closed-timeout": seconds(or_zero="for never"),
    "keepalive": count(or_zero="for none", most=LONGEST_KEEPALIVE),
    "keepalive-interval": count(most=LONGEST_KEEPALIVE),
    "tcp-user-timeout": count(or_zero="for the system's", most=LONGEST_USER_TIMEOUT),
    "auth-timeout": seconds(),
    "auth-cache": seconds(or_zero="for not at all"),
    "auth-failures": count(or_zero="for any number"),
    "socks4-userid": one_of(["trust"], "trust is all there is, else leave it out"),
    "max-sessions": count(),
    "max-sessions-per-client": count(),
    "bind-ports": port_range,
    "bind-timeout": seconds(),
    "max-binds-per-client": count(),
    "udp-ports": port_range,
    "udp-port": port(1),
    "udp-filter": one_of(
        [kind.value for kind in Filtering], f"none of {', '.join(kind.value for kind in Filtering)}"
    ),
    "udp-idle-timeout": seconds(or_zero="for never"),
    "udp-grace": seconds(or_zero="for none"),
    "max-associations-per-client": count(),
    "drain": seconds(or_zero="for none"),
    "workers": workers,
}

#: What an option of the command line leaves unsaid of the configuration file besides its own key.
_INSTEAD = {
    "listen": ("interface", "port"),
    "interface": ("listen",),
    "port": ("listen",),
    "udp-port": ("udp-ports",),
    "udp-ports": ("udp-port",),
}


class Listener(NamedTuple):
    """
    Where clients are accepted.

    :ivar description: the endpoint as the operator wrote it.
    :ivar endpoint: what listens.
    :ivar name: what rules call it, beside its address.
    """

    description: str
    endpoint: IStreamServerEndpoint
    name: str | None = None


class Mistakes(usage.UsageError):
    """
    What is wrong in a configuration file.

    :ivar lines: a line for each mistake.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Options(usage.Options, AuthOptionMixin):
    """
    What the operator may say.

    The keys ``listeners``, ``timeouts``, ``limits``, ``bind``, ``udp``, ``name_resolver``,
    ``access_log``, ``drain_seconds``, ``worker_count``, ``policy``, ``users``, ``portal``,
    ``auth_settings`` and ``guarded`` hold what the options mean, once they are parsed.

    :param reactor: for endpoints and resolvers; None: the global one.
    :param resources: opens what the options name; None: what fits the number of workers.
    :param config: what the configuration file holds, for one who must not read it again; None: it is read.
    :param directory: from where it is named; None: from where the process is now.
    :ivar resources: that one, once they are parsed.
    :ivar arguments: what was parsed, for a worker to parse it again.
    :ivar config: what the configuration file holds, or None where there is none.
    """

    synopsis = "[-i ADDRESS] [-p PORT] [-l FILE] [options]"
    longdesc = (
        "A SOCKS4, SOCKS4a and SOCKS5 proxy. Clients on this machine reach it on 127.0.0.1, port 1080, "
        "where nothing else is said. A listener that others can reach needs --auth, or --open. "
        "With -l, SIGUSR1 opens the file again, for log rotation. SIGHUP reads again what is named here."
    )

    optParameters = [
        ["config", None, None, "Configuration file (TOML); what options say goes before it."],
        ["interface", "i", None, "Local address to listen on, IPv4 or IPv6. [default: 127.0.0.1]"],
        ["port", "p", None, "Port to listen on. [default: 1080]"],
        ["log", "l", None, "File to which one line per session is appended."],
        ["log-format", None, None, "How: text or json. [default: text]"],
        [
            "resolver",
            None,
            "system",
            "Who looks names up: system, or dns: and DNS servers, HOST[:PORT], with commas between them.",
        ],
        ["handshake-timeout", None, "10", "Seconds in which a client must have made its request."],
        ["connect-timeout", None, "30", "Seconds in which the destination must be reached."],
        ["idle-timeout", None, "0", "Seconds without data after which a session ends; 0: never."],
        [
            "half-closed-timeout",
            None,
            "300",
            "Seconds without data, one direction being closed, that end a session.",
        ],
        ["keepalive", None, "60", "Seconds of silence after which TCP probes a peer; 0: never."],
        ["keepalive-interval", None, None, "Seconds between two probes. [default: the system's]"],
        [
            "tcp-user-timeout",
            None,
            "300",
            "Seconds for which a peer may acknowledge nothing; 0: the system's.",
        ],
        ["auth-timeout", None, "8", "Seconds in which it must be known who a client is."],
        ["auth-cache", None, "60", "Seconds for which a right password is remembered; 0: not at all."],
        [
            "auth-failures",
            None,
            "10",
            "Wrong passwords in a minute for which an address is refused; 0: any.",
        ],
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
        ["max-associations-per-client", None, "4096", "Most UDP associations at once of one client address."],
        ["drain", None, "0", "Seconds that sessions may go on after SIGTERM; another one ends them."],
        ["workers", None, "1", "Processes that serve clients, or auto: one for each core."],
    ]

    optFlags = [
        ["open", None, "Accept clients from other machines although nothing says who may use the proxy."],
        ["bind-any-peer", None, "Let clients of other machines leave open whom their BIND waits for."],
        ["bind-check-port", None, "Accept a BIND's peer only from the port that the client names."],
        ["udp-relatch", None, "Let a client's datagrams come from another port of its address than before."],
        ["log-probes", None, "With -l: a line, too, for a client that connects and says nothing."],
        ["no-resolve-commands", None, "Do not serve RESOLVE and RESOLVE_PTR, which Tor's clients use."],
    ]

    compData = usage.Completions(
        multiUse=["auth", "listen", "outgoing", "bind-address", "advertise"],
        mutuallyExclusive=[("listen", "interface"), ("listen", "port"), ("udp-port", "udp-ports")],
        optActions={
            "config": usage.CompleteFiles("*.toml"),
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

    def __init__(
        self,
        reactor: Any = None,
        resources: Resources | None = None,
        config: bytes | None = None,
        directory: str | None = None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._resources = resources
        self.arguments: list[str] = []
        self.config = config
        self.directory = directory
        self._configured: Configured | None = None
        self._wrong: list[ConfigError] = []
        self.auth_kinds: set[str] = set()
        self["auth"] = []
        self["listen"] = []
        self["outgoing"] = []
        self["bind-address"] = []
        self["advertise"] = []
        self["credCheckers"] = []
        self["users"] = None

    @property
    def reactor(self) -> Any:
        """The reactor; the global one is not imported before it is needed."""
        if self._reactor is None:
            self._reactor = global_reactor()
        return self._reactor

    @property
    def resources(self) -> Resources:
        """What opens endpoints and files."""
        if self._resources is None:
            kind = SupervisorResources if self["worker_count"] > 1 else Resources
            self._resources = kind(self.reactor)
        return self._resources

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        See :meth:`twisted.python.usage.Options.parseOptions`.

        :raises SystemExit: in place of :exc:`~twisted.python.usage.UsageError`, when a program such as
            ``twistd`` parses its subcommand: ``twistd`` would print its whole usage before the error.
        """
        if self.parent is None:
            self._parse(options)
            return
        escape_unknown(sys.stdout, sys.stderr)  # the server's log may go there
        try:
            self._parse(options)
        except Mistakes as problem:
            print(*problem.lines, sep="\n", file=sys.stderr)
            raise SystemExit(1) from None
        except usage.UsageError as problem:
            print(in_one_line(f"{self.parent.subCommand}: {problem}"), file=sys.stderr)
            raise SystemExit(1) from None

    def _parse(self, options: Sequence[str] | None) -> None:
        self.arguments = list(sys.argv[1:] if options is None else options)
        if self.directory is None:
            # twistd may change it before this is needed again.
            with suppress(OSError):
                self.directory = os.getcwd()
        super().parseOptions(self.arguments)

    def again(self) -> Options:
        """
        What the same command line means now: all that it names is read anew. Any thread may do it.

        :raises twisted.python.usage.UsageError: as :meth:`parseOptions` does.
        """
        options = Options(self.reactor, self.resources.successor(), None, self.directory)
        options.parseOptions(self.arguments)
        return options

    def opt_auth(self, description: str) -> None:
        """Ask clients who they are: TYPE or TYPE:ARGUMENTS, see --help-auth. Repeatable."""
        try:
            self._add_checker(description)
        except ConfigError as problem:
            raise usage.UsageError(f"--auth {problem}") from None

    def opt_listen(self, endpoint: str) -> None:
        """Listen on [NAME=]ENDPOINT, such as tcp:1080:interface=127.0.0.1; not on -i and -p. Repeatable."""
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

        :raises twisted.python.usage.UsageError: when something is wrong: with all of it that is in the
            configuration file, a line each; with the first thing, where there is none.
        """
        self._configure()
        said = {name: self._meaning(name, parse) for name, parse in _PARSERS.items()}
        self["timeouts"] = Timeouts(
            handshake=said["handshake-timeout"],
            connect=said["connect-timeout"],
            idle=said["idle-timeout"] or None,
            half_closed=said["half-closed-timeout"] or None,
            keepalive=said["keepalive"] or None,
            keepalive_interval=said["keepalive-interval"],
            user_timeout=said["tcp-user-timeout"] or None,
        )
        self["limits"] = self._limits(said)
        self["usage"] = self._usage()
        self["drain_seconds"] = said["drain"]
        self["worker_count"] = said["workers"]
        self._addresses("outgoing")
        self._check_advertised()
        self["policy"] = None if self._configured is None else self._configured.policy
        if self._configured is not None:
            self._configured.check_outgoing(is_local)
        self["set_files"] = [] if self["policy"] is None else self["policy"].sets.files
        self["portal"] = self._portal(said)
        # Rules deny what they do not allow.
        self["guarded"] |= self["policy"] is not None and bool(self["policy"].rules)
        self["auth_settings"] = AuthSettings(
            timeout=said["auth-timeout"], failures=said["auth-failures"] or None
        )
        self["bind"] = self._bind(said)
        self["udp"] = self._udp(said)
        self["listeners"] = self._listeners(said)
        if self._configured is not None and not self._is_wrong("listen"):
            self._configured.check_listeners(self._listening())
        self["name_resolver"] = self._name_resolver()
        self["access_log"] = self._access_log()
        self._report()
        if self.parent is not None:
            prepare_files(self.parent)

    # The configuration file.

    def _configure(self) -> None:
        """Have what the configuration file says, where no option says it."""
        if self["config"] is None:
            return
        try:
            self.config, self._configured = read_file(self["config"], self.config, self.directory or "")
        except Unreadable as problem:
            raise usage.UsageError(f"--config {problem}") from None
        hidden = self._given()
        hidden |= {name for option in hidden for name in _INSTEAD.get(option, ())}
        for name in self._configured.said.keys() - hidden:
            self[name] = self._configured.said[name]
            self._configured.used.add(name)
        if "auth" in self._configured.used:
            for number, description in enumerate(self["auth"]):
                try:
                    self._add_checker(description)
                except ConfigError as problem:
                    self._note(problem, "auth", number)
        self._add_directory(self._configured.directory)

    def _add_directory(self, directory: Directory | None) -> None:
        """Have the *directory* of users; if it has passwords, it is asked before any other checker."""
        self["users"] = directory
        if directory is not None and directory.passwords():
            from ..auth.checkers.records import RecordsChecker

            checks = Checks.shared_fairly(self.reactor, name="passwords of users' records")
            self.addChecker(RecordsChecker(directory, checks))
            self["credCheckers"].insert(0, self["credCheckers"].pop())

    def _given(self) -> set[str]:
        """The names of the options on the command line."""
        options, _ = getopt.getopt(self.arguments, self.shortOpt, self.longOpt)
        names = [option.lstrip("-") for option, _ in options]
        return {self.synonyms.get(name, name).replace("_", "-") for name in names}

    def _note(self, problem: ConfigError, name: str, number: int | None = None) -> None:
        problem.path = (name,) if number is None else (name, number)
        self._wrong.append(problem)

    def _is_wrong(self, *names: str) -> bool:
        """Whether something is wrong with one of these: then what follows from it is no news."""
        known = {str(problem.path[0]) for problem in self._wrong}
        if self._configured is not None:
            known |= self._configured.wrong
        return not known.isdisjoint(names)

    def _report(self) -> None:
        if self._configured is None:
            if self._wrong:
                raise usage.UsageError(in_option(self._wrong[0]))
            return
        lines = self._configured.report(self._wrong)
        if lines:
            raise Mistakes(lines)

    # What was said, bit by bit.

    def _meaning(self, name: str, parse: Parser) -> Any:
        """What was said for the option *name*; where that is wrong, what nothing said would mean."""
        text = self[name]
        configured = self._configured
        if configured is not None and name in configured.said.keys() - configured.used:
            # The command line says something else, but the file shall be right all the same.
            try:
                parse(configured.said[name])
            except ConfigError as problem:
                problem.path = (name,)
                configured.unused.append(problem)
        try:
            return None if text is None else parse(text)
        except ConfigError as problem:
            self._note(problem, name)
        default = self.defaults[name]
        return None if default is None else parse(default)

    def _add_checker(self, description: str) -> None:
        kind = description.partition(":")[0]
        try:
            self.addChecker(adapted(makeChecker(description), self.reactor))
            self.auth_kinds.add(kind)
        except UnsupportedInterfaces:
            raise ConfigError("not for a SOCKS client, see --help-auth", kind) from None
        except InvalidAuthType:
            raise ConfigError("no such type, see --help-auth", kind) from None
        except Exception as problem:
            # Each type has its own parser, with its own exceptions.
            raise ConfigError(str(problem).removeprefix(f"{kind}: "), kind) from None

    def _portal(self, said: Mapping[str, Any]) -> Portal | None:
        userid = said["socks4-userid"]
        checkers = self["credCheckers"]
        if userid is not None and not checkers and not self._is_wrong("auth", "users"):
            self._note(ConfigError("without --auth nobody is asked who they are", userid), "socks4-userid")
        if userid is not None and checkers and IUserid in self["credInterfaces"]:
            self._note(
                ConfigError("--auth ident verifies it: leave one of them out", userid), "socks4-userid"
            )
        self["guarded"] = bool(checkers) and userid is None
        if not checkers:
            return None
        self["guarded"] &= IAnonymous not in self["credInterfaces"]
        directory = self["users"]
        return portal_of(
            [*checkers, *([TrustedUserid()] if userid else [])],
            self.reactor,
            said["auth-cache"],
            None if directory is None else DirectoryRealm(directory),
        )

    def _usage(self) -> UsageFile | None:
        path = None if self._configured is None else self._configured.quota_file
        return None if path is None else UsageFile(self.reactor, os.path.join(self.directory or "", path))

    def _limits(self, said: Mapping[str, Any]) -> ServerLimits:
        return limits_of(said, ServerLimits() if self._configured is None else self._configured.limits)

    def _bind(self, said: Mapping[str, Any]) -> BindSettings:
        addresses = self._addresses("bind-address")
        return BindSettings(
            ports=said["bind-ports"],
            addresses=addresses,
            timeout=said["bind-timeout"],
            any_peer=True if self["bind-any-peer"] else None,
            check_port=bool(self["bind-check-port"]),
        )

    def _udp(self, said: Mapping[str, Any]) -> UDPSettings:
        ports, port = said["udp-ports"], said["udp-port"]
        if ports is not None and port is not None:
            self._note(
                ConfigError("has a port for each client, --udp-port one for all: not both"), "udp-ports"
            )
            ports = None
        if port is not None and self["worker_count"] > 1:
            self._note(
                ConfigError("cannot be shared by the processes of --workers, use --udp-ports"),
                "udp-port",
            )
        return UDPSettings(
            ports=ports,
            port=port,
            filtering=Filtering(said["udp-filter"]),
            relatch=bool(self["udp-relatch"]),
            idle=said["udp-idle-timeout"] or None,
            grace=said["udp-grace"],
        )

    def _listening(self) -> list[Listening]:
        """What rules can know of the listeners; nothing where nothing is said of any."""
        from .listeners import Listening, described

        if self["listen"]:
            return described(self["listen"])
        if self["interface"] is None and self["port"] is None:
            return []
        places = (place_asked_for(each.endpoint) for each in self["listeners"])
        return [Listening(None, place if place and place[1] else None) for place in places]

    @property
    def warnings(self) -> list[str]:
        """Once it is parsed: a line for each thing in the file that is hardly what was meant."""
        return [] if self._configured is None else self._configured.warnings()

    def _listeners(self, said: Mapping[str, Any]) -> list[Listener]:
        listeners = []
        if not self["listen"]:
            name = "interface"
            host = "127.0.0.1" if self["interface"] is None else self["interface"] or "0.0.0.0"
            port = 1080 if said["port"] is None else said["port"]
            try:
                listeners.append(_listener_on(self.resources.reactor_for(0), host, port))
            except ConfigError as problem:
                self._note(problem, name)
        else:
            name = "listen"
            if self["interface"] is not None or self["port"] is not None:
                self._note(ConfigError("says all: leave --interface and --port out, or --listen"), name)
            for number, description in enumerate(self["listen"]):
                try:
                    listeners.append(_listener_from(self.resources, number, description))
                except ConfigError as problem:
                    self._note(problem, name, number)
        self.resources.separate([each.endpoint for each in listeners])
        if not self._is_wrong("auth", "socks4-userid", "open", "rule", "users", name):
            self._check_open(listeners, name)
        if not self._is_wrong(name):
            self._ask_for_certificates(listeners)
            self._check_keys(listeners)
        return listeners

    def _check_keys(self, listeners: Sequence[Listener]) -> None:
        """Find out before a port opens, or stays open, whether TLS can begin there."""
        for number, listener in enumerate(listeners):
            try:
                check_keys(listener.endpoint)
            except ValueError as problem:
                self._note(ConfigError(str(problem), listener.description), "listen", number)

    def _check_open(self, listeners: Sequence[Listener], name: str) -> None:
        for number, (description, endpoint, _) in enumerate(listeners):
            place = place_asked_for(endpoint)
            host = None if place is None else place[0]
            if host is not None and not _only_local(host) and not (self["open"] or self["guarded"]):
                problem = OpenToAll(
                    f"{description} is not on a loopback address, and {OPEN_TO_ALL}: "
                    "listen on 127.0.0.1, [::1] or a Unix socket, add --auth, or --open"
                )
                self._note(problem, name, number if name == "listen" else None)

    def _ask_for_certificates(self, listeners: Sequence[Listener]) -> None:
        for checker in self["credCheckers"]:
            if ICertificate not in checker.credentialInterfaces:
                continue
            from ..auth.checkers.tls import ask_for_certificates

            try:
                asking = [ask_for_certificates(each.endpoint, checker.ca_file) for each in listeners]
            except InvalidAuthArgumentString as problem:
                self._note(ConfigError(str(problem)), "auth")
            else:
                if not any(asking):
                    self._note(
                        ConfigError("there is no listener with TLS, such as --listen ssl:...", "tls"), "auth"
                    )

    def _name_resolver(self) -> IHostnameResolver | None:
        if self["resolver"] == "system":
            return None
        try:
            return make_resolver(self["resolver"], self.reactor)
        except ValueError as problem:
            self._note(ConfigError(str(problem)), "resolver")
            return None

    def _access_log(self) -> AccessLog | None:
        path, format = self["log"], self["log-format"]
        if path is None:
            if format is not None and not self._is_wrong("log", "log-format"):
                self._note(ConfigError("needs --log FILE"), "log-format")
            return None
        try:
            if not (self._wrong or (self._configured is not None and self._configured.is_wrong)):
                return self.resources.access_log(path, format or "text")
            check_access_log(path)  # nothing starts, so no file is made either
        except OSError as problem:
            self._note(ConfigError(describe(problem), path), "log")
        except ValueError:
            self._note(ConfigError("not a path", path), "log")
        return None

    def _addresses(self, name: str) -> Outgoing:
        """The addresses of this machine that the option *name* gives, one of each family."""
        right: list[str] = []
        for number, text in enumerate(self[name]):
            try:
                outgoing_of([*right, text])
            except ConfigError as problem:
                self._note(ConfigError(problem.reason, text), name, number)
                continue
            right.append(text)
            if not is_local(text):
                self._note(ConfigError("not an address of this machine", text), name, number)
        return outgoing_of(right)

    def _check_advertised(self) -> None:
        for number, entry in enumerate(self["advertise"]):
            try:
                Advertised([entry])
            except ValueError as problem:
                self._note(ConfigError(str(problem)), "advertise", number)


def _literal(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def _listener_on(reactor: Any, interface: str, port: int) -> Listener:
    host = interface[1:-1] if interface.startswith("[") and interface.endswith("]") else interface
    if ":" not in host:
        return Listener(
            f"tcp:{host}:{port}", TCP4ServerEndpoint(reactor, port, backlog=BACKLOG, interface=host)
        )
    if _literal(host.partition("%")[0]) is None:
        raise ConfigError("not an address", interface)
    return Listener(
        f"tcp6:[{host}]:{port}", TCP6ServerEndpoint(reactor, port, backlog=BACKLOG, interface=host)
    )


def _listener_from(resources: Resources, number: int, text: str) -> Listener:
    name, description = named_listener(text)
    try:
        return Listener(description, resources.endpoint(number, description), name)
    except OSError as problem:
        file = f": {problem.filename}" if problem.filename else ""
        raise ConfigError(f"{describe(problem)}{file}", description) from None
    except WrongSystemd as problem:
        raise ConfigError(f"not an endpoint that can open: {problem}", description) from None
    except Exception as problem:
        # Each kind of endpoint has its own parser, with its own exceptions.
        raise ConfigError(
            f"not an endpoint such as tcp:1080:interface=127.0.0.1 ({problem})", description
        ) from None


def _only_local(host: str) -> bool:
    return host == "localhost" or is_loopback(host)


def meanings(said: Mapping[str, Any]) -> tuple[dict[str, Any], list[ConfigError]]:
    """
    What a configuration file says of options that mean the same whatever else is said; and what is wrong.

    :param said: of all options of which it says something.
    """
    found: dict[str, Any] = {}
    problems = []
    for name, parse in _PARSERS.items():
        try:
            found[name] = parse(said[name]) if name in said else _default(name)
        except ConfigError as problem:
            problem.path = (name,)
            problems.append(problem)
    return found, problems


def _default(name: str) -> Any:
    text = next(parameter[2] for parameter in Options.optParameters if parameter[0] == name)
    return None if text is None else _PARSERS[name](text)


def limits_of(said: Mapping[str, Any], limits: ServerLimits) -> ServerLimits:
    """
    What options say of limits, together with what the configuration file says besides.

    :param said: what options mean.
    :param limits: the file's.
    """
    sessions = [most for most in (said["max-sessions"], limits.server.sessions) if most is not None]
    of_clients = Limits(
        sessions=said["max-sessions-per-client"],
        binds=said["max-binds-per-client"],
        associations=said["max-associations-per-client"],
    )
    return evolve(
        limits,
        server=evolve(limits.server, sessions=min(sessions, default=None)),
        client=of_clients.over(limits.client),
    )
