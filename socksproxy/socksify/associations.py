"""
Datagrams through the proxy: one UDP association for each sender and its destination.

An association begins with the first datagram and ends when no datagram has passed for two minutes, so that
a socket that is only connected, as getaddrinfo does it, costs the proxy nothing. It begins again with the
next datagram.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..client.errors import InvalidDestination
from ..wire.words import Address

#: Seconds without a datagram after which an association ends.
IDLE = 120.0
#: Seconds for which a proxy that refuses an association is not asked again.
REFUSED = 60.0
#: The most associations at the same time. A further association ends the oldest one.
MOST = 1024
#: Datagrams that wait until the association is there.
QUEUE = 16

_log = Logger(namespace="socksproxy")


class FlowAssociations:
    """
    All associations.

    :param clock: for idle ones.
    :param associate: asks the proxy for one: :meth:`socksproxy.client.Proxy.associate`.
    :param refused: is told why there is none, at most once for each :data:`REFUSED` seconds.
    """

    def __init__(
        self,
        clock: Any,
        associate: Callable[[DatagramProtocol], Deferred[Any]],
        refused: Callable[[object], None] = lambda problem: None,
    ) -> None:
        self._clock = clock
        self._associate = associate
        self._refused = refused
        self._open: dict[Hashable, _Association] = {}
        self._refused_until = 0.0

    def check(self) -> None:
        """
        Check whether the proxy takes datagrams, as far as that is known.

        :raises OSError: (ENETUNREACH) when it has refused lately.
        """
        if self._clock.seconds() < self._refused_until:
            raise OSError(errno.ENETUNREACH, "the proxy takes no datagrams")

    def send(self, back: Callable[[bytes], None], flow: Hashable, destination: Address, data: bytes) -> None:
        """
        Send *data* to *destination*.

        :param back: gets what comes back.
        :param flow: what has an association of its own.
        """
        association = self._open.get(flow)
        if association is None:
            if self._clock.seconds() < self._refused_until:
                return
            association = self._begin(back, flow, destination)
        association.send(data)

    def close(self) -> None:
        """End all associations."""
        for association in list(self._open.values()):
            association.close()

    def _begin(self, back: Callable[[bytes], None], flow: Hashable, destination: Address) -> _Association:
        if len(self._open) >= MOST:
            next(iter(self._open.values())).close()
        association = self._open[flow] = _Association(
            self._clock, destination, back, lambda: self._open.pop(flow, None)
        )
        self._associate(association).addErrback(self._failed, association)
        return association

    def _failed(self, failure: Failure, association: _Association) -> None:
        now = self._clock.seconds()
        if now >= self._refused_until:
            self._refused(failure.value)
        self._refused_until = now + REFUSED
        association.close()


class _Association(DatagramProtocol):
    """One association, and what the proxy sends."""

    noisy = False
    transport: Any = None

    def __init__(
        self, clock: Any, destination: Address, back: Callable[[bytes], None], ended: Callable[[], object]
    ) -> None:
        self._destination = destination
        self._back = back
        self._ended = ended
        self._queue: list[bytes] = []
        self._timer = clock.callLater(IDLE, self.close)

    def send(self, data: bytes) -> None:
        """Send *data*, now or when the association is there."""
        if self.transport is not None:
            self._timer.reset(IDLE)
            self._write(data)
        elif len(self._queue) < QUEUE:
            self._queue.append(data)

    def _write(self, data: bytes) -> None:
        try:
            self.transport.write(data)
        except (InvalidDestination, MessageLengthError) as problem:
            # The network drops such a datagram, too. With the proxy's header it can be too long.
            _log.debug("a datagram is dropped: {problem}", problem=problem)

    def startProtocol(self) -> None:
        """The association is there."""
        self.transport.connect(self._destination.host, self._destination.port)
        queue, self._queue = self._queue, []
        for data in queue:
            self.send(data)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """The destination has sent *datagram*."""
        if self._timer.active():
            self._timer.reset(IDLE)
        self._back(datagram)

    def stopProtocol(self) -> None:
        """The association has ended."""
        self.close()

    def close(self) -> None:
        """End it; once is enough."""
        ended, self._ended = self._ended, lambda: None
        ended()
        if self._timer.active():
            self._timer.cancel()
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.stopListening()
