"""
One connection to a first proxy, and one handshake with each proxy on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from ..client.connecting import Conversation
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
from ..net.dial import Destination, Dialed, Pending
from ..relay.engine import RelayEngine
from ..runtime.deadlines import Deadlines
from ..runtime.pool import NotRun
from ..wire.words import UNSPECIFIED, Address, AddressType, Command, Reply
from .carriers import SocketCarrier, TransportCarrier
from .counters import UpstreamCounters, enter
from .hops import Hop, reply_to_client
from .interfaces import Trail

_UNSPECIFIED6 = Address.of("::", 0)


class ProxiedWay(Shape):
    """What a try uses of its :class:`~socksproxy.routes.upstream.UpstreamRoute`; see there."""

    clock: Any
    hops: Sequence[Hop]
    via: str
    judges: bool
    plain: bool
    counters: tuple[UpstreamCounters, ...]
    deadlines: Deadlines[Try]

    @property
    def engine(self) -> Callable[[], RelayEngine | None]: ...

    def reach_first(self, engine: bool) -> Pending: ...

    def work(self, work: Work) -> Deferred[bytes]: ...


class Try:
    """
    One connection to a first proxy, until the last proxy has answered. It occupies the proxies of *route*.

    :param route: leads through the proxies.
    :param destination: the destination that the last proxy is asked for.
    :param trail: records the attempt.
    :param command: what the last proxy is asked for.
    :param hops: the proxies; None: all of the route.
    :ivar counters: the numbers of the proxies.
    :ivar listens: called with the first of BIND's two answers, and the address of the first proxy.
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
        "listens",
        "over",
        "result",
        "trail",
    )

    _dialed: Dialed
    _handshake: Conversation

    def __init__(
        self,
        route: ProxiedWay,
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
        self.listens: Callable[[Address, Address], None] | None = None
        self.trail = trail
        self._at = 0
        self._carrier: SocketCarrier | TransportCarrier | None = None
        self._pending: Pending | None = None
        self.over = False
        self.result: Deferred[Dialed] = Deferred(self._cancelled)

    def start(self, engine: bool) -> Deferred[Dialed]:
        """
        Connect to the first proxy, and begin the handshakes.

        :param engine: whether the client's end of the relay can be in the relay engine.
        :returns: :attr:`result`.
        """
        route = self._route
        try:
            enter(self.counters)
        except UpstreamFull as problem:
            self.over = True
            self.result.errback(problem)
            return self.result
        self.trail.tries += 1
        route.deadlines.start(self, route.clock.seconds())
        if DEBUG.on:
            DEBUG(
                "{via}: tries to reach {destination}",
                via=route.via,
                destination=shown(self._destination),
            )
        pending = self._pending = route.reach_first(engine and route.plain)
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
        return self._hops[self._at].name

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
            self._ask()
        except SOCKSError as problem:
            self._fail(problem)

    @property
    def _is_at_last(self) -> bool:
        """Whether the present proxy is the last one."""
        return self._at + 1 == len(self._hops)

    def _ask(self) -> None:
        """Begin the handshake with the present proxy."""
        hop, last = self._hops[self._at], self._is_at_last
        wanted = self._wanted() if last else self._hops[self._at + 1].address
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
        if self._is_at_last and self._handshake.asking:
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
                    self._tell_first(handshake.answers[0])
                return
            rest = handshake.rest
            if handshake.wrapping is not None:
                self._carried.protect(handshake.wrapping)
            if self._is_at_last:
                if self._command is not Command.CONNECT:
                    self._tell_first(handshake.answers[0])
                self._succeed(handshake.answers[-1], rest)
                return
            self._at += 1
            self._ask()
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

    def _tell_first(self, answer: Address) -> None:
        """Tell the first of BIND's two answers, once."""
        listens, self.listens = self.listens, None
        if listens is not None:
            listens(answer, self._dialed.reached)

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
        if not self._is_at_last:
            return self._next_fails(text) if refused or closed else self._fails(text)
        self.trail.reply = problem.reply
        if refused:
            return UpstreamRefused(text, reply_to_client(problem.meaning))
        return UpstreamRefused(text, Reply.GENERAL_FAILURE) if closed else self._fails(text)

    def _fails(self, text: str) -> UpstreamFailed:
        """The error for a failure of the present proxy; it is counted."""
        self._hops[self._at].counters.failed(own=True)
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


def _words(problem: BaseException) -> str:
    if isinstance(problem, (OSError, SOCKSError)):
        return describe(problem)
    return str(problem) or type(problem).__name__
