"""
What carries the handshakes with the proxies of a way out: a plain socket of the engine, or a transport.
"""

from __future__ import annotations

from socket import SocketType
from typing import Any, Protocol as Shape

from twisted.python.failure import Failure

from ..net.dial import Destination
from ..relay.engine import RelayEngine
from ..relay.epoll_events import READABLE, UNEVEN
from ..twisted_internals import replace_protocol
from .hops import Hop

_MOST_READ = 4096


class Talks(Shape):
    """What a carrier tells."""

    over: bool

    def received(self, data: bytes) -> None:
        """The proxy has sent *data*; empty: it has closed the connection."""

    def lost(self, problem: BaseException) -> None:
        """The connection is gone."""


class SocketCarrier:
    """
    A plain socket that is registered with the engine.

    :param talk: is told what happens.
    :ivar missed: events that are not used up; the relay takes them over.
    """

    __slots__ = ("_engine", "_talk", "link", "missed")

    def __init__(self, talk: Talks, engine: RelayEngine, link: SocketType) -> None:
        self._talk = talk
        self._engine = engine
        self.link = link
        self.missed = 0

    def start(self) -> None:
        """Be told of the events of the socket."""
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
            # Before the relay begins, which :meth:`Talks.received` may bring about.
            self.missed = 0 if drained else READABLE
            talk.received(data)
            if drained:
                return

    def send(self, data: bytes) -> None:
        """Send *data*, which is short."""
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

    def start_tls(self, hop: Hop) -> None:
        """A socket of the engine speaks no TLS."""
        raise NotImplementedError


class TransportCarrier:
    """
    A transport of Twisted, with as many layers of TLS as proxies want.

    :param talk: is told what happens.
    :ivar link: the protocol on the topmost layer.
    """

    def __init__(self, talk: Talks, link: Destination) -> None:
        self._talk = talk
        self.link = link
        link.end = self

    def start_tls(self, hop: Hop) -> None:
        """Speak TLS with *hop* from now on."""
        from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

        options: Any = hop.tls
        lower, self.link = self.link, Destination()
        self.link.end, lower.end = self, None
        layer = TLSMemoryBIOProtocol(TLSMemoryBIOFactory(options, True, _NO_FACTORY), self.link)
        replace_protocol(lower.transport, layer)
        layer.makeConnection(lower.transport)

    def send(self, data: bytes) -> None:
        """Send *data*."""
        self.link.transport.write(data)

    def close(self) -> None:
        """The connection is not wanted."""
        self.link.end = None
        transport: Any = self.link.transport
        transport.abortConnection()

    def released(self) -> Destination:
        """The protocol, which passes on to nothing here any more."""
        self.link.end = None
        return self.link

    # As a side of a relay.

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


class _NoFactory:
    """Stands for the factory of what speaks through TLS, which is there already."""

    noisy = False

    def doStart(self) -> None: ...

    def doStop(self) -> None: ...

    def logPrefix(self) -> str:
        return "upstream"


_NO_FACTORY: Any = _NoFactory()
