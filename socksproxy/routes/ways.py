"""
The ways out of one server, by their names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from twisted.logger import Logger

from ..limits.counting import Counter
from ..net.resolve import NameLookups
from ..net.sockets import Leaving
from ..net.tcp_options import SocketOption
from ..relay.engine import RelayEngine
from ..runtime.deadlines import Deadlines
from ..runtime.pool import Pool
from ..values.errors import ConfigError
from ..values.outgoing import Outgoing
from ..values.pools import REFUSE, UpstreamPool
from ..values.timeouts import NEVER
from ..values.upstreams import DIRECT, Upstream
from .counters import UpstreamCounters
from .direct import Direct, DirectUpstream
from .hops import Hop, hops_of
from .interfaces import Route
from .members import Member, Members
from .own import OwnRoute
from .pool import PoolRoute, patience, try_seconds
from .pools import Pools
from .tries import Try
from .upstream import Nowhere, UpstreamRoute

_log = Logger(namespace="socksproxy")

#: Routes of rules and users that are kept, and those through members of pools.
_ROUTES, _MEMBERS = 1024, 4096


class WaysOut:
    """
    Makes the routes of one server.

    :param reactor: dials and keeps time.
    :param engine: gives the present relay engine.
    :param names: gives what looks up the names of proxies.
    :param tell: passes the events of upstreams on.
    :param counter: gives a count by its name, which all workers share.
    :ivar counters: the numbers of the upstreams, by their names.
    :ivar pools: the pools, by their names.
    :ivar own: an embedder's own routes, by their names.
    :ivar by: gives the route by its name (None: the direct one) and the addresses to leave from.
    """

    def __init__(
        self,
        reactor: Any,
        engine: Callable[[], RelayEngine | None],
        names: Callable[[], NameLookups],
        tell: Callable[..., None],
        counter: Callable[[str], Counter],
    ) -> None:
        self._counter = counter
        self._reactor = reactor
        self._engine = engine
        self._names = names
        self._tell = tell
        self.counters: dict[str, UpstreamCounters] = {}
        self.own: Mapping[str, Any] = {}
        self.pools = Pools(reactor, names, self._new_counters)
        self._threads = Pool(reactor, name="logins to upstreams", threads=4, waiting=256)

    def configure(
        self, upstreams: Mapping[str, Upstream], fixed: Outgoing, options: Sequence[SocketOption]
    ) -> None:
        """
        Routes that are asked for from now on are as these say.

        :param upstreams: the upstreams by name. One that stays keeps its numbers.
        :param fixed: the addresses that all connections leave from where no other address is chosen.
        :param options: the options that each socket gets.
        """
        self._upstreams = upstreams
        self._fixed = fixed
        self._options = options
        before, now = self.counters, time.time()
        self._since = now
        self.counters = {
            name: before.get(name) or UpstreamCounters(name, self._tell, now, self._counter)
            for name in upstreams
        }
        for name, upstream in upstreams.items():
            self.counters[name].most = upstream.max_sessions
        self.by: Callable[[str | None, Outgoing], Route] = lru_cache(_ROUTES)(self._route)
        self._within: Callable[[float], Deadlines[Try]] = lru_cache(_ROUTES)(self._new_deadlines)
        self._names_by: Callable[[Leaving], Callable[[], NameLookups]] = lru_cache(_ROUTES)(self._new_names)
        self._leading: Callable[[Outgoing, Leaving], Direct] = lru_cache(_ROUTES)(self._new_direct)

    def configure_pools(self, pools: Mapping[str, UpstreamPool], connect_timeout: float) -> None:
        """
        Pools are as these say from now on; to be called after :meth:`configure`.

        :param pools: by their names. What is known of the members that stay goes on.
        :param connect_timeout: seconds in which a connection must be there.
        """
        self._patience = patience(connect_timeout)
        self.pools.configure(pools, self._upstreams)
        self._through: Callable[[Member, Outgoing, float], Route] = lru_cache(_MEMBERS)(self._by_member)
        for members in self.pools.values():
            members.way = self._way(members, Outgoing())  # until a session leaves from other addresses

    def through(self, name: str, outgoing: Outgoing) -> Route | None:
        """
        The way out through the upstream *name*, which the file of a pool alone may have; None: there is none.

        :param outgoing: the addresses to leave from.
        """
        if name in self._upstreams:
            return self.by(name, outgoing)
        for members in self.pools.values():
            members.refresh()
            member = members.get(name)
            if member is not None:
                return self._way(members, outgoing)(member)
        return None

    def all_counters(self) -> dict[str, UpstreamCounters]:
        """The numbers of all upstreams, also of those that files of pools alone have, by their names."""
        members = {member.name: member.counters for pool in self.pools.values() for member in pool}
        return {**members, **self.counters}

    def rest(self, names: Collection[str]) -> None:
        """Have the upstreams *names* get no new sessions, and all others get them."""
        for name, counters in self.all_counters().items():
            counters.rest(name in names)

    def _new_counters(self, name: str, upstream: Upstream) -> UpstreamCounters:
        """The numbers of an upstream, which is new where the file of a pool alone has it."""
        return self.counters.get(name) or UpstreamCounters(name, self._tell, self._since, self._counter)

    def direct(self, outgoing: Outgoing) -> DirectUpstream:
        """The direct way for all commands, as an upstream of type direct is one; it counts for none."""
        return DirectUpstream(UpstreamCounters(DIRECT), self._direct(outgoing), self._names)

    def _by_pool(self, name: str, outgoing: Outgoing) -> Route:
        members = self.pools[name]
        otherwise = members.settings.otherwise
        other: Route | None = None
        if otherwise == DIRECT:
            other = self.direct(outgoing)
        elif otherwise != REFUSE:
            other = self.by(otherwise, outgoing)
        return PoolRoute(self._reactor, members, self._way(members, outgoing), other, self._patience)

    def _way(self, members: Members, outgoing: Outgoing) -> Callable[[Member], Route]:
        """What gives the way through each of *members*, from the addresses *outgoing*."""
        seconds = try_seconds(members.settings, self._patience)
        return lambda member: self._through(member, outgoing, seconds)

    def _by_member(self, member: Member, outgoing: Outgoing, seconds: float) -> Route:
        """The way through *member*, which must have the request within *seconds*."""
        name, upstream = member.name, member.upstream
        try:
            if name in self._upstreams:
                hops = hops_of(name, self._upstreams, self.counters)
            else:
                hops = [Hop(name, upstream, member.counters)]
        except ConfigError as problem:
            _log.error("the upstream {name} cannot be used: {problem}", name=name, problem=problem)
            return Nowhere(name)
        return self._by_hops(hops, upstream, member.counters, outgoing, seconds)

    def _route(self, via: str | None, outgoing: Outgoing) -> Route:
        """The way out that is called *via*. One that there is not, or not any more, leads nowhere."""
        if via is None or via == DIRECT:
            return self._direct(outgoing)
        if via in self.own:
            return OwnRoute(via, self.own[via])
        if via in self.pools:
            return self._by_pool(via, outgoing)
        try:
            hops = hops_of(via, self._upstreams, self.counters)
        except ConfigError as problem:
            _log.error("the way out {via} cannot be used: {problem}", via=via, problem=problem)
            return Nowhere(via)
        return self._by_hops(hops, self._upstreams[via], self.counters[via], outgoing)

    def _by_hops(
        self,
        hops: Sequence[Hop],
        last: Upstream,
        counters: UpstreamCounters,
        outgoing: Outgoing,
        seconds: float = NEVER,
    ) -> Route:
        """
        The way through *hops*, of which *last* is the last one.

        :param counters: the numbers of *last*.
        :param seconds: the seconds in which it must have the request; its own try-timeout may be shorter.
        """
        if not hops:
            return DirectUpstream(counters, self._direct(outgoing, last), self._names_by(_leaving(last)))
        first = self._upstreams.get(hops[0].name, last)
        return UpstreamRoute(
            self._reactor,
            hops,
            self._direct(outgoing, first),
            self._names_by(_leaving(first)),
            self._engine,
            self._within(min(last.try_timeout, seconds)),
            last.takes_names,
            last.judges_names,
            self._threads,
        )

    def _new_names(self, leaving: Leaving) -> Callable[[], NameLookups]:
        """What gives the look-ups whose questions leave as *leaving* says."""
        if leaving == Leaving():
            return self._names
        made: tuple[NameLookups, NameLookups] | None = None

        def names() -> NameLookups:
            nonlocal made
            present = self._names()
            if made is None or made[0] is not present:
                made = present, present.leaving_by(leaving.new_socket)
            return made[1]

        return names

    def _direct(self, outgoing: Outgoing, first: Upstream | None = None) -> Direct:
        """
        The direct way.

        :param first: the upstream that it leads to, or that it is.
        """
        leaving = Leaving()
        if first is not None:
            leaving = _leaving(first)
            if first.outgoing is not None:
                outgoing = first.outgoing._replace(strict=True)
        return self._leading(outgoing, leaving)

    def _new_deadlines(self, seconds: float) -> Deadlines[Try]:
        return Deadlines(self._reactor, seconds, Try.expired)

    def _new_direct(self, outgoing: Outgoing, leaving: Leaving) -> Direct:
        return Direct(self._reactor, self._engine, outgoing, self._options, self._fixed, leaving)


def _leaving(first: Upstream) -> Leaving:
    """How sockets to *first* leave, or its own where it is no proxy."""
    return Leaving(first.interface, first.mark, first.netns)
