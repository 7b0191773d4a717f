"""
The accounts of holders of limits: each has counts, buckets and a quota.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from enum import Enum
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

from twisted.logger import Logger

from ..errors import OverLimit, TooManyAssociations, TooManyBinds, TooManySessions
from ..logs.printable import printable
from ..logs.throttle import LogThrottle
from ..shared.store import SharedStore
from ..values.limits import Fallback, Limits, Rate
from .buckets import Bucket, Budget
from .counting import Counter, Counting, Device, Devices, Pace, burst_of
from .lent import LentBucket
from .quota.quota import Quota
from .quota.usage import UsageFile

_log = Logger(namespace="socksproxy")

#: Accounts without a session that are kept until their buckets are full again.
MOST_RESTING = 16384
#: Accounts without a session that are kept in any case: clients come back, and a new account takes time.
KEPT = 1024
#: Sets of holders whose sessions' budgets are remembered. They keep the accounts, also forgotten ones.
_MOST_BUDGETS = 1024
#: How many of the others are looked at for each new account.
_LOOKED_AT = 4

_Rated = TypeVar("_Rated", Bucket, Pace)

SESSIONS, BINDS, ASSOCIATIONS, DEVICES = "sessions", "binds", "associations", "devices"
#: The beginnings of sessions within a rate.
ARRIVALS = "new sessions"

#: How messages call what a holder has.
WORDS = {
    SESSIONS: "sessions",
    BINDS: "BINDs",
    ASSOCIATIONS: "associations",
    DEVICES: "client addresses",
    ARRIVALS: "new sessions",
}
_REFUSALS: dict[str, type[OverLimit]] = {
    SESSIONS: TooManySessions,
    BINDS: TooManyBinds,
    ASSOCIATIONS: TooManyAssociations,
    DEVICES: TooManySessions,
    ARRIVALS: TooManySessions,
}


class Scope(Enum):
    """What kind of holder it is; the narrowest comes first."""

    # One of the enum's own is a function in Python, and every look-up of an account would call it.
    __hash__ = object.__hash__

    SESSION = "session"
    USER = "user"
    CLIENT = "client"
    #: Each user within a rule.
    RULE_USER = "user of a rule"
    RULE = "rule"
    NETWORK = "network"
    SERVER = "server"


#: The budgets of bytes from clients, and those of bytes to clients.
Budgets = tuple[tuple[Budget, ...], tuple[Budget, ...]]
#: The buckets of one session by itself, in the same order; None: there is no limit.
OwnBuckets = tuple[Bucket | None, Bucket | None]
#: A holder of limits: of what kind it is, and its name.
Place = tuple[Scope, str]
#: Who waits, waits at the narrowest first.
_RANKS = {scope: rank for rank, scope in enumerate(Scope)}
_rank = attrgetter("rank")
#: The scopes of which a session has a holder for each rule.
RULE_SCOPES = (Scope.RULE_USER, Scope.RULE)


def place_in_rule(rule: str, user: str | None, share: str | None) -> Place:
    """
    The holder of the limits of each user within *rule*.

    :param user: the name; None: a client without a name, who counts by the address.
    :param share: the client's address.
    """
    return Scope.RULE_USER, f"{rule} user {user}" if user is not None else f"{rule} client {share or 'unix'}"


def rule_of(place: Place) -> str | None:
    """The rule of the holder *place*; None: the holder is within no rule."""
    scope, holder = place
    # No name of a rule has a space.
    return holder.partition(" ")[0] if scope in RULE_SCOPES else None


class Account:
    """
    The counts, buckets and quota of one holder.

    :param accounts: the table that the account is in.
    :param place: the holder.
    :ivar name: of the holder, such as ``user bob``.
    :ivar of: how a refusal tells whose limit it was.
    :ivar rank: the narrowest scope has the lowest.
    :ivar arrivals: how often sessions may begin; None: at any rate.
    :ivar upload: the bucket of bytes from clients; :attr:`download` is the one of bytes to clients.
    :ivar up: the buckets of bytes from clients, also the one that nodes share; :attr:`down` are the others.
    :ivar quotas_up: the quota, if bytes from clients count; :attr:`quotas_down`: if bytes to clients do.
    :ivar quota: what is left of a day and of a month.
    :ivar holders: how many claims there are on it.
    """

    __slots__ = (
        "_accounts",
        "_counters",
        "_devices",
        "_part",
        "arrivals",
        "complaints",
        "down",
        "download",
        "holders",
        "lent_download",
        "lent_upload",
        "limits",
        "name",
        "of",
        "place",
        "quota",
        "quotas_down",
        "quotas_up",
        "rank",
        "up",
        "upload",
    )

    def __init__(self, accounts: Accounts, place: Place, limits: Limits) -> None:
        scope, holder = self.place = place
        self._accounts = accounts
        self._counters: dict[str, Counter] = {}
        self._devices: Devices | None = None
        kind = Scope.RULE if scope is Scope.RULE_USER else scope
        self.name = f"{kind.value} {holder}" if holder else kind.value
        self._part: Pace | None = None
        self.of = "" if scope is Scope.SERVER else f" of {printable(self.name)}"
        self.rank = _RANKS[scope]
        self.limits = Limits()
        self.holders = 0
        self.arrivals: Pace | None = None
        self.upload: Bucket | None = None
        self.download: Bucket | None = None
        self.lent_upload: LentBucket | None = None
        self.lent_download: LentBucket | None = None
        self.quota: Quota | None = None
        self.up: tuple[Budget, ...] = ()
        self.down: tuple[Budget, ...] = ()
        self.quotas_up: tuple[Budget, ...] = ()
        self.quotas_down: tuple[Budget, ...] = ()
        self.complaints: LogThrottle | None = None
        if limits != self.limits:
            # Nothing is remembered of a new account, so what is remembered stays.
            self._follow(limits)

    def change(self, limits: Limits) -> None:
        """Have *limits* hold from now on; counts stay, and so do buckets that are still limited."""
        if limits is self.limits or limits == self.limits:
            return
        self._follow(limits)
        self._accounts.forget_budgets()

    def _follow(self, limits: Limits) -> None:
        self.limits = limits
        counting, name = self._accounts.counting, self.name
        self.arrivals = at_rate(limits.new_sessions, self.arrivals, counting.pace, f"{name} arrivals")
        self.upload = at_rate(limits.upload, self.upload, counting.bucket, f"{name} upload")
        self.download = at_rate(limits.download, self.download, counting.bucket, f"{name} download")
        self._lend()
        if not limits.counts_bytes:
            self.quota = None
        elif self.quota is None:
            self.quota = self._accounts.quota(self.name, limits)
        else:
            self.quota.change(limits.daily, limits.monthly)
        self._set_budgets()

    def _set_budgets(self) -> None:
        """Have the budgets ready for the sessions: each session is under all of them, and makes none."""
        self.up = tuple(each for each in (self.upload, self.lent_upload) if each is not None)
        self.down = tuple(each for each in (self.download, self.lent_download) if each is not None)
        quota, counts = self.quota, self.limits.counts
        self.quotas_up = () if quota is None or counts == "download" else (quota,)
        self.quotas_down = () if quota is None or counts == "upload" else (quota,)

    def share(self) -> None:
        """Have the rates of bytes hold for all nodes that share the store in use, if there is one."""
        self._lend()
        self._set_budgets()
        self._accounts.forget_budgets()

    def _lend(self) -> None:
        limits, name, store = self.limits, self.name, self._accounts.store

        def bucket(direction: str, rate: Rate | None, present: LentBucket | None) -> LentBucket | None:
            if store is None or (present is not None and present.store is not store):
                present = None
            if store is None or rate is None:
                return None
            made = present or LentBucket(self._accounts.reactor, rate, store, f"{name} {direction}")
            if made.rate != rate:
                made.rate = rate
            made.local = limits.shared is Fallback.LOCAL
            return made

        self.lent_upload = bucket("upload", limits.upload, self.lent_upload)
        self.lent_download = bucket("download", limits.download, self.lent_download)

    def begin_quota(self) -> None:
        """Begin anew with the usage file, because another one is in use."""
        if self.quota is not None:
            self.quota = self._accounts.quota(self.name, self.limits)
            self._set_budgets()
            self._accounts.forget_budgets()

    def counter(self, kind: str) -> Counter:
        """The count of *kind*."""
        counter = self._counters.get(kind)
        if counter is None:
            counter = self._counters[kind] = self._accounts.counting.counter(f"{self.name} {kind}")
        return counter

    def device(self, address: str) -> Device:
        """The count of different client addresses, for a session from *address*."""
        if self._devices is None:
            self._devices = self._accounts.counting.devices(f"{self.name} {DEVICES}")
        return Device(self._devices, address)

    def count(self, kind: str) -> int:
        """How many of *kind* there are here."""
        if kind is not DEVICES:
            return self.counter(kind).value
        return 0 if self._devices is None else self._devices.value

    def part_of_arrivals(self, nodes: int) -> Pace | None:
        """How often sessions may begin here, as this node's part of *nodes*; None: at any rate."""
        rate = self.limits.new_sessions
        if rate is not None:
            rate = Rate(rate.per_second / nodes, burst_of(rate) / nodes)
        counting = self._accounts.counting
        self._part = at_rate(rate, self._part, counting.pace, f"{self.name} part of arrivals")
        return self._part

    @property
    def rested(self) -> bool:
        """Whether nothing is lost when the account is forgotten."""
        if self.complaints is not None and not self.complaints.quiet:
            return False
        return all(bucket is None or bucket.full for bucket in (self.arrivals, self.upload, self.download))


def at_rate(
    rate: Rate | None, present: _Rated | None, make: Callable[[str, Rate], _Rated], name: str
) -> _Rated | None:
    """
    The bucket or the pace for *rate*; a present one keeps its tokens when the rate changes.

    :param present: the one in use; None: there is none.
    :param make: makes a new one, by its *name*.
    """
    if rate is None:
        return None
    if present is None:
        return make(name, rate)
    if rate != present.rate:
        present.rate = rate
    return present


def too_many(account: Account, kind: str, where: str = "") -> OverLimit:
    """
    The refusal of one more of *kind* than *account* allows.

    :param where: where the limit holds, and with a space before it; empty: in this process.
    """
    return _REFUSALS[kind](f"too many {WORDS[kind]}{account.of}{where}")


def budgets_of(
    accounts: Iterable[Account], rules: Collection[str], quotas: bool, own: OwnBuckets = (None, None)
) -> Budgets:
    """
    The budgets of a session: quotas first, then the narrowest holder's.

    :param accounts: of the session's holders.
    :param rules: the names of the rules that allow what the session does; those of other rules do not count.
    :param quotas: whether the bytes count for quotas, beside those of these rules.
    :param own: the buckets of the session by itself.
    """
    quotas_up: tuple[Budget, ...] = ()
    quotas_down: tuple[Budget, ...] = ()
    up, down = map(_present, own)
    for account in sorted(accounts, key=_rank):
        of_rule = account.place[0] in RULE_SCOPES
        if of_rule and rule_of(account.place) not in rules:
            continue
        if quotas or of_rule:
            quotas_up += account.quotas_up
            quotas_down += account.quotas_down
        up += account.up
        down += account.down
    return quotas_up + up, quotas_down + down


def _present(bucket: Bucket | None) -> tuple[Budget, ...]:
    return () if bucket is None else (bucket,)


class Accounts:
    """
    The accounts of all holders.

    An account that no session has a claim on is kept until its buckets are full again, and the last
    :data:`KEPT` of such accounts are kept longer.

    :param reactor: keeps time.
    :param usage: the file of what has been used of quotas; None: no holder has a quota.
    :param counting: how counts and rates are kept; None: for this process alone.
    :ivar store: what nodes share; None: this node is alone.
    :ivar own: counts and rates of this process alone.
    :ivar session: the limits of each session by itself.
    :ivar refusing: how many sessions wait for nothing but their refusal.
    """

    def __init__(
        self, reactor: Any, usage: UsageFile | None = None, counting: Counting | None = None
    ) -> None:
        self.own = Counting(reactor)
        self.counting = self.own if counting is None else counting
        self.usage = usage
        self.store: SharedStore | None = None
        self.session = Limits()
        #: By what the budgets follow from.
        self._budgets: dict[tuple[object, ...], Budgets] = {}
        #: An account has changed, and so have the budgets of the sessions under it.
        self.forget_budgets = self._budgets.clear
        self.refusing = 0
        #: Called with each account that has led to a refusal, and with what was refused.
        self.on_refusal: Callable[[Account, OverLimit], None] | None = None
        self.reactor = reactor
        self._without_usage = LogThrottle(reactor)
        self._accounts: dict[Place, Account] = {}
        self._resting: dict[Place, None] = {}
        #: What sessions need of the store: see :mod:`socksproxy.limits.shared_claims`.
        self.needs: dict[object, Any] = {}

    def account(self, place: Place, limits: Limits) -> Account:
        """The account of the holder in that *place*, for one claim more; :meth:`leave` is to follow."""
        account = self._accounts.get(place)
        if account is None:
            if len(self._resting) > KEPT:
                self._forget_rested()
            account = self._accounts[place] = Account(self, place, limits)
        else:
            if not account.holders:
                del self._resting[place]
            if limits is not account.limits:
                account.change(limits)
        account.holders += 1
        return account

    def leave(self, account: Account) -> None:
        """Count one claim less."""
        account.holders -= 1
        if account.holders:
            return
        # A client that comes back at once finds neither full buckets nor another line in the log.
        self._resting[account.place] = None
        if account.quota is not None or self.counting is not self.own:
            self._put_back(account)
        if len(self._resting) > MOST_RESTING:
            self._forget(next(iter(self._resting)))

    def _put_back(self, account: Account) -> None:
        # A quota is read again when its holder is back. What is leased from other processes goes back to them
        # when the account is looked at.
        if account.rested and account.quota is not None:
            self._forget(account.place)

    def _forget_rested(self) -> None:
        for place in list(islice(self._resting, _LOOKED_AT)):
            if self._accounts[place].rested:
                self._forget(place)
            else:
                # To the end, or the same ones would be looked at again and again.
                del self._resting[place]
                self._resting[place] = None

    def _forget(self, place: Place) -> None:
        del self._resting[place], self._accounts[place]

    @property
    def held(self) -> Iterator[Account]:
        """The accounts on which a session has a claim."""
        return (account for account in self._accounts.values() if account.holders)

    def budgets(self, accounts: Iterable[Account], rules: Collection[str], quotas: bool) -> Budgets:
        """See :func:`budgets_of`; found once for all sessions with the same *accounts*."""
        key = (quotas, *rules, *accounts)
        found = self._budgets.get(key)
        if found is None:
            if len(self._budgets) >= _MOST_BUDGETS:
                self._budgets.clear()
            found = self._budgets[key] = budgets_of(accounts, rules, quotas)
        return found

    def count(self, place: Place, kind: str) -> int:
        """How many of *kind* the holder in that *place* has, in all processes that count together."""
        account = self._accounts.get(place)
        return 0 if account is None else account.counter(kind).value

    def __len__(self) -> int:
        """The number of accounts on which a session has a claim."""
        return len(self._accounts) - len(self._resting)

    def quota(self, name: str, limits: Limits) -> Quota | None:
        """The quota of the holder of that *name*; None: there is no usage file."""
        if self.usage is None:
            if self._without_usage.due():
                _log.error("{name}: a quota needs a UsageFile, and without one it does not count", name=name)
            return None
        return Quota(self.usage, name, limits.daily, limits.monthly)

    def complain(self, account: Account, problem: OverLimit) -> None:
        """Log that *account* has led to a refusal: one line a while, however many refusals there are."""
        if self.on_refusal is not None:
            self.on_refusal(account, problem)
        if account.complaints is None:
            account.complaints = LogThrottle(self.reactor)
        refused = account.complaints.due()
        if refused:
            _log.warn(
                "{problem}: {refused} refused since the last such line", problem=problem, refused=refused
            )
