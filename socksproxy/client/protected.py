"""
What stands between a transport and a protocol when all bytes of the connection are protected (RFC 1961).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides, directlyProvides, providedBy

from ..wire.words import ProtocolError
from .handshake import Wrapping


class Protected(Protocol):
    """
    The protocol of a transport, and the transport of *inner*.

    :param inner: the caller's protocol. It sees plain bytes.
    :param wrapping: protects the bytes. A message that it does not accept closes the connection.
    :ivar inner: *inner*, or what has taken its place.
    """

    def __init__(self, inner: Any, wrapping: Wrapping) -> None:
        self.inner = inner
        self._wrapping = wrapping

    def makeConnection(self, transport: Any) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.makeConnection`."""
        directlyProvides(self, providedBy(transport))
        if IHalfCloseableProtocol.providedBy(self.inner):
            alsoProvides(self, IHalfCloseableProtocol)
        self.transport = transport
        self.inner.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        """Protected bytes have come."""
        try:
            plain = self._wrapping.unwrap(data)
        except ProtocolError:
            self.abortConnection()
            return
        if plain:
            self.inner.dataReceived(plain)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.connectionLost`."""
        self.inner.connectionLost(reason)

    def readConnectionLost(self) -> None:
        """See :meth:`twisted.internet.interfaces.IHalfCloseableProtocol.readConnectionLost`."""
        self.inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """See :meth:`twisted.internet.interfaces.IHalfCloseableProtocol.writeConnectionLost`."""
        self.inner.writeConnectionLost()

    def write(self, data: bytes) -> None:
        """See :meth:`twisted.internet.interfaces.ITransport.write`."""
        transport: Any = self.transport
        transport.write(self._wrapping.wrap(data))

    def writeSequence(self, data: Any) -> None:
        """See :meth:`twisted.internet.interfaces.ITransport.writeSequence`."""
        self.write(b"".join(data))

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's."""
        if name in ("transport", "inner", "_wrapping"):
            raise AttributeError(name)
        return getattr(self.transport, name)
