"""
Penalties for clients that fail too often, so that passwords cannot be guessed by trying.

Strategy: an address that fails too often is refused for a time, which grows with each penalty. A password
that is repeated is one failure, so that a program with an old password does not shut out its neighbours. A
client that does not wait for the answer has failed, too. The following rules keep one client from locking out
another:

* A user's name has a bound of its own, but no client is refused for the name. Once the bound is passed, an
  address that has not lately logged in as that user may fail only once. A client with the right password gets
  in at the first attempt.
* A user who has lately logged in from an address that is refused (behind NAT, a balancer, on loopback) may
  still log in from there. One failure ends that, because otherwise it would be a way to go on guessing.
* A password that is remembered as right passes a penalty of its address, whatever passwords others have shown
  as that user. That would tell a client that guesses when it is right. So it ends when a hundred other
  passwords were shown meanwhile, which is the bound of a user's name for a minute.
* A success forgives the failures of that user from that address and no others, so that an account of one's
  own does not help to guess the passwords of others.
* On a Unix socket the local user of the client's program stands for the address. If that user is not known,
  the user's name is refused at its own bound, except for a user who has lately logged in.

All tables have a maximum size. The oldest entry makes room for a new one; an entry whose penalty has grown
makes room only for another such entry.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, TypeAlias

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.interfaces import IReactorTime

from ..identity import share_of
from ..runtime.recent import Recent
from ..shared.store import SharedStore
from .fingerprints import Fingerprints
from .shared_penalties import SharedPenalties

__all__ = ["Penalties", "TooManyFailures"]

#: Seconds in which failures are counted.
WINDOW = 60.0

#: The bound of a user's name, as a multiple of the bound of an address.
PER_NAME = 10

#: Seconds of the first penalty and of the longest; each is twice as long as the one before.
FIRST, LONGEST = 60.0, 3600.0

#: Seconds without a failure, after a penalty, until the penalty is forgotten.
QUIET = 3600.0

#: Seconds for which a login from an address is remembered.
LATELY = 86400.0

# A penalty of the last level is the longest: 60 s, 120, 240, 480, 960, 1920, 3600.
_LEVELS = 7

#: The key of failures that count together: a network, a local user, or a hash of a user's name.
Source: TypeAlias = "str | int"


class TooManyFailures(UnauthorizedLogin):
    """The password was not checked, because there were too many failures from the client's address."""


class _Failure(NamedTuple):
    """
    A failure.

    :ivar when: the clock's seconds.
    :ivar name: a hash of the user's name.
    :ivar guess: the fingerprint of the name and the password; None: it is not known.
    """

    when: float
    name: int
    guess: bytes | None


class _Record:
    """
    The failures and the penalty of a source.

    :ivar failures: the failures in the last :data:`WINDOW` seconds since the last penalty ended, or since it
        began if it lasts.
    :ivar level: the number of penalties.
    :ivar until: the clock's seconds when the last penalty ends.
    :ivar guesses: the number of passwords that were compared with a remembered one during the penalty.
    """

    __slots__ = ("failures", "guesses", "level", "until")

    def __init__(self) -> None:
        self.failures: list[_Failure] = []
        self.guesses = 0
        self.level = 0
        self.until = 0.0

    def prune(self, now: float) -> None:
        """Forget failures that do not count any more."""
        begin = self.until if now >= self.until else 0.0
        self.failures = [
            known for known in self.failures if known.when >= begin and now - known.when < WINDOW
        ]


class _Bucket(NamedTuple):
    """The failures of a name at the time *when*; the number falls as time passes."""

    fill: float
    when: float


class Penalties:
    """
    Counts failures, and decides which clients are refused.

    :param clock: tells the time.
    :param failures: how many failures an address, or an IPv6 /64 network, may have in :data:`WINDOW` seconds;
        None: any number.
    :param most: the greatest number of entries in each table. There is one table for every length of a
        penalty.
    :ivar fingerprints: makes the fingerprints of guesses.
    """

    def __init__(self, clock: IReactorTime, failures: int | None = 10, most: int = 4096) -> None:
        self.fingerprints = Fingerprints()
        self._clock = clock
        self._failures = failures
        self._most = most
        self._records: dict[Source, _Record] = {}
        # The sources of each level, the one that has failed last at the end.
        self._levels: tuple[dict[Source, None], ...] = tuple({} for _ in range(_LEVELS + 1))
        self._names: Recent[int, _Bucket] = Recent(clock, most)
        self._logins: Recent[tuple[Source, int], bool] = Recent(clock, most)
        self._shared: SharedPenalties | None = None

    @property
    def entries(self) -> int:
        """The number of entries in all tables."""
        return len(self._records) + len(self._names) + len(self._logins)

    @property
    def locked(self) -> int:
        """How many sources are refused now."""
        now = self._clock.seconds()
        return sum(now < self._records[source].until for level in self._levels[1:] for source in level)

    def allow(self, failures: int | None) -> None:
        """Let an address have *failures* from now on; None: any number, and no client is refused."""
        self._failures = failures
        if failures is None:
            self._records.clear()
            self._names = Recent(self._clock, self._most)
            for level in self._levels:
                level.clear()

    def share_with(self, store: SharedStore | None) -> None:
        """Count failures of addresses on all nodes that share *store*; None: this node is alone."""
        if store is (None if self._shared is None else self._shared.store):
            return
        times = WINDOW, FIRST, LONGEST, QUIET
        self._shared = None if store is None else SharedPenalties(store, times, self._locked_elsewhere)

    def _locked_elsewhere(self, network: str, seconds: float, level: int) -> None:
        """*network* is refused on all nodes, for the penalty of that *level*."""
        if self._failures is None:
            return
        now = self._clock.seconds()
        record = self._record(network, now)
        if seconds <= 0 or now + seconds <= record.until:
            return
        self._relocate(network, record, min(level, _LEVELS))
        record.failures = []
        record.guesses = 0
        record.until = now + seconds

    def refuses(self, host: str | None, username: bytes) -> bool:
        """
        Whether an attempt is refused without a check.

        :param host: the client's literal address, or its local user
            (:attr:`socksproxy.identity.Client.whose`); None: neither is known.
        :param username: the name that the client shows.
        """
        if not self._records:
            return False
        name = hash(username)
        source = _source(host, username)
        record = self._records.get(source)
        if record is None:
            return False
        now = self._clock.seconds()
        return now < record.until and not self._logins.get((source, name))

    def share(self, host: str | None, username: bytes) -> Hashable:
        """
        The key of the client in the queue of checks: its address, or its IPv6 /64 network.

        A user who has lately logged in from there has a key of their own, and does not wait behind the
        guesses of others at the same address.

        :param host: as for :meth:`refuses`.
        :param username: as for :meth:`refuses`.
        :returns: the key; None: the client is not known.
        """
        network = share_of(host)
        name = hash(username)
        if network is not None and self._logins.get((network, name)):
            return network, name
        return network

    def guessed(self, host: str | None, username: bytes) -> None:
        """
        Count a password from a source that is refused, which is not the remembered one.

        :param host: as for :meth:`refuses`.
        :param username: as for :meth:`refuses`.
        """
        record = self._records.get(_source(host, username))
        if record is not None:
            record.guesses += 1

    def tolerates(self, host: str | None, username: bytes) -> bool:
        """
        Whether a source that is refused may still log in with a remembered password.

        :param host: as for :meth:`refuses`.
        :param username: as for :meth:`refuses`.
        """
        record = self._records.get(_source(host, username))
        return record is None or self._failures is None or record.guesses < self._failures * PER_NAME

    def failed(
        self, host: str | None, username: bytes, guess: bytes | None = None, answered: bool = True
    ) -> float | None:
        """
        Count a check that has failed.

        :param host: as for :meth:`refuses`.
        :param username: as for :meth:`refuses`.
        :param guess: the fingerprint of the name and the password; None: the failure counts each time.
        :param answered: whether the client has waited for the answer.
        :returns: the seconds for which the source is refused from now on; 0: it is not. None: the same guess
            has been counted already.
        """
        if self._failures is None:
            return 0.0
        seconds = self._failed(host, username, guess, answered)
        if seconds is not None and self._shared is not None and (network := _network(host)) is not None:
            self._shared.failed(network, username, self._failures)
        return seconds

    def _failed(self, host: str | None, username: bytes, guess: bytes | None, answered: bool) -> float | None:
        assert self._failures is not None
        # A hash, because a name may be as long as 255 bytes.
        name = hash(username)
        source = _source(host, username)
        now = self._clock.seconds()
        record = self._record(source, now)
        record.prune(now)
        if guess is not None and any(known.guess == guess for known in record.failures):
            return None
        familiar = self._logins.get((source, name))
        bound = self._failures * PER_NAME
        over = self._count_name(name, bound, now)
        record.failures.append(_Failure(now, name, guess))
        del record.failures[:-bound]
        if now < record.until:
            # The check ran already when the penalty began, or the user was let in nevertheless. A client that
            # has not waited for the answer to its only password has not guessed.
            if host is not None and (answered or len(record.failures) > 1):
                self._logins.discard((source, name))
            return 0.0
        if host is None:
            return self._punish(source, record, now) if over else 0.0
        allowance = 1 if over and not familiar else self._failures
        return self._punish(source, record, now) if len(record.failures) >= allowance else 0.0

    def succeeded(self, host: str | None, username: bytes) -> None:
        """
        Take note of a check that has succeeded.

        :param host: as for :meth:`refuses`.
        :param username: as for :meth:`refuses`.
        """
        if self._failures is None:
            return
        name = hash(username)
        source = _source(host, username)
        self._logins.put((source, name), True, LATELY)
        record = self._records.get(source)
        if record is not None and record.failures:
            record.failures = [known for known in record.failures if known.name != name]
            if self._shared is not None and (network := _network(host)) is not None:
                self._shared.succeeded(network, username)

    def locked_out(self, most: int) -> list[tuple[str, float, int]]:
        """
        The addresses and local users that are refused now.

        :param most: how many at the most.
        :returns: of each, the seconds that are left and the number of penalties.
        """
        now = self._clock.seconds()
        found: list[tuple[str, float, int]] = []
        for level in reversed(self._levels[1:]):
            for source in level:
                record = self._records[source]
                if isinstance(source, str) and now < record.until and len(found) < most:
                    found.append((source, record.until - now, record.level))
        return found

    def forgive(self, host: str, told: bool = False) -> bool:
        """
        Forget the failures and the penalties of *host*.

        :param host: as for :meth:`refuses`, or a /64 network as :meth:`locked_out` tells it.
        :param told: whether another node says so, which has told the store.
        :returns: whether there were any.
        """
        try:
            source = host if "/" in host else share_of(host)
        except ValueError:  # neither an address nor a local user
            source = None
        record = None if source is None else self._records.pop(source, None)
        if source is not None and self._shared is not None and not told and not source.startswith("uid "):
            self._shared.forgive(source)
        if record is None or source is None:
            return False
        del self._levels[record.level][source]
        return True

    def _count_name(self, name: int, bound: float, now: float) -> bool:
        """Count a failure of *name*; returned is whether the name has more failures than *bound*."""
        known = self._names.get(name)
        fill = 1.0
        if known is not None:
            fill += max(0.0, known.fill - (now - known.when) * bound / WINDOW)
        self._names.put(name, _Bucket(min(fill, bound), now), WINDOW)
        return fill > bound

    def _record(self, source: Source, now: float) -> _Record:
        """The record of *source*, which has just failed."""
        record = self._records.get(source)
        if record is None:
            record = self._records[source] = _Record()
        elif record.until and now - record.until >= QUIET:
            del self._levels[record.level][source]
            record.level = 0
        self._enter(source, record)
        return record

    def _punish(self, source: Source, record: _Record, now: float) -> float:
        self._relocate(source, record, min(record.level + 1, _LEVELS))
        record.failures = []
        record.guesses = 0
        seconds = min(FIRST * 2.0 ** (record.level - 1), LONGEST)
        record.until = now + seconds
        return seconds

    def _relocate(self, source: Source, record: _Record, level: int) -> None:
        del self._levels[record.level][source]
        record.level = level
        self._enter(source, record)

    def _enter(self, source: Source, record: _Record) -> None:
        """Put *source* at the end of its level, and let the first one make room if there are too many."""
        level = self._levels[record.level]
        level.pop(source, None)
        level[source] = None
        if len(level) > self._most:
            first = next(iter(level))
            del level[first], self._records[first]


def _source(host: str | None, username: bytes) -> Source:
    """The key of failures that count together: the network or the local user, else the user's name."""
    network = share_of(host)
    return hash(username) if network is None else network


def _network(host: str | None) -> str | None:
    """The network of *host*; None: it is a local user, whom other machines do not know."""
    return None if host is None or host.startswith("uid ") else share_of(host)
