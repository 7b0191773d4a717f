"""
Who has failed too often: what keeps passwords from being guessed by trying.

An address that fails too often is refused for a while, which grows as long as it goes on. A password that is
repeated is one failure: a program with an old password does not shut out its neighbours. A client that does
not wait for the answer has failed, too. These rules keep one client from locking out another:

* A user's name has a bound of its own, but nobody is refused for the name: once it
  is passed, an address that has not lately logged in as that user may fail only once
  instead of as often as others. Whoever knows the password gets in at the first attempt.
* Who shares an address (behind NAT, a balancer, on loopback) with one that is refused, and has
  lately logged in from there, still may. One failure ends that, lest it be a way to go on guessing.
* A password that is remembered as right passes an address's penalty, whatever others have shown as that user.
  That tells who guesses the right one; so it ends when a hundred other passwords were shown meanwhile, which
  is as many as a user's name bears in a minute.
* A success forgives the failures of that user from that address and no others: an
  account of one's own is no help with those of others.
* On a Unix socket the local user whose program it is stands for the address. Where nobody knows that
  one, a user's name is refused, at its own bound, except to a user who has lately logged in.

Everything is kept in tables that do not grow: what was there longest makes room, but
for those whose penalty has grown only others of whom that is true.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, TypeAlias

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.interfaces import IReactorTime

from ..identity import share_of
from .fingerprints import Fingerprints

__all__ = ["Penalties", "TooManyFailures"]

#: Seconds in which failures are counted.
WINDOW = 60.0

#: How often as many failures a user's name bears as an address.
PER_NAME = 10

#: Seconds of the first penalty and the longest; each is twice the one before.
FIRST, LONGEST = 60.0, 3600.0

#: Seconds without a failure, after the penalty, until it is forgotten that there was one.
QUIET = 3600.0

#: Seconds for which it is remembered who has logged in from where.
LATELY = 86400.0

# A penalty of the last level is the longest: 60 s, 120, 240, 480, 960, 1920, 3600.
_LEVELS = 7

#: Whose failures are counted together: those of a network or a local user, or of a user's name.
Source: TypeAlias = "str | int"


class TooManyFailures(UnauthorizedLogin):
    """Nothing was checked: there were too many failures from there."""


class _Failure(NamedTuple):
    """
    A failure.

    :ivar when: the clock's seconds.
    :ivar name: a hash of the user's name.
    :ivar guess: the fingerprint of the name and the password; None: not known.
    """

    when: float
    name: int
    guess: bytes | None


class _Record:
    """
    What a source has done.

    :ivar failures: in the last :data:`WINDOW` seconds, since the last penalty began or, if it is over, ended.
    :ivar level: how many penalties there were.
    :ivar until: when the last one ends.
    :ivar guesses: passwords that were compared with remembered ones during the penalty.
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
    """How many failures a name has at the time *when*; they seep away as time goes on."""

    fill: float
    when: float


class Penalties:
    """
    Counts failures, and says who is refused for them.

    :param clock: tells the time.
    :param failures: how many in :data:`WINDOW` seconds an address may have, an IPv6 network of /64 together;
        None: any number.
    :param most: entries of each of its tables, of which there is one for every length of a penalty.
    :ivar fingerprints: make the fingerprints of what was guessed.
    """

    def __init__(self, clock: IReactorTime, failures: int | None = 10, most: int = 4096) -> None:
        self.fingerprints = Fingerprints()
        self._clock = clock
        self._failures = failures
        self._most = most
        self._records: dict[Source, _Record] = {}
        # The sources of each level, the one that has failed last at the end.
        self._levels: tuple[dict[Source, None], ...] = tuple({} for _ in range(_LEVELS + 1))
        self._names: dict[int, _Bucket] = {}
        self._logins: dict[tuple[Source, int], float] = {}

    @property
    def entries(self) -> int:
        """How many of everything are kept."""
        return len(self._records) + len(self._names) + len(self._logins)

    def allow(self, failures: int | None) -> None:
        """From now on an address may have so many *failures*; None: any number, and nobody is refused."""
        self._failures = failures
        if failures is None:
            self._records.clear()
            self._names.clear()
            for level in self._levels:
                level.clear()

    def refuses(self, host: str | None, username: bytes) -> bool:
        """
        Whether an attempt is to be refused without a check.

        :param host: the client's literal address, or what else it has in common with those that count
            together (:attr:`socksproxy.identity.Client.whose`); None: nobody knows.
        :param username: whom it claims to be.
        """
        if not self._records:
            return False
        name = hash(username)
        source = _source(host, username)
        record = self._records.get(source)
        if record is None:
            return False
        now = self._clock.seconds()
        return now < record.until and not self._is_familiar(source, name, now)

    def share(self, host: str | None, username: bytes) -> Hashable:
        """
        Whose turn it is with a check, as queues tell clients apart: an address's, or an IPv6 /64 network's.

        A user who has lately logged in from there is a client of their own, and does not wait behind what
        others at the same address guess.

        :param host: as for :meth:`refuses`.
        :param username: as for :meth:`refuses`.
        :returns: None: nobody knows.
        """
        network = share_of(host)
        name = hash(username)
        if network is not None and self._is_familiar(network, name, self._clock.seconds()):
            return network, name
        return network

    def guessed(self, host: str | None, username: bytes) -> None:
        """
        A password was shown from a source that is refused, and is not the one that is remembered.

        :param host: as for :meth:`refuses`.
        :param username: as for :meth:`refuses`.
        """
        record = self._records.get(_source(host, username))
        if record is not None:
            record.guesses += 1

    def tolerates(self, host: str | None, username: bytes) -> bool:
        """
        Whether a source that is refused is still told that a password is the one that is remembered.

        :param host: as for :meth:`refuses`.
        :param username: as for :meth:`refuses`.
        """
        record = self._records.get(_source(host, username))
        return record is None or self._failures is None or record.guesses < self._failures * PER_NAME

    def failed(
        self, host: str | None, username: bytes, guess: bytes | None = None, answered: bool = True
    ) -> float | None:
        """
        A check has failed.

        :param host: as for :meth:`refuses`.
        :param username: as for :meth:`refuses`.
        :param guess: the fingerprint of the name and the password; None: it counts each time.
        :param answered: whether the client has waited for the answer.
        :returns: the seconds for which others from there are refused from now on; 0: they are not. None: the
            same guess has been counted already.
        """
        if self._failures is None:
            return 0.0
        # A name itself might be as long as 255 bytes, and nothing here needs it.
        name = hash(username)
        source = _source(host, username)
        now = self._clock.seconds()
        record = self._record(source, now)
        record.prune(now)
        if guess is not None and any(known.guess == guess for known in record.failures):
            return None
        familiar = self._is_familiar(source, name, now)
        bound = self._failures * PER_NAME
        over = self._count_name(name, bound, now)
        record.failures.append(_Failure(now, name, guess))
        del record.failures[:-bound]
        if now < record.until:
            # It was under way already, or from a client who was let in nevertheless. A client who has gone
            # with one password has not guessed.
            if host is not None and (answered or len(record.failures) > 1):
                self._logins.pop((source, name), None)
            return 0.0
        if host is None:
            return self._punish(source, record, now) if over else 0.0
        allowance = 1 if over and not familiar else self._failures
        return self._punish(source, record, now) if len(record.failures) >= allowance else 0.0

    def succeeded(self, host: str | None, username: bytes) -> None:
        """
        A check has succeeded.

        :param host: as for :meth:`refuses`.
        :param username: as for :meth:`refuses`.
        """
        if self._failures is None:
            return
        name = hash(username)
        source = _source(host, username)
        pair = source, name
        if self._logins.pop(pair, None) is None and len(self._logins) >= self._most:
            del self._logins[next(iter(self._logins))]
        self._logins[pair] = self._clock.seconds()
        record = self._records.get(source)
        if record is not None and record.failures:
            record.failures = [known for known in record.failures if known.name != name]

    def _is_familiar(self, source: Source, name: int, now: float) -> bool:
        when = self._logins.get((source, name))
        return when is not None and now - when < LATELY

    def _count_name(self, name: int, bound: float, now: float) -> bool:
        """Count a failure as *name*; whether there are more than *bound*."""
        known = self._names.pop(name, None)
        if known is None and len(self._names) >= self._most:
            del self._names[next(iter(self._names))]
        fill = 1.0
        if known is not None:
            fill += max(0.0, known.fill - (now - known.when) * bound / WINDOW)
        self._names[name] = _Bucket(min(fill, bound), now)
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
        del self._levels[record.level][source]
        record.level = min(record.level + 1, _LEVELS)
        self._enter(source, record)
        record.failures = []
        record.guesses = 0
        seconds = min(FIRST * 2.0 ** (record.level - 1), LONGEST)
        record.until = now + seconds
        return seconds

    def _enter(self, source: Source, record: _Record) -> None:
        """Put *source* behind the others of its level, and let the first make room if there are too many."""
        level = self._levels[record.level]
        level.pop(source, None)
        level[source] = None
        if len(level) > self._most:
            first = next(iter(level))
            del level[first], self._records[first]


def _source(host: str | None, username: bytes) -> Source:
    """Whose failures count together: a network's or a local user's; where that is not known, a name's."""
    network = share_of(host)
    return hash(username) if network is None else network
