"""
The table of all subcommands: their arguments, their words, and what does the work.
"""

from __future__ import annotations

from argparse import ArgumentTypeError

from .text import seconds_of

TYPE_CHECKING = False
if TYPE_CHECKING:  # to import typing takes half as long as to start Python
    from typing import Any


class Argument:
    """
    One argument of a subcommand.

    :ivar names: its options; or one name, where it stands without an option.
    :ivar help: what it is for.
    :ivar more: further arguments of :meth:`argparse.ArgumentParser.add_argument`.
    :ivar live: what a shell completes it with: a subcommand of ``socksproxy ctl complete``.
    """

    __slots__ = ("help", "live", "more", "names")

    def __init__(
        self, names: tuple[str, ...], help: str, more: dict[str, Any] | None = None, live: str | None = None
    ) -> None:
        self.names = names
        self.help = help
        self.more = more or {}
        self.live = live

    @property
    def is_option(self) -> bool:
        """Whether it is an option."""
        return self.names[0].startswith("-")


class Subcommand:
    """
    One subcommand.

    :ivar name: what the operator writes.
    :ivar help: what it does.
    :ivar level: of the admin listener that it takes; empty: it asks no server.
    :ivar work: the module of this package and its function.
    :ivar arguments: what it may have beside :data:`COMMON`.
    """

    __slots__ = ("arguments", "help", "level", "name", "work")

    def __init__(
        self, name: str, help: str, level: str, work: str, arguments: tuple[Argument, ...] = ()
    ) -> None:
        self.name = name
        self.help = help
        self.level = level
        self.work = work
        self.arguments = arguments


def _span(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError:
        raise ArgumentTypeError(f"{text}: a time such as 90, 5m or 2h is due") from None


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ArgumentTypeError(f"{text}: a whole number is due")
    return int(text)


_SECONDS: dict[str, Any] = {"type": _span, "metavar": "TIME"}
_NUMBER: dict[str, Any] = {"type": _whole, "metavar": "N"}
_FLAG: dict[str, Any] = {"action": "store_true"}

#: Arguments of every subcommand that asks a server.
COMMON = (
    Argument(("--json",), "print what the server answers, as JSON", _FLAG),
    Argument(
        ("-s", "--server"),
        "the admin socket: PATH, http://HOST:PORT or https://HOST:PORT",
        {"metavar": "WHERE"},
    ),
    Argument(("--node",), "ask this node, which the server there knows", {"metavar": "NAME"}, "nodes"),
    Argument(("--token-file",), "a file with the token that the listener asks for", {"metavar": "FILE"}),
    Argument(
        ("--ca",), "a file with the authorities of the server's certificate, in PEM", {"metavar": "FILE"}
    ),
    Argument(
        ("--certificate",),
        "a file with a certificate for the server, in PEM, and its key",
        {"metavar": "FILE"},
    ),
    Argument(("--key",), "a file with the key of the certificate", {"metavar": "FILE"}),
    Argument(("--timeout",), "the most time to wait [30s]", _SECONDS),
)

_COMMANDS = ("CONNECT", "BIND", "UDP_ASSOCIATE", "RESOLVE", "RESOLVE_PTR")

#: What chooses sessions: the parameters of the API.
FILTERS = (
    Argument(("--user",), "sessions of this user, whose name is all of NAME", {"metavar": "NAME"}, "users"),
    Argument(("--client",), "of this client: an address or a network", {"metavar": "NETWORK"}),
    Argument(("--destination",), "to this destination: HOST or HOST:PORT", {"metavar": "HOST"}),
    Argument(
        ("--command",),
        "with this command, such as CONNECT",
        {"type": str.upper, "choices": _COMMANDS, "metavar": "COMMAND"},
    ),
    Argument(("--listener",), "by this listener", {"metavar": "NAME"}, "listeners"),
    Argument(("--rule",), "that this rule allows", {"metavar": "NAME"}),
    Argument(("--via",), "that leave through this upstream", {"metavar": "NAME"}, "upstreams"),
    Argument(("--worker",), "of this worker", _NUMBER),
    Argument(("--older",), "of at least this age", _SECONDS),
    Argument(
        ("--min-rate",),
        "that move at least so many bytes per second",
        {"type": float, "metavar": "BYTES"},
    ),
)
_EVERY = Argument(("--every",), "time between two looks [2s]", _SECONDS)
_COUNT = Argument(("--count",), "end after so many looks", _NUMBER)
_SORT = Argument(("--sort",), "the order", {"choices": ("age", "rate", "bytes")})
_THIS_NODE = Argument(("--this-node",), "on this node alone, where several share a store", _FLAG)
_ALL_NODES = Argument(("--all-nodes",), "of all nodes that share a store", _FLAG)
_DEED = Argument(
    ("deed",), "drain: no new sessions; disable: no sessions", {"choices": ("disable", "drain", "enable")}
)

SUBCOMMANDS = (
    Subcommand("status", "how the server is", "monitor", "look:status"),
    Subcommand(
        "nodes",
        "list the nodes that share a store, and what differs",
        "monitor",
        "nodes:nodes",
    ),
    Subcommand(
        "sessions",
        "list sessions; all filters have to match",
        "monitor",
        "watch:sessions",
        (
            *FILTERS,
            _SORT,
            Argument(("--limit",), "the most sessions [100]; 0: all", _NUMBER),
            _ALL_NODES,
            Argument(("--watch",), "draw the list again and again", _FLAG),
            _EVERY,
            _COUNT,
        ),
    ),
    Subcommand(
        "top", "watch the sessions that move most", "monitor", "watch:top", (*FILTERS, _SORT, _EVERY, _COUNT)
    ),
    Subcommand(
        "show",
        "show one session",
        "monitor",
        "look:show",
        (Argument(("id",), "the id of the session", {"metavar": "ID"}, "sessions"),),
    ),
    Subcommand(
        "kill",
        "end sessions: by their ids, or all that the filters match",
        "operator",
        "change:kill",
        (
            Argument(("ids",), "the ids of sessions", {"metavar": "ID", "nargs": "*"}, "sessions"),
            *FILTERS,
            _ALL_NODES,
            Argument(("--dry-run",), "count the sessions, and end none", _FLAG),
            Argument(("--expect",), "end none unless so many match", _NUMBER),
            Argument(("-y", "--yes"), "do not ask", _FLAG),
        ),
    ),
    Subcommand(
        "kick",
        "end the sessions of a user, on all nodes that share a store",
        "operator",
        "change:kick",
        (Argument(("name",), "the name of the user", {"metavar": "NAME"}, "users"), _THIS_NODE),
    ),
    Subcommand(
        "users",
        "list the users with sessions, or show one user",
        "monitor",
        "look:users",
        (
            Argument(("name",), "the name of the user", {"metavar": "NAME", "nargs": "?"}, "users"),
            Argument(("--sort",), "the order", {"choices": ("sessions", "rate", "bytes", "name")}),
            Argument(("--limit",), "the most users [100]; 0: all", _NUMBER),
            _ALL_NODES,
        ),
    ),
    Subcommand(
        "usage",
        "what holders of quotas have used on the last day that is counted",
        "monitor",
        "look:usage",
        (
            Argument(("--month",), "in the last month", _FLAG),
            Argument(
                ("--from",),
                "from this day or month on",
                {"dest": "first", "metavar": "PERIOD"},
            ),
            Argument(("--to",), "until this day or month", {"dest": "last", "metavar": "PERIOD"}),
            Argument(("--csv",), "for a spreadsheet", _FLAG),
            _ALL_NODES,
            Argument(("--after",), "instead, the usage records after this number, as JSON", _NUMBER),
        ),
    ),
    Subcommand(
        "reset-usage",
        "delete what a user has used of a month or a day",
        "admin",
        "change:reset_usage",
        (
            Argument(("name",), "the name of the user", {"metavar": "NAME"}, "users"),
            Argument(("--period",), "such as 2026-11 or 2026-11-30 [the last month]", {"metavar": "PERIOD"}),
        ),
    ),
    Subcommand(
        "limits",
        "how much of their limits holders have taken",
        "monitor",
        "look:limits",
        (
            Argument(
                ("--scope",), "of these alone", {"choices": ("server", "client", "network", "user", "rule")}
            ),
            Argument(("--full",), "holders at a limit alone", _FLAG),
        ),
    ),
    Subcommand(
        "limit",
        "limit a user until the next reload",
        "operator",
        "change:limit",
        (
            Argument(("name",), "the name of the user", {"metavar": "NAME"}, "users"),
            Argument(
                ("limits",),
                'as in the file: sessions=5 download="1 MB/s"',
                {"metavar": "KEY=VALUE", "nargs": "*"},
            ),
            Argument(("--clear",), "only the configuration counts again", _FLAG),
        ),
    ),
    Subcommand("lockouts", "list the addresses that are locked out", "monitor", "look:lockouts"),
    Subcommand(
        "unlock",
        "let an address try passwords again",
        "operator",
        "change:unlock",
        (Argument(("address",), "the address", {"metavar": "ADDRESS"}, "lockouts"), _THIS_NODE),
    ),
    Subcommand("workers", "list the processes that serve clients", "monitor", "look:workers"),
    Subcommand("listeners", "list where clients are accepted", "monitor", "look:listeners"),
    Subcommand(
        "listener",
        "take a listener out of service, or back",
        "operator",
        "change:listener",
        (Argument(("name",), "its name or address", {"metavar": "NAME"}, "listeners"), _DEED),
    ),
    Subcommand("upstreams", "list the ways out through other proxies", "monitor", "look:upstreams"),
    Subcommand(
        "upstream",
        "take an upstream, or a member of pools, out of service, or back",
        "operator",
        "change:upstream",
        (Argument(("name",), "its name", {"metavar": "NAME"}, "upstreams"), _DEED),
    ),
    Subcommand("pools", "list the pools and the health of their members", "monitor", "look:pools"),
    Subcommand("config", "print the configuration in force, without secrets", "monitor", "look:config"),
    Subcommand(
        "reload",
        "read the configuration again, and tell what has changed or what is wrong",
        "admin",
        "change:reload",
        (Argument(("--all-nodes",), "have all nodes that share a store do so, and wait for them", _FLAG),),
    ),
    Subcommand(
        "drain",
        "have balancers send clients elsewhere, then accept none, then end what is left",
        "admin",
        "change:drain",
        (
            Argument(
                ("seconds",),
                "that sessions may take [--drain of the server]",
                {"type": _span, "metavar": "TIME", "nargs": "?"},
            ),
            Argument(("--notice",), "for which clients are still accepted [[admin] notice]", _SECONDS),
            Argument(("--refuse",), "accept no client from now on", _FLAG),
            Argument(("--wait",), "wait until no session is left", _FLAG),
        ),
    ),
    Subcommand("undrain", "take a drain back", "admin", "change:undrain"),
    Subcommand(
        "log",
        "reopen: open the access log again, after a rotation",
        "operator",
        "change:log",
        (Argument(("deed",), "what to do", {"choices": ("reopen",)}),),
    ),
    Subcommand(
        "log-level",
        "have the server's own log tell more for a while",
        "operator",
        "change:log_level",
        (
            Argument(("level",), "debug, or info, which ends it", {"choices": ("debug", "info")}),
            Argument(("--for",), "how long [5m]", {**_SECONDS, "dest": "seconds"}),
            Argument(("--logger",), "on this topic alone, such as upstreams", {"metavar": "TOPIC"}),
        ),
    ),
    Subcommand(
        "trace",
        "watch what happens in sessions",
        "operator",
        "follow:trace",
        (
            Argument(("--session",), "in this one", {"metavar": "ID"}, "sessions"),
            Argument(("--user",), "in those of this user", {"metavar": "NAME"}, "users"),
            Argument(("--client",), "in those of this address or network", {"metavar": "NETWORK"}),
            Argument(("--for",), "how long, at most 60s [60s]", {**_SECONDS, "dest": "seconds"}),
        ),
    ),
    Subcommand("events", "watch what happens to the server", "monitor", "follow:events", (_COUNT,)),
    Subcommand(
        "wait",
        "wait until the server is ready, drained, or of a generation",
        "monitor",
        "follow:wait",
        (
            Argument(
                ("what",),
                "ready; drained; generation:N: of the generation N or a later one, and ready",
                {"metavar": "WHAT"},
                "waits",
            ),
        ),
    ),
    Subcommand("metrics", "print the metrics, as Prometheus reads them", "monitor", "look:metrics"),
    Subcommand(
        "health",
        "whether the server is ready for clients",
        "monitor",
        "look:health",
        (Argument(("--live",), "whether it answers at all", _FLAG),),
    ),
    Subcommand(
        "raw",
        "send a request to the API, and print the answer",
        "monitor",
        "look:raw",
        (
            Argument(("method",), "the method", {"type": str.upper, "choices": ("GET", "POST", "DELETE")}),
            Argument(("path",), "the path, such as /v1/status", {"metavar": "PATH"}),
            Argument(("body",), "the body, in JSON", {"metavar": "JSON", "nargs": "?"}),
        ),
    ),
    Subcommand(
        "completion",
        "print what makes a shell complete these words",
        "",
        "completion:script",
        (Argument(("shell",), "the shell", {"choices": ("bash", "zsh", "fish")}),),
    ),
    Subcommand(
        "complete",
        "print the words that a shell may go on with, one per line",
        "",
        "completion:words",
        (Argument(("words",), "what is on the line behind ctl", {"metavar": "WORD", "nargs": "*"}),),
    ),
)
