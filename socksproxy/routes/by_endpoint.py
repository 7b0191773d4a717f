"""
Connections to first proxies by client endpoints of Twisted.

An endpoint with TLS has connected as soon as TCP has: its TLS begins then. Here the connection is there when
TLS is, so that a proxy counts as asked only when it has been.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..client.connecting import is_securing
from ..errors import ConnectFailed
from ..net.dial import Destination, Dialed
from ..net.resolve import NameLookups
from ..wire.words import UNSPECIFIED, Address, Reply
from .endpoint_reactor import EndpointReactor


def connect_by(endpoint: str, reactor: Any, names: Callable[[], NameLookups]) -> Deferred[Dialed]:
    """
    Connect by *endpoint*.

    :param endpoint: describes a client endpoint of Twisted.
    :param reactor: makes connections.
    :param names: gives what looks names up.
    :returns: fires when there is a connection, and TLS where the endpoint has it; it can be cancelled.
    """
    try:
        described = clientFromString(EndpointReactor(reactor, names), endpoint)
        connecting: Deferred[Any] = described.connect(_EndpointLinks())
    except Exception:  # Twisted and its plugins raise all kinds, and their words may hold a password
        return fail(ConnectFailed("the endpoint cannot be used", Reply.GENERAL_FAILURE))
    connecting.addCallback(_secured)
    return connecting.addCallback(_dialed)


@implementer(IHandshakeListener)
class _EndpointLink(Destination):
    """What an endpoint connects. :ivar secured: fires when TLS stands; None: nothing waits for that."""

    secured: Deferred[_EndpointLink] | None = None

    def handshakeCompleted(self) -> None:
        """See :class:`twisted.internet.interfaces.IHandshakeListener`."""
        secured, self.secured = self.secured, None
        if secured is not None:
            secured.callback(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        secured, self.secured = self.secured, None
        if secured is not None:
            secured.errback(reason)
        super().connectionLost(reason)


class _EndpointLinks(Factory[_EndpointLink]):
    noisy = False
    protocol = _EndpointLink


def _secured(link: _EndpointLink) -> _EndpointLink | Deferred[_EndpointLink]:
    transport: Any = link.transport
    if not is_securing(transport):
        return link

    def cancelled(_: object) -> None:
        link.secured = None
        transport.abortConnection()

    link.secured = Deferred(cancelled)
    return link.secured


def _dialed(link: _EndpointLink) -> Dialed:
    """The connection that an endpoint has made."""
    own = link.transport.getHost()
    host = getattr(own, "host", None)
    place = UNSPECIFIED if host is None else Address.of(host, own.port)
    peer = link.transport.getPeer()
    told = isinstance(peer, (IPv4Address, IPv6Address))
    return Dialed(link, Address.of(peer.host, peer.port) if told else UNSPECIFIED, place)
