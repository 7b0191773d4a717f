"""
The pools of one server, and who checks their members.

Strategy: of several workers one checks, for all. The others take its results every second. What sessions find
out stays in their worker.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from ..errors import NameNotFound
from ..net.dial import Destination, Dialed, as_deferred, dial
from ..net.resolve import NameLookups
from ..values.pools import UpstreamPool
from ..values.upstreams import Upstream
from ..wire.words import Address, AddressType
from .checks import IDLE, PoolChecks
from .counters import UpstreamCounters
from .interfaces import Route, Trail
from .members import Member, Members

#: Seconds between two looks at what other workers tell.
LOOK_EVERY = 1.0
#: Seconds in which the name of a check's destination must be found; the whole check may take longer.
FOUND_WITHIN = 10.0


class SharedChecks(Protocol):
    """
    What workers tell each other of pools.

    :ivar leads: whether this worker checks for all.
    """

    @property
    def leads(self) -> bool: ...

    def use(self, pool: str) -> None:
        """A session of this worker uses *pool*."""

    def unused(self, pool: str) -> float:
        """The seconds since a session of any worker has used *pool*."""

    def tell(self, pool: str, down: Collection[str]) -> None:
        """The checks find the members *down*, and find that all others work."""

    def found_down(self, pool: str, members: Collection[str]) -> frozenset[str] | None:
        """Those of *members* that checks find down; None: nothing new has been told."""


class Pools(Mapping[str, Members]):
    """
    The pools of one server, by their names.

    :param reactor: tells the time.
    :param names: gives what looks names up.
    :param counters: gives the numbers of an upstream.
    """

    def __init__(
        self,
        reactor: Any,
        names: Callable[[], NameLookups],
        counters: Callable[[str, Upstream], UpstreamCounters],
    ) -> None:
        self._reactor = reactor
        self._names = names
        self._counters = counters
        self._pools: dict[str, Members] = {}
        self._checks: dict[str, PoolChecks] = {}
        self._shared: SharedChecks | None = None
        #: What the worker that checks has told last, by the names of pools.
        self._told: dict[str, frozenset[str]] = {}
        self._timer: IDelayedCall | None = None

    def __getitem__(self, name: str) -> Members:
        return self._pools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def configure(self, pools: Mapping[str, UpstreamPool], upstreams: Mapping[str, Upstream]) -> None:
        """
        The pools are as these say from now on; what is known of the members that stay goes on.

        :param pools: by their names.
        :param upstreams: by their names.
        """
        before, self._pools = self._pools, {}
        for name, settings in pools.items():
            known = before.pop(name, None)
            if known is None:
                known = Members(self._reactor, name, settings, upstreams, self._counters)
            else:
                known.configure(settings, upstreams, self._counters)
            self._pools[name] = known
        for gone in before.values():
            gone.close()
        checked = [name for name, settings in pools.items() if settings.check is not None]
        for name in [name for name in self._checks if name not in checked]:
            self._checks.pop(name).stop()
        for name in checked:
            if name not in self._checks:
                members = self._pools[name]
                self._checks[name] = PoolChecks(
                    self._reactor, members, self._connect, partial(self._works_beside, members)
                )
            if self._shared is None:
                self._checks[name].start_when_used()

    def share(self, shared: SharedChecks) -> None:
        """There are several workers; to be called before the first session."""
        self._shared = shared
        for checks in self._checks.values():
            checks.stop()
        self._look()

    def stop(self) -> None:
        """Check no more, until a session comes."""
        for checks in self._checks.values():
            checks.stop()
            checks.start_when_used()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _look(self) -> None:
        """Tell the other workers what is new here, and take what they tell."""
        shared = self._shared
        assert shared is not None
        self._timer = self._reactor.callLater(LOOK_EVERY, self._look)
        now = self._reactor.seconds()
        for name, checks in self._checks.items():
            members = self._pools[name]
            if members.used > now - 2 * LOOK_EVERY:
                shared.use(name)
            if shared.leads:
                members.used = max(members.used, now - shared.unused(name))
                if now - members.used < IDLE:
                    checks.start()
                shared.tell(name, [member.name for member in members if not member.up])
                continue
            down = shared.found_down(name, [member.name for member in members])
            if down is not None:
                before = self._told.get(name, frozenset())
                self._told[name] = down
                # What this worker's own sessions have found out stays.
                for changed in down ^ before:
                    member = members.get(changed)
                    if member is not None:
                        members.told_down(member, changed in down)

    def _works_beside(self, members: Members, since: float) -> bool:
        """Whether another pool than *members* has worked since a moment."""
        return any(each.worked >= since for each in self._pools.values() if each is not members)

    def _connect(self, members: Members, member: Member, address: Address) -> Deferred[None]:
        """Connect to *address* through *member*, and close the connection."""
        way: Route = members.way(member)
        trail = Trail(way.via)
        connect = partial(way.dial, engine=False, trail=trail)
        if address.type is AddressType.DOMAIN_NAME and not way.resolves:
            found: Deferred[Any] = self._names().lookup(address.host, address.port)
            found.addTimeout(FOUND_WITHIN, self._reactor, _not_found)
        else:
            found = succeed([address])
        found.addCallback(lambda addresses: as_deferred(dial(addresses, connect, self._reactor)))
        return found.addCallback(_closed, trail)


def _not_found(result: object, seconds: float) -> None:
    """A look-up hangs, which says nothing of the member that was to be checked."""
    raise NameNotFound(f"the name is not found within {seconds:g} seconds")


def _closed(dialed: Dialed, trail: Trail) -> None:
    trail.leave()
    link = dialed.link
    assert isinstance(link, Destination)
    link.transport.abortConnection()
