"""
Explanations of decisions: the rule that decides, and why no rule before it matches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ..identity import Client
from ..limits.ledger import client_network
from ..logs.printable import in_one_line
from ..net.names import canonical
from ..values import amounts
from ..values.limits import Limits, ServerLimits
from ..values.outgoing import sources_of
from ..wire.words import Address, Command
from .compiled import RulePolicy
from .matching import Matcher, RuleQuestion, Verdict, command_word, question_of, question_of_command
from .rules import DEFAULT, OWN, SPECIAL, Rule

_NO_RULE = {
    DEFAULT: "no rule matches",
    SPECIAL: "the rule does not name the special address, which is only for clients on this machine",
    OWN: "it is a listener of the proxy itself",
}


class RuleStep(NamedTuple):
    """
    One rule on the way to a decision.

    :ivar rule: the name of the rule.
    :ivar allow: whether the rule allows or denies.
    :ivar verdict: ``yes``: the rule matches; ``no``: it does not match; ``open``: the answer depends on the
        address, which is not known; ``some``: it matches some destinations, and the question gives none.
    :ivar fields: the fields of the condition that does not hold.
    :ivar wanted: the values of these fields.
    :ivar found: the value that the question has instead.
    """

    rule: str
    allow: bool
    verdict: str
    fields: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    found: str = ""

    def __str__(self) -> str:
        verb = "allow" if self.allow else "deny"
        if self.verdict == "yes":
            return f"{self.rule} ({verb}): matches"
        if self.verdict == "some":
            return f"{self.rule} ({verb}): matches some destinations"
        if self.verdict == "open":
            return f"{self.rule} ({verb}): depends on the address"
        return f"{self.rule} ({verb}): {' or '.join(self.fields)} {', '.join(self.wanted)}, not {self.found}"


class KnownWay(NamedTuple):
    """
    What the configuration says of a way out.

    :ivar proxies: the proxies, the first one from here first; empty: it leads directly.
    :ivar looks_up: whether the last proxy looks names up.
    :ivar commands: the commands that the way out carries.
    :ivar sockets: the words for sockets that leave in a way of their own; empty: they leave as all others.
    :ivar outgoing: the addresses from which the first proxy is reached; empty: the usual ones.
    """

    proxies: tuple[str, ...] = ()
    looks_up: bool = False
    commands: frozenset[Command] = frozenset(Command)
    sockets: str = ""
    outgoing: tuple[str, ...] = ()


class ServerWide(NamedTuple):
    """
    The settings of a server that matter for every session, beside rules and users.

    :ivar limits: the server's limits; None: they are not known.
    :ivar outgoing: the addresses from which connections leave.
    :ivar via: the name of the server's way out; None: connections leave directly.
    :ivar choice: gives, for the name of a pool, the client, the host of the destination and the command, the
        words for the choice of a member; empty: it is no pool.
    :ivar word: the word of the sticky session that the client's name asks for; None: it asks for none.
    :ivar ways: gives what is known of a way out, by its name.
    """

    limits: ServerLimits | None = None
    outgoing: tuple[str, ...] = ()
    via: str | None = None
    ways: Callable[[str], KnownWay] = lambda name: KnownWay()
    word: str | None = None
    choice: Callable[[str, Client, str, Command], str] = lambda name, client, host, command: ""


class ExplainedWay(NamedTuple):
    """
    A way out through proxies.

    :ivar proxies: the proxies, the first one from here first; empty: the rule, user or server in *because*
        wants connections to leave directly.
    :ivar because: the rule, user or server that sets the way out.
    :ivar name: whether the last proxy looks up the name of the destination, so that this server does not.
    :ivar carried: whether the way out carries the command.
    :ivar sockets: as :attr:`KnownWay.sockets`; :attr:`outgoing` likewise.
    :ivar members: the members of a pool in the order in which they are tried, as far as it is known; empty:
        the way out is no pool.
    """

    proxies: tuple[str, ...]
    because: str
    name: bool = False
    carried: bool = True
    sockets: str = ""
    outgoing: tuple[str, ...] = ()
    members: str = ""

    def __str__(self) -> str:
        told = f"via {' > '.join(self.proxies)}" if self.proxies else "directly"
        told += f" {self.sockets}" if self.sockets else ""
        named = ", which looks the name up: rules by network do not count" if self.name else ""
        members = f": {self.members}" if self.members else ""
        return f"{told}, by {self.because}{named}{members}"


class Explanation(NamedTuple):
    """
    The decision about one question, with its reasons.

    :ivar destination: the requested destination, one of its addresses, or the words for a UDP association.
    :ivar allowed: the decision; for a name whose address is not known, whether the server looks it up.
    :ivar rule: the name of the rule that decides, or the word for a decision without a rule.
    :ivar steps: the rules up to the decision, in their order.
    :ivar outgoing: the addresses and prefixes from which connections leave; None: the system chooses.
    :ivar chosen: how one of these addresses is chosen, and from which list; or the families that are refused.
    :ivar way: the way out; None: connections leave directly, because no setting names a way out.
    :ivar limits: the limits of a session, each with its holder.
    :ivar log: whether the session has an access record.
    :ivar quota: whether the bytes count for quotas of others than the rule.
    :ivar helper: the external helper that is asked, too, which this explanation does not do; empty: none.
    :ivar refusal: why the way out does not carry a request that the rules allow; empty: it carries it.
    """

    destination: str
    allowed: bool
    rule: str
    steps: tuple[RuleStep, ...]
    outgoing: tuple[str, ...] | None = None
    way: ExplainedWay | None = None
    chosen: str = ""
    limits: tuple[tuple[str, Limits], ...] = ()
    log: bool = True
    quota: bool = True
    refusal: str = ""
    helper: str = ""

    def data(self) -> dict[str, Any]:
        """The explanation in plain types, for JSON."""
        limits = {whose: amounts.data(limits) for whose, limits in self.limits}
        way = None if self.way is None else self.way._asdict()
        return {
            **self._asdict(),
            "way": way,
            "steps": [step._asdict() for step in self.steps],
            "limits": limits,
        }

    def __str__(self) -> str:
        said = _NO_RULE.get(self.rule)
        if self.rule == DEFAULT and self.allowed:
            said = "there are no rules"
        by = f"by rule {self.rule}" if said is None else f"{self.rule}: {said}"
        lines = [f"{self.destination}: {'allowed' if self.allowed else 'denied'} ({by})"]
        if self.refusal:
            lines[0] = f"{self.destination}: refused ({self.refusal})"
        lines += [f"  {number}. {step}" for number, step in enumerate(self.steps, 1)]
        if self.way is not None:
            lines.append(f"  {self.way}")
        if self.helper:
            lines.append(f"  if the helper {self.helper} permits it, which is not asked here")
        if self.allowed:
            lines += [f"  from {', '.join(self.outgoing)}"] if self.outgoing else []
            lines += [f"  outgoing: {self.chosen}"] if self.chosen else []
            lines += [f"  limits of {whose}: {amounts.told(limits)}" for whose, limits in self.limits]
            lines += [] if self.quota else ["  for no quota but the rule's own"]
        lines += [] if self.log else ["  without an access record"]
        # A name from a client or an operator may have line breaks; each line stays one line.
        return "\n".join(map(in_one_line, lines))


def explain(
    policy: RulePolicy,
    client: Client,
    command: Command,
    destination: Address | None,
    addresses: Sequence[str] = (),
    now: float | None = None,
    server: ServerWide = ServerWide(),
) -> list[Explanation]:
    """
    Explain the decision of *policy*.

    :param client: the client that asks; its groups, listener, version and avatar count.
    :param command: the command that it requests.
    :param destination: the requested destination; it need not be canonical. None: a UDP association, which
        is granted if the rules may permit some destination.
    :param addresses: the literal addresses of *destination*, if that is a name.
    :param now: the time in seconds since the epoch; None: the policy's clock tells it.
    :param server: the server's settings for all sessions.
    :returns: the explanation for *destination*, and then one for each of *addresses*.
    :raises NameNotFound: when *destination* cannot be the name of a host.
    """
    matcher = Matcher(policy.rules, policy.sets, policy.listeners)
    moment = policy.clock() if now is None else now
    if destination is None:
        question = question_of_command(client, command)
        return [_explained(matcher, "a UDP association", question, moment, server)]
    destination = canonical(destination)
    questions = [(destination, question_of(client, command, destination, None))]
    for host in addresses:
        address = canonical(Address.of(host, destination.port))
        questions.append((address, question_of(client, command, address, destination.host)))
    return [_explained(matcher, str(shown), question, moment, server) for shown, question in questions]


def _explained(
    matcher: Matcher, shown: str, question: RuleQuestion, now: float, server: ServerWide
) -> Explanation:
    decision = matcher.decide(question, now)
    steps = []
    for each in matcher.rules:
        step = _step(matcher, each, question, now)
        steps.append(step)
        if step.verdict == "yes":
            break
    told = Explanation(shown, decision.allowed, decision.rule, tuple(steps))
    if not decision.allowed:
        return told
    rule, client = decision.effect, question.client
    if rule is not None and rule.ask is not None:
        told = told._replace(helper=rule.ask)
    way = _way(rule, question, server)
    if way is not None:
        told = told._replace(way=way)
        if not way.carried and question.port is None and _another_carries(matcher, question, now, server):
            return told  # datagrams that leave by that way are dropped, and others are not
        if not way.carried:
            dropped = question.command is Command.UDP_ASSOCIATE and question.port is not None
            what = "datagrams are dropped" if dropped else "reply 7"
            word = command_word(question.command)
            return told._replace(allowed=False, refusal=f"the way out does not carry {word}: {what}")
        if way.name and not decision.certain:
            refusal = "a rule by network does not allow a name that an upstream looks up: reply 2"
            return told._replace(allowed=False, refusal=refusal)
    if question.port is None:
        return told  # the rule of each destination sets the rest
    own = () if way is None else way.outgoing
    outgoing, chosen = (own, "") if own else _outgoing(rule, client, server)
    return told._replace(
        outgoing=outgoing or None,
        chosen=chosen,
        limits=tuple(_limits(rule, client, server)),
        log=rule is None or rule.log,
        quota=rule is None or rule.quota,
    )


def _way(rule: Rule | None, question: RuleQuestion, server: ServerWide) -> ExplainedWay | None:
    """The way out that the rule names, or else the user, or else the server."""
    client = question.client
    for via, because in (
        (None if rule is None else rule.via, f"rule {rule.name}" if rule is not None else ""),
        (getattr(client.avatar, "via", None), f"user {client.user}"),
        (server.via, "the server"),
    ):
        if via is not None:
            way = server.ways(via)
            named = question.host is None and question.name is not None
            carried = question.command in way.commands
            members = server.choice(via, client, question.name or str(question.host or ""), question.command)
            return ExplainedWay(
                way.proxies, because, way.looks_up and named, carried, way.sockets, way.outgoing, members
            )
    return None


def _another_carries(matcher: Matcher, question: RuleQuestion, now: float, server: ServerWide) -> bool:
    """Whether any rule that may allow some destination has a way out that carries the command."""
    for rule in matcher.rules:
        verdict = matcher.match(rule, question, now).verdict
        if verdict is not Verdict.NO and rule.allow:
            way = _way(rule, question, server)
            if way is None or way.carried:
                return True
        if verdict is Verdict.YES:
            break
    return False


def _outgoing(rule: Rule | None, client: Client, server: ServerWide) -> tuple[tuple[str, ...], str]:
    """
    The addresses from which connections leave, and how one of them is chosen.

    For each family, the first list with such addresses counts: the rule's, the user's, the server's.
    """
    scopes = (
        (f"rule {'' if rule is None else rule.name}", None if rule is None else rule.outgoing),
        (f"user {client.user}", getattr(client.avatar, "outgoing", None)),
        ("the server", server.outgoing),
    )
    lists = [(whose, sources_of(said)) for whose, said in scopes if said]
    own = [sources for whose, sources in lists if whose != "the server"]
    found: dict[int, tuple[str, ...]] = {}
    how = []
    for whose, sources in lists:
        if whose == "the server" and own and not any(each.fallback for each in own):
            break
        entries = {4: sources.ipv4, 6: sources.ipv6}
        added = [version for version in entries if entries[version] and version not in found]
        found.update({version: tuple(map(str, entries[version])) for version in added})
        said = sources.told(server.word)
        if said and (added or sources.same):
            how.append(f"{said} ({whose})")
    refuses = own if own and not any(each.fallback for each in own) else []
    lacking = [f"IPv{version}" for version in (4, 6) if version not in found]
    if refuses and lacking and not any(sources.same for sources in refuses):
        how.append(f"{' and '.join(lacking)} destinations are refused")
    return tuple(entry for entries in found.values() for entry in entries), "; ".join(how)


def _limits(rule: Rule | None, client: Client, server: ServerWide) -> Iterator[tuple[str, Limits]]:
    """The limits of a session, each with its holder."""
    if rule is not None and rule.limits:
        yield f"rule {rule.name}", rule.limits
    if rule is not None and rule.user_limits:
        yield f"each user of rule {rule.name}", rule.user_limits
    limits = server.limits
    if client.user is not None:
        own: Limits = getattr(client.avatar, "limits", None) or Limits()
        if of_user := own.over_all(Limits() if limits is None else limits.user):
            yield f"user {client.user}", of_user
    if limits is None:
        return
    for whose, of_scope in (
        (f"client {client.host or 'unix'}", limits.client),
        (f"network {_network(client, limits)}", limits.network),
        ("the server", limits.server),
        ("each session", limits.session),
    ):
        if of_scope:
            yield whose, of_scope


def _network(client: Client, limits: ServerLimits) -> str:
    if client.host is None:
        return "unix"
    return client_network(client.host, limits.ipv4_prefix, limits.ipv6_prefix)


def _step(matcher: Matcher, rule: Rule, question: RuleQuestion, now: float) -> RuleStep:
    verdict, fields, found = matcher.match(rule, question, now)
    if verdict is Verdict.OPEN and question.port is None:
        return RuleStep(rule.name, rule.allow, "some")
    if verdict is not Verdict.NO:
        return RuleStep(rule.name, rule.allow, verdict.value)
    wanted = tuple(_shown(value) for field in fields for value in _values(getattr(rule, field)))
    return RuleStep(rule.name, rule.allow, verdict.value, fields, wanted, found)


def _values(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _shown(value: Any) -> str:
    if isinstance(value, Command):
        return command_word(value)
    if isinstance(value, tuple):
        first, last = value
        return str(first) if first == last else f"{first}-{last}"
    return str(value)
