"""
The numbers of each upstream: its sessions, its failures, and whether it has room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..errors import UpstreamFull
from ..limits.counting import Counter


class Watcher(Protocol):
    """Hears of the sessions of an upstream."""

    def load_changed(self) -> None:
        """There is one session more or less."""


class UpstreamCounters:
    """
    What is counted of one upstream. A reload keeps the numbers of each name that stays.

    :param name: the upstream's name.
    :param tell: passes an event of :class:`socksproxy.events.IServerEvents` on, with its values.
    :param since: the time from which on is counted, in seconds since the epoch.
    :param counter: gives a count by its name, which all workers share.
    :ivar most: the greatest number of sessions at once, in all workers together; None: any number.
    :ivar sessions: the sessions that there are, with the tries that run.
    :ivar total: all sessions and tries so far.
    :ivar own_failures: the tries in which the upstream itself has failed.
    :ivar destination_failures: the tries in which the upstream has not reached what is behind it.
    :ivar checks: the active checks that have ended.
    :ivar rests: whether an operator has taken it out of service: it gets no new sessions.
    :ivar watchers: the members of pools that hear of each session that comes and goes.
    """

    __slots__ = (
        "_counter",
        "_in_all",
        "_tell",
        "checks",
        "destination_failures",
        "most",
        "name",
        "own_failures",
        "rests",
        "sessions",
        "since",
        "total",
        "watchers",
    )

    def __init__(
        self,
        name: str,
        tell: Callable[..., None] = lambda *_: None,
        since: float = 0.0,
        counter: Callable[[str], Counter] = lambda _: Counter(),
    ) -> None:
        self._tell = tell
        self._counter = counter
        #: The sessions in all workers, these ones included, while there is a limit; else None.
        self._in_all: Counter | None = None
        self.name = name
        self.since = since
        self.most: int | None = None
        self.rests = False
        self.sessions = self.total = 0
        self.own_failures = self.destination_failures = self.checks = 0
        self.watchers: tuple[Watcher, ...] = ()

    @property
    def full(self) -> bool:
        """Whether there are as many sessions as there may be."""
        return self.rests or (self.most is not None and self._counted().value >= self.most)

    def rest(self, rests: bool) -> None:
        """Have it get no new sessions, or get them again."""
        if rests is not self.rests:
            self.rests = rests
            for watcher in self.watchers:
                watcher.load_changed()

    def leave(self) -> None:
        """A session or a try has ended."""
        self.sessions -= 1
        if self._in_all is not None:
            self._in_all.give()
        self._tell("upstream_left", self.name)
        for watcher in self.watchers:
            watcher.load_changed()

    def failed(self, own: bool) -> None:
        """A try has failed: see :meth:`socksproxy.events.IServerEvents.upstream_failed`."""
        if own:
            self.own_failures += 1
        else:
            self.destination_failures += 1
        self._tell("upstream_failed", self.name, own)

    def checked(self, alive: bool) -> None:
        """An active check has ended."""
        self.checks += 1
        self._tell("upstream_checked", self.name, alive)

    def _counted(self) -> Counter:
        if self._in_all is None:
            self._in_all = self._counter(f"upstream {self.name} sessions")
            for _ in range(self.sessions):
                self._in_all.add()
        return self._in_all

    def _take(self) -> bool:
        """Whether there was room for one more session, which has it now."""
        if self.most is None:
            if self._in_all is not None:  # a reload has taken the limit away
                for _ in range(self.sessions):
                    self._in_all.give()
                self._in_all = None
            return True
        if self._counted().add() <= self.most:
            return True
        self._give_back()
        return False

    def _give_back(self) -> None:
        if self._in_all is not None:
            self._in_all.give()

    def _enter(self) -> None:
        self.sessions += 1
        self.total += 1
        self._tell("upstream_entered", self.name)
        for watcher in self.watchers:
            watcher.load_changed()


def enter(way: Sequence[UpstreamCounters]) -> None:
    """
    A try begins, which occupies all upstreams of *way*, until each one's :meth:`UpstreamCounters.leave`.

    :raises UpstreamFull: where one of them has no room; then none is occupied.
    """
    for number, counters in enumerate(way):
        if counters.rests or not counters._take():
            for taken in way[:number]:
                taken._give_back()
            why = "it is out of service" if counters.rests else f"it has {counters.most} sessions already"
            raise UpstreamFull(f"{counters.name}: {why}", counters.name)
    for counters in way:
        counters._enter()
