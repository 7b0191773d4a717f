"""
What limits leave one session: only where something is limited.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ..identity import Client
from ..limits.account import Scope
from ..limits.admission import Admission
from ..limits.buckets import Meters
from ..limits.claims import Claims, Holder
from ..limits.ledger import Ledger
from ..policy.rules import Rule
from ..values.limits import Limits


class Allowance:
    """
    Owns a session's claims on the accounts of those whose limits hold for it.

    :param ledger: has the accounts.
    :param claims: what the session has already; None: nothing.
    """

    __slots__ = ("_claims", "_ledger")

    def __init__(self, ledger: Ledger, claims: Claims | None = None) -> None:
        self._ledger = ledger
        self._claims = claims

    @property
    def dropped(self) -> bool:
        """Whether the client is to be closed without an answer."""
        return self._claims is not None and self._claims.admission is Admission.DROP

    @property
    def refusal(self) -> Exception | None:
        """Why the session was not admitted; None: it was."""
        return None if self._claims is None else self._claims.refusal

    def identify(self, client: Client) -> None:
        """The client has turned out to be *client*."""
        self._claims = self._ledger.arrive(client, self._claims)

    def begin(self) -> None:
        """The client has sent something, so that it counts in the rates at which sessions begin."""
        if self._claims is not None:
            self._claims.begin()

    def check(self) -> None:
        """
        Whether the session may be served.

        :raises OverLimit: when it may not.
        """
        if self._claims is not None:
            self._claims.check()

    def enter_user(self, client: Client) -> None:
        """
        The session is the user's, too.

        :raises OverLimit: when the user may not have it.
        """
        limits = self._user_limits(client)
        if client.user is not None and limits:
            self._claims = self._ledger.entered(self._claims, Scope.USER, client.user, limits)

    def enter_rule(self, rule: Rule) -> None:
        """
        *rule* lets the session go where it goes.

        :raises OverLimit: when the rule may not have another session.
        """
        if rule.limits:
            self._claims = self._ledger.entered(self._claims, Scope.RULE, rule.name, rule.limits)

    def _user_limits(self, client: Client) -> Limits:
        return self._ledger.user_limits(getattr(client.avatar, "limits", None))

    def take(self, client: Client, kind: str, make_room: Callable[[Scope], bool]) -> None:
        """
        The session is about to have one of *kind*.

        :param make_room: see :meth:`socksproxy.limits.claims.Claims.take`.
        :raises OverLimit: when there are too many.
        """
        self._claims = self._ledger.joined(self._claims, client, kind)
        if self._claims is not None:
            self._claims.take(kind, make_room)

    def give(self, kind: str) -> None:
        """The session has none of *kind* any more."""
        if self._claims is not None:
            self._claims.give(kind)

    def settle(self, rule: str | None) -> None:
        """Of the rules under which the session might have gone on, it does so under *rule*."""
        if self._claims is not None:
            self._claims.settle(rule)

    def meters(self, rules: Collection[str] = ()) -> Meters | None:
        """What measures the session's bytes under *rules*; None: nothing does."""
        if self._claims is None:
            if not self._ledger.limits.session:
                return None
            self._claims = Claims(self._ledger)
        return self._claims.meters(rules)

    def meters_under(self, rule: str) -> Meters | None:
        """What measures datagrams under *rule*; None: what measures all others."""
        return None if self._claims is None else self._claims.meters((rule,))

    def renew(self, client: Client, known: bool, rules: Iterable[Rule] | None) -> None:
        """
        Limits may have changed.

        :param known: whether the user, if there is one, counts.
        :param rules: under which the session goes on; None: those under which it is.
        """
        others: list[Holder]
        if rules is None:
            others = [] if self._claims is None else self._claims.of(Scope.RULE)
        else:
            others = [((Scope.RULE, rule.name), rule.limits) for rule in rules if rule.limits]
        if known and client.user is not None:
            others.append(((Scope.USER, client.user), self._user_limits(client)))
        self._claims = self._ledger.renewed(self._claims, client, others)

    def release(self) -> None:
        """The session is counted no more."""
        claims, self._claims = self._claims, None
        if claims is not None:
            claims.close()
