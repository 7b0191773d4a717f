"""
A proxy that does what a test says: any bytes, any split, any silence, in every phase.

:class:`ScriptedProxy` listens on loopback. :class:`MemoryProxy` is an endpoint without a network, for tests
in which the time is a clock's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapServerTLS
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

#: BND.ADDR 192.0.2.1, BND.PORT 80.
BOUND = b"\x01\xc0\x00\x02\x01\x00\x50"
SUCCESS5 = b"\x05\x00\x00" + BOUND
SUCCESS4 = b"\x00\x5a\x00\x50\xc0\x00\x02\x01"
SUCCESS_HTTP = b"HTTP/1.1 200 Connection established\r\n\r\n"

#: A step of a script: how many bytes to wait for, or bytes to send, or what to call with the proxy's end.
Step = int | bytes | Callable[["ScriptedEnd"], object]

#: Bytes of the greeting, and of a request for an IPv4 address.
GREETING, REQUEST = 3, 10


def close(end: ScriptedEnd) -> None:
    """Close the connection."""
    end.transport.loseConnection()


def reset(end: ScriptedEnd) -> None:
    """Reset the connection."""
    end.transport.abortConnection()


def forward_to(port: int) -> Callable[[ScriptedEnd], object]:
    """A step: from here on the connection leads to that *port* of 127.0.0.1."""

    def forward(end: ScriptedEnd) -> None:
        TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(Factory.forProtocol(_Onward)).addCallback(
            end.forward
        )

    return forward


def open5(*more: Step, request: int = REQUEST) -> list[Step]:
    """A proxy that wants no login: the script up to the request, and *more*."""
    return [GREETING, b"\x05\x00", request, *more]


class ScriptedEnd(Protocol):
    """
    The proxy's end of one connection. Behind the script's end it sends back what comes.

    :ivar received: all bytes.
    :ivar ended: why the connection has ended; None: it has not.
    """

    transport: Any

    def __init__(self, steps: Sequence[Step], pieces: int) -> None:
        self._steps = list(steps)
        self._pieces = pieces
        self._left = bytearray()
        self._busy = False
        self._leads_on = False
        self._onward: Any = None
        self.received = b""
        self.ended: Failure | None = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._go_on()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._left += data
        self._go_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = reason
        if self._onward is not None:
            self._onward.transport.abortConnection()

    def forward(self, onward: Any) -> None:
        """Lead to *onward*."""
        self._onward = onward
        onward.end = self
        self._go_on()

    def _go_on(self) -> None:
        while self._steps and not self._busy:
            step = self._steps[0]
            if isinstance(step, int):
                if len(self._left) < step:
                    return
                del self._left[:step]
            elif isinstance(step, bytes):
                self._say(step)
            else:
                step(self)
                self._leads_on = step.__name__ == "forward"
            self._steps.pop(0)
        if not self._steps and self._left and not self._busy and (self._onward or not self._leads_on):
            (self._onward or self).transport.write(bytes(self._left))
            self._left.clear()

    def _say(self, data: bytes) -> None:
        if not self._pieces:
            self.transport.write(data)
            return
        self._busy = bool(data)
        self.transport.write(data[: self._pieces])
        if data:
            reactor.callLater(0.001, self._say, data[self._pieces :])
        else:
            self._go_on()


class _Onward(Protocol):
    """The connection from a proxy to the destination."""

    end: Any

    def dataReceived(self, data: bytes) -> None:
        self.end.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.end.transport.loseConnection()


class ScriptedProxy(Factory[ScriptedEnd]):
    """
    A proxy on loopback.

    :param steps: what each connection does.
    :param pieces: bytes that are sent at a time; 0: all at once.
    :param context: speaks TLS with it; None: no TLS.
    :ivar ends: its connections.
    """

    noisy = False

    def __init__(self, *steps: Step, pieces: int = 0, context: Any = None) -> None:
        self.steps: Sequence[Step] = steps
        self._pieces = pieces
        self._context = context
        self._port: Any = None
        self.ends: list[ScriptedEnd] = []

    def buildProtocol(self, addr: object) -> ScriptedEnd:
        end = ScriptedEnd(self.steps, self._pieces)
        self.ends.append(end)
        return end

    @inlineCallbacks
    def start(self) -> Generator[Any, Any, Any]:
        """Listen; the proxy."""
        from twisted.internet.endpoints import TCP4ServerEndpoint

        listening: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        if self._context is not None:
            listening = wrapServerTLS(self._context, listening)
        self._port = yield listening.listen(self)
        return self

    @property
    def port(self) -> int:
        """Where it listens."""
        number: int = self._port.getHost().port
        return number

    @property
    def endpoint(self) -> IStreamClientEndpoint:
        """Leads to it, without TLS."""
        return TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)

    def stop(self) -> Deferred[None]:
        """Close all."""
        for end in self.ends:
            if end.ended is None:
                end.transport.abortConnection()
        stopped: Deferred[None] = self._port.stopListening()
        return stopped


class MemoryTransport(StringTransport):
    """A transport in memory that tells its protocol of its end. :ivar aborted: whether it was reset."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True


@implementer(IStreamClientEndpoint)
class MemoryProxy:
    """
    An endpoint to a proxy that is the test itself.

    :param connects: whether there is a connection at once; if not, there never is one.
    :ivar transports: the connections.
    :ivar cancelled: how many attempts to connect were given up.
    """

    def __init__(self, connects: bool = True) -> None:
        self._connects = connects
        self.protocols: list[Any] = []
        self.transports: list[MemoryTransport] = []
        self.cancelled = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See :class:`IStreamClientEndpoint`."""
        connected: Deferred[Any] = Deferred(self._cancel)
        protocolFactory.doStart()
        if self._connects:
            factory: Any = protocolFactory
            protocol = factory.buildProtocol(None)
            transport = MemoryTransport()
            self.protocols.append(protocol)
            self.transports.append(transport)
            protocol.makeConnection(transport)
            connected.callback(protocol)
        return connected

    def _cancel(self, connected: object) -> None:
        self.cancelled += 1

    @property
    def sent(self) -> bytes:
        """What the client has sent on its last connection."""
        sent: bytes = self.transports[-1].value()
        return sent

    def say(self, data: bytes) -> None:
        """Send *data* on the last connection."""
        self.protocols[-1].dataReceived(data)

    def end(self, reason: BaseException) -> None:
        """End the last connection."""
        self.protocols[-1].connectionLost(Failure(reason))


class Recorder(Protocol):
    """A caller's protocol. :ivar heard: what it was told, in order."""

    transport: Any

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def connectionMade(self) -> None:
        self.heard.append("made")

    def dataReceived(self, data: bytes) -> None:
        if isinstance(self.heard[-1], bytes):
            self.heard[-1] += data
        else:
            self.heard.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.heard.append(reason.type)


class Recorders(Factory[Recorder]):
    """A caller's factory. :ivar built: its protocols, and :attr:`addresses` what they were built for."""

    noisy = False
    protocol = Recorder

    def __init__(self) -> None:
        self.built: list[Recorder] = []
        self.addresses: list[Any] = []
        self.started = self.stopped = 0

    def startFactory(self) -> None:
        self.started += 1

    def stopFactory(self) -> None:
        self.stopped += 1

    def buildProtocol(self, addr: object) -> Recorder:
        self.addresses.append(addr)
        self.built.append(self.protocol())
        return self.built[-1]
