"""
The carriers of handshakes with the proxies of a way out: a plain socket of the engine, or a transport.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import SocketType
from typing import Any, Protocol as Shape

from twisted.internet.interfaces import IHandshakeListener
from twisted.python.failure import Failure
from zope.interface import implementer

from ..client.handshake import Wrapping
from ..client.protected import Protected
from ..net.dial import Destination
from ..relay.engine import RelayEngine
from ..relay.epoll_events import READABLE, UNEVEN
from ..twisted_internals import replace_protocol
from .hops import Hop

_MOST_READ = 4096


class Talks(Shape):
    """The receiver of a carrier's events."""

    over: bool

    def received(self, data: bytes) -> None:
        """The proxy has sent *data*; empty: it has closed the connection."""

    def lost(self, problem: BaseException) -> None:
        """The connection is gone."""


class SocketCarrier:
    """
    A plain socket that is registered with the engine.

    :param talk: receives the events.
    :ivar missed: the events that are still to be handled; the relay takes them over.
    """

    __slots__ = ("_engine", "_talk", "link", "missed")

    def __init__(self, talk: Talks, engine: RelayEngine, link: SocketType) -> None:
        self._talk = talk
        self._engine = engine
        self.link = link
        self.missed = 0

    def start(self) -> None:
        """Register the socket with the engine, for its events."""
        self.missed = self._engine.take_over(self.link.fileno(), self)

    def event(self, mask: int) -> None:
        """See :class:`socksproxy.relay.engine.Handler`."""
        if self._talk.over or not mask & READABLE:
            self.missed |= mask & READABLE
            return
        talk, link, uneven = self._talk, self.link, mask & UNEVEN
        self.missed = 0
        while not talk.over:
            try:
                data = link.recv(_MOST_READ)
            except BlockingIOError:
                return
            except OSError as problem:
                talk.lost(problem)
                return
            drained = len(data) < _MOST_READ and not uneven
            # Set first, because Talks.received() may begin the relay, which reads it.
            self.missed = 0 if drained else READABLE
            talk.received(data)
            if drained:
                return

    def send(self, data: bytes) -> None:
        """Send *data*, which is short enough for one call."""
        try:
            sent = self.link.send(data)
        except OSError as problem:
            self._talk.lost(problem)
            return
        if sent < len(data):
            self._talk.lost(BlockingIOError("the proxy does not read"))

    def close(self) -> None:
        """The connection is not wanted."""
        self._engine.drop(self.link.fileno())
        self.link.close()

    def abort(self) -> None:
        """See :class:`socksproxy.relay.engine.Handler`: the engine ends."""
        self._talk.lost(ConnectionAbortedError("the relay engine ends"))

    def start_tls(self, hop: Hop, secured: Callable[[], None]) -> None:
        """A socket of the engine speaks no TLS."""
        raise NotImplementedError

    def protect(self, wrapping: Wrapping) -> None:
        """A socket of the engine protects nothing."""
        raise NotImplementedError


class TransportCarrier:
    """
    A transport of Twisted, with one layer of TLS for each proxy that speaks TLS.

    :param talk: receives the events.
    :ivar link: the protocol on the topmost layer.
    """

    def __init__(self, talk: Talks, link: Destination) -> None:
        self._talk = talk
        self.link = link
        link.end = self

    def start_tls(self, hop: Hop, secured: Callable[[], None]) -> None:
        """Speak TLS with *hop* from now on; *secured* is called when its certificate has been accepted."""
        from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

        options: Any = hop.tls
        lower, self.link = self.link, SecuredLink(secured)
        self.link.end, lower.end = self, None
        layer = TLSMemoryBIOProtocol(TLSMemoryBIOFactory(options, True, _NO_FACTORY), self.link)
        _put(layer, lower.transport)

    def protect(self, wrapping: Wrapping) -> None:
        """Have all bytes be protected by *wrapping* from now on (RFC 1961)."""
        lower, self.link = self.link, Destination()
        self.link.end, lower.end = self, None
        _put(Protected(self.link, wrapping), lower.transport)

    def send(self, data: bytes) -> None:
        """Send *data*."""
        self.link.transport.write(data)

    def close(self) -> None:
        """The connection is not wanted."""
        self.link.end = None
        transport: Any = self.link.transport
        transport.abortConnection()

    def released(self) -> Destination:
        """The protocol, cut off from this carrier."""
        self.link.end = None
        return self.link

    def dataReceived(self, data: bytes) -> None:
        """See :class:`socksproxy.net.dial.RelaySide`."""
        self._talk.received(data)

    def readConnectionLost(self) -> None:
        """See :class:`socksproxy.net.dial.RelaySide`."""
        self._talk.received(b"")

    def writeConnectionLost(self) -> None:
        """See :class:`socksproxy.net.dial.RelaySide`."""

    def connectionLost(self, reason: Failure) -> None:
        """See :class:`socksproxy.net.dial.RelaySide`."""
        self._talk.lost(reason.value or ConnectionAbortedError())


@implementer(IHandshakeListener)
class SecuredLink(Destination):
    """
    A link within TLS.

    :param secured: called when the handshake of TLS is over.
    """

    def __init__(self, secured: Callable[[], None]) -> None:
        super().__init__()
        self._secured = secured

    def handshakeCompleted(self) -> None:
        """See :class:`twisted.internet.interfaces.IHandshakeListener`."""
        self._secured()


def _put(layer: Any, transport: Any) -> None:
    """Have *layer* be the protocol of *transport*."""
    if isinstance(transport, Protected):
        transport.inner = layer
    else:
        replace_protocol(transport, layer)
    layer.makeConnection(transport)


class _NoFactory:
    """Takes the place of a factory: TLS needs one, although its protocol is there already."""

    noisy = False

    def doStart(self) -> None: ...

    def doStop(self) -> None: ...

    def logPrefix(self) -> str:
        return "upstream"


_NO_FACTORY: Any = _NoFactory()
