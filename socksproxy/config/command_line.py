"""
The command line of ``twistd socks``, together with the configuration file that it names.

Whatever can be found wrong while they are read is a
:class:`~twisted.python.usage.UsageError`, in one line that names the option.
"""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

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
from twisted.internet.interfaces import IHostnameResolver
from twisted.python import usage

from .. import __version__
from ..auth.chain import portal_of
from ..auth.checkers.ident import TrustedUserid
from ..auth.checkers.threads import CheckThreads
from ..auth.checkers.twisted_checkers import adapted
from ..auth.credentials import (
    IAnonymous,
    ICertificate,
    ICertifiedName,
    IGSSAPIName,
    IPeerCredentials,
    IUserid,
    IUsernamePassword,
)
from ..auth.directory import Directory, DirectoryRealm
from ..errors import describe
from ..limits.quota.usage import UsageFile
from ..logs.access_log import AccessLog, check_access_log
from ..logs.printable import escape_unknown, in_one_line
from ..logs.server_log import ServerLog
from ..net.endpoints import check_keys, place_asked_for
from ..net.local import is_local
from ..net.ports import Advertised
from ..net.resolve import make_resolver
from ..net.resources import CheckedResources, Resources
from ..runtime.reactor import global_reactor
from ..settings import ServerSettings
from ..shared.asking import StoreProblem
from ..shared.store import SharedStore
from ..sources.found import FoundConfig, SourceProblem
from ..values.auth import AuthSettings
from ..values.balancers import Balancers
from ..values.bind import BindSettings
from ..values.errors import ConfigError
from ..values.limits import Limits, ServerLimits
from ..values.outgoing import UNSAID, Outgoing, Sources, is_address, outgoing_of, problems_with
from ..values.pools import UpstreamPool
from ..values.shared import NodeSettings
from ..values.sticky import StickySettings
from ..values.timeouts import Timeouts
from ..values.udp import UDPSettings
from ..values.upstreams import Upstream
from .endpoints import CLAIMABLE, check_local, is_claimable, listener_from, listener_on, loops
from .listeners import Listening, described
from .loading import Unreadable, content_of, read_file
from .options import BY_NAME, OPTIONS, Option, excluded_by, settings_of
from .origin import Origin, is_remote, origin_of
from .plan import Listener, Plan
from .sticky import check_choice
from .upstreams import check_way
from .words import SHARED, STICKY, OpenToAll, in_option

if TYPE_CHECKING:
    from .file import Configured


class Mistakes(usage.UsageError):
    """
    What is wrong with options and in a configuration file.

    :ivar lines: a line for each mistake.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class NothingRuns:
    """Stands for the reactor: a check makes endpoints and resolvers, and none of them is used."""

    nameResolver = None


#: The options that the command line can give.
GIVEN = [option for option in OPTIONS if option.on_command_line]


def _repeatable(option: Option) -> Callable[[SOCKSOptions, str], None]:
    """The method that takes each value of the repeatable *option*."""

    def take(self: SOCKSOptions, value: str) -> None:
        self[option.name].append(value)

    take.__doc__ = option.help
    return take


class CommandLine(usage.Options, AuthOptionMixin):
    """
    What the command line and the file that it names say, without what that means together.

    :param reactor: for endpoints and resolvers; None: the global one.
    :param resources: opens what the options name; None: what fits the number of workers.
    :param config: what the configuration file holds, for one who must not read it again; None: it is read.
    :param directory: from where it is named; None: from where the process is now.
    :param node: what the node's own file holds, for one who must not read it again; None: it is read.
    :ivar resources: that one, once they are parsed.
    :ivar plan: what they mean, once they are parsed.
    :ivar arguments: what was parsed, for a worker to parse it again.
    :ivar config: what the configuration file holds, or None where there is none.
    :ivar node: what the node's own file holds, or None where there is none.
    :ivar origin: where it comes from; None: from nowhere, or another process has read it.
    :ivar seen: the configuration as it was found there; None: from nowhere, or another process has read it.
    :ivar present: the one in force, when it is read again; None: the server starts.
    :ivar fallback: why the last good one counts, and not what is there now; empty: it does not.
    """

    synopsis = "[-i ADDRESS] [-p PORT] [-l FILE] [options]"
    longdesc = (
        "A SOCKS4, SOCKS4a and SOCKS5 proxy. By default it listens on 127.0.0.1, port 1080. A listener that "
        "other machines can reach needs --auth, rules, or --open. SIGUSR1 opens the access log again, for "
        "log rotation. SIGHUP reads the configuration and every file that it names again."
    )

    optParameters = [option.parameter for option in GIVEN if not (option.flag or option.repeatable)]
    optFlags = [[option.name, None, option.help] for option in GIVEN if option.flag]
    compData = usage.Completions(
        multiUse=[option.name for option in GIVEN if option.repeatable],
        mutuallyExclusive=[(option.name, other) for option in GIVEN for other in option.excludes],
        optActions={option.name: option.completion for option in GIVEN if option.completion is not None},
    )

    supportedInterfaces = (
        IAnonymous,
        IUsernamePassword,
        ICertificate,
        IPeerCredentials,
        IUserid,
        IGSSAPIName,
        ICertifiedName,
    )

    def __init__(
        self,
        reactor: Any = None,
        resources: Resources | None = None,
        config: bytes | None = None,
        directory: str | None = None,
        node: bytes | None = None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._resources = resources
        self.arguments: list[str] = []
        self.config = config
        self.node = node
        self.directory = directory
        self.origin: Origin | None = None
        self.seen: FoundConfig | None = None
        self.present: FoundConfig | None = None
        self.fallback = ""
        self._configured: Configured | None = None
        self._wrong: list[ConfigError] = []
        self.auth_kinds: set[str] = set()
        self.plan: Plan
        self.update({option.name: [] for option in GIVEN if option.repeatable})
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
            self._resources = self.make_resources()
        return self._resources

    def make_resources(self) -> Resources:
        """What opens what is named, where no other is given."""
        return Resources(self.reactor)

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

    def opt_auth(self, description: str) -> None:
        try:
            self._add_checker(description)
        except ConfigError as problem:
            raise usage.UsageError(f"--auth {problem}") from None

    opt_auth.__doc__ = BY_NAME["auth"].help

    def parseArgs(self, *surplus: str) -> None:
        """Everything has a name."""
        if surplus:
            raise usage.UsageError(f"{surplus[0]}: not an option, and no option's value")

    def opt_version(self) -> None:
        """Display the versions of this proxy and of Twisted, and exit."""
        print(f"twisted-socksproxy {__version__}, Twisted {twisted_version}")
        raise SystemExit(0)

    def _configure(self) -> None:
        """Have what the configuration file says, where no option says it."""
        for name in ("config", "node"):
            files = self._values(name)
            if len(files) > 1:
                raise usage.UsageError(f"--{name}: there are two files, {files[0]} and {files[1]}")
        if self["config"] is None:
            if self["node"] is not None:
                raise usage.UsageError("--node needs --config FILE, the file of all nodes")
            for name in sorted(self._given()):
                if name.startswith("config-"):
                    raise usage.UsageError(f"--{name} needs --config")
            return
        directory = self.directory or ""
        if self.config is None:
            self._find()
        try:
            if self["node"] is not None and self.node is None:
                self.node = content_of(self["node"], directory)
        except Unreadable as problem:
            raise usage.UsageError(f"--node {problem}") from None
        node = None if self.node is None else (self.node, self["node"])
        try:
            self.config, self._configured = read_file(self["config"], self.config, directory, node)
        except Unreadable as problem:
            raise usage.UsageError(f"--config {problem}") from None
        hidden = self._given()
        hidden |= {other for name in hidden & BY_NAME.keys() for other in excluded_by(name)}
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

    def _find(self) -> None:
        """Look for the configuration where it comes from, or take the last good one."""
        name = self["config"]
        try:
            origin = origin_of(self, self.directory or "")
            needed = is_remote(name) and not isinstance(self._resources, CheckedResources)
            if needed and origin.last_good is None:
                reason = "needs --config-state FILE, where the last good one stays"
                raise ConfigError(reason, name, path=("config",))
        except ConfigError as problem:
            raise usage.UsageError(in_option(problem)) from None
        kept, lost = None, ""
        if self.present is None:
            try:
                kept = origin.kept()
            except SourceProblem as problem:
                lost = f"; --config-state {problem}"
        try:
            found = origin.look(present=self.present or kept)
            if kept is not None and not found.same(kept):
                self.trial(found)
        except (SourceProblem, usage.UsageError) as problem:
            wrong = f"{name}: {problem}" if isinstance(problem, SourceProblem) else str(problem)
            if kept is None:
                raise usage.UsageError(f"--config {wrong}{lost}") from None
            found, self.fallback = kept, wrong
        self.origin, self.seen, self.config = origin, found, found.content

    def trial(self, seen: FoundConfig) -> None:
        """
        See whether *seen* is right, with all that it names. Nothing is opened. Any thread may do it.

        :raises twisted.python.usage.UsageError: when it is not.
        """
        reactor = NothingRuns()
        options = SOCKSOptions(reactor, CheckedResources(reactor), seen.content, self.directory)
        options.parseOptions(self.arguments)

    def _add_directory(self, directory: Directory | None) -> None:
        """Have the *directory* of users; if it has passwords, it is asked before any other checker."""
        self["users"] = directory
        if directory is not None and directory.passwords():
            from ..auth.checkers.records import RecordsChecker

            checks = CheckThreads.shared_fairly(self.reactor, name="passwords of users' records")
            self.addChecker(RecordsChecker(directory, checks))
            self["credCheckers"].insert(0, self["credCheckers"].pop())

    def _given(self) -> set[str]:
        """The names of the options on the command line."""
        return {name for name, _ in self._on_command_line()}

    def _values(self, name: str) -> list[str]:
        """All values of an option on the command line."""
        return [value for given, value in self._on_command_line() if given == name]

    def _on_command_line(self) -> Iterator[tuple[str, str]]:
        """The options on the command line: the name of each, and its value."""
        options, _ = getopt.getopt(self.arguments, self.shortOpt, self.longOpt)
        for option, value in options:
            name = option.lstrip("-")
            yield self.synonyms.get(name, name).replace("_", "-"), value

    def _note(self, problem: ConfigError, name: str, number: int | None = None) -> None:
        problem.path = (name,) if number is None else (name, number)
        self._wrong.append(problem)

    def _right(self, name: str, make: Callable[[list[str]], object]) -> list[str]:
        """The entries of the option *name* of which *make* makes something; the others are noted."""
        right = []
        for number, entry in enumerate(self[name]):
            try:
                make([entry])
            except ValueError as problem:
                wrong = problem if isinstance(problem, ConfigError) else ConfigError(str(problem))
                self._note(wrong, name, number)
            else:
                right.append(entry)
        return right

    def _is_wrong(self, *names: str) -> bool:
        """Whether something is wrong with one of these: then what follows from it is no news."""
        known = {str(problem.path[0]) for problem in self._wrong}
        if self._configured is not None:
            known |= self._configured.wrong
        return not known.isdisjoint(names)

    def _report(self) -> None:
        if self._configured is None:
            if self._wrong:
                command = "" if self.parent is None else f"{self.parent.subCommand}: "
                raise Mistakes([in_one_line(command + in_option(problem)) for problem in self._wrong])
            return
        lines = self._configured.report(self._wrong)
        if lines:
            raise Mistakes(lines)

    def _meaning(self, option: Option) -> Any:
        """What the option means as it is given; where that is wrong, what it means where none is given."""
        name, configured = option.name, self._configured
        if configured is not None and name in configured.said.keys() - configured.used:
            # The command line says something else, but the file shall be right all the same.
            try:
                option.meaning(configured.said[name])
            except ConfigError as problem:
                configured.unused.append(problem.within((name,)))
        try:
            return option.meaning(self[name])
        except ConfigError as problem:
            self._note(problem, name)
        return option.default_meaning

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

    @property
    def shown(self) -> dict[str, Any]:
        """What the configuration file says, without secrets."""
        return {} if self._configured is None else self._configured.shown

    @property
    def warnings(self) -> list[str]:
        """Once it is parsed: a line for each thing in the file that is hardly what was meant."""
        return [] if self._configured is None else self._configured.warnings()


class SOCKSOptions(CommandLine):
    """
    What the operator may say, and the :class:`~socksproxy.config.plan.Plan` that it makes.

    See :class:`CommandLine` for the parameters.
    """

    def again(self, seen: FoundConfig | None = None) -> SOCKSOptions:
        """
        What the same command line means now: all that it names is read anew. Any thread may do it.

        :param seen: the configuration as it was found; None: its source is looked at.
        :raises twisted.python.usage.UsageError: as :meth:`parseOptions` does.
        """
        content = None if seen is None else seen.content
        options = type(self)(self.reactor, self.resources.successor(), content, self.directory)
        options.present = self.seen
        if seen is not None:
            options.origin, options.seen = self.origin, seen
        options.parseOptions(self.arguments)
        return options

    def postOptions(self) -> None:
        """
        Check all that was said.

        :raises twisted.python.usage.UsageError: when something is wrong, a line for each mistake.
        """
        self._configure()
        said = {option.name: self._meaning(option) for option in GIVEN}
        self["worker_count"] = said["workers"]
        fields = settings_of(said)
        outgoing = self._outgoing()
        upstreams, pools = self._upstreams(), self._pools()
        advertised = self._advertised()
        policy = None if self._configured is None else self._configured.policy
        if self._configured is not None:
            self._configured.check_outgoing(is_local)
        portal = self._portal(said)
        # Rules deny what they do not allow.
        self["guarded"] |= policy is not None and bool(policy.rules)
        any_peer = True if self["bind-any-peer"] else None
        bind = BindSettings(**fields["bind"], addresses=self._addresses("bind-address"), any_peer=any_peer)
        udp = self._udp(fields["udp"])
        listeners = self._listeners(said)
        if self._configured is not None and not self._is_wrong("listen"):
            self._configured.check_listeners(self._listening(listeners))
            self._configured.errors += loops(upstreams, pools, listeners)
        self._check_sticky(said["workers"])
        proxy_from = self._balancers(listeners)
        resolver = self._name_resolver()
        access_log: AccessLog | None = self._log("log", "log-format", self.resources.access_log)
        server_log: ServerLog | None = self._log(
            "server-log", "server-log-format", self.resources.open_server_log
        )
        shared = self._shared()
        self._report()
        settings = ServerSettings(
            policy=policy,
            portal=portal,
            auth=AuthSettings(**fields["auth"]),
            resolver=resolver,
            outgoing=outgoing,
            upstreams=upstreams,
            pools=pools,
            via=self["via"],
            sticky=self._sticky,
            helpers={} if self._configured is None else self._configured.helpers or {},
            timeouts=Timeouts(**fields["timeouts"]),
            limits=self._limits(said),
            usage=self._usage(),
            shared=shared,
            observer=access_log,
            bind=bind,
            udp=udp,
            advertise=advertised,
            resolve_commands=not self["no-resolve-commands"],
            proxy_from=proxy_from,
            **fields[""],
        )
        self.plan = self._plan(said, settings, listeners, access_log, server_log)

    def _plan(
        self,
        said: Mapping[str, Any],
        settings: ServerSettings,
        listeners: Sequence[Listener],
        access_log: AccessLog | None,
        server_log: ServerLog | None,
    ) -> Plan:
        configured = self._configured
        return Plan(
            settings=settings,
            listeners=listeners,
            open=bool(self["open"]),
            guarded=bool(self["guarded"]),
            access_log=access_log,
            server_log=server_log,
            drain=said["drain"],
            workers=said["workers"],
            admin=None if configured is None else configured.admin,
            metrics=None if configured is None else configured.metrics,
            records=None if configured is None else configured.records,
            node=NodeSettings() if configured is None else configured.node,
            config_interval=said["config-interval"],
            config_spread=said["config-spread"],
        )

    @property
    def warnings(self) -> list[str]:
        """See :attr:`CommandLine.warnings`; also on listeners where every client can claim an address."""
        proxy_from = self.plan.settings.proxy_from
        claimable = [each.description for each in self.plan.listeners if is_claimable(each, proxy_from)]
        return super().warnings + [f"{description}: {CLAIMABLE}" for description in claimable]

    def _portal(self, said: Mapping[str, Any]) -> Portal | None:
        userid = said["socks4-userid"]
        checkers = self["credCheckers"]
        if userid is not None and not checkers and not self._is_wrong("auth", "users"):
            self._note(ConfigError("needs --auth: otherwise clients give no name", userid), "socks4-userid")
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
        configured = self._configured
        if configured is None or configured.quota_file is None:
            return None
        path = os.path.join(self.directory or "", configured.quota_file)
        return UsageFile(self.reactor, path, zone=configured.time_zone)

    def _shared(self) -> SharedStore | None:
        configured = self._configured
        if configured is None or configured.shared is None:
            return None
        try:
            return SharedStore(self.reactor, configured.shared)
        except StoreProblem as problem:
            configured.errors.append(ConfigError(str(problem), path=(SHARED,), shown=False))
            return None

    def _limits(self, said: Mapping[str, Any]) -> ServerLimits:
        return limits_of(said, ServerLimits() if self._configured is None else self._configured.limits)

    def _udp(self, fields: dict[str, Any]) -> UDPSettings:
        if fields["ports"] is not None and fields["port"] is not None:
            self._note(
                ConfigError("has a port for each client, --udp-port one for all: not both"), "udp-ports"
            )
            fields["ports"] = None
        return UDPSettings(**fields)

    def _listening(self, listeners: Sequence[Listener]) -> list[Listening]:
        """What rules can know of the listeners; nothing where nothing is said of any."""
        if self["listen"]:
            return described(self["listen"])
        if self["interface"] is None and self["port"] is None:
            return []
        places = (place_asked_for(each.endpoint) for each in listeners)
        return [Listening(None, place if place and place[1] else None) for place in places]

    def _listeners(self, said: Mapping[str, Any]) -> list[Listener]:
        listeners = []
        if not self["listen"]:
            name = "interface"
            host = "127.0.0.1" if self["interface"] is None else self["interface"] or "0.0.0.0"
            port = 1080 if said["port"] is None else said["port"]
            try:
                listeners.append(listener_on(self.resources.reactor_for(0), host, port))
            except ConfigError as problem:
                self._note(problem, name)
        else:
            name = "listen"
            if self["interface"] is not None or self["port"] is not None:
                self._note(ConfigError("says all: leave --interface and --port out, or --listen"), name)
            for number, description in enumerate(self["listen"]):
                try:
                    listeners.append(listener_from(self.resources, number, description))
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
        if self["open"] or self["guarded"]:
            return
        for number, listener in enumerate(listeners):
            try:
                check_local(listener)
            except OpenToAll as problem:
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

    def _log(self, name: str, format_name: str, make: Callable[[str, str], Any]) -> Any:
        """The log whose place the option *name* gives; None: there is none, or something is wrong."""
        path, format = self[name], self[format_name]
        if path is None:
            if format is not None and not self._is_wrong(name, format_name):
                self._note(ConfigError(f"needs --{name} FILE"), format_name)
            return None
        try:
            if not (self._wrong or (self._configured is not None and self._configured.is_wrong)):
                return make(path, format or "text")
            check_access_log(path)  # nothing starts, so no file is made either
        except OSError as problem:
            self._note(ConfigError(describe(problem), path), name)
        except ConfigError as problem:
            self._note(problem, name)
        except ValueError:
            self._note(ConfigError("not a path", path), name)
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

    def _upstreams(self) -> dict[str, Upstream]:
        """The upstreams of the file, of which the server has one where it names one."""
        found = {} if self._configured is None else self._configured.upstreams
        pools = {} if self._configured is None else self._configured.pools
        if found is not None and pools is not None and self["via"] is not None:
            errors: list[ConfigError] = []
            check_way(self["via"], ("via",), {**found, **pools}, errors)
            self._wrong += [ConfigError(each.reason, self["via"], path=each.path) for each in errors]
        return found or {}

    def _pools(self) -> dict[str, UpstreamPool]:
        """The pools of the file."""
        return {} if self._configured is None else self._configured.pools or {}

    @property
    def _sticky(self) -> StickySettings | None:
        """The names with which users keep one address."""
        return None if self._configured is None else self._configured.sticky

    def _check_sticky(self, workers: int) -> None:
        """Note that first uses are not known to all workers."""
        if self._configured is None or self._sticky is None or self._sticky.file is not None or workers < 2:
            return
        reason = "file is missing: several workers need it, for what they know together"
        self._configured.errors.append(ConfigError(reason, path=(STICKY,), shown=False))

    def _outgoing(self) -> Sources:
        """What connections leave from."""
        words = self["outgoing"]
        problems = problems_with(words)
        for problem in problems:
            self._note(ConfigError(problem.reason, problem.value), "outgoing", int(problem.path[0]))
        wrong = {problem.path for problem in problems}
        for number, word in enumerate(words):
            if is_address(word) and (number,) not in wrong and not is_local(word):
                self._note(ConfigError("not an address of this machine", word), "outgoing", number)
            doubt = check_choice(word, self._sticky is not None or self._is_wrong(STICKY))
            if doubt is not None:
                self._note(ConfigError(doubt, word), "outgoing", number)
        return UNSAID if problems else Sources(words)

    def _balancers(self, listeners: Sequence[Listener]) -> Balancers:
        """Whose PROXY headers count."""
        right = self._right("proxy-from", Balancers)
        if not self._is_wrong("listen") and not any(each.balanced for each in listeners):
            needed = "a listener that expects PROXY headers, such as haproxy:tcp:1080"
            if right:
                self._note(ConfigError(f"needs {needed}"), "proxy-from")
            if ICertifiedName in self.get("credInterfaces", ()):
                self._note(ConfigError(f"balancer needs {needed}"), "auth")
        return Balancers(right)

    def _advertised(self) -> Advertised:
        """What clients are told in place of our addresses."""
        return Advertised(self._right("advertise", Advertised))


for _option in GIVEN:
    if _option.repeatable and _option.name != "auth":
        setattr(SOCKSOptions, f"opt_{_option.name.replace('-', '_')}", _repeatable(_option))


def meanings(said: Mapping[str, Any]) -> tuple[dict[str, Any], list[ConfigError]]:
    """
    What a configuration file says of options that mean the same whatever else is said; and what is wrong.

    :param said: of all options of which it says something.
    """
    found: dict[str, Any] = {}
    problems = []
    for option in GIVEN:
        try:
            found[option.name] = option.meaning(said.get(option.name))
        except ConfigError as problem:
            problems.append(problem.within((option.name,)))
    return found, problems


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
