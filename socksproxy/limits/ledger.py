"""
Who has how much: an account for each holder that a limit is set for.

A session belongs to several holders at once: the server, its client's address and network,
its user, the rules that let it go where it goes. What it has of each is in its :class:`Claims`.
Where nothing is limited there are neither accounts nor claims, and a session costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from functools import lru_cache, partial
from ipaddress import ip_network
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
from twisted.logger import Logger

from ..errors import OverLimit, QuotaUsedUp, TooManyAssociations, TooManyBinds, TooManySessions
from ..logs.occasional import Seldom
from ..logs.printable import printable
from ..values.limits import Limits, Rate, ServerLimits
from .admission import Admission, judged
from .buckets import Allowance, Bucket, Meter, Meters
from .counting import Counter, Counting, OwnCounting, Pace
from .quota import Quota
from .usage import UsageFile

if TYPE_CHECKING:
    from ..identity import Client

_log = Logger(namespace="socksproxy")

#: Accounts that nobody has a session of, and that are kept until their buckets are full again.
MOST_RESTING = 16384
#: How many of them are looked at for each new account.
_LOOKED_AT = 4

SESSIONS, BINDS, ASSOCIATIONS = "sessions", "binds", "associations"

_REFUSALS = {SESSIONS: TooManySessions, BINDS: TooManyBinds, ASSOCIATIONS: TooManyAssociations}
_WORDS = {SESSIONS: "sessions", BINDS: "BINDs", ASSOCIATIONS: "associations"}


class Scope(Enum):
    """What kind of holder it is."""

    SERVER = "server"
    CLIENT = "client"
    NETWORK = "network"
    USER = "user"
    RULE = "rule"
    SESSION = "session"


_NARROWEST = (Scope.SESSION, Scope.USER, Scope.CLIENT, Scope.RULE, Scope.NETWORK, Scope.SERVER)


class Account:
    """
    What one holder has.

    :param ledger: where it is.
    :param name: of the holder, such as ``user bob``.
    :param of: how a refusal tells whose limit it was.
    :ivar arrivals: how often sessions may begin; None: as they like.
    :ivar upload: the bucket of bytes from clients, and :attr:`download` of those to them.
    :ivar quota: what is left of a day and of a month.
    :ivar holders: how many claims there are on it.
    """

    __slots__ = (
        "_counters",
        "_ledger",
        "arrivals",
        "complaints",
        "download",
        "holders",
        "limits",
        "name",
        "of",
        "quota",
        "upload",
    )

    def __init__(self, ledger: Ledger, name: str, of: str, limits: Limits) -> None:
        self._ledger = ledger
        self._counters: dict[str, Counter] = {}
        self.name = name
        self.of = of
        self.limits = Limits()
        self.holders = 0
        self.arrivals: Pace | None = None
        self.upload: Bucket | None = None
        self.download: Bucket | None = None
        self.quota: Quota | None = None
        self.complaints: Seldom | None = None
        self.change(limits)

    def change(self, limits: Limits) -> None:
        """From now on *limits* hold; what is there of its counts and buckets stays."""
        if limits is self.limits or limits == self.limits:
            return
        before, self.limits = self.limits, limits
        self._change_arrivals(limits.new_sessions)
        self.upload = self._bucket("upload", self.upload, before.upload, limits.upload)
        self.download = self._bucket("download", self.download, before.download, limits.download)
        if not limits.counts_bytes:
            self.quota = None
        elif self.quota is None:
            self.quota = self._ledger.quota(self.name, limits)
        else:
            self.quota.daily, self.quota.monthly = limits.daily, limits.monthly

    def begin_quota(self) -> None:
        """What has been used is kept somewhere else from now on."""
        if self.quota is not None:
            self.quota = self._ledger.quota(self.name, self.limits)

    def _change_arrivals(self, rate: Rate | None) -> None:
        if rate is None:
            self.arrivals = None
        elif self.arrivals is None:
            self.arrivals = self._ledger.counting.pace(f"{self.name} arrivals", rate)
        else:
            self.arrivals.rate = rate

    def _bucket(
        self, kind: str, bucket: Bucket | None, before: Rate | None, rate: Rate | None
    ) -> Bucket | None:
        if rate is None:
            return None
        if bucket is None:
            return self._ledger.counting.bucket(f"{self.name} {kind}", rate)
        if rate != before:
            bucket.rate = rate
        return bucket

    def counter(self, kind: str) -> Counter:
        """How many of *kind* it has."""
        counter = self._counters.get(kind)
        if counter is None:
            counter = self._counters[kind] = self._ledger.counting.counter(f"{self.name} {kind}")
        return counter

    def arrives(self) -> bool:
        """A session begins: whether it may, by the rate at which they do."""
        return self.arrivals is None or self.arrivals.take()

    @property
    def rested(self) -> bool:
        """Whether nothing is lost when it is forgotten."""
        if self.complaints is not None and not self.complaints.quiet:
            return False
        return all(bucket is None or bucket.full for bucket in (self.arrivals, self.upload, self.download))


def _no_room(_: Scope) -> bool:
    """What a holder has, it keeps."""
    return False


class Claims:
    """
    What one session has of the accounts of its holders.

    :param ledger: where these are.
    :ivar admission: what becomes of the session.
    """

    __slots__ = ("_accounts", "_kinds", "_ledger", "_own", "_refused_by", "_taken", "admission")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._accounts: dict[tuple[Scope, str], Account] = {}
        self._taken: list[tuple[Account, str, Counter]] = []
        self._kinds = [SESSIONS]
        self._own: tuple[Bucket | None, Bucket | None] = None, None
        self.admission = Admission.SERVE
        self._refused_by: Account | None = None

    # What a session asks.

    @property
    def refusal(self) -> TooManySessions | None:
        """Why the session was not admitted; None: it was."""
        account = self._refused_by
        return None if account is None else TooManySessions(f"too many sessions{account.of}")

    def check(self) -> None:
        """
        Whether the session may be served, by what is known of it when its client connects.

        :raises TooManySessions: when it is one too many.
        :raises QuotaUsedUp: when a holder has had its bytes.
        """
        refusal = self.refusal
        if refusal is not None:
            assert self._refused_by is not None
            self._ledger.complain(self._refused_by, refusal)
            raise refusal
        for account in self._accounts.values():
            try:
                _check_quota(account)
            except QuotaUsedUp as problem:
                self._ledger.complain(account, problem)
                raise

    def enter(self, scope: Scope, holder: str, limits: Limits) -> None:
        """
        The session turns out to be *holder*'s, too.

        :raises TooManySessions: when the holder may not have another session.
        :raises QuotaUsedUp: when it has had its bytes.
        """
        known = self._accounts.get((scope, holder))
        if known is not None and known.limits == limits:
            return
        account = self._join(scope, holder, limits)
        account.change(limits)
        self._give(lambda owner, kind: owner is account)
        try:
            _check_quota(account)
            if known is None and not account.arrives():
                raise TooManySessions(f"too many new sessions{account.of}")
            for kind in self._kinds:
                self._take(account, kind)
        except OverLimit as problem:
            self._ledger.complain(account, problem)
            self.leave(scope, holder)
            raise

    def leave(self, scope: Scope, holder: str) -> None:
        """The session is *holder*'s no more."""
        account = self._accounts.pop((scope, holder), None)
        if account is None:
            return
        self._give(lambda owner, kind: owner is account)
        self._ledger.leave(scope, holder, account)

    def take(self, kind: str, make_room: Callable[[Scope], bool] = _no_room) -> None:
        """
        The session has a BIND, or an association.

        :param make_room: called when a holder of that scope has as many as it may: ends another session's,
            and tells whether there was any.
        :raises TooManyBinds: when a holder has as many as it may.
        :raises TooManyAssociations: likewise.
        """
        for (scope, _), account in self._accounts.items():
            try:
                self._take_in_room(account, kind, partial(make_room, scope))
            except OverLimit as problem:
                self._ledger.complain(account, problem)
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
        """It has it no more."""
        if kind in self._kinds:
            self._kinds.remove(kind)
            self._give(lambda owner, given: given == kind)

    def meters(self, rules: Iterable[str] = ()) -> Meters | None:
        """
        What the session's bytes are measured by.

        :param rules: the names of those that allow what it does.
        :returns: None: by nothing.
        """
        wanted = set(rules)
        # Who waits, waits at the narrowest first.
        places = sorted(self._accounts, key=lambda place: _NARROWEST.index(place[0]))
        accounts = [
            self._accounts[scope, holder]
            for scope, holder in places
            if scope is not Scope.RULE or holder in wanted
        ]
        own_up, own_down = self._own_buckets()
        quotas = [account.quota for account in accounts if account.quota is not None]
        up: list[Allowance] = [*quotas, *_present(own_up, *(account.upload for account in accounts))]
        down: list[Allowance] = [*quotas, *_present(own_down, *(account.download for account in accounts))]
        if not up and not down:
            return None
        return Meters(Meter(up) if up else None, Meter(down) if down else None)

    def of(self, scope: Scope) -> list[tuple[Scope, str, Limits]]:
        """The holders of *scope*, and what holds for them."""
        return [(*place, account.limits) for place, account in self._accounts.items() if place[0] is scope]

    def settle(self, rule: str | None) -> None:
        """Of the rules under which it might have gone on, it does so under *rule*."""
        for scope, holder in list(self._accounts):
            if scope is Scope.RULE and holder != rule:
                self.leave(scope, holder)

    def close(self) -> None:
        """The session is over."""
        self._give(lambda owner, kind: True)
        accounts, self._accounts = self._accounts, {}
        for (scope, holder), account in accounts.items():
            self._ledger.leave(scope, holder, account)
        self._ledger.refusing -= self._refused_by is not None

    # What the ledger asks.

    @property
    def kinds(self) -> Sequence[str]:
        """What the session has one of."""
        return self._kinds

    def join(self, holders: Iterable[tuple[Scope, str, Limits]]) -> None:
        """The session is these holders', too, and takes nothing yet."""
        for scope, holder, limits in holders:
            self._join(scope, holder, limits)

    def arrive(self, holders: Iterable[tuple[Scope, str, Limits]]) -> None:
        """A client has connected, or it is known now which one has: it is counted, and judged by counts."""
        over, refused_by = 0, None
        for scope, holder, limits in holders:
            if (scope, holder) in self._accounts:
                continue  # it was counted when it was not known whose session it is
            account = self._join(scope, holder, limits)
            here = 0 if limits.sessions is None else self._add(account, SESSIONS) - limits.sessions
            if here > over:
                over, refused_by = here, account
        if refused_by is not None:
            self._refuse(over, refused_by)

    def _refuse(self, over: int, refused_by: Account) -> None:
        """The session is one too many, and one of *over* such ones."""
        self._ledger.refusing += self._refused_by is None
        self.admission, self._refused_by = judged(over), refused_by
        if self.admission is Admission.DROP:
            # Nobody is told, but the operator.
            with suppress(TooManySessions):
                self.check()

    def begin(self) -> None:
        """
        The client has said something, so that it counts in the rates at which sessions begin.

        A client that connects and says nothing, as health checks and scanners do, counts in none.
        """
        too_often = [account for account in self._accounts.values() if not account.arrives()]
        if too_often and self._refused_by is None:
            self._refuse(self._ledger.refusing + 1, too_often[0])

    def renew(self, holders: Iterable[tuple[Scope, str, Limits]]) -> None:
        """Limits have changed: the session goes on, and is counted wherever it counts now."""
        now = {(scope, holder): limits for scope, holder, limits in holders}
        for scope, holder in self._accounts.keys() - now.keys():
            self.leave(scope, holder)
        for (scope, holder), limits in now.items():
            self._join(scope, holder, limits).change(limits)
        taken, self._taken = self._taken, []
        for account in self._accounts.values():
            for kind in self._kinds:
                if getattr(account.limits, kind) is not None:
                    self._add(account, kind)
        for _, _, counter in taken:
            counter.give()

    # How.

    def _join(self, scope: Scope, holder: str, limits: Limits) -> Account:
        account = self._accounts.get((scope, holder))
        if account is None:
            account = self._accounts[scope, holder] = self._ledger.account(scope, holder, limits)
        return account

    def _add(self, account: Account, kind: str) -> int:
        counter = account.counter(kind)
        self._taken.append((account, kind, counter))
        return counter.add()

    def _take(self, account: Account, kind: str) -> None:
        most = getattr(account.limits, kind)
        if most is not None and self._add(account, kind) > most:
            raise _REFUSALS[kind](f"too many {_WORDS[kind]}{account.of}")

    def _give(self, which: Callable[[Account, str], bool]) -> None:
        taken, self._taken = self._taken, []
        for account, kind, counter in taken:
            if which(account, kind):
                counter.give()
            else:
                self._taken.append((account, kind, counter))

    def _own_buckets(self) -> tuple[Bucket | None, Bucket | None]:
        limits, (upload, download) = self._ledger.limits.session, self._own
        self._own = self._own_bucket(upload, limits.upload), self._own_bucket(download, limits.download)
        return self._own

    def _own_bucket(self, bucket: Bucket | None, rate: Rate | None) -> Bucket | None:
        if rate is None:
            return None
        if bucket is None:
            return self._ledger.own.bucket("", rate)
        if rate != bucket.rate:
            bucket.rate = rate
        return bucket


class Ledger:
    """
    The accounts of one server.

    :param reactor: keeps time.
    :param limits: of the server.
    :param usage: keeps what has been used of quotas; None: nobody has any.
    :param counting: how counts and rates are kept; None: for this process alone.
    :ivar refusing: how many sessions are there only to be told that they are too many.
    """

    def __init__(
        self,
        reactor: Any,
        limits: ServerLimits = ServerLimits(),
        usage: UsageFile | None = None,
        counting: Counting | None = None,
    ) -> None:
        self.own = OwnCounting(reactor)
        self.counting: Counting = self.own if counting is None else counting
        self.usage = usage
        self.refusing = 0
        self._reactor = reactor
        self._without_usage = Seldom(reactor)
        self._accounts: dict[tuple[Scope, str], Account] = {}
        self._resting: dict[tuple[Scope, str], None] = {}
        self.set(limits, usage)

    def set(self, limits: ServerLimits, usage: UsageFile | None) -> None:
        """From now on *limits* hold; sessions that there are have to renew their claims."""
        self.limits = limits
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

    def arrive(self, client: Client, claims: Claims | None = None) -> Claims | None:
        """
        *client* has connected.

        :param claims: what its session has since before it was known who it is; None: nothing.
        :returns: what its session has, with the admission in it; None: nothing is limited.
        """
        if not self._at_once:
            return claims
        if claims is None:
            claims = Claims(self)
        claims.arrive(self._holders(client, self._at_once))
        return claims

    def joined(self, claims: Claims | None, client: Client, kind: str) -> Claims | None:
        """
        The session of *client* is about to take something of *kind*.

        :param claims: what it has; None: nothing.
        :returns: with the accounts of those who may have only so many of them; None: nobody has only so many.
        """
        concerned = [entry for entry in self._by_scope if getattr(entry[1], kind) is not None]
        if not concerned:
            return claims
        claims = Claims(self) if claims is None else claims
        claims.join(self._holders(client, concerned))
        return claims

    def entered(self, claims: Claims | None, scope: Scope, holder: str, limits: Limits) -> Claims:
        """
        The session turns out to be *holder*'s, too. See :meth:`Claims.enter`.

        :param claims: what it has; None: nothing.
        """
        claims = Claims(self) if claims is None else claims
        claims.enter(scope, holder, limits)
        return claims

    def renewed(
        self, claims: Claims | None, client: Client, others: Iterable[tuple[Scope, str, Limits]]
    ) -> Claims | None:
        """
        Limits may have changed.

        :param claims: what a session has; None: nothing.
        :param others: its holders besides those of *client*.
        :returns: what it has now.
        """
        kinds = [SESSIONS] if claims is None else claims.kinds
        concerned = [
            entry
            for entry in self._by_scope
            if entry in self._at_once or any(getattr(entry[1], kind) is not None for kind in kinds)
        ]
        holders = [*self._holders(client, concerned), *(other for other in others if other[2])]
        if claims is None:
            if not holders:
                return None
            claims = Claims(self)
        claims.renew(holders)
        return claims

    def _holders(
        self, client: Client, scopes: Iterable[tuple[Scope, Limits]]
    ) -> Iterator[tuple[Scope, str, Limits]]:
        """Who of *scopes* is known when *client* connects."""
        for scope, limits in scopes:
            holder = self._holder(scope, client)
            if holder is not None:
                yield scope, holder, limits

    def _holder(self, scope: Scope, client: Client) -> str | None:
        if scope is Scope.SERVER:
            return ""
        host = client.host
        if host == "":
            return None  # not known yet
        if host is None:
            return "unix" if client.uid is None else f"unix:uid={client.uid}"
        if scope is Scope.CLIENT:
            return host
        return client_network(host, self.limits.ipv4_prefix, self.limits.ipv6_prefix)

    def user_limits(self, record: Limits | None) -> Limits:
        """What holds for a user whose own record says *record*."""
        return self.limits.user if record is None else record.over(self.limits.user)

    def quota(self, name: str, limits: Limits) -> Quota | None:
        """The quota of the holder of that *name*; None: nothing keeps what has been used."""
        if self.usage is None:
            if self._without_usage.due():
                _log.error("{name}: a quota needs a UsageFile, and without one it does not count", name=name)
            return None
        return Quota(self.usage, name, limits.daily, limits.monthly)

    def complain(self, account: Account, problem: OverLimit) -> None:
        """Somebody is refused because of *account*: one line a while, however often it is."""
        if account.complaints is None:
            account.complaints = Seldom(self._reactor)
        refused = account.complaints.due()
        if refused:
            _log.warn(
                "{problem}: {refused} refused since the last such line", problem=problem, refused=refused
            )

    # Accounts.

    def account(self, scope: Scope, holder: str, limits: Limits) -> Account:
        """The account of *holder*, for one claim more; :meth:`leave` is to follow."""
        place = scope, holder
        account = self._accounts.get(place)
        if account is None:
            self._forget_rested()
            name = f"{scope.value} {holder}" if holder else scope.value
            of = "" if scope is Scope.SERVER else f" of {printable(name)}"
            account = self._accounts[place] = Account(self, name, of, limits)
        else:
            self._resting.pop(place, None)
            account.change(limits)
        account.holders += 1
        return account

    def leave(self, scope: Scope, holder: str, account: Account) -> None:
        """One claim less."""
        account.holders -= 1
        if account.holders:
            return
        # Who comes back at once is not to find full buckets, nor everybody's log lines.
        self._resting[scope, holder] = None
        if len(self._resting) > MOST_RESTING:
            self._forget(next(iter(self._resting)))

    def _forget_rested(self) -> None:
        for place in list(islice(self._resting, _LOOKED_AT)):
            if self._accounts[place].rested:
                self._forget(place)
            else:
                # To the end, lest the same ones are looked at again and again.
                del self._resting[place]
                self._resting[place] = None

    def _forget(self, place: tuple[Scope, str]) -> None:
        del self._resting[place], self._accounts[place]

    def __len__(self) -> int:
        """How many accounts somebody has a claim on."""
        return len(self._accounts) - len(self._resting)


@lru_cache(4096)
def client_network(host: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """The network of clients to which the literal address *host* belongs."""
    host = host.partition("%")[0]
    return str(ip_network((host, ipv6_prefix if ":" in host else ipv4_prefix), strict=False))


def _concerns_all(limits: Limits) -> bool:
    """Whether *limits* are on what every session has."""
    return bool(attrs.evolve(limits, binds=None, associations=None))


def _check_quota(account: Account) -> None:
    if account.quota is not None and account.quota.exhausted:
        raise QuotaUsedUp(f"the quota{account.of} is used up")


def _present(*buckets: Bucket | None) -> list[Bucket]:
    return [bucket for bucket in buckets if bucket is not None]
