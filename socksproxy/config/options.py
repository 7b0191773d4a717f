"""
The table of options: everything that the command line and the configuration file can say.

Strategy: an option is one row here. What ``twistd`` parses, ``--help``, the completion of shells, the keys of
the file and the tables of the documentation are derived from the rows. A row names the field of
:class:`~socksproxy.settings.ServerSettings` that its value is for. A new option needs its row and its field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.python.usage import CompleteFiles, CompleteList, Completer

from ..logs.access_log import FORMATS
from ..logs.server_log import SERVER_FORMATS
from ..net.tcp_options import LONGEST_KEEPALIVE, LONGEST_USER_TIMEOUT
from ..relay.busy_poll import LONGEST_BUSY_POLL
from ..values.outgoing import FAMILIES
from ..values.parsers import count, one_of, port, seconds, workers
from ..values.ports import port_range
from ..values.timeouts import NEVER
from ..values.udp import Filtering

#: What a value of the file is: one of these types, or a list of texts.
TEXT, TEXTS, FLAG = (str,), (list,), (bool,)
WHOLE, NUMBER = (int,), (int, float)
WHOLE_OR_TEXT = (int, str)

#: The tables of the file, in the order of the documentation, and what each is about.
TABLES = {
    "listeners": "Where the proxy accepts clients, and the addresses that it tells them.",
    "authentication": "Who may use the proxy.",
    "limits": "How much there may be at once, and where quotas are kept.",
    "timeouts": "How long clients and destinations may take.",
    "names": "How names become addresses.",
    "outgoing": "The addresses that connections leave from, and the upstream that they go through.",
    "bind": "The command BIND, for servers that connect back, as in FTP.",
    "udp": "The command UDP ASSOCIATE.",
    "log": "The access log, and the server's own log.",
    "workers": "Processes, and how they end.",
}


#: Tables within ``[limits]``: whose limits they are.
SCOPES = ("server", "client", "network", "user", "session")


@attrs.frozen(kw_only=True)
class Option:
    """
    One option.

    :ivar name: on the command line, and the name of its key in the file.
    :ivar help: what it does, one line.
    :ivar table: of the file; empty: the option has no key.
    :ivar types: of its value in the file.
    :ivar parse: makes the meaning of text, or raises :class:`~socksproxy.values.errors.ConfigError`;
        None: what is right depends on other options.
    :ivar default: the text that counts where none is given; None: there is none.
    :ivar otherwise: what happens where none is given, if there is no *default*.
    :ivar unit: what a number counts.
    :ivar example: a value, as the file has it.
    :ivar short: the letter of its short form.
    :ivar completion: how shells complete its value.
    :ivar excludes: options that cannot be given together with it.
    :ivar secret: whether its value must not be shown.
    :ivar field: the field of :class:`~socksproxy.settings.ServerSettings` that has its meaning, such as
        ``timeouts.idle``; empty: something else uses it.
    :ivar on_command_line: False: it is a key of the file only.
    :ivar alone: an entry that the file may have without a list, where there is a list of entries.
    """

    name: str
    help: str
    table: str = ""
    types: tuple[type, ...] = TEXT
    parse: Callable[[str], Any] | None = None
    default: str | None = None
    otherwise: str = ""
    unit: str = ""
    example: str = ""
    short: str | None = None
    completion: Completer | None = None
    excludes: tuple[str, ...] = ()
    secret: bool = False
    field: str = ""
    on_command_line: bool = True
    alone: str = ""

    @property
    def repeatable(self) -> bool:
        """Whether it can be given several times."""
        return self.types == TEXTS

    @property
    def flag(self) -> bool:
        """Whether it has no value."""
        return self.types == FLAG

    @property
    def parameter(self) -> list[str | None]:
        """The option as Twisted's ``optParameters`` have it."""
        shown = f"{self.help} [default: {self.otherwise}]" if self.otherwise else self.help
        return [self.name, self.short, self.default, shown]

    @property
    def default_meaning(self) -> Any:
        """What it means where none is given."""
        if self.flag:
            return False
        return None if self.default is None or self.parse is None else self.parse(self.default)

    def meaning(self, given: Any) -> Any:
        """
        What the value *given* means.

        :param given: as the command line has it; None: none is given.
        :raises ConfigError: when it means nothing.
        """
        if given is None or self.parse is None:
            return self.default_meaning if given is None or (self.flag and not given) else given
        return self.parse(given)


#: All options. Those of a table stand together.
OPTIONS: tuple[Option, ...] = (
    Option(
        name="config",
        help="Configuration (TOML): a file, directory, https: URL, or key of a store. Options override it.",
        completion=CompleteFiles("*.toml"),
    ),
    Option(
        name="node",
        help="File (TOML) with this node's own values. They override those of --config.",
        completion=CompleteFiles("*.toml"),
    ),
    Option(
        name="config-interval",
        help="Seconds between looks at the source of --config; 0: none.",
        parse=seconds(or_zero="for none", zero=NEVER),
        otherwise="30, and none at a file",
        unit="seconds",
    ),
    Option(
        name="config-spread",
        help="Seconds in which all nodes put a new configuration in force, a few first.",
        parse=seconds(or_zero="for all at once"),
        default="0",
        unit="seconds",
    ),
    Option(
        name="config-state",
        help="File that keeps the last good configuration, for a start without its source.",
        completion=CompleteFiles(),
    ),
    Option(
        name="config-key",
        help="Public key (Ed25519, PEM): only a configuration that it has signed is used.",
        completion=CompleteFiles("*.pem"),
    ),
    Option(
        name="config-ca",
        help="Certificates (PEM) that vouch for the server of --config. [default: those of the system]",
        completion=CompleteFiles("*.pem"),
    ),
    Option(
        name="listen",
        help="Listen on [NAME=]ENDPOINT, such as tcp:1080:interface=127.0.0.1; not with -i, -p. Repeatable.",
        table="listeners",
        types=TEXTS,
        example='["tcp:1080:interface=127.0.0.1", "unix:/run/socks:mode=660"]',
        completion=CompleteList([r"tcp\:", r"unix\:", r"ssl\:", r"systemd\:", r"haproxy\:tcp\:"]),
        excludes=("interface", "port"),
    ),
    Option(
        name="interface",
        help="Local address to listen on, IPv4 or IPv6.",
        table="listeners",
        otherwise="127.0.0.1",
        example='"127.0.0.1"',
        short="i",
        # zsh ends a list at a colon that has no backslash.
        completion=CompleteList(["127.0.0.1", r"\:\:1"]),
    ),
    Option(
        name="port",
        help="Port to listen on.",
        table="listeners",
        types=WHOLE,
        parse=port(0),
        otherwise="1080",
        example="1081",
        short="p",
    ),
    Option(
        name="open",
        help="Serve clients of other machines without authentication and without rules.",
        table="listeners",
        types=FLAG,
        example="true",
    ),
    Option(
        name="advertise",
        help="Address that clients get instead of the proxy's; ADDRESS@NETWORK for its clients. Repeatable.",
        table="listeners",
        types=TEXTS,
        example='["203.0.113.5", "10.0.0.5@10.0.0.0/8"]',
    ),
    Option(
        name="proxy-from",
        help="Address or network of a balancer; haproxy: listeners refuse others. Repeatable.",
        table="listeners",
        types=TEXTS,
        example='["10.0.0.1", "10.1.0.0/24"]',
    ),
    Option(
        name="auth",
        help="Clients must authenticate: TYPE or TYPE:ARGUMENTS, see --help-auth. Repeatable.",
        table="authentication",
        types=TEXTS,
        example='["htpasswd:/etc/socks.users", "anonymous"]',
        secret=True,
    ),
    Option(
        name="auth-timeout",
        help="Seconds for authentication.",
        table="authentication",
        types=NUMBER,
        parse=seconds(),
        default="8",
        unit="seconds",
        example="8",
        field="auth.timeout",
    ),
    Option(
        name="auth-cache",
        help="Seconds for which the proxy remembers a right password; 0: not at all.",
        table="authentication",
        types=NUMBER,
        parse=seconds(or_zero="for not at all"),
        default="60",
        unit="seconds",
        example="300",
    ),
    Option(
        name="auth-failures",
        help="Wrong passwords in a minute after which the proxy refuses an address; 0: no bound.",
        table="authentication",
        types=WHOLE,
        parse=count(or_zero="for any number", zero=None),
        default="10",
        unit="wrong passwords",
        example="20",
        field="auth.failures",
    ),
    Option(
        name="socks4-userid",
        help="trust: the userid of SOCKS4 is the user's name, without a check.",
        table="authentication",
        parse=one_of(["trust"], "trust is all there is, else leave it out"),
        example='"trust"',
        completion=CompleteList(["trust"]),
    ),
    Option(
        name="max-sessions",
        help="Most sessions at once.",
        table="limits",
        types=WHOLE,
        parse=count(),
        unit="sessions",
        example="10000",
    ),
    Option(
        name="max-sessions-per-client",
        help="Most sessions at once of one client address.",
        table="limits",
        types=WHOLE,
        parse=count(),
        unit="sessions",
        example="200",
    ),
    Option(
        name="max-binds-per-client",
        help="Most waiting BINDs at once of one client address.",
        table="limits",
        types=WHOLE,
        parse=count(),
        default="32",
        unit="BINDs",
        example="8",
    ),
    Option(
        name="max-associations-per-client",
        help="Most UDP associations at once of one client address.",
        table="limits",
        types=WHOLE,
        parse=count(),
        default="4096",
        unit="associations",
        example="20",
    ),
    Option(
        name="quota-file",
        help="File for the used bytes of daily and monthly limits.",
        table="limits",
        example='"/var/lib/socks/usage.sqlite"',
        on_command_line=False,
    ),
    Option(
        name="time-zone",
        help="Time zone whose midnights begin the days and months of daily and monthly limits.",
        table="limits",
        otherwise="the machine's",
        example='"Europe/Berlin"',
        on_command_line=False,
    ),
    Option(
        name="handshake-timeout",
        help="Seconds from connection to complete request.",
        table="timeouts",
        types=NUMBER,
        parse=seconds(),
        default="10",
        unit="seconds",
        example="5",
        field="timeouts.handshake",
    ),
    Option(
        name="connect-timeout",
        help="Seconds to look up the name and connect to the destination.",
        table="timeouts",
        types=NUMBER,
        parse=seconds(),
        default="30",
        unit="seconds",
        example="10",
        field="timeouts.connect",
    ),
    Option(
        name="idle-timeout",
        help="Seconds without data after which a session ends; 0: never.",
        table="timeouts",
        types=NUMBER,
        parse=seconds(or_zero="for never", zero=NEVER),
        default="0",
        unit="seconds",
        example="3600",
        field="timeouts.idle",
    ),
    Option(
        name="half-closed-timeout",
        help="Seconds without data after which a half-closed session ends; 0: never.",
        table="timeouts",
        types=NUMBER,
        parse=seconds(or_zero="for never", zero=NEVER),
        default="300",
        unit="seconds",
        example="120",
        field="timeouts.half_closed",
    ),
    Option(
        name="keepalive",
        help="Seconds of silence after which TCP probes a peer; 0: never.",
        table="timeouts",
        types=WHOLE,
        parse=count(or_zero="for none", zero=NEVER, most=LONGEST_KEEPALIVE),
        default="60",
        unit="seconds",
        example="30",
        field="timeouts.keepalive",
    ),
    Option(
        name="keepalive-interval",
        help="Seconds between two probes without an answer.",
        table="timeouts",
        types=WHOLE,
        parse=count(most=LONGEST_KEEPALIVE),
        otherwise="the system's",
        unit="seconds",
        example="10",
        field="timeouts.keepalive_interval",
    ),
    Option(
        name="tcp-user-timeout",
        help="Seconds without acknowledgement after which a connection is lost; 0: the system's.",
        table="timeouts",
        types=WHOLE,
        parse=count(or_zero="for the system's", zero=None, most=LONGEST_USER_TIMEOUT),
        default="300",
        unit="seconds",
        example="120",
        field="timeouts.user_timeout",
    ),
    Option(
        name="resolver",
        help="Resolver: system, or dns: and DNS servers HOST[:PORT] with commas between them.",
        table="names",
        default="system",
        example='"dns:192.0.2.53,192.0.2.54"',
        completion=CompleteList(["system", r"dns\:"]),
    ),
    Option(
        name="prefer",
        help="Family of a destination's addresses to try first: ipv4 or ipv6.",
        table="names",
        parse=one_of(FAMILIES, f"neither {' nor '.join(FAMILIES)}"),
        otherwise="the resolver's order",
        example='"ipv4"',
        completion=CompleteList(FAMILIES),
        field="prefer",
    ),
    Option(
        name="no-resolve-commands",
        help="Do not serve RESOLVE and RESOLVE_PTR, which Tor's clients use.",
        table="names",
        types=FLAG,
        example="true",
    ),
    Option(
        name="outgoing",
        help="Local address or prefix from which the proxy connects, 'same' for the address that the client "
        "has reached, or how to choose from several.",
        table="outgoing",
        types=TEXTS,
        alone="same",
        example='["192.0.2.7", "2001:db8::7"]',
    ),
    Option(
        name="via",
        help="Upstream through which connections leave: the name of one that the file describes.",
        table="outgoing",
        otherwise="directly",
        example='"direct"',
    ),
    Option(
        name="bind-ports",
        help="Ports on which BIND listens, such as 40000-40999.",
        table="bind",
        types=WHOLE_OR_TEXT,
        parse=port_range,
        otherwise="any",
        example='"40000-40999"',
        field="bind.ports",
    ),
    Option(
        name="bind-address",
        help="Local address on which BIND listens; at most one IPv4 and one IPv6.",
        table="bind",
        types=TEXTS,
        example='["192.0.2.7"]',
    ),
    Option(
        name="bind-timeout",
        help="Seconds for the peer of a BIND to connect.",
        table="bind",
        types=NUMBER,
        parse=seconds(),
        default="120",
        unit="seconds",
        example="60",
        field="bind.timeout",
    ),
    Option(
        name="bind-any-peer",
        help="Clients of other machines may accept any peer with BIND.",
        table="bind",
        types=FLAG,
        example="true",
    ),
    Option(
        name="bind-check-port",
        help="Accept the peer of a BIND only from the port that the client names.",
        table="bind",
        types=FLAG,
        example="true",
        field="bind.check_port",
    ),
    Option(
        name="udp-ports",
        help="UDP ports for clients, one for each association, such as 40000-40999.",
        table="udp",
        types=WHOLE_OR_TEXT,
        parse=port_range,
        example='"41000-41999"',
        excludes=("udp-port",),
        field="udp.ports",
    ),
    Option(
        name="udp-port",
        help="One UDP port for all clients.",
        table="udp",
        types=WHOLE,
        parse=port(1),
        example="1080",
        field="udp.port",
    ),
    Option(
        name="udp-filter",
        help="Senders whose datagrams the client gets (RFC 4787).",
        table="udp",
        parse=one_of(
            [kind.value for kind in Filtering],
            f"none of {', '.join(kind.value for kind in Filtering)}",
            Filtering,
        ),
        default="address-dependent",
        example='"endpoint-independent"',
        completion=CompleteList([kind.value for kind in Filtering]),
        field="udp.filtering",
    ),
    Option(
        name="udp-relatch",
        help="A client's datagrams may come from another port of its address than before.",
        table="udp",
        types=FLAG,
        example="true",
        field="udp.relatch",
    ),
    Option(
        name="udp-idle-timeout",
        help="Seconds without a datagram after which an association ends; 0: never.",
        table="udp",
        types=NUMBER,
        parse=seconds(or_zero="for never", zero=NEVER),
        default="120",
        unit="seconds",
        example="60",
        field="udp.idle",
    ),
    Option(
        name="udp-grace",
        help="Seconds that an association continues after its TCP connection.",
        table="udp",
        types=NUMBER,
        parse=seconds(or_zero="for none"),
        default="0",
        unit="seconds",
        example="5",
        field="udp.grace",
    ),
    Option(
        name="log",
        help="Where the access log goes, one line per session: FILE, journald, syslog:SOCKET, "
        "syslog:tcp:HOST:PORT or syslog:tls:HOST:PORT.",
        table="log",
        example='"/var/log/socks/access.log"',
        short="l",
        completion=CompleteFiles("*.log"),
    ),
    Option(
        name="log-format",
        help="Format of the access log: text or json.",
        table="log",
        parse=one_of(FORMATS, f"neither {' nor '.join(FORMATS)}"),
        otherwise="text",
        example='"json"',
        completion=CompleteList(FORMATS),
    ),
    Option(
        name="log-probes",
        help="With -l: also a line for a client that connects and says nothing.",
        table="log",
        types=FLAG,
        example="true",
        field="log_probes",
    ),
    Option(
        name="server-log",
        help="Where the server's own log goes instead of twistd's place; the places of -l.",
        table="log",
        otherwise="twistd's",
        example='"journald"',
        completion=CompleteFiles("*.log"),
    ),
    Option(
        name="server-log-format",
        help="With --server-log: text, or one JSON object per line.",
        table="log",
        parse=one_of(SERVER_FORMATS, f"neither {' nor '.join(SERVER_FORMATS)}"),
        otherwise="text",
        example='"json"',
        completion=CompleteList(SERVER_FORMATS),
    ),
    Option(
        name="workers",
        help="Processes that serve clients; auto: one for each core.",
        table="workers",
        types=WHOLE_OR_TEXT,
        parse=workers,
        default="1",
        unit="processes",
        example='"auto"',
        completion=CompleteList(["auto", "2", "4", "8"]),
    ),
    Option(
        name="drain",
        help="Seconds that sessions may continue after SIGTERM; a second SIGTERM ends them.",
        table="workers",
        types=NUMBER,
        parse=seconds(or_zero="for none"),
        default="0",
        unit="seconds",
        example="30",
    ),
    Option(
        name="busy-poll",
        help="Microseconds for which a process asks for data before it sleeps; 0: not at all.",
        table="workers",
        types=WHOLE,
        parse=count(or_zero="for not at all", most=LONGEST_BUSY_POLL),
        default="50",
        unit="microseconds",
        example="0",
        field="busy_poll",
    ),
)

#: All options by their names.
BY_NAME = {option.name: option for option in OPTIONS}

#: The table of each key of the file.
PLACES = {option.name: option.table for option in OPTIONS if option.table}


def keys_of(table: str) -> dict[str, Option]:
    """The options whose keys are in the *table* of the file, by their names."""
    return {option.name: option for option in OPTIONS if option.table == table}


def excluded_by(name: str) -> set[str]:
    """The options that cannot be given together with the option *name*."""
    return {*BY_NAME[name].excludes, *(each.name for each in OPTIONS if name in each.excludes)}


def settings_of(meanings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """
    The fields of the server's settings that have rows: a dictionary for each group of settings.

    :param meanings: of all options.
    :returns: by the names of the groups, such as ``timeouts``; that of the server's own fields is empty.
    """
    found: dict[str, dict[str, Any]] = {}
    for option in OPTIONS:
        if option.field:
            group, _, field = option.field.rpartition(".")
            found.setdefault(group, {})[field] = meanings[option.name]
    return found
