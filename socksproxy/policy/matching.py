"""
The meaning of the conditions of rules, and the decision of the first rule that matches.

This module looks at one rule after the other, and so it can explain a decision. Tests compare
:mod:`~socksproxy.policy.compiled`, which is quicker, with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
)
from typing import NamedTuple, cast

from attrs import evolve

from ..identity import Client
from ..net.names import bare_name, plain
from ..net.own_listeners import UNIX, OwnListeners
from ..net.special_addresses import WILDCARDS, carried, special
from ..runtime.zones import zone_called
from ..wire.words import Address, AddressType, Command
from .rules import (
    DAYS,
    DEFAULT,
    DENIED,
    OWN,
    SPECIAL,
    Decision,
    Network,
    Problem,
    Rule,
    RuleError,
    is_set,
    parse_network,
    span_of,
    word_pattern,
)
from .sets import HoldsNetworks, Sets, glob

WITHOUT_PORT = frozenset({Command.RESOLVE, Command.RESOLVE_PTR})


class RuleQuestion(NamedTuple):
    """
    A request for the rules to decide.

    :ivar client: the client that asks.
    :ivar command: the command that the client requests.
    :ivar host: the literal address of the destination; None: it is not known yet.
    :ivar port: the port of the destination; None: the destination is not known yet, and may be any.
    :ivar name: the name that the client has sent; None: the client has sent an address.
    """

    client: Client
    command: Command
    host: str | None
    port: int | None
    name: str | None


def question_of_command(client: Client, command: Command) -> RuleQuestion:
    """The question that :meth:`socksproxy.policy.ICommandPolicy.permits_command` is asked."""
    return RuleQuestion(client, command, None, None, None)


def question_of(client: Client, command: Command, destination: Address, name: str | None) -> RuleQuestion:
    """The question that :meth:`socksproxy.policy.IDecidingPolicy.decide` is asked."""
    host, port, kind = destination
    if kind is AddressType.DOMAIN_NAME:
        return RuleQuestion(client, command, None, port, bare_name(host))
    if command is Command.BIND and name is None and host in WILDCARDS:
        return RuleQuestion(client, command, None, port, None)  # any peer may come
    # IPv4 addresses are plain already.
    host = plain(host) if ":" in host else host
    return RuleQuestion(client, command, host, port, None if name is None else bare_name(name))


class Verdict(Enum):
    """Whether a rule matches."""

    YES = "yes"
    NO = "no"
    #: The answer depends on a part of the destination that is not known yet.
    OPEN = "open"


#: The fields that together name the users of a rule.
WHO = ("users", "groups", "user_patterns", "group_patterns")


class Condition(NamedTuple):
    """
    One condition of a rule. The condition on the destination is apart.

    :ivar fields: the fields of a rule that make the condition.
    :ivar holds: tells whether the condition holds for a question, at a time in seconds since the epoch.
    :ivar found: gives the value that the question has for the condition, in words.
    """

    fields: tuple[str, ...]
    holds: Callable[[Rule, RuleQuestion, float], bool]
    found: Callable[[Rule, RuleQuestion, float], str]


class Match(NamedTuple):
    """
    The result of the comparison of a rule with a question.

    :ivar verdict: whether the rule matches.
    :ivar fields: the fields of the first condition that does not hold, as far as the rule has them.
    :ivar found: the value that the question has for these fields, in words.
    """

    verdict: Verdict
    fields: tuple[str, ...] = ()
    found: str = ""


class Schedule:
    """
    The days and hours of a rule.

    :param rule: a rule with days or hours.
    """

    def __init__(self, rule: Rule) -> None:
        self._zone = None if rule.zone is None else zone_called(rule.zone)
        self._days = frozenset(range(7) if rule.days is None else map(DAYS.index, rule.days))
        self._spans = [(0, 24 * 60)] if rule.hours is None else [span_of(text) for text in rule.hours]

    def holds(self, now: float) -> bool:
        """Whether *now*, in seconds since the epoch, is within the days and hours."""
        local = datetime.fromtimestamp(now, self._zone)
        minute, today = 60 * local.hour + local.minute, local.weekday()
        yesterday = (today - 1) % 7
        for begin, end in self._spans:
            if begin < end:
                holds = begin <= minute < end and today in self._days
            else:  # after midnight, the span belongs to the day on which it began
                evening = minute >= begin and today in self._days
                holds = evening or (minute < end and yesterday in self._days)
            if holds:
                return True
        return False


class Matcher:
    """
    Decides by rules, one after the other.

    :param rules: the rules, in their order.
    :param sets: the sets that the rules name.
    :param own: the proxy's own listeners; None: they are not known.
    :raises RuleError: when a rule names an unknown set, or two rules have the same name.
    """

    def __init__(
        self, rules: Sequence[Rule], sets: Sets | None = None, own: OwnListeners | None = None
    ) -> None:
        self.rules = tuple(rules)
        self.sets = Sets() if sets is None else sets
        self.own = own
        check(self.rules, self.sets)
        self._schedules = {rule.name: Schedule(rule) for rule in self.rules if rule.timed}
        self._conditions = (
            Condition(WHO, self._who, _found_user),
            Condition(
                ("authenticated",),
                self._authenticated,
                lambda rule, asked, now: str(asked.client.user is not None),
            ),
            Condition(("clients",), self._clients, lambda rule, asked, now: asked.client.host or UNIX),
            Condition(
                ("listeners",),
                self._listeners,
                lambda rule, asked, now: (
                    " or ".join(filter(None, (asked.client.listener, *asked.client.aliases))) or "any"
                ),
            ),
            Condition(
                ("versions",), self._versions, lambda rule, asked, now: str(asked.client.version or "any")
            ),
            Condition(("commands",), self._commands, lambda rule, asked, now: command_word(asked.command)),
            Condition(
                ("ports",),
                self._ports,
                lambda rule, asked, now: "no port" if asked.command in WITHOUT_PORT else str(asked.port),
            ),
            Condition(("days", "hours", "zone"), self._time, _found_moment),
        )

    def decide(self, question: RuleQuestion, now: float) -> Decision:
        """
        The decision of the first rule that matches; a protected address is denied.

        Where the address or the whole destination is not known yet, the decision allows the question if the
        rules could allow some address or some destination.
        """
        possible = None
        for rule in self.rules:
            verdict = self.match(rule, question, now).verdict
            if verdict is Verdict.OPEN:
                if rule.allow and possible is None:
                    possible = rule
            elif verdict is Verdict.YES:
                if possible is None or rule.allow:
                    return self._decided(rule, question)
                break
        if possible is not None:
            decision = self._decided(possible, question)
            return evolve(decision, certain=False) if decision.allowed else decision
        return DENIED if self.rules else unruled(question, self.sets, self.own)

    def _decided(self, rule: Rule, question: RuleQuestion) -> Decision:
        against = protection(rule, question, self.sets, self.own) if rule.allow else None
        if against is not None:
            return Decision(False, against)
        return Decision(rule.allow, rule.name, rule)

    def match(self, rule: Rule, question: RuleQuestion, now: float) -> Match:
        """The comparison of *rule* with *question* at *now*, in seconds since the epoch."""
        for fields, holds, found in self._conditions:
            if not holds(rule, question, now):
                return Match(Verdict.NO, _present(rule, fields), found(rule, question, now))
        verdict = self._where(rule, question)
        if verdict is not Verdict.NO:
            return Match(verdict)
        return Match(verdict, _present(rule, ("names", "networks")), _found_destination(rule, question))

    def _who(self, rule: Rule, question: RuleQuestion, now: float) -> bool:
        if all(getattr(rule, field) is None for field in WHO):
            return True
        client = question.client
        if client.user in (rule.users or ()) or not client.groups.isdisjoint(rule.groups or ()):
            return True
        return _fits(() if client.user is None else (client.user,), rule.user_patterns) or _fits(
            client.groups, rule.group_patterns
        )

    def _authenticated(self, rule: Rule, question: RuleQuestion, now: float) -> bool:
        return rule.authenticated is None or rule.authenticated is (question.client.user is not None)

    def _clients(self, rule: Rule, question: RuleQuestion, now: float) -> bool:
        if rule.clients is None:
            return True
        host = question.client.host
        if host is None:
            return UNIX in rule.clients
        address = _address(host)
        return address is not None and self._among(address, rule.clients)

    def _listeners(self, rule: Rule, question: RuleQuestion, now: float) -> bool:
        if rule.listeners is None:
            return True
        client = question.client
        return any(word in rule.listeners for word in (client.listener, *client.aliases))

    def _versions(self, rule: Rule, question: RuleQuestion, now: float) -> bool:
        return rule.versions is None or question.client.version in rule.versions

    def _commands(self, rule: Rule, question: RuleQuestion, now: float) -> bool:
        return rule.commands is None or question.command in rule.commands

    def _ports(self, rule: Rule, question: RuleQuestion, now: float) -> bool:
        if rule.ports is None:
            return True
        if question.command in WITHOUT_PORT:
            return False
        port = question.port
        return port is None or any(first <= port <= last for first, last in ranges(rule))

    def _time(self, rule: Rule, question: RuleQuestion, now: float) -> bool:
        return not rule.timed or self._schedules[rule.name].holds(now)

    def _where(self, rule: Rule, question: RuleQuestion) -> Verdict:
        if question.port is None:
            return Verdict.YES if matches_everywhere(rule, self.sets) else Verdict.OPEN
        if rule.names is None and rule.networks is None:
            return Verdict.YES
        if question.name is not None and self._named(question.name, rule.names or ()):
            return Verdict.YES
        if rule.networks is None:
            return Verdict.NO
        if question.host is None:
            return Verdict.OPEN
        address = ip_address(question.host)
        inner = [self._among(one, rule.networks) for one in carried(address)]
        # An address may carry others: a denying rule matches any of them, an allowing rule must match all.
        matches = self._among(address, rule.networks) or (all(inner) if rule.allow else any(inner))
        return Verdict.YES if matches else Verdict.NO

    def _named(self, name: str, patterns: Iterable[str]) -> bool:
        for pattern in patterns:
            if not pattern.startswith("@"):
                if glob(pattern).fullmatch(name):
                    return True
                continue
            content = self.sets.names[pattern[1:]]
            if self._named(name, content) if isinstance(content, tuple) else content.holds(name):
                return True
        return False

    def _among(self, address: IPv4Address | IPv6Address, texts: Iterable[str]) -> bool:
        for content in contents(texts, self.sets):
            if isinstance(content, tuple):
                if any(address in network for network in content):
                    return True
            elif content.range_of(int(address), address.version == 6) is not None:
                return True
        return False


def check(rules: Sequence[Rule], sets: Sets) -> None:
    """
    Check that *rules* name known sets, and that each has a name of its own.

    :raises RuleError: with all mistakes.
    """
    problems = [problem for rule in rules for problem in sets.problems(rule)]
    seen: set[str] = set()
    for rule in rules:
        if rule.name in seen:
            problems.append(Problem(rule.name, "name", rule.name, "another name: there is one of this name"))
        seen.add(rule.name)
    if problems:
        raise RuleError(problems)


def ranges(rule: Rule) -> tuple[tuple[int, int], ...]:
    """The ports of *rule*."""
    return cast("tuple[tuple[int, int], ...]", rule.ports or ())


def matches_everywhere(rule: Rule, sets: Sets) -> bool:
    """Whether the ports, names and networks of *rule* contain every destination."""
    if rule.ports is not None and not _has_all_ports(ranges(rule)):
        return False
    if rule.names is None and rule.networks is None:
        return True
    fixed = [content for content in contents(rule.networks or (), sets) if isinstance(content, tuple)]
    networks = [network for content in fixed for network in content]
    ipv4 = collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
    ipv6 = collapse_addresses(network for network in networks if isinstance(network, IPv6Network))
    return any(not network.prefixlen for network in ipv4) and any(not network.prefixlen for network in ipv6)


def _has_all_ports(ports: Iterable[tuple[int, int]]) -> bool:
    """Whether *ports* contain all ports from 1 to 65535; port 0 is no destination."""
    next_port = 1
    for first, last in sorted(ports):
        if first <= next_port:
            next_port = max(next_port, last + 1)
    return next_port > 65535


def contents(texts: Iterable[str], sets: Sets) -> Iterator[tuple[Network, ...] | HoldsNetworks]:
    """The networks and the sets of networks that *texts* name. A large set answers questions instead."""
    for text in texts:
        if not is_set(text):
            yield (parse_network(text),)
        elif text != UNIX:
            yield sets.networks[text]


def _present(rule: Rule, fields: Iterable[str]) -> tuple[str, ...]:
    """The *fields* that *rule* has."""
    return tuple(field for field in fields if getattr(rule, field) is not None)


def _fits(words: Iterable[str], patterns: Iterable[str] | None) -> bool:
    """Whether one of *words* fits one of *patterns*."""
    return any(word_pattern(text).fullmatch(word) for text in patterns or () for word in words)


def _found_user(rule: Rule, question: RuleQuestion, now: float) -> str:
    client = question.client
    groups = f" of {', '.join(sorted(client.groups))}" if client.groups else ""
    return f"{'an anonymous client' if client.user is None else client.user}{groups}"


def _found_moment(rule: Rule, question: RuleQuestion, now: float) -> str:
    local = datetime.fromtimestamp(now, None if rule.zone is None else zone_called(rule.zone))
    return f"{DAYS[local.weekday()]} {local:%H:%M}"


def _found_destination(rule: Rule, question: RuleQuestion) -> str:
    name = None if rule.names is None else question.name or "a name"
    address = None if rule.networks is None else question.host or "an address"
    return ", ".join(dict.fromkeys(filter(None, (name, address))))


def command_word(command: Command) -> str:
    """The word for *command*, as rules write it; ``resolve_ptr``, which has no word of its own, in full."""
    return "associate" if command is Command.UDP_ASSOCIATE else command.name.lower()


def protection(rule: Rule | None, question: RuleQuestion, sets: Sets, own: OwnListeners | None) -> str | None:
    """
    The reason to deny *question* although *rule* allows it: :data:`~socksproxy.policy.rules.OWN`,
    :data:`~socksproxy.policy.rules.SPECIAL`, or None.

    :param rule: the rule that allows *question*; None: there are no rules.
    """
    client, command, host, port, _ = question
    if host is None or port is None:
        return None
    if command is Command.CONNECT and own is not None and own.include(host, port):
        return OWN
    if not (sets.metadata or special(host)) or client.local:
        return None
    outer = ip_address(host)
    for address in (outer, *carried(outer)):
        network = sets.special_network(address)
        if network is not None and (rule is None or not _names(rule, address, network, sets)):
            return SPECIAL
    return None


def _names(rule: Rule, address: IPv4Address | IPv6Address, special: Network, sets: Sets) -> bool:
    """Whether *rule* names *address* by a network within *special*, which makes the address special."""
    for content in contents(rule.networks or (), sets):
        if isinstance(content, tuple):
            found = [_ends(network) for network in content if address in network]
        else:
            held = content.range_of(int(address), address.version == 6)
            found = [] if held is None else [held]
        if any(_within(ends, special) for ends in found):
            return True
    return False


def _ends(network: Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _within(ends: tuple[int, int], network: Network) -> bool:
    first, last = _ends(network)
    return first <= ends[0] and ends[1] <= last


def unruled(question: RuleQuestion, sets: Sets, own: OwnListeners | None) -> Decision:
    """The decision where there are no rules at all; it equals that of the default policy."""
    against = protection(None, question, sets, own)
    return Decision(against is None, against or DEFAULT)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None  # the client's address is not known yet
