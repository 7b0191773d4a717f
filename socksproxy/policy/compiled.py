"""
Rules made into indexes, and the policy that asks them.

Strategy: a set of rules is one integer with a bit for each rule, the lowest for the first. Every condition
has an index from a part of a question to the rules whose condition it meets; rules without the condition are
among them. The rules that match are the bitwise "and" of a handful of integers, and the lowest bit decides.
A thousand rules are 125 bytes.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import lru_cache
from ipaddress import ip_address
from re import Pattern
from socket import AF_INET, inet_pton
from typing import NamedTuple

from zope.interface import implementer

from ..identity import Client
from ..net.own_listeners import UNIX, OwnListeners
from ..net.special_addresses import carried
from ..wire.words import Address, Command
from .interfaces import ICommandPolicy, IDecidingPolicy
from .matching import (
    WHO,
    WITHOUT_PORT,
    RuleQuestion,
    Schedule,
    check,
    contents,
    matches_everywhere,
    protection,
    question_of,
    question_of_command,
    ranges,
    unruled,
)
from .rules import DENIED, Decision, Rule, word_pattern
from .sets import HoldsNames, HoldsNetworks, Sets, glob

#: Hosts, names and clients whose rules are remembered.
_REMEMBERED = 4096


class _WordIndex:
    """
    An index of words.

    :param values: for each rule, the words that meet its condition; None: the rule has no condition.
    """

    def __init__(self, values: Iterable[Iterable[object] | None]) -> None:
        self.unconditional = 0
        self.by_word: dict[object, int] = {}
        for number, words in enumerate(values):
            if words is None:
                self.unconditional |= 1 << number
            for word in words or ():
                self.by_word[word] = self.by_word.get(word, 0) | 1 << number
        #: With the rules that have no condition.
        self.with_word = {word: rules | self.unconditional for word, rules in self.by_word.items()}


class _SpanIndex:
    """
    An index of ranges of numbers.

    :param spans: the first and the last number, and the rule.
    """

    def __init__(self, spans: Iterable[tuple[int, int, int]]) -> None:
        events: dict[int, list[tuple[int, int]]] = {}
        for first, last, number in spans:
            events.setdefault(first, []).append((number, 1))
            events.setdefault(last + 1, []).append((number, -1))
        self._points: list[int] = sorted(events)
        self._rules: list[int] = []
        depths: dict[int, int] = {}
        rules = 0
        for point in self._points:
            for number, change in events[point]:
                depth = depths[number] = depths.get(number, 0) + change
                rules = rules | 1 << number if depth else rules & ~(1 << number)
            self._rules.append(rules)

    def at(self, number: int) -> int:
        """The rules with *number* in a range."""
        index = bisect_right(self._points, number) - 1
        return self._rules[index] if index >= 0 else 0


class _NetworkIndex:
    """
    An index of networks.

    :param texts: for each rule, its networks and sets; None: it has none.
    """

    def __init__(self, texts: Iterable[Iterable[str] | None], sets: Sets) -> None:
        spans: dict[int, list[tuple[int, int, int]]] = {4: [], 6: []}
        # By identity, because an embedder's set need not have a hash.
        asked: dict[int, tuple[HoldsNetworks, int]] = {}
        for number, entries in enumerate(texts):
            for content in contents(entries or (), sets):
                if not isinstance(content, tuple):
                    _, rules = asked.get(id(content), (content, 0))
                    asked[id(content)] = content, rules | 1 << number
                    continue
                for network in content:
                    first, last = int(network.network_address), int(network.broadcast_address)
                    spans[network.version].append((first, last, number))
        self._spans4, self._spans6 = _SpanIndex(spans[4]), _SpanIndex(spans[6])
        self._asked = list(asked.values())
        self._fixed = lru_cache(_REMEMBERED)(self._at)

    @property
    def changes(self) -> bool:
        """Whether sets in the index change while it is in use."""
        return bool(self._asked)

    def at(self, number: int, ipv6: bool) -> int:
        """The rules that have the address *number*."""
        rules = self._fixed(number, ipv6)
        for content, asking in self._asked:
            if rules & asking != asking and content.range_of(number, ipv6) is not None:
                rules |= asking
        return rules

    def _at(self, number: int, ipv6: bool) -> int:
        return (self._spans6 if ipv6 else self._spans4).at(number)


class _NameIndex:
    """
    An index of names.

    :param texts: for each rule, its patterns and sets; None: it has none.
    """

    def __init__(self, texts: Iterable[Iterable[str] | None], sets: Sets) -> None:
        self._exact: dict[str, int] = {}
        self._suffixes: dict[str, int] = {}
        globs: dict[str, int] = {}
        asked: dict[str, int] = {}
        for number, patterns in enumerate(texts):
            for pattern in _patterns(patterns or (), sets):
                if pattern.startswith("@"):
                    table, key = asked, pattern[1:]
                elif not set(pattern) & set("*?"):
                    table, key = self._exact, pattern
                elif pattern.startswith("*.") and not set(pattern[1:]) & set("*?"):
                    table, key = self._suffixes, pattern[1:]
                else:
                    table, key = globs, pattern
                table[key] = table.get(key, 0) | 1 << number
        # By how the name ends, where that is certain.
        self._globs: dict[str, list[tuple[Pattern[str], int]]] = {}
        for pattern, rules in globs.items():
            last = pattern.rpartition(".")[2]
            last = "" if set(last) & set("*?") or "." not in pattern else last
            self._globs.setdefault(last, []).append((glob(pattern), rules))
        self._asked: list[tuple[HoldsNames, int]] = []
        for name, rules in asked.items():
            content = sets.names[name]
            assert not isinstance(content, tuple)
            self._asked.append((content, rules))
        self._fixed = lru_cache(_REMEMBERED)(self._at)

    def at(self, name: str) -> int:
        """The rules that have *name*."""
        rules = self._fixed(name)
        for content, asking in self._asked:
            if rules & asking != asking and content.holds(name):
                rules |= asking
        return rules

    def _at(self, name: str) -> int:
        rules = self._exact.get(name, 0)
        dot = name.find(".")
        while dot >= 0:
            rules |= self._suffixes.get(name[dot:], 0)
            dot = name.find(".", dot + 1)
        last = name.rpartition(".")[2]
        for ending in {"", last}:
            for pattern, matching in self._globs.get(ending, ()):
                if pattern.fullmatch(name):
                    rules |= matching
        return rules


def _patterns(texts: Iterable[str], sets: Sets) -> Iterable[str]:
    for text in texts:
        content = sets.names[text[1:]] if text.startswith("@") else None
        if isinstance(content, tuple):
            yield from content
        else:
            yield text


def _patterns_of(values: Iterable[Iterable[str] | None]) -> list[tuple[Pattern[str], int]]:
    """The patterns of users or groups, and the rules that have them."""
    found: dict[str, int] = {}
    for number, texts in enumerate(values):
        for text in texts or ():
            found[text] = found.get(text, 0) | 1 << number
    return [(word_pattern(text), rules) for text, rules in found.items()]


class _Address(NamedTuple):
    """
    An address as numbers.

    :ivar outer: the address itself, and whether it is IPv6.
    :ivar inner: what it may carry; empty where that is the address itself.
    """

    outer: tuple[int, bool]
    inner: tuple[tuple[int, bool], ...]


@lru_cache(_REMEMBERED)
def _numbers(host: str) -> _Address:
    if ":" not in host and host != "0.0.0.0":
        return _Address((int.from_bytes(inet_pton(AF_INET, host), "big"), False), ())
    address = ip_address(host.partition("%")[0])
    inner = carried(address)
    return _Address(
        (int(address), address.version == 6),
        () if inner == (address,) else tuple((int(one), one.version == 6) for one in inner),
    )


class Compiled:
    """
    Gives the answers of :class:`~socksproxy.policy.matching.Matcher`, from indexes.

    :param rules: the rules in their order.
    :param sets: the sets that rules name.
    :param own: the proxy's own listeners; None: there are none.
    :raises RuleError: for rules that do not go together.
    """

    def __init__(
        self, rules: Sequence[Rule], sets: Sets | None = None, own: OwnListeners | None = None
    ) -> None:
        self.rules = tuple(rules)
        self.sets = sets = Sets() if sets is None else sets
        self.own = own
        check(self.rules, sets)
        self._users = _WordIndex(rule.users for rule in self.rules)
        self._groups = _WordIndex(rule.groups for rule in self.rules)
        self._anybody = self._bits(lambda rule: all(getattr(rule, field) is None for field in WHO))
        self._user_patterns = _patterns_of(rule.user_patterns for rule in self.rules)
        self._group_patterns = _patterns_of(rule.group_patterns for rule in self.rules)
        self._listeners = _WordIndex(rule.listeners for rule in self.rules)
        self._versions = _WordIndex(rule.versions for rule in self.rules)
        self._commands = _WordIndex(rule.commands for rule in self.rules)
        self._clients = _NetworkIndex((rule.clients for rule in self.rules), sets)
        self._from_anywhere = self._bits(lambda rule: rule.clients is None)
        self._from_unix = self._bits(lambda rule: rule.clients is None or UNIX in rule.clients)
        self._ports = _SpanIndex(
            (first, last, number) for number, rule in enumerate(self.rules) for first, last in ranges(rule)
        )
        self._any_port = self._bits(lambda rule: rule.ports is None)
        self._identity = {
            True: self._bits(lambda rule: rule.authenticated is not False),
            False: self._bits(lambda rule: rule.authenticated is not True),
        }
        self._names = _NameIndex((rule.names for rule in self.rules), sets)
        self._networks = _NetworkIndex((rule.networks for rule in self.rules), sets)
        self._named = any(rule.names is not None for rule in self.rules)
        self._addressed = self._bits(lambda rule: rule.networks is not None)
        self._anywhere = self._bits(lambda rule: rule.names is None and rule.networks is None)
        self._everywhere = self._bits(lambda rule: matches_everywhere(rule, sets))
        self._allowing = self._bits(lambda rule: rule.allow)
        self._decisions = [Decision(rule.allow, rule.name, rule) for rule in self.rules]
        self._possibilities = [Decision(rule.allow, rule.name, rule, False) for rule in self.rules]
        self._schedules = [
            (Schedule(rule), 1 << number) for number, rule in enumerate(self.rules) if rule.timed
        ]
        self._ending = [
            (rule.name, Schedule(rule)) for rule in self.rules if rule.timed and rule.ends_sessions
        ]
        self._minute: int | None = None
        self._waking = 0
        # A client asks again, and its answer is there. Sets in files change, so their answers are not kept.
        self._of_client = lru_cache(_REMEMBERED)(self._client_matching)
        self._clients_change = self._clients.changes
        self._by_address = self._address_matching
        if not self._networks.changes:
            self._by_address = lru_cache(_REMEMBERED)(self._address_matching)

    def _bits(self, holds: Callable[[Rule], bool]) -> int:
        return sum(1 << number for number, rule in enumerate(self.rules) if holds(rule))

    @property
    def ends_sessions(self) -> bool:
        """Whether the hours of a rule end sessions."""
        return bool(self._ending)

    def awake(self, now: float) -> frozenset[str]:
        """The names of the rules whose hours end sessions and are at *now*, in seconds since the epoch."""
        return frozenset(name for name, schedule in self._ending if schedule.holds(now))

    def decide(self, question: RuleQuestion, now: float) -> Decision:
        if not self.rules:
            return unruled(question, self.sets, self.own)
        matching = self._matching(question, now)
        if question.host is None:
            return self._with_no_address(question, matching)
        where = self._anywhere | self._by_address(question.host)
        if question.name is not None:
            where |= self._by_name(question.name)
        matching &= where
        if not matching:
            return DENIED
        return self._decided(matching & -matching, question)

    def _with_no_address(self, question: RuleQuestion, matching: int) -> Decision:
        if question.port is None:
            certain, uncertain = matching & self._everywhere, matching
        else:
            certain = matching & (self._anywhere | self._by_name(question.name))
            uncertain = matching & self._addressed
        first = certain & -certain
        # Before the first rule that certainly matches, another one may allow some address or destination.
        possible = uncertain & self._allowing & ~certain
        possible &= (first - 1) if first else -1
        if not first & self._allowing and possible:
            return self._decided(possible & -possible, question, self._possibilities)
        return self._decided(first, question) if first else DENIED

    def possible(self, question: RuleQuestion, now: float) -> list[Rule]:
        """The rules that may allow some destination of *question*, which has none."""
        matching = self._matching(question, now)
        certain = matching & self._everywhere
        first = certain & -certain
        bits = matching & self._allowing & ((first << 1) - 1 if first else -1)
        return [rule for number, rule in enumerate(self.rules) if bits >> number & 1]

    def _decided(
        self, bit: int, question: RuleQuestion, decisions: Sequence[Decision] | None = None
    ) -> Decision:
        decision = (self._decisions if decisions is None else decisions)[bit.bit_length() - 1]
        if decision.allowed:
            against = protection(decision.effect, question, self.sets, self.own)
            if against is not None:
                return Decision(False, against)
        return decision

    def _matching(self, question: RuleQuestion, now: float) -> int:
        """The rules of which all conditions hold that are not on the destination's address or name."""
        client, command, _, port, _ = question
        host, _, user, _, groups, listener, version, _, aliases, _ = client
        matching = self._of_client(command, user, groups, listener, version, aliases, host)
        if self._clients_change and matching & ~self._from_anywhere:
            matching &= self._from(host)
        if command in WITHOUT_PORT:
            matching &= self._any_port
        elif port is not None:
            matching &= self._any_port | self._ports.at(port)
        if self._schedules and matching:
            matching &= self._awake(now)
        return matching

    def _client_matching(
        self,
        command: Command,
        user: str | None,
        groups: frozenset[str],
        listener: str | None,
        version: int | None,
        aliases: tuple[str, ...],
        host: str | None,
    ) -> int:
        """The rules whose conditions on the command and on the client hold."""
        matching = self._commands.with_word.get(command, self._commands.unconditional)
        matching &= self._identity[user is not None]
        matching &= self._versions.with_word.get(version, self._versions.unconditional)
        by_listener = self._listeners.with_word.get(listener, self._listeners.unconditional)
        for alias in aliases:
            by_listener |= self._listeners.by_word.get(alias, 0)
        who = self._anybody | self._users.by_word.get(user, 0)
        for group in groups:
            who |= self._groups.by_word.get(group, 0)
            for pattern, rules in self._group_patterns:
                if pattern.fullmatch(group):
                    who |= rules
        if user is not None:
            for pattern, rules in self._user_patterns:
                if pattern.fullmatch(user):
                    who |= rules
        matching &= by_listener & who
        if not self._clients_change and matching & ~self._from_anywhere:
            matching &= self._from(host)
        return matching

    def _from(self, host: str | None) -> int:
        if host is None:
            return self._from_unix
        try:
            number, ipv6 = _numbers(host).outer
        except (OSError, ValueError):
            return self._from_anywhere  # the client is not known yet
        return self._from_anywhere | self._clients.at(number, ipv6)

    def _by_name(self, name: str | None) -> int:
        return self._names.at(name) if self._named and name is not None else 0

    def _address_matching(self, host: str) -> int:
        if not self._addressed:
            return 0
        outer, inner = _numbers(host)
        itself = self._networks.at(*outer)
        if not inner:
            return itself
        some, every = 0, -1
        for one in inner:
            rules = self._networks.at(*one)
            some |= rules
            every &= rules
        # What may lead to a denied address is denied; what is allowed must be so wherever it leads.
        return itself | (every & self._allowing) | (some & ~self._allowing)

    def _awake(self, now: float) -> int:
        minute = int(now // 60)
        if minute != self._minute:
            asleep = sum(bit for schedule, bit in self._schedules if not schedule.holds(now))
            self._minute, self._waking = minute, ~asleep
        return self._waking


@implementer(ICommandPolicy, IDecidingPolicy)
class RulePolicy:
    """
    The first rule that matches decides; a request that no rule matches is denied.

    Without any rule, the policy permits what :class:`~socksproxy.DefaultPolicy` permits. Rules do not remove
    its protection: no client reaches the proxy's own listeners, and a client that is not on this machine
    reaches special addresses only by a rule whose *networks* name them.

    :param rules: the rules in their order.
    :param sets: the sets that rules name, beside the sets that always exist.
    :param listeners: the proxy's own listeners; where None is given, each factory adds its own.
    :param clock: seconds since the epoch.
    :raises RuleError: for rules that do not go together; it has all mistakes.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        sets: Sets | None = None,
        listeners: OwnListeners | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._compiled = Compiled(rules, sets, listeners)
        self.clock = clock

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in their order."""
        return self._compiled.rules

    @property
    def sets(self) -> Sets:
        """What they name."""
        return self._compiled.sets

    @property
    def listeners(self) -> OwnListeners | None:
        """The proxy's own listeners."""
        return self._compiled.own

    def with_listeners(self, listeners: OwnListeners) -> RulePolicy:
        """This policy for a server that has *listeners*; one that was given others keeps those."""
        if self.listeners is not None:
            return self
        policy = copy(self)
        policy._compiled = copy(self._compiled)
        policy._compiled.own = listeners
        return policy

    @property
    def ends_sessions(self) -> bool:
        """Whether the hours of a rule end sessions."""
        return self._compiled.ends_sessions

    def awake(self) -> frozenset[str]:
        """The names of the rules whose hours end sessions and are now."""
        return self._compiled.awake(self.clock())

    def decide(
        self, client: Client, command: Command, destination: Address, name: str | None = None
    ) -> Decision:
        """See :meth:`socksproxy.policy.IDecidingPolicy.decide`."""
        return self._compiled.decide(question_of(client, command, destination, name), self.clock())

    def permits_command(self, client: Client, command: Command) -> Decision:
        """See :meth:`socksproxy.policy.ICommandPolicy.permits_command`."""
        return self._compiled.decide(question_of_command(client, command), self.clock())

    def possible_rules(self, client: Client, command: Command) -> list[Rule]:
        """The rules by which there may be a destination with which *client* may do *command*."""
        return self._compiled.possible(question_of_command(client, command), self.clock())

    def permits(self, client: Client, command: Command, destination: Address) -> bool:
        """See :meth:`socksproxy.policy.IPolicy.permits`."""
        return self.decide(client, command, destination).allowed

    def permits_address(
        self, client: Client, command: Command, destination: Address, name: str | None
    ) -> bool:
        """See :meth:`socksproxy.policy.INamePolicy.permits_address`."""
        return self.decide(client, command, destination, name).allowed
