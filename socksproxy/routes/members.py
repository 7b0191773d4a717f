"""
The members of a pool: which of them live, and which is the next one for a connection.

Strategy: a member that fails several times in a row is down. When its time is over, one session tries it, and
the answer decides whether it is back or down for twice the time. "Down" is a guess: where no other member is
left, one that is down is tried, too. Only a change of a member costs time for each of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from enum import Enum
from heapq import heappop, heappush
from itertools import count
from random import Random, SystemRandom

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..errors import UpstreamFailed, UpstreamFull
from ..values.pools import MOST_RETRY_AFTER, Choose, UpstreamPool, commands_of_member, looks_up, members_of
from ..values.upstreams import Upstream, UpstreamType
from ..wire.words import Command
from .choosing import ByHash, Chooser, chooser_of
from .counters import UpstreamCounters
from .direct import cannot_leave
from .interfaces import Route
from .sticky import Pin, hash_of

_log = Logger(namespace="socksproxy")

#: The part of a time of being down that chance takes away, so that not all members come back at once.
_JITTER = 0.25


class Health(Enum):
    """What is known of a member."""

    UP = "up"
    DOWN = "down"
    #: Its time is over: the next session that takes it finds out.
    DUE = "due"
    #: One session finds out.
    TRIAL = "on trial"


class Member:
    """
    One upstream of a pool.

    :param name: its name; for a member of a file, without its password.
    :param upstream: its settings.
    :param counters: its numbers, which it shares with other pools.
    :ivar commands: the commands that it carries.
    :ivar health: what is known of it.
    :ivar failures: its own failures in a row.
    :ivar harmed: when it failed last, in the clock's seconds; 0: never.
    :ivar told: when a session told last whether it works.
    :ivar until: when its time of being down is over.
    :ivar living: whether it may be chosen while others are left.
    """

    __slots__ = (
        "_rank",
        "commands",
        "counters",
        "delay",
        "entry",
        "failures",
        "harmed",
        "health",
        "living",
        "name",
        "told",
        "until",
        "upstream",
        "weight",
    )

    def __init__(self, name: str, upstream: Upstream, counters: UpstreamCounters) -> None:
        self.name = name
        self.upstream = upstream
        self.weight = upstream.weight
        self.counters = counters
        self.commands: frozenset[Command] = frozenset()
        self.health = Health.UP
        self.living = True
        self.failures = 0
        self.harmed = self.told = self.until = self.delay = 0.0
        self.entry = 0
        self._rank: Rank | None = None

    def __repr__(self) -> str:
        return f"<Member {self.name}: {self.health.value}>"

    @property
    def up(self) -> bool:
        """Whether it works, as far as is known."""
        return self.health is Health.UP

    @property
    def sessions(self) -> int:
        """Its sessions, with the tries that run."""
        return self.counters.sessions

    @property
    def full(self) -> bool:
        """Whether it has as many sessions as it may have."""
        return self.counters.full

    def load_changed(self) -> None:
        """See :attr:`.UpstreamCounters.watchers`."""
        if self.living and self._rank is not None:
            self._rank.chooser.changed(self)

    def join(self, rank: Rank | None) -> None:
        """Be one of the members of *rank*; None: of no pool any more."""
        self._rank = rank
        watchers = [each for each in self.counters.watchers if each is not self]
        if rank is not None and rank.watches:
            watchers.append(self)
        self.counters.watchers = tuple(watchers)

    def set(self, health: Health) -> None:
        """*health* is known of it."""
        self.health = health
        living = health in (Health.UP, Health.DUE)
        if living is not self.living and self._rank is not None:
            self._rank.stale = True
        self.living = living


class Rank:
    """
    The members of a pool, or those that it asks when none of the others is left.

    :param members: in the order of the configuration.
    :param choose: how one is chosen.
    :param chance: draws.
    :ivar stale: whether the chooser has to hear which members live.
    """

    def __init__(self, members: Sequence[Member], choose: Choose, chance: Random) -> None:
        self.members = members
        self.watches = choose is Choose.LEAST_SESSIONS
        self.chooser: Chooser = chooser_of(choose, members, chance)
        self.stale = True
        for member in members:
            member.join(self)

    def next(self, tried: Container[Member], key: bytes) -> Member | None:
        """See :meth:`.Chooser.next`."""
        if self.stale:
            self.stale = False
            self.chooser.set([member for member in self.members if member.living])
        found = self.chooser.next(tried, key)
        assert found is None or isinstance(found, Member)
        return found


class Members:
    """
    The members of the pool *name*, and their health.

    :param clock: tells the time.
    :param settings: of the pool.
    :param upstreams: the upstreams by name.
    :param counters: gives the numbers of an upstream.
    :param chance: draws.
    :ivar used: when a session asked last for a member, in the clock's seconds; none has: long ago.
    :ivar worked: when a member answered last.
    :ivar takes_names: whether all members look names up.
    :ivar judges_names: whether all members get names that are looked up here for the rules alone.
    :ivar wake: called once, when a session asks for a member; None: nothing waits for that.
    :ivar way: gives the route through a member for checks: as the last session took it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        name: str,
        settings: UpstreamPool,
        upstreams: Mapping[str, Upstream],
        counters: Callable[[str, Upstream], UpstreamCounters],
        chance: Random = SystemRandom(),
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._numbers = count()
        self._by_name: dict[str, Member] = {}
        self.takes_names = self.judges_names = False
        self.worked = 0.0
        self.name = name
        self.used = -math.inf
        self.wake: Callable[[], None] | None = None
        self.way: Callable[[Member], Route]
        self.configure(settings, upstreams, counters)

    def configure(
        self,
        settings: UpstreamPool,
        upstreams: Mapping[str, Upstream],
        counters: Callable[[str, Upstream], UpstreamCounters],
    ) -> None:
        """
        Other settings are in force. What is known of members that stay as they are goes on.

        See the class for the parameters.
        """
        self.settings = settings
        self._upstreams = upstreams
        self._counters = counters
        self._read()

    def _read(self) -> None:
        settings, upstreams = self.settings, self._upstreams
        self._table = None if settings.members_file is None else settings.members_file.table
        before, self._by_name = self._by_name, {}
        members = [self._member(*each, before) for each in members_of(settings, upstreams).items()]
        backup = [self._member(name, upstreams[name], before) for name in settings.backup]
        for member in before.values():
            if self._by_name.get(member.name) is not member:
                member.join(None)
        self._due = [
            (member.until, next(self._numbers), member)
            for member in self._by_name.values()
            if member.health is Health.DOWN
        ]
        self._due.sort()
        self.takes_names = all(looks_up(member.upstream) for member in self)
        self.judges_names = all(member.upstream.judges_names for member in self)
        #: For sticky sessions: their choice, and the members by their hashes.
        self._sticky: tuple[ByHash, Mapping[int, Member]] | None = None
        self.main = Rank(members, settings.choose, self._chance)
        self.backup = Rank(backup, settings.choose, self._chance)

    def _member(self, name: str, upstream: Upstream, before: Mapping[str, Member]) -> Member:
        known = before.get(name)
        if known is None or not _is_same(known.upstream, upstream):
            known = Member(name, upstream, self._counters(name, upstream))
        known.upstream, known.weight = upstream, upstream.weight
        known.commands = commands_of_member(name, upstream, self._upstreams)
        self._by_name[name] = known
        return known

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_name.values())

    def refresh(self) -> bool:
        """Take the members of a file that has changed; whether there are others now."""
        file = self.settings.members_file
        if file is None or file.table is self._table:
            return False
        self._read()
        return True

    def get(self, name: str) -> Member | None:
        """The member called *name*; None: there is none."""
        return self._by_name.get(name)

    def next(self, tried: Container[Member], key: bytes, pin: Pin | None = None) -> Member | None:
        """
        The member that a connection tries next; None: there is none left that is not full.

        Members that live come first, then the backup, then members that are down: the one that is unharmed
        for the longest time first.

        :param tried: the members that the connection has tried.
        :param key: by which hashes choose.
        :param pin: the sticky session, whose member comes before all others; None: it is none.
        """
        self.used = now = self._clock.seconds()
        if self.wake is not None:
            wake, self.wake = self.wake, None
            wake()
        due = self._due
        while due and due[0][0] <= now:
            until, _, member = heappop(due)
            if member.health is Health.DOWN and member.until == until:
                member.set(Health.DUE)
        if pin is None:
            found = self.main.next(tried, key)
        else:
            own = self._own(pin)
            if own is not None and (own.living or pin.strict) and own not in tried and not own.full:
                return own
            if own is not None and pin.strict:
                return None
            chosen = self._by_pin()[0].next(tried, pin.key)
            assert chosen is None or isinstance(chosen, Member)
            found = chosen
        return found or self.backup.next(tried, key) or self._dead(tried)

    def _own(self, pin: Pin) -> Member | None:
        """The member of the sticky session *pin*; None: the pool has no member."""
        choice, by_hash = self._by_pin()
        # Without a move there is no such hash.
        own = by_hash.get(pin.moved(self.name)) or choice.own(pin.key)
        assert own is None or isinstance(own, Member)
        return own

    def _by_pin(self) -> tuple[ByHash, Mapping[int, Member]]:
        if self._sticky is None:
            choice = ByHash(self.main.members)
            choice.set(self.main.members)
            self._sticky = choice, {hash_of(name): member for name, member in self._by_name.items()}
        return self._sticky

    def stay(self, pin: Pin, member: Member) -> None:
        """The sticky session *pin* stays with *member* from now on."""
        if self._own(pin) is not member:
            pin.move(self.name, member.name)

    def take(self, member: Member) -> None:
        """A connection tries *member*: where that is due, no other one does until it has told."""
        if member.health is Health.DUE:
            member.set(Health.TRIAL)

    def _dead(self, tried: Container[Member]) -> Member | None:
        left = [
            member
            for member in self._by_name.values()
            if not member.living and member not in tried and not member.full
        ]
        return min(left, key=lambda member: member.harmed, default=None)

    def answered(self, member: Member, check: bool = False) -> None:
        """
        *member* works: it has answered, whatever it has told of the destination.

        :param check: whether a check, and no session, tells.
        """
        self.worked = now = self._clock.seconds()
        if not check:
            member.told = now
        member.failures = 0
        if member.health is not Health.UP:
            member.set(Health.UP)
            _log.info("pool {pool}: {member} is up again", pool=self.name, member=member.name)

    def failed(self, member: Member, reason: str, check: bool = False) -> None:
        """
        *member* itself has failed.

        :param reason: the words for the log.
        :param check: whether a check, and no session, tells.
        """
        member.harmed = now = self._clock.seconds()
        if not check:
            member.told = now
        member.failures += 1
        if member.health is Health.UP and member.failures < self.settings.down_after:
            return
        if member.health is Health.DOWN:
            return  # one of the connections that had begun before
        first = member.health is Health.UP
        member.delay = self.settings.retry_after if first else min(2 * member.delay, MOST_RETRY_AFTER)
        member.until = now + member.delay * (1 - _JITTER * self._chance.random())
        member.set(Health.DOWN)
        heappush(self._due, (member.until, next(self._numbers), member))
        if first:
            _log.warn(
                "pool {pool}: {member} is down: {reason}", pool=self.name, member=member.name, reason=reason
            )

    def told_down(self, member: Member, down: bool) -> None:
        """Another worker checks: it finds *member* down, or finds that it works."""
        if down and member.health is Health.UP:
            member.failures = self.settings.down_after
            self.failed(member, "check of another worker", check=True)
        elif not down and member.health is not Health.UP:
            self.answered(member, check=True)

    def undecided(self, member: Member) -> None:
        """A connection that has tried *member* tells nothing of it."""
        if member.health is Health.TRIAL:
            member.set(Health.DUE)

    def close(self) -> None:
        """The pool is not used any more."""
        for member in self._by_name.values():
            member.join(None)


def is_its_own(problem: BaseException, member: Member) -> bool:
    """Whether *problem*, which a connection through *member* has met, is the fault of *member* itself."""
    if isinstance(problem, UpstreamFailed):
        # Another proxy on the way to it may have failed.
        return problem.upstream == member.name and not isinstance(problem, UpstreamFull)
    return member.upstream.type is UpstreamType.DIRECT and cannot_leave(problem)


def _is_same(before: Upstream, now: Upstream) -> bool:
    """Whether two settings are of one upstream: what is known of it counts on."""
    return before == attrs.evolve(now, weight=before.weight, max_sessions=before.max_sessions)
