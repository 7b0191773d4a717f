"""
The claims of one session on the accounts of its holders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial

from ..errors import OverLimit, QuotaUsedUp, TooManySessions
from ..values.limits import Limits
from .account import (
    ARRIVALS,
    DEVICES,
    RULE_SCOPES,
    SESSIONS,
    Account,
    Accounts,
    OwnBuckets,
    Place,
    Scope,
    at_rate,
    budgets_of,
    rule_of,
    too_many,
)
from .buckets import Meter, Meters
from .counting import Counter, Device
from .shared_claims import Refusal, SharedClaims

#: A holder, and what holds for it.
Holder = tuple[Place, Limits]


def _no_room(_: Scope) -> bool:
    """Make no room: each session keeps what it has."""
    return False


class Admission(Enum):
    """What becomes of a new session."""

    SERVE = "serve"
    #: The reply to its request refuses it.
    REFUSE = "refuse"
    #: So many sessions wait for such a reply that this one is closed without any.
    DROP = "drop"


#: The number of sessions over limits, of all holders, that are served until they get their refusal.
PATIENCE = 32


class Claims:
    """
    What one session has of the accounts of its holders.

    :param accounts: where these are.
    :ivar admission: what becomes of the session.
    """

    __slots__ = (
        *("_accounts", "_device", "_kinds", "_own", "_refused_by", "_shared", "_table", "_taken"),
        "admission",
    )

    def __init__(self, accounts: Accounts) -> None:
        self._table = accounts
        self._accounts: dict[Place, Account] = {}
        self._taken: list[tuple[Account, str, Counter | Device]] = []
        self._kinds = [SESSIONS]
        # The address by which the session counts as a device.
        self._device = ""
        self._own: OwnBuckets = None, None
        self.admission = Admission.SERVE
        self._refused_by: Account | None = None
        #: What the session has in the store that nodes share; None: nothing, or there is no store.
        self._shared: SharedClaims | None = None

    @property
    def refusal(self) -> TooManySessions | None:
        """The reason why the session was not admitted; None: it was."""
        account = self._refused_by
        return None if account is None else TooManySessions(f"too many sessions{account.of}")

    def check(self, quotas: bool = True) -> None:
        """
        Check whether the session may be served.

        :param quotas: whether quotas are looked at; if not, :meth:`check_quotas` is to follow.
        :raises TooManySessions: when it is one too many.
        :raises QuotaUsedUp: when the quota of a holder is used up.
        """
        refusal = None if self._refused_by is None else self.refusal
        if refusal is not None:
            assert self._refused_by is not None
            self._table.complain(self._refused_by, refusal)
            raise refusal
        if quotas:
            self.check_quotas()

    def check_quotas(self) -> None:
        """
        Check whether the holders, beside those within rules, have bytes left.

        :raises QuotaUsedUp: when the quota of a holder is used up.
        """
        for account in self._accounts.values():
            if account.quota is None or account.place[0] in RULE_SCOPES:
                continue
            try:
                _check_quota(account)
            except QuotaUsedUp as problem:
                self._table.complain(account, problem)
                raise

    def enter(self, scope: Scope, holder: str, limits: Limits, quota: bool = True) -> None:
        """
        Count the session as the *holder*'s, too.

        :param quota: whether the quota is looked at; if not, :meth:`check_quotas` is to follow.
        :raises TooManySessions: when the holder may not have another session.
        :raises QuotaUsedUp: when the quota of the holder is used up.
        """
        place = scope, holder
        known = self._accounts.get(place)
        if known is not None and known.limits == limits:
            return
        account = self._join(place, limits)
        if known is not None:
            account.change(limits)
            self._give(lambda owner, kind: owner is account)
        try:
            if quota and account.quota is not None:
                _check_quota(account)
            if known is None and account.arrivals is not None and not account.arrivals.take():
                raise too_many(account, ARRIVALS)
            for kind in self._kinds:
                self._take(account, kind)
        except OverLimit as problem:
            self._table.complain(account, problem)
            self.leave(place)
            raise

    def is_on(self, device: str) -> None:
        """The session counts as one of the *device*, the client's address, from now on."""
        if DEVICES not in self._kinds:
            self._device = device
            self._kinds.append(DEVICES)

    def leave(self, place: Place) -> None:
        """Count the session as that holder's no more."""
        account = self._accounts.pop(place, None)
        if account is None:
            return
        self._give(lambda owner, kind: owner is account)
        self._table.leave(account)

    def take(self, kind: str, make_room: Callable[[Scope], bool] = _no_room) -> None:
        """
        Count a BIND, or an association, of the session.

        :param make_room: called when a holder of that scope has as many as it may have. It ends another
            session's, and tells whether there was one.
        :raises TooManyBinds: when a holder has as many as it may have.
        :raises TooManyAssociations: the same, for associations.
        """
        for (scope, _), account in self._accounts.items():
            try:
                self._take_in_room(account, kind, partial(make_room, scope))
            except OverLimit as problem:
                self._table.complain(account, problem)
                self._give(lambda owner, given: given == kind)
                raise
        self._kinds.append(kind)

    def _take_in_room(self, account: Account, kind: str, make_room: Callable[[], bool]) -> None:
        try:
            self._take(account, kind)
        except OverLimit:
            self._give(lambda owner, given: owner is account and given == kind)
            if not make_room():
                raise
            self._take(account, kind)

    def give(self, kind: str) -> None:
        """Count the session's BIND, or association, no more."""
        if kind in self._kinds:
            self._kinds.remove(kind)
            self._give(lambda owner, given: given == kind)

    def meters(self, rules: Collection[str] = (), quotas: bool = True) -> Meters | None:
        """
        New meters for the session's bytes.

        :param rules: the names of the rules that allow what the session does.
        :param quotas: whether the bytes count for quotas, beside those of these rules.
        :returns: the meters; None: nothing limits the session's bytes.
        """
        session = self._table.session
        if session.upload is None is session.download:
            self._own = None, None
            up, down = self._table.budgets(self._accounts.values(), rules, quotas)
        else:
            own, (up_before, down_before) = self._table.own, self._own
            own_up = at_rate(session.upload, up_before, own.bucket, "")
            own_down = at_rate(session.download, down_before, own.bucket, "")
            self._own = own_up, own_down
            up, down = budgets_of(self._accounts.values(), rules, quotas, self._own)
        if not up and not down:
            return None
        return Meters(Meter(up) if up else None, Meter(down) if down else None)

    def of(self, *scopes: Scope) -> list[Holder]:
        """The holders of *scopes*, with their limits."""
        return [(place, account.limits) for place, account in self._accounts.items() if place[0] in scopes]

    def settle(self, rule: str | None) -> None:
        """Count the session under *rule* alone; other rules might have allowed it as well."""
        for place in tuple(self._accounts):
            if place[0] in RULE_SCOPES and rule_of(place) != rule:
                self.leave(place)

    def close(self) -> None:
        """Give everything back: the session is over."""
        for _, _, counter in self._taken:
            counter.give()
        if self._shared is not None:
            self._shared.close()
            self._shared = None
        for account in self._accounts.values():
            self._table.leave(account)
        self._taken, self._accounts = [], {}
        if self._refused_by is not None:
            self._table.refusing -= 1

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of things that the session has."""
        return self._kinds

    def join(self, holders: Iterable[Holder]) -> None:
        """Add accounts of *holders* to the session's; nothing is counted yet."""
        for place, limits in holders:
            self._join(place, limits)

    def arrive(self, holders: Iterable[Holder]) -> None:
        """Count the session: a client has connected, or it is known now which one has."""
        worst, refused_by = 0, None
        for place, limits in holders:
            if place in self._accounts:
                continue  # it was counted when the client was not known
            account = self._accounts[place] = self._table.account(place, limits)
            if limits.sessions is None or self._refused_by is not None:
                continue
            over = self._add(account, SESSIONS) - limits.sessions
            if over > worst:
                worst, refused_by = over, account
        if refused_by is not None:
            self._refuse(refused_by)

    def _refuse(self, account: Account) -> None:
        """Refuse the session, one too many of *account*'s. It counts for no holder from now on."""
        self._give(lambda owner, kind: True)
        self._kinds.clear()
        self._table.refusing += 1
        self._refused_by = account
        self.admission = Admission.REFUSE if self._table.refusing <= PATIENCE else Admission.DROP
        if self.admission is Admission.DROP:
            # The client gets no reply, and the operator gets a line in the log.
            with suppress(TooManySessions):
                self.check()

    def begin(self) -> None:
        """
        Count the session in the rates at which sessions begin: the client has sent something.

        A client that connects and sends nothing, as health checks and scanners do, does not count.
        """
        too_often = None
        for account in self._accounts.values():
            if account.arrivals is not None and not account.arrivals.take():
                too_often = too_often or account
        if too_often is not None and self._refused_by is None:
            self._refuse(too_often)

    def renew(self, holders: Iterable[Holder]) -> None:
        """Follow changed limits: the session goes on, and counts for *holders* and no others."""
        now = dict(holders)
        for place in self._accounts.keys() - now.keys():
            self.leave(place)
        for place, limits in now.items():
            self._join(place, limits).change(limits)
        taken, self._taken = self._taken, []
        for account in self._accounts.values():
            for kind in self._kinds:
                if getattr(account.limits, kind) is not None:
                    self._add(account, kind)
        for _, _, counter in taken:
            counter.give()

    def share(self, answered: Callable[[OverLimit | None], None], ahead: str | None = None) -> bool:
        """
        Ask the store that nodes share about all that the session has and the store has not judged yet.

        :param answered: called with the answer if it is not known at once: None, or why the session is
            refused.
        :param ahead: a kind of which the session is about to take one; None: there is none.
        :returns: whether an answer is missing.
        :raises OverLimit: when the session is refused at once.
        """
        store = self._table.store
        if store is None or self._refused_by is not None:
            return False
        shared = self._shared
        if shared is None or shared.store is not store:
            shared = self._shared = SharedClaims(store)
        shared.device = self._device
        taken, accounts, judged = self._shareable(), self._accounts.values(), partial(self._judged, answered)
        if ahead is not None and ahead not in self._kinds:
            taken += [(account, ahead) for account in accounts]
            refused = shared.ask(taken, accounts, ahead, judged)
        else:
            refused = shared.ask_about(self._table.needs, tuple(taken), tuple(accounts), judged)
        if refused is not None:
            raise self._give_up(*refused)
        return shared.pending > 0

    @property
    def unanswered(self) -> bool:
        """Whether an answer of the store is missing."""
        return self._shared is not None and self._shared.pending > 0

    def _judged(self, answered: Callable[[OverLimit | None], None], refused: Refusal | None) -> None:
        answered(None if refused is None else self._give_up(*refused))

    def _give_up(self, account: Account, problem: OverLimit) -> OverLimit:
        """The nodes together have no room for the session: it counts for no holder from now on."""
        self._table.complain(account, problem)
        self._give(lambda owner, kind: True)
        self._kinds.clear()
        return problem

    def share_again(self, goes_on: bool) -> None:
        """
        Follow changed limits, or another store.

        :param goes_on: whether the session has made its request, and so counts in the store.
        """
        store, shared = self._table.store, self._shared
        if shared is not None and shared.store is not store:
            shared.close()
            shared = self._shared = None
        if shared is None and store is not None and goes_on:
            shared = self._shared = SharedClaims(store)
        if shared is not None:
            shared.device = self._device
            shared.follow(self._shareable())

    def _shareable(self) -> list[tuple[Account, str]]:
        """What the session has and the store can count."""
        return [(account, kind) for account, kind, _ in self._taken]

    def _join(self, place: Place, limits: Limits) -> Account:
        account = self._accounts.get(place)
        if account is None:
            account = self._accounts[place] = self._table.account(place, limits)
        return account

    def _add(self, account: Account, kind: str) -> int:
        counter = account.device(self._device) if kind is DEVICES else account.counter(kind)
        self._taken.append((account, kind, counter))
        return counter.add()

    def _take(self, account: Account, kind: str) -> None:
        most = getattr(account.limits, kind)
        if most is not None and self._add(account, kind) > most:
            raise too_many(account, kind)

    def _give(self, which: Callable[[Account, str], bool]) -> None:
        taken, self._taken = self._taken, []
        for account, kind, counter in taken:
            if which(account, kind):
                counter.give()
                if self._shared is not None:
                    self._shared.give(account, kind)
            else:
                self._taken.append((account, kind, counter))


def _check_quota(account: Account) -> None:
    if account.quota is not None and account.quota.exhausted:
        raise QuotaUsedUp(f"the quota{account.of} is used up")
