"""
One connection to a proxy and one handshake on it, with Twisted.

Strategy: an :class:`Attempt` is the factory that the endpoint to the proxy gets. Its protocol drives the
handshake. When the proxy has answered, the attempt decides what becomes of the connection:
:class:`Connecting` gives the transport to the protocol of the caller and is out of the way.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Protocol as Shape

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError, ConnectionClosed, ConnectionDone, NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from ..net.names import is_localhost
from ..twisted_internals import is_tls, replace_protocol
from ..wire.words import Address, AddressType, Request
from .early_bytes import EarlyBytes
from .errors import (
    ProxiedConnectError,
    ProxyError,
    ProxyTimedOut,
    ProxyUnreachable,
    ReplyTimedOut,
    error_for,
)
from .handshake import HandshakeFailed, Work, Wrapping
from .protected import Protected


class Conversation(Shape):
    """What an attempt needs of a handshake: see :class:`~socksproxy.client.handshake.Handshake`."""

    answers: list[Address]
    done: bool
    work: Work | None
    wrapping: Wrapping | None

    @property
    def rest(self) -> bytes: ...

    @property
    def asking(self) -> bool: ...

    def begin(self) -> bytes: ...

    def receive(self, data: bytes) -> bytes: ...

    def resume(self, result: bytes) -> bytes: ...


@implementer(IHandshakeListener)
class Negotiator(Protocol):
    """
    Drives the handshake of an *attempt*, once TLS stands where there is TLS.

    Afterwards it passes all on to :attr:`inner`, where there is one.
    """

    inner: Any = None
    transport: Any

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def connectionMade(self) -> None:
        self._attempt.connected(self)

    def handshakeCompleted(self) -> None:
        """See :class:`~twisted.internet.interfaces.IHandshakeListener`."""
        self._attempt.secured()

    def dataReceived(self, data: bytes) -> None:
        if self.inner is None:
            self._attempt.received(data)
        else:
            self.inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.inner is None:
            self._attempt.lost(reason)
        else:
            self.inner.connectionLost(reason)

    def readConnectionLost(self) -> None:
        """See :class:`~twisted.internet.interfaces.IHalfCloseableProtocol`, which *inner* may provide."""
        self.inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """The same."""
        self.inner.writeConnectionLost()

    def give_to(self, protocol: Any) -> None:
        """Let the transport deliver to *protocol*."""
        if replace_protocol(self.transport, protocol):
            return
        self.inner = protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            directlyProvides(self, IHalfCloseableProtocol)


@implementer(IProtocolFactory)
class Attempt:
    """
    One connection to a proxy, until the proxy has answered.

    :param reactor: has the time and, for what blocks, threads.
    :param proxy: leads to the proxy.
    :param handshake: is told to the proxy.
    :param request: what *handshake* asks for.
    :ivar result: fires when the attempt is over; it can be cancelled in every phase.
    """

    def __init__(
        self, reactor: Any, proxy: IStreamClientEndpoint, handshake: Conversation, request: Request
    ) -> None:
        self._reactor = reactor
        self._proxy = proxy
        self._handshake = handshake
        self._request = request
        self._connecting: Deferred[Any] | None = None
        self._over = self._begun = False
        self._told = 0
        self.negotiator: Negotiator | None = None
        self.hop = 1
        self.result: Deferred[Any] = Deferred(self._cancelled)

    def start(self, timeout: float | None) -> Deferred[Any]:
        """
        Connect.

        :param timeout: seconds for all phases together; None: no limit.
        :returns: :attr:`result`.
        """
        result = self.result
        if timeout is not None:
            result.addTimeout(timeout, self._reactor, self.timed_out)
        self._connecting = self._proxy.connect(self)
        self._connecting.addErrback(self._not_connected)
        return result

    # As a factory, for the endpoint of the proxy.

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        """See :class:`~twisted.internet.interfaces.IProtocolFactory`."""
        return Negotiator(self)

    def doStart(self) -> None:
        """See :class:`~twisted.internet.interfaces.IProtocolFactory`."""

    def doStop(self) -> None:
        """See :class:`~twisted.internet.interfaces.IProtocolFactory`."""

    # What the proxy does.

    def connected(self, negotiator: Negotiator) -> None:
        """There is a connection."""
        self.negotiator = negotiator
        if self._over:
            _abort(negotiator.transport)
            return
        self.hop = hops_of(negotiator.transport) + 1
        if not is_securing(negotiator.transport):
            self.secured()

    def secured(self) -> None:
        """There is TLS on the connection, if there is to be any: the handshake with the proxy begins."""
        if not self._over and not self._begun:
            self._begun = True
            self._send(self._handshake.begin())

    def received(self, data: bytes) -> None:
        """The proxy has sent *data*."""
        if self._over:
            return
        try:
            send = self._handshake.receive(data)
        except HandshakeFailed as problem:
            self.failed(error_for(problem, self._request, self.hop))
            return
        if send:
            self._send(send)
        if self._handshake.work is not None:
            self._do(self._handshake.work)
        answers = self._handshake.answers
        while self._told < len(answers) and not self._over:
            self._told += 1
            self.answered(answers[self._told - 1])

    def lost(self, reason: Failure) -> None:
        """The connection has ended."""
        if self._over:
            return
        cause = reason.value
        # TLS to the proxy has failed where the cause is another one, or the handshake has not begun.
        if cause is not None and not (self._begun and isinstance(cause, ConnectionClosed)):
            self.failed(_unreachable(cause, self.hop))
            return
        try:
            self._handshake.receive(b"")
        except HandshakeFailed as problem:
            found = error_for(problem, self._request, self.hop)
            found.__cause__ = None if isinstance(cause, ConnectionDone) else cause
            self.failed(found)

    def answered(self, address: Address) -> None:
        """The proxy has answered; *address* is what it tells. A subclass says what follows."""
        raise NotImplementedError

    def failed(self, problem: BaseException | Failure) -> None:
        """The attempt is over, without success. The connection closes."""
        if self._over:
            return
        self._end()
        self.result.errback(problem if isinstance(problem, Failure) else Failure(problem))

    def succeed(self, value: object) -> None:
        """The attempt is over, with *value*. The connection stays."""
        self._over = True
        self.result.callback(value)

    def close(self) -> None:
        """Close the connection to the proxy."""
        if self.negotiator is not None:
            self.negotiator.transport.loseConnection()

    def stop(self) -> None:
        """Give up what is left of the attempt."""
        if not self._over:
            self._end()

    @property
    def asking(self) -> bool:
        """Whether the request is sent and the proxy has not answered."""
        return self._begun and self._handshake.asking

    @property
    def over(self) -> bool:
        """Whether :attr:`result` has fired or is firing."""
        return self._over

    # Inside.

    def _send(self, data: bytes) -> None:
        assert self.negotiator is not None
        self.negotiator.transport.write(data)

    def _do(self, work: Work) -> None:
        done = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
        done.addCallbacks(self._worked, self._work_failed)

    def _worked(self, result: bytes) -> None:
        if not self._over:
            self._send(self._handshake.resume(result))

    def _work_failed(self, failure: Failure) -> None:
        problem = failure.value
        if isinstance(problem, HandshakeFailed):
            self.failed(error_for(problem, self._request, self.hop))
        else:
            self.failed(failure)

    def _not_connected(self, failure: Failure) -> None:
        problem = failure.value
        if isinstance(problem, ProxyError):
            self.failed(failure)  # of a proxy before this one
        elif problem is not None:
            self.failed(_unreachable(problem, self.hop))

    def _end(self) -> None:
        self._over = True
        if self.negotiator is not None:
            _abort(self.negotiator.transport)
        elif self._connecting is not None:
            self._connecting.cancel()

    def _cancelled(self, result: Deferred[Any]) -> None:
        self._end()
        result.errback(ConnectingCancelledError(address_of(self._request.destination)))

    def timed_out(self, result: object, timeout: float) -> None:
        """Raise what the *timeout* of so many seconds says of the proxy."""
        kind: type[ProxiedConnectError]
        if self.negotiator is None:
            kind, phase = ProxyTimedOut, "there is no connection to the proxy"
        elif not self._begun:
            kind, phase = ProxyTimedOut, "there is no TLS to the proxy"
        elif self.asking:
            kind, phase = ReplyTimedOut, "the proxy has not answered the request"
        else:
            kind, phase = ProxyTimedOut, "the proxy has not finished the greeting and the login"
        raise kind(f"{phase} within {timeout:g} seconds", hop=self.hop)


class Connecting(Attempt):
    """
    An attempt to CONNECT, which ends with a protocol of *factory* on the connection.

    :param factory: the caller's.
    """

    def __init__(
        self,
        reactor: Any,
        proxy: IStreamClientEndpoint,
        handshake: Conversation,
        request: Request,
        factory: IProtocolFactory,
    ) -> None:
        super().__init__(reactor, proxy, handshake, request)
        self._factory = factory

    def doStart(self) -> None:
        """The caller's factory hears what it hears without a proxy."""
        self._factory.doStart()

    def doStop(self) -> None:
        """The same."""
        self._factory.doStop()

    def answered(self, address: Address) -> None:
        """There is a connection to the destination."""
        assert self.negotiator is not None
        hand_over(self, self.negotiator, self._handshake, self._factory, self._request.destination)


def hand_over(
    attempt: Attempt,
    negotiator: Negotiator,
    handshake: Conversation,
    factory: IProtocolFactory,
    peer: Address,
) -> None:
    """
    Give the connection of *attempt* to a protocol of *factory*.

    The order is that of a connection without a proxy: ``connectionMade``, then the Deferred fires, then the
    bytes that came with the reply.

    :param peer: the address at the other end.
    """
    told = address_of(peer)
    transport: Any = negotiator.transport
    rest, wrapping = handshake.rest, handshake.wrapping
    try:
        protocol = factory.buildProtocol(told)
        if protocol is None:
            raise NoProtocol()
        receiver: Any = protocol if wrapping is None else Protected(protocol, wrapping)
        transport.proxied_hops = attempt.hop
        if not isinstance(told, HostnameAddress):
            transport.getPeer = lambda: told
        negotiator.give_to(receiver)
        receiver.makeConnection(transport)
    except BaseException:
        attempt.failed(Failure())
        return
    if attempt.over:  # the protocol has cancelled it, in connectionMade
        return
    attempt.succeed(protocol)
    if rest:
        EarlyBytes(transport, protocol, rest).deliver()


def is_securing(transport: Any) -> bool:
    """Whether *transport* speaks TLS, whose handshake is not over: its protocol hears when it is."""
    return is_tls(transport) and transport.getPeerCertificate() is None


def hops_of(transport: object) -> int:
    """How many proxies *transport* leads through."""
    hops = getattr(transport, "proxied_hops", 0)
    return hops if isinstance(hops, int) else 0


def host_behind(address: Address, control: Any) -> str:
    """
    The host of *address*, which a proxy has told on the connection *control*.

    The proxy's own where that is unspecified, a name, or a loopback address of another machine.
    """
    return relay_host(address, getattr(control.getPeer(), "host", address.host))


def relay_host(told: Address, server: str) -> str:
    """
    The host of *told*, the address that a proxy tells; *server* where that is of no use.

    :param server: the proxy's own host, a literal address or a name.
    """
    if told.type is AddressType.DOMAIN_NAME:
        return server
    host = ip_address(told.host)
    if host.is_unspecified or (host.is_loopback and not _is_loopback(server)):
        return server
    return told.host


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return is_localhost(host)


def address_of(address: Address) -> IAddress:
    """*address* as Twisted has it."""
    if address.type is AddressType.DOMAIN_NAME:
        return HostnameAddress(address.host.encode("utf-8", "surrogateescape"), address.port)
    kind = IPv4Address if address.type is AddressType.IPV4 else IPv6Address
    return kind("TCP", address.host, address.port)


def _abort(transport: Any) -> None:
    getattr(transport, "abortConnection", transport.loseConnection)()


def _unreachable(problem: BaseException, hop: int) -> ProxyUnreachable:
    """The error for a proxy to which there is no connection, because of *problem*."""
    if isinstance(problem, ProxiedConnectError):
        hop = problem.hop
        text = f"the proxy does not lead to the next one: {problem.message}"
        found = ProxyUnreachable(text, problem.reply, hop)
    else:
        found = ProxyUnreachable(f"no connection to the proxy: {problem or type(problem).__name__}", hop=hop)
    found.__cause__ = problem
    return found
