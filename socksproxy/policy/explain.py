"""
Why something is decided as it is: which rule did it, and why none before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from .. import amounts
from ..limits.terms import Limits
from ..names import canonical
from ..wire.words import Address, Command
from . import Client
from .compiled import RulePolicy
from .matching import Matcher, Question, Verdict, question_of
from .rules import DAYS, DEFAULT, OWN, SPECIAL, Decision, Rule

_NO_RULE = {
    DEFAULT: "no rule matches",
    SPECIAL: "the rule does not name the special address, which is only for clients on this machine",
    OWN: "it is a listener of the proxy itself",
}


class Step(NamedTuple):
    """
    One rule that was looked at.

    :ivar rule: its name.
    :ivar allow: what it would decide.
    :ivar verdict: ``yes``: it matches; ``no``; ``open``: that depends on the address, which is not known.
    :ivar fields: the fields of the condition that does not hold.
    :ivar wanted: what stands in them.
    :ivar found: what is there instead.
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
        if self.verdict == "open":
            return f"{self.rule} ({verb}): depends on the address"
        return f"{self.rule} ({verb}): {' or '.join(self.fields)} {', '.join(self.wanted)}, not {self.found}"


class Explanation(NamedTuple):
    """
    How one question is decided.

    :ivar destination: what it is about: the requested one, or one of its addresses.
    :ivar allowed: the decision; of a name without an address: whether it would be looked up.
    :ivar rule: the rule that decides, or what does in place of one.
    :ivar steps: the rules that were looked at, in their order.
    :ivar outgoing: where connections leave from, if the rule says so.
    :ivar limits: of all sessions under the rule, if it says so.
    :ivar log: whether there is an access record.
    """

    destination: str
    allowed: bool
    rule: str
    steps: tuple[Step, ...]
    outgoing: tuple[str, ...] | None = None
    limits: Limits | None = None
    log: bool = True

    def data(self) -> dict[str, Any]:
        """For JSON: plain types only."""
        limits = None if self.limits is None else amounts.data(self.limits)
        return {**self._asdict(), "steps": [step._asdict() for step in self.steps], "limits": limits}

    def __str__(self) -> str:
        said = _NO_RULE.get(self.rule)
        if self.rule == DEFAULT and self.allowed:
            said = "there are no rules"
        by = f"by rule {self.rule}" if said is None else f"{self.rule}: {said}"
        lines = [f"{self.destination}: {'allowed' if self.allowed else 'denied'} ({by})"]
        lines += [f"  {number}. {step}" for number, step in enumerate(self.steps, 1)]
        if self.allowed:
            lines += [f"  from {', '.join(self.outgoing)}"] if self.outgoing else []
            lines += [f"  limits: {amounts.told(self.limits)}"] if self.limits else []
        return "\n".join(lines + ([] if self.log else ["  without an access record"]))


def explain(
    policy: RulePolicy,
    client: Client,
    command: Command,
    destination: Address,
    addresses: Sequence[str] = (),
    now: float | None = None,
) -> list[Explanation]:
    """
    Explain what *policy* decides.

    :param client: who asks; its groups, listener and version count.
    :param command: what for.
    :param destination: as requested; it need not be canonical.
    :param addresses: the literal addresses of *destination*, where that is a name.
    :param now: seconds since the epoch; None: the policy's time.
    :returns: for what was requested, and then for each of *addresses*.
    :raises NameNotFound: when *destination* cannot be the name of a host.
    """
    destination = canonical(destination)
    questions = [(destination, question_of(client, command, destination, None))]
    for host in addresses:
        address = canonical(Address.of(host, destination.port))
        questions.append((address, question_of(client, command, address, destination.host)))
    matcher = Matcher(policy.rules, policy.sets, policy.listeners)
    moment = policy.clock() if now is None else now
    return [_explained(matcher, shown, question, moment) for shown, question in questions]


def _explained(matcher: Matcher, shown: Address, question: Question, now: float) -> Explanation:
    decision = matcher.decide(question, now)
    steps = []
    for rule in matcher.rules:
        step = _step(matcher, rule, question, now)
        steps.append(step)
        if step.verdict == "yes":
            break
    return _with_effect(Explanation(str(shown), decision.allowed, decision.rule, tuple(steps)), decision)


def _with_effect(explanation: Explanation, decision: Decision) -> Explanation:
    rule = decision.effect
    if rule is None:
        return explanation
    outgoing = None if rule.outgoing is None else tuple(rule.outgoing)
    return explanation._replace(outgoing=outgoing, limits=rule.limits, log=rule.log)


def _step(matcher: Matcher, rule: Rule, question: Question, now: float) -> Step:
    verdict, fields = matcher.match(rule, question, now)
    if verdict is not Verdict.NO:
        return Step(rule.name, rule.allow, verdict.value)
    wanted = tuple(_shown(value) for field in fields for value in _values(getattr(rule, field)))
    if "days" in fields or "hours" in fields:
        found = _moment(rule, now)
    else:
        found = ", ".join(dict.fromkeys(_found(field, question) for field in fields))
    return Step(rule.name, rule.allow, verdict.value, fields, wanted, found)


def _values(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _shown(value: Any) -> str:
    if isinstance(value, Command):
        return _command(value)
    if isinstance(value, tuple):
        first, last = value
        return str(first) if first == last else f"{first}-{last}"
    return str(value)


def _found(field: str, question: Question) -> str:
    client, command, host, port, name = question
    if field in ("users", "groups"):
        user = "nobody in particular" if client.user is None else client.user
        groups = f" of {', '.join(sorted(client.groups))}" if client.groups else ""
        return f"{user}{groups}"
    if field == "ports" and command in (Command.RESOLVE, Command.RESOLVE_PTR):
        return "no port"
    return {
        "authenticated": str(client.user is not None),
        "clients": client.host or "unix",
        "listeners": client.listener or "any",
        "versions": "any" if client.version is None else str(client.version),
        "commands": _command(command),
        "ports": str(port),
        "names": name or "a name",
        "networks": host or "an address",
    }[field]


def _moment(rule: Rule, now: float) -> str:
    local = datetime.fromtimestamp(now, None if rule.zone is None else ZoneInfo(rule.zone))
    return f"{DAYS[local.weekday()]} {local:%H:%M}"


def _command(command: Command) -> str:
    return "associate" if command is Command.UDP_ASSOCIATE else command.name.lower()
