"""``socksproxy explain``: what would be decided, and why?"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from ..auth.directory import Barred, DirectoryRealm
from ..config.loading import Unreadable, content_of, read_file
from ..errors import NameNotFound
from ..identity import Client
from ..net.names import literal, plain
from ..net.own_listeners import UNIX
from ..policy.compiled import RulePolicy
from ..routes.pool_words import words_of_choice
from ..values.errors import ConfigError
from ..values.outgoing import Asker
from ..values.pools import commands_by, pool_looks_up
from ..values.sticky import WrongName
from ..values.upstreams import DIRECT, Upstream, chain_of
from ..wire.words import Address, Command
from .failure import CommandFailed, Once, tell, with_mistakes

if TYPE_CHECKING:
    from ..config.file import Configured
    from ..policy.explain import KnownWay, ServerWide

_DESCRIPTION = """
Explains what the rules of a configuration file decide: which rule does, and why none
before it; from where connections leave, and which limits a session is under. Nothing is
started, and no name is looked up: the addresses of a name are given with --address.
What the file says of the user counts, whichever method would check the name. Clients
may not reach the proxy's own listeners; this rule is left out, because only a proxy
that runs knows its listeners.
Hours of rules and dates of users are those of --at.
Status 0 says that it is explained, not that it is allowed.
"""

_COMMANDS = {command.name.lower().replace("udp_", ""): command for command in Command}
#: Commands that ask for a name or an address, and no port.
_WITHOUT_PORT = {Command.RESOLVE, Command.RESOLVE_PTR}


def add_to(commands: Any) -> None:
    """Add this one to argparse's subparsers *commands*."""
    parser = commands.add_parser("explain", help="explain what rules decide", description=_DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="the configuration file (TOML)")
    parser.add_argument(
        "--node", metavar="FILE", action=Once, help="a node's own file, as for twistd socks --node"
    )
    parser.add_argument("command", metavar="COMMAND", choices=_COMMANDS, help=", ".join(_COMMANDS))
    parser.add_argument(
        "destination",
        metavar="HOST:PORT",
        nargs="?",
        help="what is asked for; IPv6 in brackets. Without it: whether associate is granted at all",
    )
    parser.add_argument("--user", metavar="NAME", help="who asks, as for a login [a client without a name]")
    parser.add_argument("--group", metavar="NAME", action="append", default=[], help="repeatable")
    parser.add_argument(
        "--from", metavar="ADDRESS", dest="client", help="or unix [127.0.0.1; for a Unix socket, unix]"
    )
    parser.add_argument(
        "--listener", metavar="LISTENER", help="that is reached: its name, ADDRESS:PORT, unix:PATH, or unix"
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="such as 2027-01-31T18:00, by this machine's time zone, or ...+01:00 [now]",
    )
    parser.add_argument("--version", type=int, choices=(4, 5), default=5, help="of SOCKS [5]")
    parser.add_argument(
        "--address", metavar="ADDRESS", action="append", default=[], help="of the name; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="as data")
    parser.set_defaults(run=run)


def run(options: Namespace) -> None:
    """
    Explain a decision.

    :raises CommandFailed: when the file has mistakes, or the question makes no sense.
    """
    from ..policy.explain import explain

    configured, server = _configured(options.file, options.node)
    word = _word(options, configured)
    if word is not None:
        server = _with_word(server, word)
    destination = None if options.destination is None else _destination(options.destination, options.command)
    if destination is None and _COMMANDS[options.command] is not Command.UDP_ASSOCIATE:
        raise CommandFailed(f"{options.command} needs HOST:PORT; only associate can be without")
    addresses = [_literal("--address", text) for text in options.address]
    now = time.time() if options.at is None else _moment(options.at)
    try:
        client = _client(options, configured, now)
    except Barred as problem:
        _tell_barred(options, str(problem))
        return
    policy = configured.policy or RulePolicy(())
    try:
        told = explain(policy, client, _COMMANDS[options.command], destination, addresses, now, server)
    except NameNotFound:
        raise CommandFailed(f"{options.destination}: the host is not a valid name or address") from None
    if options.json:
        tell(*json.dumps([each.data() for each in told], indent=2).split("\n"))
    else:
        tell(*(line for each in told for line in str(each).split("\n")))


def _word(options: Namespace, configured: Configured) -> str | None:
    """The word in the user's name, which is the user's own from here on; None: there is none."""
    if options.user is None or configured.sticky is None:
        return None
    try:
        name = configured.sticky.parse(options.user.encode("utf-8", "surrogateescape"))
    except WrongName as problem:
        raise CommandFailed(f"--user {options.user}: the name has the separator: {problem}") from None
    if name is None:
        return None
    options.user = name.user.decode("utf-8", "surrogateescape")
    return name.word


def _with_word(server: ServerWide, word: str) -> ServerWide:
    """*server*, for a client whose name has *word*, which decides before the choice of a pool does."""

    def choice(name: str, client: Client, host: str, command: Command) -> str:
        told = server.choice(name, client, host, command)
        return told and f"by the session word {word}, before {told}"

    return server._replace(word=word, choice=choice)


def _client(options: Namespace, configured: Configured, now: float) -> Client:
    """
    Who asks.

    :param now: seconds since the epoch.
    :raises Barred: when there is no such user then.
    """
    directory = configured.directory
    avatar = None if directory is None else DirectoryRealm(directory, lambda: now).user(options.user)
    groups = frozenset(options.group) | frozenset(() if avatar is None else avatar.groups)
    words = () if options.listener is None else _words_for(options.listener, configured)
    client = options.client or ("unix" if UNIX in words else "127.0.0.1")
    host = None if client == "unix" else _literal("--from", client)
    listener = words[0] if words else None
    return Client(host, 0, options.user, avatar, groups, listener, options.version, aliases=words[1:])


def _words_for(listener: str, configured: Configured) -> tuple[str, ...]:
    """All words that rules may have for the *listener*, as the server has them for its clients."""
    from ..config.listeners import listeners_of, words_for

    rules = () if configured.policy is None else configured.policy.rules
    named = {word for rule in rules for word in rule.listeners or ()}  # some are on the command line only
    try:
        return words_for(listener, listeners_of(configured.said), named)
    except ConfigError as problem:
        raise CommandFailed(f"--listener {listener}: {problem.reason}") from None


def _moment(text: str) -> float:
    """The seconds since the epoch of *text*, a date and time of this machine's time zone if it names none."""
    try:
        # Python 3.10 does not know Z.
        return datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] in "Zz" else text).timestamp()
    except (ValueError, OverflowError, OSError):
        right = "not a date and time such as 2027-01-31T18:00, or 2027-01-31T18:00+01:00"
        raise CommandFailed(f"--at {text}: {right}") from None


def _tell_barred(options: Namespace, reason: str) -> None:
    """Who cannot log in gets no further."""
    destination = options.destination or "a UDP association"
    if options.json:
        told = [{"destination": destination, "allowed": False, "barred": reason}]
        tell(*json.dumps(told, indent=2).split("\n"))
    else:
        tell(f"{destination}: denied ({options.user} cannot log in: {reason})")


def _configured(file: str, node: str | None) -> tuple[Configured, ServerWide]:
    """What the files say, and what of that holds for all."""
    from ..config.command_line import limits_of, meanings
    from ..policy.explain import KnownWay, ServerWide

    try:
        own = None if node is None else (content_of(node), node)
        _, configured = read_file(file, node=own)
    except Unreadable as problem:
        raise CommandFailed(str(problem)) from None
    said, problems = meanings(configured.said)
    configured.used.update(configured.said)
    lines = configured.report(problems)
    if lines:
        raise with_mistakes(file, lines, node)
    upstreams, pools = configured.upstreams or {}, configured.pools or {}

    def ways(name: str) -> KnownWay:
        commands = commands_by(name, pools, upstreams)
        if name in pools:
            return KnownWay((f"the pool {name}",), pool_looks_up(name, pools, upstreams), commands)
        chain = chain_of(name, upstreams)
        looks_up = bool(chain) and upstreams[name].takes_names
        first = upstreams.get(chain[0] if chain else name)
        if first is None:
            return KnownWay(chain, looks_up, commands)
        own = () if first.outgoing is None else tuple(filter(None, first.outgoing[:2]))
        return KnownWay(chain, looks_up, commands, _sockets_of(first), own)

    def choice(name: str, client: Client, host: str, command: Command) -> str:
        if name not in pools:
            return ""
        asker = Asker(client.share or "", client.user)
        return words_of_choice(pools[name], upstreams, asker, host, command)

    via = configured.said.get("via")
    if via is not None and via != DIRECT and via not in upstreams and via not in pools:
        raise CommandFailed(f"{file}: [outgoing] via: there is no upstream {via}")
    outgoing = tuple(configured.said.get("outgoing", ()))
    return configured, ServerWide(limits_of(said, configured.limits), outgoing, via, ways, choice=choice)


def _sockets_of(first: Upstream) -> str:
    """How the sockets of a way out leave that begins with *first*."""
    words = {"by the interface": first.interface, "with the mark": first.mark, "from netns": first.netns}
    return " ".join(f"{what} {value}" for what, value in words.items() if value is not None)


def _destination(text: str, command: str) -> Address:
    if _COMMANDS[command] in _WITHOUT_PORT and (":" not in text or literal(text) is not None):
        return Address.of(text.removeprefix("[").removesuffix("]"), 0)
    host, colon, port = text.rpartition(":")
    # No number of so many digits is read at all.
    if not (colon and host and port.isascii() and port.isdecimal() and len(port) < 9 and int(port) < 65536):
        raise CommandFailed(f"{text}: not HOST:PORT, such as example.com:443 or [2001:db8::1]:443")
    return Address.of(host.removeprefix("[").removesuffix("]"), int(port))


def _literal(option: str, text: str) -> str:
    try:
        return plain(literal(text) or str(ip_address(text)))
    except ValueError:
        raise CommandFailed(f"{option} {text}: not a literal IPv4 or IPv6 address") from None
