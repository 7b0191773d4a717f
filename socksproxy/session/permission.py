"""
What the policy permits one session, and by which rules: only where the policy tells more than yes or no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from ..errors import NotAllowed, OverLimit
from ..identity import Client
from ..policy import ICommandPolicy, IDecidingPolicy, INamePolicy
from ..policy.compiled import RulePolicy
from ..policy.helpers import RequestHelpers
from ..policy.rules import Decision, Rule
from ..wire.words import Address, AddressType, Command

#: So many decisions are kept apart, by their addresses; no name has so many.
_KEPT = 128
#: The most rules that a record names.
_MOST_NAMED = 8


@implementer(ICommandPolicy, INamePolicy)
class Permission:
    """
    Asks *policy* for one session, and remembers its decisions.

    :param policy: decides.
    :ivar enter: called with each rule with limits that allows an address;
        it raises :class:`~socksproxy.errors.OverLimit` when they are reached, and then the address is denied.
        None: the limits of rules are not looked at.
    :param helpers: the helpers that rules ask; None: no rule asks any.
    :ivar enters_all: whether *enter* is called with all rules that allow an address.
    :ivar over: the last limit that was reached.
    """

    __slots__ = (
        "_by_host",
        "_helpers",
        "_latest",
        "_policy",
        "_recorded",
        "_rules",
        "_settled",
        "enter",
        "enters_all",
        "first",
        "over",
    )

    def __init__(
        self,
        policy: IDecidingPolicy,
        enter: Callable[[Rule], None] | None = None,
        helpers: RequestHelpers | None = None,
    ) -> None:
        self._policy = policy
        self._helpers = helpers
        self.enter = enter
        self.enters_all = False
        self.over: OverLimit | None = None
        self._latest: Decision | None = None
        self._settled = False
        #: The rule by which there may be a destination at all, as :meth:`permits_command` has found.
        self.first: Rule | None = None
        self._by_host: dict[str, Decision] = {}
        #: The rules that have decided, as many as a record names; and whether any of all has a record.
        self._rules: dict[str, None] = {}
        self._recorded = False

    def permits(self, client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
        """See :meth:`socksproxy.policy.IPolicy.permits`."""
        decision = self._policy.decide(client, command, destination)
        self._latest, self._settled = decision, False
        # The addresses of a name may each be under another rule.
        known = destination.type is not AddressType.DOMAIN_NAME
        permitted = self._noted(decision, destination.host)
        if not permitted or not (known or decision.certain):
            return permitted
        if self._helpers is not None and decision.effect is not None and decision.effect.ask is not None:
            return self._asked(decision.effect, client, command, destination, None, known)
        return not known or self._entered(decision.effect)

    def permits_command(self, client: Client, command: Command) -> bool | Decision | Deferred[bool]:
        """See :meth:`socksproxy.policy.ICommandPolicy.permits_command`; a denial is noted."""
        if not ICommandPolicy.providedBy(self._policy):
            return True
        answer: bool | Decision | Deferred[bool] = self._policy.permits_command(client, command)
        if isinstance(answer, Decision):
            self.first = answer.effect
            if not answer:
                self._latest, self._settled = answer, False
        return answer

    def permits_address(
        self, client: Client, command: Command, destination: Address, name: str | None
    ) -> bool | Deferred[bool]:
        """See :meth:`socksproxy.policy.INamePolicy.permits_address`."""
        decision = self._policy.decide(client, command, destination, name)
        # Of a name's addresses some are left out; one that is not tells more.
        if decision.allowed or not self._settled:
            self._latest, self._settled = decision, decision.allowed
        if not self._noted(decision, destination.host):
            return False
        if self._helpers is not None and decision.effect is not None and decision.effect.ask is not None:
            return self._asked(decision.effect, client, command, destination, name, True)
        return self._entered(decision.effect)

    def _noted(self, decision: Decision, host: str) -> bool:
        """Remember *decision* about *host*; whether it allows."""
        if len(self._by_host) >= _KEPT:
            # Of many who come to a BIND the last one is the peer.
            del self._by_host[next(iter(self._by_host))]
        self._by_host[host] = decision
        self._recorded |= decision.effect is None or decision.effect.log
        if len(self._rules) < _MOST_NAMED:
            self._rules[decision.rule] = None
        return decision.allowed

    def _asked(
        self,
        rule: Rule,
        client: Client,
        command: Command,
        destination: Address,
        name: str | None,
        known: bool,
    ) -> bool | Deferred[bool]:
        """Whether the helper of *rule* permits the request, too; then the limits of the rule count."""
        assert self._helpers is not None
        assert rule.ask is not None
        host = destination.host if name is None else name
        answer = self._helpers.permits(rule.ask, client, command, host, destination.port)
        if isinstance(answer, Deferred):
            return answer.addCallback(lambda yes: yes and (not known or self._entered(rule)))
        return answer and (not known or self._entered(rule))

    def _entered(self, rule: Rule | None) -> bool:
        """Whether the limits of *rule* have room."""
        limited = rule is not None and (rule.limits or rule.user_limits or self.enters_all)
        if rule is not None and limited and self.enter is not None:
            try:
                self.enter(rule)
            except OverLimit as problem:
                self.over = problem
                return False
        return True

    def settle(self, name: str) -> None:
        """
        No address of *name*, which has been allowed, will be known.

        :raises NotAllowed: where a rule by network alone could allow it, and where a limit is reached.
        """
        decision = self._by_host.get(name)
        if decision is None:
            return
        if not decision.certain:
            raise NotAllowed(
                f"the rule {decision.rule} is about addresses, and an upstream looks the name up"
            )
        if not self._entered(decision.effect):
            raise NotAllowed("a limit of the rule is reached")

    def effect(self, reached: Address) -> Rule | None:
        """The rule that has allowed the address *reached*."""
        decision = self._by_host.get(reached.host)
        return None if decision is None else decision.effect

    def is_out_of_hours(self, awake: frozenset[str], reached: Address | None) -> bool:
        """
        Whether a rule whose hours are over has allowed the session.

        :param awake: the names of the rules whose hours it is.
        :param reached: the only address that counts; None: all do.
        """
        effects = self.effects() if reached is None else (self.effect(reached),)
        return any(rule and rule.timed and rule.ends_sessions and rule.name not in awake for rule in effects)

    def effects(self) -> Iterator[Rule]:
        """The rules that have allowed addresses, as many as are remembered."""
        for decision in self._by_host.values():
            if decision.allowed and decision.effect is not None:
                yield decision.effect

    def possible_rules(self, client: Client, command: Command) -> Sequence[Rule | None]:
        """The rules by which there may be a destination; a policy that cannot tell gives the first."""
        rules = self._policy.possible_rules(client, command) if isinstance(self._policy, RulePolicy) else ()
        return rules or (self.first,)

    @property
    def latest(self) -> Decision | None:
        """What was decided last that counts; None: nothing was asked."""
        return self._latest

    def rule_for(
        self, client: Client, command: Command, destination: Address, name: str | None
    ) -> Rule | None:
        """
        The rule that allows *destination*, where there are more than can be kept; nothing is noted.

        :param name: as for :meth:`socksproxy.policy.IDecidingPolicy.decide`.
        """
        return self._policy.decide(client, command, destination, name).effect

    def decisive(self, reached: Address | None, many: bool) -> Iterable[Decision]:
        """
        The decisions that count: the one on *reached*, or the last one.

        :param reached: as for :meth:`rule_named`.
        :param many: whether there are many destinations; then each rule that has decided counts.
        """
        if many:
            return {(each.rule, each.allowed): each for each in self._by_host.values()}.values()
        decision = None if reached is None else self._by_host.get(reached.host)
        decision = decision or self._latest
        return () if decision is None else (decision,)

    def rule_named(self, reached: Address | None) -> tuple[str | None, bool]:
        """
        By which rule it was decided, and whether that is to be recorded.

        :param reached: the address that a connection was made to, or from; None: there is no connection.
        """
        decision = None if reached is None else self._by_host.get(reached.host)
        decision = decision or self._latest
        if decision is None:
            return None, True
        return decision.rule, decision.effect is None or decision.effect.log

    def rules_named(self) -> tuple[str | None, bool]:
        """As :meth:`rule_named`, for a session with many destinations: the rules that decided."""
        return ",".join(self._rules) or None, not self._rules or self._recorded
