"""
The way between the workers and the router of their datagrams, which the supervisor has.

A message is a line of JSON and, behind it, a datagram. Messages keep their order, and none is lost but
datagrams for which there is no room.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from ..logs.throttle import complain

_log = Logger(namespace="socksproxy")


@implementer(IPushProducer)
class Way(Int32StringReceiver):
    """
    One end.

    :param received: called with each message and its datagram.
    :param ended: called when the other end is gone.
    """

    transport: Any

    #: Bytes of a message: the largest datagram, and the line before it.
    MAX_LENGTH = 1 << 17

    def __init__(
        self, received: Callable[[list[Any], bytes], None], ended: Callable[[], None] = lambda: None
    ) -> None:
        self._received = received
        self._ended = ended
        self._full = False

    def send(self, message: list[Any], data: bytes) -> None:
        """Send *message*, unless it has a datagram and the other end does not keep up."""
        if not (self._full and data):
            self.sendString(json.dumps(message).encode() + b"\n" + data)

    def stringReceived(self, string: bytes) -> None:
        line, _, data = string.partition(b"\n")
        try:
            self._received(json.loads(line), data)
        except Exception:
            # A fault of ours costs this message; without the way no client could begin to send.
            complain(_log, "a datagram between workers fails")

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended()

    def pauseProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IPushProducer.pauseProducing`."""
        self._full = True

    def resumeProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IPushProducer.resumeProducing`."""
        self._full = False

    def stopProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IProducer.stopProducing`."""


OneEnd = TypeVar("OneEnd", bound=Protocol)


class _Ways(Factory):
    noisy = False

    def __init__(self, way: Protocol) -> None:
        self._way = way

    def buildProtocol(self, addr: object) -> Protocol:
        return self._way


def go(reactor: Any, descriptor: int, way: OneEnd) -> OneEnd:
    """
    Have *way* use the Unix socket *descriptor*, which is closed here; *reactor* has its own.

    :returns: *way*.
    """
    os.set_blocking(descriptor, False)
    reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, _Ways(way))
    os.close(descriptor)
    return way
