"""
Which limits a session is under, and whether it may be served.

Strategy: a limit belongs to a holder: the server, a client, the client's network, a user, a rule. A session
has several holders at once. Each holder has one account (:mod:`~socksproxy.limits.account`): counts of
sessions, buckets of bytes, a quota. The :class:`Ledger` finds the accounts of a session when a client
connects, when a user logs in, and when a rule allows a destination. What the session has taken of its
accounts is in its :class:`~socksproxy.limits.claims.Claims`, and the end of the session gives it back.
Where nothing is limited there are neither accounts nor claims, and a session costs nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

import attrs

from ..identity import Client
from ..shared.store import SharedStore
from ..values.limits import Limits, ServerLimits
from .account import SESSIONS, Accounts, Scope
from .claims import Claims, Holder
from .counting import Counting
from .quota.usage import UsageFile

#: Clients, networks and records of users whose limits are remembered.
_REMEMBERED = 4096


class Ledger(Accounts):
    """
    The accounts of one server.

    :param reactor: keeps time.
    :param limits: of the server.
    :param usage: the file of what has been used of quotas; None: no holder has a quota.
    :param counting: how counts and rates are kept; None: for this process alone.
    :param store: what nodes share; None: this node is alone.
    """

    def __init__(
        self,
        reactor: Any,
        limits: ServerLimits = ServerLimits(),
        usage: UsageFile | None = None,
        counting: Counting | None = None,
        store: SharedStore | None = None,
    ) -> None:
        super().__init__(reactor, usage, counting)
        #: What an operator has set for users, by their names, until the next reload.
        self.until_reload: dict[str | None, Limits] = {}
        self.set(limits, usage, store)

    def set(self, limits: ServerLimits, usage: UsageFile | None, store: SharedStore | None = None) -> None:
        """Have *limits* hold from now on; live sessions renew their claims then."""
        if store is not self.store:
            self.store = store
            for account in self._accounts.values():
                account.share()
        if usage is not None:
            usage.share(store)
        self.limits, self.session = limits, limits.session
        if usage is not self.usage:
            self.usage = usage
            for account in self._accounts.values():
                account.begin_quota()
        self._by_scope = tuple(
            (scope, of_scope)
            for scope, of_scope in (
                (Scope.SERVER, limits.server),
                (Scope.CLIENT, limits.client),
                (Scope.NETWORK, limits.network),
            )
            if of_scope
        )
        self._at_once = tuple(entry for entry in self._by_scope if _concerns_all(entry[1]))
        # Clients and users come again, and what their limits are is there.
        self._holders_at_once = lru_cache(_REMEMBERED)(self._find_at_once)
        self._of_user = lru_cache(_REMEMBERED)(self._find_of_user)

    @property
    def concerns_all(self) -> bool:
        """Whether there are limits on what every session has."""
        return bool(self._at_once)

    def arrive(self, client: Client, claims: Claims | None = None) -> Claims | None:
        """
        Count a session of *client*, which has connected.

        :param claims: those of the session from before its client was known; None: it has none.
        :returns: the session's claims, with the admission in them; None: nothing is limited.
        """
        if not self._at_once:
            return claims
        if claims is None:
            claims = Claims(self)
        claims.arrive(self._holders_at_once(client.host, client.uid))
        return claims

    def _find_at_once(self, host: str | None, uid: int | None) -> tuple[Holder, ...]:
        return tuple(self._holders(Client(host, uid=uid), self._at_once))

    def joined(self, claims: Claims | None, client: Client, kind: str) -> Claims | None:
        """
        Find the accounts that limit *kind*, of which the session of *client* is about to take one.

        :param claims: those of the session; None: it has none.
        :returns: the claims, with these accounts; None: there is no such limit.
        """
        concerned = [entry for entry in self._by_scope if getattr(entry[1], kind) is not None]
        if not concerned:
            return claims
        claims = Claims(self) if claims is None else claims
        claims.join(self._holders(client, concerned))
        return claims

    def entered(self, claims: Claims | None, scope: Scope, holder: str, limits: Limits) -> Claims:
        """
        Count the session as the *holder*'s, too. See :meth:`Claims.enter`.

        :param claims: those of the session; None: it has none.
        """
        claims = Claims(self) if claims is None else claims
        claims.enter(scope, holder, limits)
        return claims

    def renewed(self, claims: Claims | None, client: Client, others: Iterable[Holder]) -> Claims | None:
        """
        Renew the claims of a session, because limits may have changed.

        :param claims: those of the session; None: it has none.
        :param others: its holders besides those of *client*.
        :returns: the claims now; None: nothing is limited.
        """
        kinds = [SESSIONS] if claims is None else claims.kinds
        concerned = [
            entry
            for entry in self._by_scope
            if entry in self._at_once or any(getattr(entry[1], kind) is not None for kind in kinds)
        ]
        holders = [*self._holders(client, concerned), *(other for other in others if other[1])]
        if claims is None:
            if not holders:
                return None
            claims = Claims(self)
        claims.renew(holders)
        return claims

    def _holders(self, client: Client, scopes: Iterable[tuple[Scope, Limits]]) -> list[Holder]:
        """Which holders of *scopes* are known when *client* connects."""
        holders: list[Holder] = []
        for scope, limits in scopes:
            if scope is Scope.SERVER:
                holders.append(((scope, ""), limits))
            elif client.host != "":  # an address that is not known yet
                holders.append(((scope, self._holder(scope, client)), limits))
        return holders

    def _holder(self, scope: Scope, client: Client) -> str:
        host = client.host
        if host is None:
            return "unix" if client.uid is None else f"unix:uid={client.uid}"
        if scope is Scope.CLIENT:
            return host
        return client_network(host, self.limits.ipv4_prefix, self.limits.ipv6_prefix)

    def limits_of(self, client: Client) -> Limits | None:
        """The limits of the user of *client*; None: nothing is limited."""
        limits = self.user_limits(getattr(client.avatar, "limits", None))
        if not self.until_reload or client.user not in self.until_reload:
            return limits
        return self.until_reload[client.user].over_all(limits or Limits()) or None

    def user_limits(self, record: Limits | None) -> Limits | None:
        """
        The limits of a user; None: nothing is limited.

        :param record: the user's own limits; None: the user has none.
        """
        return self._of_user(record)

    def _find_of_user(self, record: Limits | None) -> Limits | None:
        return (self.limits.user if record is None else record.over_all(self.limits.user)) or None


@lru_cache(_REMEMBERED)
def client_network(host: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """The network of clients to which the literal address *host* belongs."""
    host = host.partition("%")[0]
    return str(ip_network((host, ipv6_prefix if ":" in host else ipv4_prefix), strict=False))


def _concerns_all(limits: Limits) -> bool:
    """Whether *limits* are on what every session has."""
    return bool(attrs.evolve(limits, binds=None, associations=None))
