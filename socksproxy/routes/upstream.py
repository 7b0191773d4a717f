"""
The route through upstream proxies, one or a chain of several.

Strategy: a :class:`Try` is one connection to the first proxy and one handshake with each proxy on it. Where
all proxies speak plain TCP and the client's end is in the relay engine, the connection is a socket of the
engine from the start, and the relay takes it over after the last handshake. Everything else goes by Twisted's
transports. A failure is never a reason to leave in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..client.connecting import Conversation, relay_host
from ..client.handshake import HandshakeFailed, Problem, Work
from ..errors import (
    SHORTAGES,
    NameNotFound,
    SOCKSError,
    UpstreamFailed,
    UpstreamFull,
    UpstreamRefused,
    describe,
)
from ..logs.debug import UPSTREAMS as DEBUG
from ..logs.printable import shown
from ..net.dial import Destination, Dialed, Pending, dial
from ..net.resolve import NameLookups
from ..relay.engine import RelayEngine
from ..runtime.deadlines import Deadlines
from ..runtime.pool import NotRun, Pool
from ..values.upstreams import commands_of
from ..wire.words import UNSPECIFIED, Address, AddressType, Command, Reply
from .associations import Associating
from .by_endpoint import connect_by
from .carriers import SocketCarrier, TransportCarrier
from .counters import enter
from .direct import Direct
from .hops import TOR, Hop
from .interfaces import ListenHere, Trail, UpstreamAssociation, UpstreamBound
from .own import IRoute

_UNSPECIFIED6 = Address.of("::", 0)

#: Those of Tor's own replies that mean a lack of permission.
_TOR_NOT_ALLOWED = frozenset({0xF4, 0xF5})


@implementer(IRoute)
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
    """

    # A pool has thousands.
    __slots__ = (
        "_commands",
        "_first",
        "_names",
        "_plain",
        "_threads",
        "clock",
        "counters",
        "deadlines",
        "engine",
        "hops",
        "judges",
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
        self._plain = all(hop.plain for hop in hops)
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
        try:
            return self._try(Try(self, address, trail), engine)
        except UpstreamFull:
            return fail()

    def associate(self, trail: Trail) -> Deferred[UpstreamAssociation]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.associate`."""

        def ask(number: int, trail: Trail) -> Deferred[Dialed]:
            command, hops = Command.UDP_ASSOCIATE, self.hops[:number]
            try:
                return self._try(Try(self, UNSPECIFIED, trail, command, hops), False)
            except UpstreamFull:
                return fail()

        return Associating(self.hops, ask, trail, self._first.new_socket).start()

    def bind(self, peer: Address, engine: bool, trail: Trail, listen: ListenHere) -> Deferred[UpstreamBound]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.bind`."""
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

        trying.first = listens
        accepted.addErrback(failed)
        try:
            self._try(trying, engine)
        except UpstreamFull:
            return fail()
        return bound

    def resolve(self, command: Command, destination: Address, trail: Trail) -> Deferred[Address]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.resolve`."""
        try:
            asked: Deferred[Any] = self._try(Try(self, destination, trail, command), False)
        except UpstreamFull:
            return fail()
        return asked.addCallback(_answer, trail)

    def _try(self, trying: Try, engine: bool) -> Deferred[Dialed]:
        """
        Start *trying*.

        :raises UpstreamFull: where an upstream has no room.
        """
        enter(trying.counters)
        trying.trail.tries += 1
        return trying.start(engine and self._plain)

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


class Try:
    """
    One connection to a first proxy, until the last proxy has answered. It occupies the proxies of *route*.

    :param route: leads through the proxies.
    :param destination: the destination that the last proxy is asked for.
    :param trail: records the attempt.
    :param command: what the last proxy is asked for.
    :param hops: the proxies; None: all of the route.
    :ivar counters: the numbers of the proxies.
    :ivar first: called with the first of BIND's two answers, and the address of the first proxy.
    :ivar over: whether :attr:`result` has fired or is firing.
    """

    __slots__ = (
        "_at",
        "_carrier",
        "_command",
        "_destination",
        "_dialed",
        "_handshake",
        "_hops",
        "_pending",
        "_route",
        "counters",
        "first",
        "over",
        "result",
        "trail",
    )

    _dialed: Dialed
    _handshake: Conversation

    def __init__(
        self,
        route: UpstreamRoute,
        destination: Address,
        trail: Trail,
        command: Command = Command.CONNECT,
        hops: Sequence[Hop] | None = None,
    ) -> None:
        self._route = route
        self._destination = destination
        self._command = command
        self._hops = route.hops if hops is None else hops
        self.counters = route.counters if hops is None else tuple(hop.counters for hop in hops)
        self.first: Callable[[Address, Address], None] | None = None
        self.trail = trail
        self._at = -1
        self._carrier: SocketCarrier | TransportCarrier | None = None
        self._pending: Pending | None = None
        self.over = False
        self.result: Deferred[Dialed] = Deferred(self._cancelled)

    def start(self, engine: bool) -> Deferred[Dialed]:
        """
        Connect to the first proxy, and begin the handshakes.

        :param engine: whether the connection is to be a socket of the engine.
        :returns: :attr:`result`.
        """
        route = self._route
        route.deadlines.start(self, route.clock.seconds())
        if DEBUG.on:
            DEBUG(
                "{via}: tries to reach {destination}",
                via=route.via,
                destination=shown(self._destination),
            )
        pending = self._pending = route.reach_first(engine)
        pending.addBoth(self._reached)
        return self.result

    def expired(self) -> None:
        """Fail, because the last proxy does not have the request in time."""
        seconds = f"within {self._route.deadlines.seconds:g} seconds"
        if self._pending is not None:
            self._own_failure(f"no connection to the proxy {seconds}")
        elif self._handshake.asking:  # for the next proxy, which is silent, or nothing answers for it
            self._fail(self._next_fails(f"{self._name}: the proxy has not answered {seconds}"))
        else:
            self._own_failure(f"the proxy has not answered {seconds}")

    def received(self, data: bytes) -> None:
        """See :class:`socksproxy.routes.carriers.Talks`."""
        try:
            self._go_on(data)
        except HandshakeFailed as problem:
            self._fail(self._problem(problem))
        except SOCKSError as problem:
            self._fail(problem)

    def lost(self, problem: BaseException) -> None:
        """See :class:`socksproxy.routes.carriers.Talks`."""
        if self.over:
            return
        if isinstance(problem, (ConnectionDone, ConnectionResetError)) or self.trail.asked:
            self.received(b"")
        else:
            self._own_failure(f"the connection to the proxy fails: {_words(problem)}")

    @property
    def _name(self) -> str:
        return self._hops[max(self._at, 0)].name

    @property
    def _carried(self) -> SocketCarrier | TransportCarrier:
        assert self._carrier is not None
        return self._carrier

    def _reached(self, result: Dialed | Failure) -> None:
        """Go on with the connection to the first proxy, or fail without one."""
        if self.over:
            return  # the attempt is cancelled
        if isinstance(result, Failure):
            self._not_connected(result)
            return
        try:
            self._connected(result)
        except Exception:  # a fault of ours
            self._fail(Failure())

    def _connected(self, dialed: Dialed) -> None:
        self._pending = None
        self._dialed = dialed
        link = dialed.link
        if isinstance(link, Destination):
            self._carrier = TransportCarrier(self, link)
            self._begin()
            return
        engine = self._route.engine()
        assert engine is not None
        carrier = self._carrier = SocketCarrier(self, engine, link)
        carrier.start()
        self._begin()
        if carrier.missed and not self.over:
            carrier.event(carrier.missed)

    def _begin(self) -> None:
        try:
            self._ask_next()
        except SOCKSError as problem:
            self._fail(problem)

    def _ask_next(self) -> None:
        hops = self._hops
        self._at += 1
        hop, last = hops[self._at], self._at + 1 == len(hops)
        wanted = self._wanted() if last else hops[self._at + 1].address
        assert wanted is not None  # only the first proxy can have an endpoint in place of an address
        command = self._command if last else Command.CONNECT
        handshake = self._handshake = hop.handshake(wanted, self.trail, command)
        header = hop.header(self.trail)
        if hop.tls is not None:
            if header:
                self._carried.send(header)
            # The proxy has the request when TLS stands, and not when we have written it.
            self._carried.start_tls(hop, lambda: self._send(handshake.begin()))
            return
        self._send(header + handshake.begin())

    def _wanted(self) -> Address:
        """The destination as the last proxy is asked for it."""
        if self._command is Command.UDP_ASSOCIATE:  # some proxies insist on zeros of the connection's family
            server = self._hops[self._at].address if self._at else self._dialed.reached
            assert server is not None
            return _UNSPECIFIED6 if server.type is AddressType.IPV6 else UNSPECIFIED
        name = self.trail.name() if self._route.judges else None
        return self._destination if name is None else name

    def _send(self, data: bytes) -> None:
        if self.over:
            return
        if self._at + 1 == len(self._hops) and self._handshake.asking:
            self.trail.asked = True
            self._route.deadlines.stop(self)
        self._carried.send(data)

    def _go_on(self, data: bytes) -> None:
        while not self.over:
            handshake = self._handshake
            send = handshake.receive(data)
            if send:
                self._send(send)
            if handshake.work is not None and not self.over:
                self._wait(self._route.work(handshake.work))
            if not handshake.done or self.over:
                if handshake.answers:
                    self._listens(handshake.answers[0])
                return
            rest = handshake.rest
            if handshake.wrapping is not None:
                self._carried.protect(handshake.wrapping)
            if self._at + 1 == len(self._hops):
                if self._command is not Command.CONNECT:
                    self._listens(handshake.answers[0])
                self._succeed(handshake.answers[-1], rest)
                return
            self._ask_next()
            if not rest:
                return
            if self._hops[self._at].tls is not None:  # these would be taken for words within TLS
                self._own_failure("plain bytes come before TLS")
                return
            data = rest

    def _wait(self, working: Deferred[bytes]) -> None:
        """Go on when the login's library has its answer."""
        working.addCallback(self._worked).addErrback(self._broken)

    def _worked(self, result: bytes) -> None:
        if not self.over:
            self._send(self._handshake.resume(result))

    def _broken(self, failure: Failure) -> None:
        problem = failure.value
        if isinstance(problem, HandshakeFailed):
            if not self.over:
                self._fail(self._problem(problem))
        elif isinstance(problem, NotRun):
            self._own_failure(f"the login cannot be made: {problem}")
        else:
            self._fail(failure)

    def _listens(self, address: Address) -> None:
        """Tell the first of BIND's two answers."""
        first, self.first = self.first, None
        if first is not None:
            first(address, self._dialed.reached)

    def _succeed(self, bound: Address, early: bytes) -> None:
        if self.over:  # who waits for BIND's first answer has cancelled
            return
        self._end()
        if DEBUG.on:
            destination = shown(self._destination)
            DEBUG("{via}: has reached {destination}", via=self._route.via, destination=destination)
        self.trail.reply = int(self._hops[-1].success)
        self.trail.credentials = None
        self.trail.entered = self.counters
        carrier = self._carried
        link = carrier.link if isinstance(carrier, SocketCarrier) else carrier.released()
        reached = self._destination
        if self._command is not Command.CONNECT:
            reached = self._dialed.reached
        unsayable = self._command is Command.BIND and not bound.host
        if bound.type is AddressType.DOMAIN_NAME and (self._command is Command.CONNECT or unsayable):
            bound = UNSPECIFIED
        self.result.callback(Dialed(link, reached, self._dialed.outgoing, bound, early))

    def _problem(self, problem: HandshakeFailed) -> SOCKSError:
        """The error for the client after *problem* with the present proxy; it is counted."""
        text = f"{self._name}: {problem}"
        refused, closed = problem.problem is Problem.REFUSED, problem.problem is Problem.CLOSED
        hop = self._hops[self._at]
        if refused and hop.reaches_no(problem):
            hop.counters.failed(own=False)
        if self._at + 1 < len(self._hops):
            return self._next_fails(text) if refused or closed else self._fails(text)
        self.trail.reply = problem.reply
        if refused:
            return UpstreamRefused(text, _reply_for(problem.meaning))
        return UpstreamRefused(text, Reply.GENERAL_FAILURE) if closed else self._fails(text)

    def _fails(self, text: str) -> UpstreamFailed:
        """The error for a failure of the present proxy; it is counted."""
        self._hops[max(self._at, 0)].counters.failed(own=True)
        return UpstreamFailed(text, self._name)

    def _next_fails(self, text: str) -> UpstreamFailed:
        """The error for a failure of the next proxy, as the present one tells it; it is counted."""
        following = self._hops[self._at + 1]
        following.counters.failed(own=True)
        return UpstreamFailed(text, following.name)

    def _not_connected(self, failure: Failure) -> None:
        problem = failure.value
        if isinstance(problem, OSError) and problem.errno in SHORTAGES:
            self._fail(problem)
        elif isinstance(problem, NameNotFound):
            self._own_failure("the name of the proxy is not found")
        elif problem is not None:
            self._own_failure(f"no connection to the proxy: {_words(problem)}")

    def _own_failure(self, what: str) -> None:
        """Fail, because the present proxy fails."""
        if not self.over:
            self._fail(self._fails(f"{self._name}: {what}"))

    def _fail(self, problem: BaseException | Failure) -> None:
        if self.over:
            return
        self._drop()
        failure = problem if isinstance(problem, Failure) else Failure(problem)
        if DEBUG.on:
            DEBUG("{via}: {problem}", via=self._route.via, problem=failure.value)
        self.result.errback(failure)

    def _cancelled(self, _: object) -> None:
        if not self.over:
            self._drop()

    def _drop(self) -> None:
        self._end()
        for counters in self.counters:
            counters.leave()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
        elif self._carrier is not None:
            self._carrier.close()

    def _end(self) -> None:
        self.over = True
        self._route.deadlines.stop(self)


def _answer(dialed: Dialed, trail: Trail) -> Address:
    """What the last proxy has answered to RESOLVE or RESOLVE_PTR; the connection closes."""
    link: Any = dialed.link
    link.transport.abortConnection()
    trail.leave()
    assert dialed.bound is not None
    return dialed.bound


def _reply_for(meaning: int) -> Reply:
    """The reply to our client after a proxy's reply *meaning*."""
    if meaning in TOR:
        return Reply.NOT_ALLOWED if meaning in _TOR_NOT_ALLOWED else Reply.HOST_UNREACHABLE
    return Reply(meaning) if 1 <= meaning <= 8 else Reply.GENERAL_FAILURE


def _words(problem: BaseException) -> str:
    if isinstance(problem, (OSError, SOCKSError)):
        return describe(problem)
    return str(problem) or type(problem).__name__


@implementer(IRoute)
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
        return fail(UpstreamFailed(f"{self.via}: there is no such way out", self.via))

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        return None
