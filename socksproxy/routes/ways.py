"""
The ways out of one server, by their names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from twisted.logger import Logger

from ..net.resolve import NameLookups
from ..net.sockets import Leaving
from ..net.tcp_options import SocketOption
from ..relay.engine import RelayEngine
from ..runtime.pool import Pool
from ..values.errors import ConfigError
from ..values.outgoing import Outgoing
from ..values.upstreams import DIRECT, Upstream
from .counters import UpstreamCounters
from .direct import Direct, DirectUpstream
from .hops import hops_of
from .interfaces import Route
from .upstream import Nowhere, UpstreamRoute

_log = Logger(namespace="socksproxy")

#: Routes of rules and users that are kept.
_ROUTES = 1024


class WaysOut:
    """
    Makes the routes of one server.

    :param reactor: dials and keeps time.
    :param engine: gives the present relay engine.
    :param names: gives what looks up the names of proxies.
    :param tell: passes the events of upstreams on.
    :ivar counters: the numbers of the upstreams, by their names.
    :ivar by: gives the route by its name (None: the direct one) and the addresses to leave from.
    """

    def __init__(
        self,
        reactor: Any,
        engine: Callable[[], RelayEngine | None],
        names: Callable[[], NameLookups],
        tell: Callable[..., None],
    ) -> None:
        self._reactor = reactor
        self._engine = engine
        self._names = names
        self._tell = tell
        self.counters: dict[str, UpstreamCounters] = {}
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
        self.counters = {
            name: before.get(name) or UpstreamCounters(name, self._tell, now) for name in upstreams
        }
        for name, upstream in upstreams.items():
            self.counters[name].most = upstream.max_sessions
        self.by: Callable[[str | None, Outgoing], Route] = lru_cache(_ROUTES)(self._route)

    def _route(self, via: str | None, outgoing: Outgoing) -> Route:
        """The way out that is called *via*. One that there is not, or not any more, leads nowhere."""
        if via is None or via == DIRECT:
            return self._direct(outgoing)
        try:
            hops = hops_of(via, self._upstreams, self.counters)
        except ConfigError as problem:
            _log.error("the way out {via} cannot be used: {problem}", via=via, problem=problem)
            return Nowhere(via)
        last = self._upstreams[via]
        if not hops:
            return DirectUpstream(self.counters[via], self._direct(outgoing, last))
        return UpstreamRoute(
            self._reactor,
            hops,
            self._direct(outgoing, self._upstreams[hops[0].name]),
            self._names,
            self._engine,
            last.try_timeout,
            last.takes_names,
            last.judges_names,
            self._threads,
        )

    def _direct(self, outgoing: Outgoing, first: Upstream | None = None) -> Direct:
        """
        The direct way.

        :param first: the upstream that it leads to, or that it is.
        """
        leaving = Leaving()
        if first is not None:
            leaving = Leaving(first.interface, first.mark, first.netns)
            if first.outgoing is not None:
                outgoing = first.outgoing._replace(strict=True)
        return Direct(self._reactor, self._engine, outgoing, self._options, self._fixed, leaving)
