"""
What limits leave one session: only where something is limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import OverLimit
from ..identity import Client
from ..limits.account import RULE_SCOPES, Scope, place_in_rule
from ..limits.claims import Admission, Claims, Holder
from ..limits.ledger import Ledger
from ..policy.rules import Rule
from ..values.limits import Limits


class Allowance(Claims):
    """
    A session's claims on the accounts of all holders whose limits hold for it.

    :param ledger: has the accounts.
    """

    __slots__ = ()

    _table: Ledger

    @property
    def dropped(self) -> bool:
        """Whether the client is to be closed without an answer."""
        return self.admission is Admission.DROP

    def identify(self, client: Client) -> None:
        """The client has turned out to be *client*."""
        self._table.arrive(client, self)

    def enter_user(self, client: Client, limits: Limits, quota: bool = True) -> None:
        """
        Count the session as the user's, too.

        :param limits: those of the user of *client*.
        :param quota: whether the user's quota is looked at.
        :raises OverLimit: when the user may not have it.
        """
        if client.user is not None:
            if limits.devices is not None:
                self.is_on(client.share or "unix")
            self.enter(Scope.USER, client.user, limits, quota)

    def enter_rule(self, rule: Rule, client: Client) -> None:
        """
        Count the session of *client* as one of *rule*, which lets it go where it goes.

        :raises OverLimit: when the rule, or the user within it, may not have another session.
        """
        for (scope, holder), limits in _holders(rule, client):
            if limits.devices is not None:
                self.is_on(client.share or "unix")
            self.enter(scope, holder, limits)

    def _user_limits(self, client: Client) -> Limits | None:
        return self._table.limits_of(client)

    def take_for(self, client: Client, kind: str, make_room: Callable[[Scope], bool]) -> None:
        """
        Take one of *kind* for the session of *client*; see :meth:`socksproxy.limits.claims.Claims.take`.

        :raises OverLimit: when there are too many.
        """
        self._table.joined(self, client, kind)
        self.take(kind, make_room)

    def follow(self, client: Client, known: bool, rules: Iterable[Rule] | None) -> None:
        """
        Go on under the limits that hold now.

        :param known: whether the user, if there is one, counts.
        :param rules: the rules under which the session goes on; None: the present ones.
        """
        others: list[Holder]
        if rules is None:
            others = self.of(*RULE_SCOPES)
        else:
            others = [holder for rule in rules for holder in _holders(rule, client)]
        limits = self._user_limits(client)
        if known and client.user is not None and limits is not None:
            if limits.devices is not None:
                self.is_on(client.share or "unix")
            others.append(((Scope.USER, client.user), limits))
        self._table.renewed(self, client, others)
        self.share_again(known)

    def share_for(self, client: Client, kind: str, answered: Callable[[OverLimit | None], None]) -> bool:
        """See :meth:`socksproxy.limits.claims.Claims.share`; *client* is about to take one of *kind*."""
        self._table.joined(self, client, kind)
        return self.share(answered, kind)


def _holders(rule: Rule, client: Client) -> list[Holder]:
    """The holders of the limits of *rule* for a session of *client*."""
    found: list[Holder] = []
    if rule.user_limits:
        found.append((place_in_rule(rule.name, client.user, client.share), rule.user_limits))
    if rule.limits:
        found.append(((Scope.RULE, rule.name), rule.limits))
    return found
