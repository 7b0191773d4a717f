"""
Dialing: from checked addresses to one connection (RFC 8305, "Happy Eyeballs").

:func:`dial` races attempts; an attempt is made by a dialer. There are two:
:class:`SocketDialer`, which gives a plain socket for the relay engine, and
:class:`TransportDialer`, which gives a Twisted transport and works everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from socket import AF_INET, AF_INET6, SOCK_STREAM, SocketType
from sys import intern
from typing import Any, NamedTuple, Protocol as Shape, TypeAlias, TypeVar, cast

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import (
    IConnector,
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTCP,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import ConnectedToItself, ConnectFailed, UpstreamFailed, describe, most_telling, reply_for
from ..twisted_internals import connect_from
from ..values.outgoing import FreeAddress, Outgoing, free_bind
from ..wire.words import Address, AddressType
from .sockets import NewSocket
from .tcp_options import SOCKET_OPTIONS, SocketOption, set_options

#: Seconds until the next address is tried beside the one that has not answered (RFC 8305, section 5).
ATTEMPT_DELAY = 0.25

#: How many addresses of a name are tried at the most.
MAX_ATTEMPTS = 24

T = TypeVar("T")


class DialAttempt(Shape):
    """An attempt of the relay engine: as a Deferred that can do only this."""

    def addBoth(self, then: Callable[..., Any], *arguments: Any) -> None:
        """Call *then* with the result or a Failure, and with *arguments*."""

    def cancel(self) -> None: ...


#: A connection that is waited for.
Pending: TypeAlias = "Deferred[Any] | DialAttempt"


def as_deferred(pending: Pending) -> Deferred[Any]:
    """*pending* as a Deferred, for a caller that uses more of a Deferred than :class:`DialAttempt` has."""
    if isinstance(pending, Deferred):
        return pending
    waiting: Deferred[Any] = Deferred(lambda _: pending.cancel())
    pending.addBoth(waiting.callback)
    return waiting


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """*addresses* with the two families in turn, beginning with the first one's (RFC 8305, section 4)."""
    first = [address for address in addresses if address.type is addresses[0].type]
    second = [address for address in addresses if address.type is not addresses[0].type]
    mixed: list[Address] = []
    for position in range(max(len(first), len(second))):
        mixed += first[position : position + 1] + second[position : position + 1]
    return mixed


class Race:
    """
    Tries addresses one beside the other until one of them connects.

    :param addresses: checked addresses, in order of preference.
    :param connect: starts an attempt, which can be cancelled.
    :param clock: for the delay between attempts.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        connect: Callable[[Address], Pending],
        clock: IReactorTime,
    ) -> None:
        self._left = interleaved(addresses)[:MAX_ATTEMPTS]
        self._left.reverse()
        self._connect = connect
        self._clock = clock
        self._running: set[Deferred[Any]] = set()
        self._problems: list[BaseException] = []
        self._next: IDelayedCall | None = None
        self._over = False
        self.result: Deferred[Any] = Deferred(lambda _: self._end())

    def start(self) -> Deferred[Any]:
        """
        Begin.

        :returns: fires with the first connection; cancelling it ends every attempt.
        :raises ConnectFailed: (by the Deferred) when all have failed, with the most telling reply.
        """
        self._attempt()
        return self.result

    def _attempt(self) -> None:
        address = self._left.pop()
        if self._left:
            self._next = self._clock.callLater(ATTEMPT_DELAY, self._attempt)
        else:
            self._next = None
        attempt: Deferred[Any] = maybeDeferred(lambda: as_deferred(self._connect(address)))
        self._running.add(attempt)
        attempt.addCallbacks(self._won, self._lost, callbackArgs=(attempt,), errbackArgs=(attempt,))

    def _won(self, connection: Any, attempt: Deferred[Any]) -> None:
        self._running.discard(attempt)
        self._end()
        self.result.callback(connection)

    def _lost(self, failure: Failure, attempt: Deferred[Any]) -> None:
        self._running.discard(attempt)
        if self._over:
            return
        if failure.value is not None:
            self._problems.append(failure.value)
        if self._left:
            self._hurry()
            self._attempt()
        elif not self._running:
            self._over = True
            self.result.errback(_summary(self._problems))

    def _hurry(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None

    def _end(self) -> None:
        self._over = True
        self._hurry()
        for attempt in list(self._running):
            attempt.cancel()
        self._running.clear()


def dial(
    addresses: Sequence[Address], connect: Callable[[Address], Pending], clock: IReactorTime
) -> Deferred[Any]:
    """
    Connect to the first of *addresses* that answers.

    :param addresses: at least one, checked, in order of preference.
    :param connect: starts one attempt, which ends with a connection and can be cancelled.
    :param clock: for the delay between attempts.
    :raises ConnectFailed: (by the Deferred) when all have failed, with the most telling reply.
    """
    if len(addresses) == 1:
        return as_deferred(connect(addresses[0]))
    return Race(addresses, connect, clock).start()


def _summary(problems: list[BaseException]) -> Exception:
    reply = most_telling([reply_for(problem) for problem in problems])
    problem = next(problem for problem in problems if reply_for(problem) is reply)
    return problem if isinstance(problem, UpstreamFailed) else ConnectFailed(describe(problem), reply)


class RelaySide(Shape):
    """One end of a relay over transports: it takes what the transport's protocol is told."""

    def dataReceived(self, data: bytes) -> None: ...

    def readConnectionLost(self) -> None: ...

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure) -> None: ...


@implementer(IHalfCloseableProtocol)
class Destination(Protocol):
    """
    The protocol of a connection to a destination; it passes everything on to :attr:`end`.

    :param connected: called with this protocol when the connection is made.
    :ivar end: the relay's end, once there is one.
    :ivar early: what has come before there is an end.
    """

    transport: ITCPTransport
    early = b""

    def __init__(self, connected: Callable[[Destination], None] | None = None) -> None:
        self._connected = connected
        self.end: RelaySide | None = None

    def connectionMade(self) -> None:
        if self._connected is not None:
            self._connected(self)

    def dataReceived(self, data: bytes) -> None:
        if self.end is not None:
            self.end.dataReceived(data)
        else:
            self.early += data
            cast(Any, self.transport).pauseProducing()

    def readConnectionLost(self) -> None:
        if self.end is not None:
            self.end.readConnectionLost()

    def writeConnectionLost(self) -> None:
        if self.end is not None:
            self.end.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.end is not None:
            self.end.connectionLost(reason)


def resume(link: Destination) -> None:
    """Let the transport of *link*, which has paused because of early bytes, read on."""
    cast(Any, link.transport).resumeProducing()


class Dialed(NamedTuple):
    """
    A connection to a destination.

    :ivar link: a connected, non-blocking socket, or the protocol of a Twisted transport.
    :ivar reached: the address at the other end; through a proxy, the destination as the proxy was asked.
    :ivar outgoing: the address at this end.
    :ivar bound: what the client is told; None: *outgoing*.
    :ivar early: what the destination has sent already.
    """

    link: SocketType | Destination
    reached: Address
    outgoing: Address
    bound: Address | None = None
    early: bytes = b""


class Connects(Shape):
    """What :class:`SocketDialer` needs of the relay engine."""

    def connect(
        self,
        sockaddr: tuple[str, int],
        family: int,
        source: tuple[str, int] | None = None,
        options: Iterable[SocketOption] = (),
        made: Callable[[SocketType], Any] = ...,
        new_socket: NewSocket = ...,
    ) -> Pending: ...


class SocketDialer:
    """
    Dials with plain non-blocking sockets, for the relay engine.

    :param engine: reports when a socket is connected.
    :param outgoing: where connections leave from.
    :param options: what sockets are told.
    :param new_socket: makes a socket.
    """

    def __init__(
        self,
        engine: Connects,
        outgoing: Outgoing = Outgoing(),
        options: Sequence[SocketOption] = SOCKET_OPTIONS,
        new_socket: NewSocket = SocketType,
    ) -> None:
        self._engine = engine
        self._outgoing = outgoing
        self._options = options
        self._new_socket = new_socket

    def __call__(self, destination: Address) -> Pending:
        """Start an attempt."""
        family = AF_INET6 if destination.type is AddressType.IPV6 else AF_INET
        return self._engine.connect(
            (destination.host, destination.port),
            family,
            self._outgoing.source(destination),
            self._options,
            partial(self._dialed, destination),
            self._new_socket,
        )

    def _dialed(self, destination: Address, link: SocketType) -> Dialed:
        name = link.getsockname()
        if name[1] == destination.port and is_its_own_peer(link):
            raise ConnectedToItself("connected to itself")
        return Dialed(link, destination, Address(intern(name[0]), name[1], destination.type))


def is_its_own_peer(link: Any) -> bool:
    """
    Whether the kernel has connected the socket *link* to itself.

    The port that it chooses for a socket may be the very port that the socket connects to, where nothing
    listens. The two SYNs cross, and there is a connection (RFC 9293, section 3.5).
    """
    try:
        return bool(link.getpeername() == link.getsockname())
    except OSError:
        return False  # the peer has gone already, so there is one


class TransportDialer:
    """
    Dials with Twisted's transports.

    :param reactor: makes the connections.
    :param outgoing: where connections leave from.
    :param timeout: seconds of one attempt; the session's own deadline usually comes first.
    :param options: what sockets are told.
    :param new_socket: makes a socket; None: Twisted does.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        outgoing: Outgoing = Outgoing(),
        timeout: float = 30.0,
        options: Sequence[SocketOption] = SOCKET_OPTIONS,
        new_socket: NewSocket | None = None,
    ) -> None:
        self._new_socket = new_socket
        self._reactor = reactor
        self._outgoing = outgoing
        self._timeout = timeout
        self._options = options

    def __call__(self, destination: Address) -> Deferred[Dialed]:
        """Start an attempt."""
        attempt = _ConnectAttempt(destination, self._options)
        source = self._outgoing.source(destination)
        if self._new_socket is None and (source is None or not isinstance(source[0], FreeAddress)):
            attempt.connector = self._reactor.connectTCP(
                destination.host,
                destination.port,
                attempt,
                timeout=self._timeout,
                bindAddress=source,
            )
            return attempt.result
        try:
            link = self._made(destination, source)
        except OSError:
            return fail()
        attempt.connector = connect_from(self._reactor, destination, attempt, self._timeout, source, link)
        return attempt.result

    def _made(self, destination: Address, source: tuple[str, int] | None) -> SocketType:
        """A socket that can be bound to *source*."""
        family = AF_INET6 if destination.type is AddressType.IPV6 else AF_INET
        link = (self._new_socket or SocketType)(family, SOCK_STREAM)
        try:
            if source is not None:
                free_bind(link, source[0])
        except OSError:
            link.close()
            raise
        return link


class _ConnectAttempt(ClientFactory):
    """One attempt to connect a transport."""

    noisy = False
    connector: IConnector

    def __init__(self, destination: Address, options: Sequence[SocketOption]) -> None:
        self._destination = destination
        self._options = options
        self._over = False
        self.result: Deferred[Dialed] = Deferred(self._cancelled)

    def buildProtocol(self, addr: object) -> Protocol:
        return Destination(self.connected)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        if not self._over:
            self._over = True
            self.result.errback(reason)

    def connected(self, link: Destination) -> None:
        """The connection is made."""
        transport = link.transport
        if self._over:
            transport.abortConnection()
            return
        self._over = True
        own = cast(Any, transport).getHandle()
        host = transport.getHost()
        if host.port == self._destination.port and is_its_own_peer(own):
            transport.abortConnection()
            self.result.errback(ConnectedToItself("connected to itself"))
            return
        set_options(own, self._options)
        self.result.callback(
            Dialed(link, self._destination, Address(host.host, host.port, self._destination.type))
        )

    def _cancelled(self, _: Deferred[Dialed]) -> None:
        self._over = True
        self.connector.disconnect()


def adopted(reactor: Any, link: SocketType) -> Destination:
    """
    A Twisted transport for the connected socket *link*, which is closed: the transport has a copy.

    :param reactor: one with :class:`twisted.internet.interfaces.IReactorSocket`.
    """
    factory = _Adoption()
    try:
        reactor.adoptStreamConnection(link.fileno(), link.family, factory)
    finally:
        link.close()
    return factory.link


class _Adoption(ServerFactory):
    noisy = False

    def __init__(self) -> None:
        self.link = Destination()

    def buildProtocol(self, addr: object) -> Destination:
        return self.link
