"""
Rules: which clients may use which commands with which destinations, in the operator's words.

A :class:`Rule` is data and decides nothing by itself: :mod:`~socksproxy.policy.matching` defines the meaning
of its conditions, and :mod:`~socksproxy.policy.compiled` decides quickly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

import attrs

from ..errors import NameNotFound
from ..net.names import bare_name, canonical, plain
from ..net.own_listeners import UNIX
from ..runtime.zones import zone_called
from ..values.errors import ConfigError
from ..values.limits import Limits
from ..values.outgoing import SAME, Sources, problems_with
from ..wire.words import Address, AddressType, Command

#: Words of access records in place of a rule's name. DEFAULT: no rule has matched. SPECIAL: the destination
#: is special, and the rule that permits it does not name it. OWN: the destination is the proxy itself.
DEFAULT, SPECIAL, OWN = "default", "special", "own-listener"
RESERVED = frozenset({DEFAULT, SPECIAL, OWN})

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
COMMANDS: dict[str, tuple[Command, ...]] = {
    "connect": (Command.CONNECT,),
    "bind": (Command.BIND,),
    "associate": (Command.UDP_ASSOCIATE,),
    "resolve": (Command.RESOLVE, Command.RESOLVE_PTR),
}
VERSIONS: dict[str, int] = {"4": 4, "socks4": 4, "5": 5, "socks5": 5}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SPAN = re.compile(r"\s*([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})\s*", re.ASCII)
_PORTS = re.compile(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?", re.ASCII)
_GLOB_LABEL = re.compile(r"[a-z0-9_*?-]{1,63}")
# A name has at most 253 characters, and at least two of them are before the suffix.
_LONGEST_SUFFIX = 251
# Each star makes a comparison longer by the length of the name.
_MOST_STARS = 3
_DAY_MINUTES = 24 * 60


class Problem(NamedTuple):
    """
    One mistake in a rule or a set.

    :ivar rule: the name of the rule or the set.
    :ivar field: the field with the mistake.
    :ivar value: the value of the field.
    :ivar right: the message: what the value should be, or why it is wrong.
    :ivar kind: ``rule`` or ``set``.
    :ivar number: the number of the wrong entry in a list, from 0 on; None: the whole value is wrong.
    """

    rule: str
    field: str
    value: object
    right: str
    kind: str = "rule"
    number: int | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.rule!r}, {self.field}: {self.value!r}: {self.right}"


class RuleError(ValueError):
    """
    Rules or sets have mistakes.

    :ivar problems: all the mistakes.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class BadValue(ValueError):
    """
    A value does not fit its field.

    :ivar value: the value, or its wrong part.
    :ivar right: the message: what the value should be, or why it is wrong.
    :ivar number: the number of the wrong entry in a list, from 0 on; None: the whole value is wrong.
    """

    def __init__(self, value: object, right: str, number: int | None = None) -> None:
        super().__init__(f"{value!r}: {right}")
        self.value = value
        self.right = right
        self.number = number


class BadValues(ValueError):
    """
    Several values do not fit their field.

    :ivar entries: the wrong values.
    """

    def __init__(self, entries: Iterable[BadValue]) -> None:
        self.entries = tuple(entries)
        super().__init__("; ".join(map(str, self.entries)))


class AddressRange(NamedTuple):
    """
    A range of addresses with the attributes of a network, although its ends need not be those of a network.

    :ivar network_address: the first address.
    :ivar broadcast_address: the last address.
    """

    network_address: IPv4Address | IPv6Address
    broadcast_address: IPv4Address | IPv6Address

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.network_address.version

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, (IPv4Address, IPv6Address)) or address.version != self.version:
            return False
        return int(self.network_address) <= int(address) <= int(self.broadcast_address)

    def __str__(self) -> str:
        return f"{self.network_address}-{self.broadcast_address}"


#: A network or a range of addresses.
Network = IPv4Network | IPv6Network | AddressRange


class RuleTimeouts(NamedTuple):
    """
    The timeouts of a rule, in seconds, or NEVER. None: the server's setting counts.

    :ivar connect: the time to connect, from the decision by the rule to the reply.
    :ivar idle: the time without a byte in either direction of a relay, or without a datagram of an
        association.
    :ivar half_closed: the time without a byte while one direction of a relay is closed and the other is not.
    """

    connect: float | None = None
    idle: float | None = None
    half_closed: float | None = None


@attrs.frozen(kw_only=True)
class Rule:
    """
    One rule: its conditions, its decision, and its settings for the sessions that it allows.

    A condition that is None always holds. A condition with several values holds when one value matches.
    *users*, *groups* and their patterns together are one condition, and so are *names* and *networks*: one
    match in any of the fields is enough.

    :ivar name: the name in access records; letters, digits, ``_``, ``.``, ``:`` and ``-``.
    :ivar allow: the decision.
    :ivar users: names of users.
    :ivar groups: names of groups.
    :ivar user_patterns: patterns of users' names: ``*`` is any text, ``?`` one character. Case counts.
    :ivar group_patterns: patterns of groups' names.
    :ivar authenticated: whether the client has authenticated.
    :ivar clients: addresses, networks and sets of clients, or ``unix`` for all clients on Unix
        sockets, which have no address.
    :ivar listeners: names of listeners, addresses and ports as in ``192.0.2.1:1080``, ``unix:`` and a
        path, or ``unix`` for every Unix socket.
    :ivar versions: 4 or 5. SOCKS4a is 4.
    :ivar commands: ``connect``, ``bind``, ``associate``, ``resolve``.
    :ivar names: names of destinations: ``a.example``, ``*.example`` (every name with this end), a
        pattern with ``*`` and ``?``, or ``@`` and the name of a set.
    :ivar networks: addresses, networks and sets of destinations.
    :ivar ports: numbers, or ranges as in ``"6000-6063"``.
    :ivar days: ``mon`` to ``sun``, or ranges as in ``"mon-fri"``.
    :ivar hours: spans as in ``"08:00-18:00"``, without the minute of the end. A span across midnight
        belongs to the day on which it begins.
    :ivar zone: the time zone of days and hours, as in ``"Europe/Berlin"``. Default: the machine's.
    :ivar ends_sessions: whether days and hours also end open sessions: when the hours of an allowing rule
        end, and when the hours of a denying rule begin.
    :ivar outgoing: addresses of this machine, prefixes, and words: see
        :class:`~socksproxy.values.outgoing.Sources`. Connections and datagrams leave from these addresses,
        and BIND listens on them.
    :ivar via: the upstream through which connections leave, or ``direct``, which means without an upstream.
    :ivar ask: the external helper that must also permit each request that the rule allows.
    :ivar limits: the limits of all sessions under this rule together.
    :ivar user_limits: the limits of each user under this rule; a client without a name counts by its address.
    :ivar quota: whether bytes under this rule count for daily and monthly limits of others than the rule
        itself.
    :ivar timeouts: the timeouts in place of the server's, once the rule has decided.
    :ivar log: whether a session has an access record.
    :raises RuleError: for mistakes, all of them.
    """

    name: str
    allow: bool
    users: Collection[str] | None = None
    groups: Collection[str] | None = None
    user_patterns: Collection[str] | None = None
    group_patterns: Collection[str] | None = None
    authenticated: bool | None = None
    clients: Collection[str] | None = None
    listeners: Collection[str] | None = None
    versions: Collection[int | str] | None = None
    commands: Collection[str | Command] | None = None
    names: Collection[str] | None = None
    networks: Collection[str] | None = None
    ports: Collection[int | str | tuple[int, int]] | None = None
    days: Collection[str] | None = None
    hours: Collection[str] | None = None
    zone: str | None = None
    ends_sessions: bool = False
    outgoing: Collection[str] | None = None
    via: str | None = None
    ask: str | None = None
    limits: Limits | None = None
    user_limits: Limits | None = None
    quota: bool = True
    timeouts: RuleTimeouts | None = None
    log: bool = True

    def __attrs_post_init__(self) -> None:
        problems = []
        for field, check in _CHECKS.items():
            value = getattr(self, field)
            if value is None:
                continue
            try:
                # Each field has one form, in which it is compared.
                object.__setattr__(self, field, check(value))
            except BadValue as wrong:
                problems.append(problem_of(wrong, str(self.name), field))
            except BadValues as wrong:
                problems += [problem_of(entry, str(self.name), field) for entry in wrong.entries]
        if self.ask is not None and self.allow is False:
            problems.append(Problem(str(self.name), "ask", self.ask, "only in a rule that allows"))
        if self.zone is not None and self.days is None and self.hours is None:
            problems.append(Problem(str(self.name), "zone", self.zone, "only with days or hours"))
        if problems:
            raise RuleError(problems)

    @property
    def timed(self) -> bool:
        """Whether the rule has days or hours."""
        return self.days is not None or self.hours is not None


@attrs.frozen
class Decision:
    """
    The decision of a policy of rules.

    :ivar allowed: whether the request is allowed.
    :ivar rule: the name of the rule, or one of :data:`RESERVED`.
    :ivar effect: the rule that has decided, with its outgoing addresses, upstream, limits, timeouts and
        access records; None where no rule has decided.
    :ivar certain: False: the address of the destination is not known yet, and the rule matches only an
        address in its networks.
    """

    allowed: bool
    rule: str
    effect: Rule | None = None
    certain: bool = True

    def __bool__(self) -> bool:
        return self.allowed


#: The decision where no rule matches.
DENIED = Decision(False, DEFAULT)


def problem_of(wrong: BadValue, name: str, field: str, kind: str = "rule") -> Problem:
    """The problem of a *wrong* value in a *field* of the rule or set *name*."""
    return Problem(name, field, wrong.value, wrong.right, kind, wrong.number)


def entries_of(value: Iterable[Any], parse: Callable[[Any], Iterable[Any]]) -> tuple[Any, ...]:
    """
    The results of *parse* for the entries of *value*, without duplicates.

    :raises BadValues: with all wrong entries.
    """
    found: dict[Any, None] = {}
    wrong = []
    for number, entry in enumerate(value):
        try:
            found.update(dict.fromkeys(parse(entry)))
        except BadValue as problem:
            wrong.append(BadValue(problem.value, problem.right, number))
    if wrong:
        raise BadValues(wrong)
    return tuple(found)


def _texts(what: str) -> Callable[[Any], tuple[str, ...]]:
    def check(text: Any) -> str:
        if not isinstance(text, str) or not text:
            raise BadValue(text, f"must be {what}")
        return text

    return _each(check)


def _pattern(text: Any) -> str:
    if not isinstance(text, str) or not set(text) & set("*?"):
        raise BadValue(text, "must be a pattern with * or ?, such as mgr_*")
    if len(text) > 255 or text.count("*") > _MOST_STARS:
        raise BadValue(text, f"must have at most 255 characters and {_MOST_STARS} times *")
    return text


def word_pattern(text: str) -> re.Pattern[str]:
    """The regular expression for *text*, a pattern of the names of users or groups."""
    return re.compile("".join({"*": ".*", "?": "."}.get(c) or re.escape(c) for c in text), re.DOTALL)


def _several(value: Any) -> Collection[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        raise BadValue(value, "must be a list")
    if not value:
        raise BadValue(value, "must not be empty; leave it out where it does not matter")
    return value


def _each(parse: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: entries_of(_several(value), lambda entry: (parse(entry),))


def _every(parse: Callable[[Any], Iterable[Any]]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: entries_of(_several(value), parse)


def _rule_name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadValue(value, "must be 1 to 64 letters, digits, '_', '.', ':' or '-'")
    if value in RESERVED:
        raise BadValue(value, f"another name: access records use {', '.join(sorted(RESERVED))} themselves")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadValue(value, "must be true or false")
    return value


def _way(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise BadValue(value, "must be the name of an upstream, or direct")
    return value


def _helper(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise BadValue(value, "must be the name of a helper")
    return value


def _version(value: Any) -> int:
    if str(value) not in VERSIONS:
        raise BadValue(value, "must be 4 or 5")
    return VERSIONS[str(value)]


def _commands(value: Any) -> tuple[Command, ...]:
    if isinstance(value, Command):
        return (value,)
    if not isinstance(value, str) or value not in COMMANDS:
        raise BadValue(value, f"must be one of {', '.join(COMMANDS)}")
    return COMMANDS[value]


def parse_network(value: Any) -> Network:
    """
    The network, the range or the single address in *value*, an entry of a list or a file.

    :raises BadValue: when *value* is none of these.
    """
    if not isinstance(value, str):
        raise BadValue(value, "must be an address, a network or the name of a set")
    text = value.strip()
    if text.startswith("@"):
        raise BadValue(value, "a set of networks stands without @")
    try:
        network = ip_network(text)
    except ValueError:
        pass
    else:
        if "%" in text:
            raise BadValue(value, "an address here has no zone")
        return _unmapped(network)
    if "-" in text:
        return _range(value)
    try:
        wider = ip_network(text, strict=False)
    except ValueError:
        raise BadValue(value, "must be an address or a network such as 192.0.2.0/24") from None
    raise BadValue(value, f"has bits set behind its prefix: {wider} or {text.partition('/')[0]}")


def _range(text: str) -> AddressRange:
    """The range of addresses in *text*, such as ``192.0.2.1-192.0.2.9``."""
    try:
        first, last = (ip_address(plain(str(ip_address(end.strip())))) for end in text.split("-", 1))
    except ValueError:
        raise BadValue(text, "must be an address, a network or a range such as 192.0.2.1-192.0.2.9") from None
    if first.version != last.version or "%" in text or int(first) > int(last):
        raise BadValue(text, "must be two addresses of one family, the lower first")
    return AddressRange(first, last)


def _unmapped(network: IPv4Network | IPv6Network) -> Network:
    """*network*, or the IPv4 network in it if it is IPv4-mapped: clients and destinations come as IPv4."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        inner = network.network_address.ipv4_mapped
        if inner is not None:
            return IPv4Network((inner, network.prefixlen - 96))
    return network


def is_set(text: str) -> bool:
    """Whether *text*, an entry of a list of networks, is the name of a set."""
    return _WORD.fullmatch(text) is not None


def _network(value: Any) -> str:
    if isinstance(value, (IPv4Network, IPv6Network)):
        return str(_unmapped(value))
    if isinstance(value, str) and is_set(value.strip()):
        return value.strip()
    return str(parse_network(str(value) if isinstance(value, (IPv4Address, IPv6Address)) else value))


def _destination_network(value: Any) -> str:
    if value == UNIX:
        raise BadValue(value, "is only for clients")
    return _network(value)


def name_patterns(value: Any) -> tuple[str, ...]:
    """
    The patterns in *value*, an entry of a list or a file.

    ``.a.example`` means ``a.example`` and ``*.a.example``. Every other entry is one pattern.

    :raises BadValue: when no name can match *value*.
    """
    text = value.strip() if isinstance(value, str) else value
    if not isinstance(text, str) or not text.startswith("."):
        return (name_pattern(text),)
    pattern = name_pattern(text[1:])
    if set(pattern) & set("@*?"):
        raise BadValue(value, "must be . and a name, with no pattern")
    return pattern, name_pattern(f"*.{pattern}")


def name_pattern(value: Any) -> str:
    """
    The pattern of names *value*, in lower case and ASCII.

    :raises BadValue: when no name can match *value*.
    """
    if not isinstance(value, str) or not value:
        raise BadValue(value, "must be a name such as a.example or *.example")
    if value.startswith("@"):
        if not _WORD.fullmatch(value[1:]):
            raise BadValue(value, "must be @ and the name of a set")
        return value
    if "*" not in value and "?" not in value:
        return _exact_name(value)
    if value.startswith("*.") and not set(value[2:]) & set("*?"):
        return "*." + _suffix(value)
    text = value[:-1] if value.endswith(".") else value
    labels = [label if label.isascii() else _exact_name(label) for label in text.split(".")]
    glob = ".".join(labels).lower()
    if len(glob) > 253 or not all(map(_GLOB_LABEL.fullmatch, glob.split("."))):
        raise BadValue(value, "must be of letters, digits, '-', '_', '.', '*' and '?'")
    return glob


def _suffix(value: str) -> str:
    """The name after ``*.`` in *value*."""
    suffix = _exact_name(value[2:])
    if len(suffix) > _LONGEST_SUFFIX:
        raise BadValue(value, "is too long: no name ends so")
    return suffix


def _exact_name(value: str) -> str:
    host = value[1:] if value.startswith(".") else value
    try:
        found = canonical(Address(host, 0, AddressType.DOMAIN_NAME))
    except NameNotFound:
        raise BadValue(value, "is no name that the DNS allows") from None
    if found.type is not AddressType.DOMAIN_NAME:
        raise BadValue(value, "is an address, which belongs into networks")
    if host != value:
        raise BadValue(value, f"must be {found.host} or *.{found.host}")
    return bare_name(found.host)


def _ports(value: Any) -> tuple[int, int]:
    first: Any
    last: Any
    if isinstance(value, tuple) and len(value) == 2:
        first, last = value
    elif isinstance(value, str) and (matched := _PORTS.fullmatch(value)):
        first, last = int(matched[1]), int(matched[2] or matched[1])
    else:
        first = last = value
    if not all(isinstance(port, int) and not isinstance(port, bool) for port in (first, last)):
        raise BadValue(value, "must be a port or a range such as 6000-6063")
    if not 0 <= first <= last <= 65535:
        raise BadValue(value, "must be from 0 to 65535, the lower first")
    return first, last


def _days(value: Any) -> tuple[str, ...]:
    found = entries_of(_several(value), _days_of)
    return tuple(day for day in DAYS if day in found)


def _days_of(value: Any) -> Iterable[str]:
    first, _, last = (
        (part.strip() for part in value.lower().partition("-")) if isinstance(value, str) else ("", "", "")
    )
    last = last or first
    if first not in DAYS or last not in DAYS:
        raise BadValue(value, f"must be one of {', '.join(DAYS)}, or a range such as mon-fri")
    begin, end = DAYS.index(first), DAYS.index(last)
    # A range such as sat-mon crosses the end of the week.
    return [DAYS[number % 7] for number in range(begin, end + 1 if end >= begin else end + 8)]


def span_of(text: str) -> tuple[int, int]:
    """The first minute of *text*, a span of hours, and the minute of its end, both counted from midnight."""
    matched = _SPAN.fullmatch(text) if isinstance(text, str) else None
    right = "must be a span such as 08:00-18:00, from 00:00 to 24:00"
    if matched is None:
        raise BadValue(text, right)
    hour, minute, last_hour, last_minute = map(int, matched.groups())
    begin, end = 60 * hour + minute, 60 * last_hour + last_minute
    if minute > 59 or last_minute > 59 or begin >= _DAY_MINUTES or end > _DAY_MINUTES:
        raise BadValue(text, right)
    if begin == end:
        raise BadValue(text, "is empty; the whole day is 00:00-24:00")
    return begin, end


def _span(value: Any) -> str:
    begin, end = span_of(value)
    return f"{begin // 60:02d}:{begin % 60:02d}-{end // 60:02d}:{end % 60:02d}"


def _zone(value: Any) -> str:
    try:
        zone_called(value)
    except ValueError as problem:
        raise BadValue(value, str(problem)) from None
    return str(value)


def _outgoing(value: Any) -> Sources:
    words = (SAME,) if value == SAME else _each(_outgoing_word)(value)
    try:
        return Sources(words)
    except ConfigError as problem:
        raise BadValue(problem.value, problem.reason, int(problem.path[0])) from None


def _outgoing_word(word: Any) -> Any:
    for problem in problems_with([SAME, word]):
        raise BadValue(word, problem.reason)
    return word


def _limits(value: Any) -> Limits:
    if not isinstance(value, Limits):
        raise BadValue(value, "must be Limits")
    return value


def _timeouts(value: Any) -> RuleTimeouts:
    if not isinstance(value, RuleTimeouts):
        raise BadValue(value, "must be RuleTimeouts; the handshake is over when a rule is known")
    for seconds in value:
        if seconds is not None and not (_is_number(seconds) and seconds > 0):
            raise BadValue(seconds, "must be a number of seconds above 0, or NEVER")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": _rule_name,
    "allow": _flag,
    "users": _texts("the name of a user"),
    "groups": _texts("the name of a group"),
    "user_patterns": _each(_pattern),
    "group_patterns": _each(_pattern),
    "authenticated": _flag,
    "clients": _each(_network),
    "listeners": _texts("the name of a listener"),
    "versions": _each(_version),
    "commands": _every(_commands),
    "names": _every(name_patterns),
    "networks": _each(_destination_network),
    "ports": _each(_ports),
    "days": _days,
    "hours": _each(_span),
    "zone": _zone,
    "ends_sessions": _flag,
    "outgoing": _outgoing,
    "via": _way,
    "ask": _helper,
    "limits": _limits,
    "user_limits": _limits,
    "quota": _flag,
    "timeouts": _timeouts,
    "log": _flag,
}
