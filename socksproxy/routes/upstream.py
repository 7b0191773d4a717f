"""
The route through upstream proxies, one or a chain of several.

Strategy: a :class:`.Try` is one connection to the first proxy and one handshake with each proxy on it. Where
all proxies speak plain TCP and the client's end is in the relay engine, the connection is a socket of the
engine from the start, and the relay takes it over after the last handshake. Everything else goes by Twisted's
transports. A failure is never a reason to leave in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from ..client.connecting import relay_host
from ..client.handshake import Work
from ..errors import UpstreamFailed, not_carried
from ..net.dial import Dialed, Pending, dial
from ..net.resolve import NameLookups
from ..relay.engine import RelayEngine
from ..runtime.deadlines import Deadlines
from ..runtime.pool import Pool
from ..values.upstreams import commands_of
from ..wire.words import UNSPECIFIED, Address, AddressType, Command
from .associations import Associating
from .by_endpoint import connect_by
from .direct import Direct
from .hops import Hop
from .interfaces import ListenHere, Trail, UpstreamAssociation, UpstreamBound
from .own import ICommandsRoute
from .tries import Try


@implementer(ICommandsRoute)
class UpstreamRoute:
    """
    Connects to destinations through proxies.

    :param clock: the reactor: it tells the time, and connects by endpoints.
    :param hops: the proxies, the first one from here first.
    :param first: leads to the first proxy.
    :param names: gives what looks up the name of the first proxy, and names of destinations.
    :param engine: gives the present relay engine.
    :param deadlines: the time in which the last proxy must have the request; routes share it.
    :param resolves: whether the last proxy receives names, and looks them up.
    :param judges: whether the last proxy receives names that are looked up here, for the policy.
    :param threads: make the calls of logins that may block.
    :ivar plain: whether the bytes on the whole way are plain, so that a socket of the engine can carry them.
    """

    # A pool has thousands.
    __slots__ = (
        "_commands",
        "_first",
        "_names",
        "_threads",
        "clock",
        "counters",
        "deadlines",
        "engine",
        "hops",
        "judges",
        "plain",
        "resolves",
        "via",
    )

    needs_trail = True

    def __init__(
        self,
        clock: Any,
        hops: Sequence[Hop],
        first: Direct,
        names: Callable[[], NameLookups],
        engine: Callable[[], RelayEngine | None],
        deadlines: Deadlines[Try],
        resolves: bool,
        judges: bool,
        threads: Pool,
    ) -> None:
        self.clock = clock
        self.hops = hops
        self.engine = engine
        self.resolves = resolves
        self.judges = judges
        self._threads = threads
        self.via: str = ">".join(hop.name for hop in hops)
        self.counters = tuple(hop.counters for hop in hops)
        self._commands = commands_of([hop.settings for hop in hops])
        self._first = first
        self._names = names
        self.plain = all(hop.plain for hop in hops)
        self.deadlines = deadlines

    @property
    def names(self) -> NameLookups | None:
        """See :attr:`socksproxy.routes.interfaces.Route.names`."""
        return self._names()

    @property
    def identity(self) -> object:
        """See :attr:`socksproxy.routes.interfaces.Route.identity`."""
        return tuple((hop.name, hop.settings) for hop in self.hops), self._first.identity

    def carries(self, command: Command) -> bool:
        """See :meth:`socksproxy.routes.interfaces.Route.carries`."""
        return command in self._commands

    def dial(self, address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """See :meth:`socksproxy.routes.interfaces.Route.dial`."""
        trail = Trail(self.via) if trail is None else trail
        return Try(self, address, trail).start(engine)

    def associate(self, trail: Trail) -> Deferred[UpstreamAssociation]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.associate`."""
        if not self.carries(Command.UDP_ASSOCIATE):
            return fail(not_carried(self.via, Command.UDP_ASSOCIATE))

        def ask(number: int, trail: Trail) -> Deferred[Dialed]:
            hops = self.hops[:number]
            return Try(self, UNSPECIFIED, trail, Command.UDP_ASSOCIATE, hops).start(False)

        return Associating(self.hops, ask, trail, self._first.new_socket).start()

    def bind(self, peer: Address, engine: bool, trail: Trail, listen: ListenHere) -> Deferred[UpstreamBound]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.bind`."""
        if not self.carries(Command.BIND):
            return fail(not_carried(self.via, Command.BIND))
        trying = Try(self, peer, trail, Command.BIND)
        accepted = trying.result
        bound: Deferred[UpstreamBound] = Deferred(lambda _: accepted.cancel())
        waiting = [bound]

        def listens(told: Address, reached: Address) -> None:
            server = self.hops[-1].address if len(self.hops) > 1 else reached
            assert server is not None
            address = Address.of(relay_host(told, server.host), told.port)
            waiting.pop().callback(UpstreamBound(address, accepted))

        def failed(failure: Failure) -> Failure | None:
            if not waiting:
                return failure
            waiting.pop().errback(failure)
            return None

        trying.listens = listens
        accepted.addErrback(failed)
        trying.start(engine)
        return bound

    def resolve(self, command: Command, destination: Address, trail: Trail) -> Deferred[Address]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.resolve`."""
        if not self.carries(command):
            return fail(not_carried(self.via, command))
        asked: Deferred[Any] = Try(self, destination, trail, command).start(False)
        return asked.addCallback(_answer, trail)

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        return None

    def reach_first(self, engine: bool) -> Pending:
        """Connect to the first proxy, at any of its addresses."""
        address, endpoint = self.hops[0].address, self.hops[0].endpoint
        if endpoint is not None:
            return connect_by(endpoint, self.clock, self._names)
        assert address is not None
        if address.type is not AddressType.DOMAIN_NAME:
            return self._first.dial(address, engine)
        found: Deferred[Any] = self._names().lookup_lasting(address.host, address.port)
        return found.addCallback(dial, lambda each: self._first.dial(each, engine), self.clock)

    def work(self, work: Work) -> Deferred[bytes]:
        """Make a call that may block, for a login."""
        return self._threads.run(work)


def _answer(dialed: Dialed, trail: Trail) -> Address:
    """What the last proxy has answered to RESOLVE or RESOLVE_PTR; the connection closes."""
    link: Any = dialed.link
    link.transport.abortConnection()
    trail.leave()
    assert dialed.bound is not None
    return dialed.bound


@implementer(ICommandsRoute)
class Nowhere:
    """
    A way out that the configuration does not have, or no longer has; every attempt fails.

    :param name: the name of the way out.
    """

    resolves = True
    judges = False
    names = None
    needs_trail = True

    def __init__(self, name: str) -> None:
        self.via: str = name
        self.identity: object = name

    def carries(self, command: Command) -> bool:
        """See :meth:`socksproxy.routes.interfaces.Route.carries`."""
        return command is Command.CONNECT

    def dial(self, address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """See :meth:`socksproxy.routes.interfaces.Route.dial`."""
        return self._fails()

    def associate(self, trail: Trail) -> Deferred[UpstreamAssociation]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.associate`."""
        return self._fails()

    def bind(self, peer: Address, engine: bool, trail: Trail, listen: ListenHere) -> Deferred[UpstreamBound]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.bind`."""
        return self._fails()

    def resolve(self, command: Command, destination: Address, trail: Trail) -> Deferred[Address]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.resolve`."""
        return self._fails()

    def _fails(self) -> Deferred[Any]:
        return fail(UpstreamFailed(f"{self.via}: there is no such way out", self.via))

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        return None
