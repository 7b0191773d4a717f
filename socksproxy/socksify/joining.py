"""
Bytes both ways between a local connection and one through the proxy, with half-closes.

Two plain sockets go to the relay engine (splice). All else, such as TLS to the proxy, moves by Twisted's
transports: each end is the other's producer, so that neither buffers without bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..relay import engine_for
from ..relay.interfaces import IRelay
from ..twisted_internals import can_half_close, detach_socket, is_detachable


@implementer(IHalfCloseableProtocol)
class JoinedEnd(Protocol):
    """
    One of two ends. What comes before it has its other end waits.

    :param ended: called when the connection is gone, with the reason.
    """

    transport: Any

    def __init__(self, ended: Callable[[Failure], None] = lambda reason: None) -> None:
        self._ended = ended
        self._other: JoinedEnd | None = None
        self._early = b""
        self._read_closed = False
        self._write_closed = False
        self.lost: Failure | None = None

    def join(self, other: JoinedEnd) -> None:
        """From now on, bytes go both ways between this end and *other*."""
        for end, its in ((self, other), (other, self)):
            end._other = its
            its.transport.registerProducer(end.transport, True)
        for end in (self, other):
            end._catch_up()

    def take_early(self) -> bytes:
        """What has come so far, which is forgotten here."""
        early, self._early = self._early, b""
        return early

    def write(self, data: bytes) -> None:
        """Send *data*."""
        if self.lost is None and not self._write_closed:
            self.transport.write(data)

    def finish(self) -> None:
        """The other end sends no more."""
        if self.lost is not None or self._write_closed:
            return
        self._write_closed = True
        self.transport.unregisterProducer()
        if self._read_closed or not _half_closes(self.transport):
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def abort(self) -> None:
        """The other end has broken."""
        if self.lost is None:
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()

    def dataReceived(self, data: bytes) -> None:
        """The peer has sent *data*."""
        if self._other is None:
            self._early += data
        else:
            self._other.write(data)

    def readConnectionLost(self) -> None:
        """The peer sends no more."""
        self._read_closed = True
        if self._other is not None:
            self._other.finish()
            if self._write_closed and self.lost is None:
                self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The peer reads no more."""
        self._write_closed = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self.lost = reason
        if self._other is not None:
            self._other.other_lost(reason)
        self._ended(reason)

    def other_lost(self, reason: Failure) -> None:
        """The other end's connection is gone, for *reason*."""
        if reason.check(ConnectionDone):
            self.finish()
        else:
            self.abort()

    def _catch_up(self) -> None:
        """Pass on what came before the ends were joined."""
        assert self._other is not None
        early = self.take_early()
        if early:
            self._other.write(early)
        if self.lost is not None:
            self._other.other_lost(self.lost)
        elif self._read_closed:
            self._other.finish()
        else:
            self.transport.resumeProducing()


def _half_closes(transport: Any) -> bool:
    return not hasattr(transport, "getPeerCertificate") and can_half_close(transport)


class _Owner:
    """The relay needs no care."""

    def relay_half_closed(self, relay: IRelay) -> None:
        """It goes on until the other direction closes."""

    def relay_ended(self, relay: IRelay) -> None:
        """Both sockets are closed."""


_owner = _Owner()


def join(reactor: Any, client: JoinedEnd, destination: JoinedEnd) -> None:
    """Relay between two connections of *reactor*, by the engine where that is possible."""
    engine = engine_for(reactor)
    if engine is not None and _is_plain(client) and _is_plain(destination):
        back = destination.take_early()
        if back:
            client.transport.write(back)
        first = detach_socket(client.transport)
        second = None if first is None else detach_socket(destination.transport)
        if first is not None and second is not None:
            engine.relay(first, second, _owner, client.take_early())
            return
        if first is not None:
            first.close()  # the destination's buffer is full already, which only a failing connection has
            destination.abort()
            return
    client.join(destination)


def _is_plain(end: JoinedEnd) -> bool:
    return end.lost is None and not end._read_closed and is_detachable(end.transport)
