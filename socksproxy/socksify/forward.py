"""
``socksproxy forward``: local ports that lead through a proxy, as a service for Twisted.

In a ``.tac`` file::

    from socksproxy.client import Proxy
    from socksproxy.socksify.forward import ForwardService

    proxy = Proxy.from_url("socks5://192.0.2.1:1080")
    ForwardService(proxy, ["127.0.0.1:8080", "udp:127.0.0.1:5353"], ["example.org:80", "192.0.2.53:53"])
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..client.destinations import destination_of
from ..client.errors import ProxiedConnectError
from ..client.proxy import Proxy
from ..logs.throttle import LogThrottle
from ..net.names import literal
from ..wire.words import Address
from .associations import FlowAssociations
from .joining import JoinedEnd, join
from .transparent import TransparentUDP, allow_foreign, listening_socket, original_destination

_BACKLOG = 1024
_LOOPBACK = "127.0.0.1"
_PLACE = re.compile(
    r"(?:(?P<kind>tcp|udp):)?(?:(?:\[(?P<ipv6>[^]]+)\]|(?P<host>[^:\[\]]+)):)?(?P<port>\d+)", re.ASCII
)

_log = Logger(namespace="socksproxy")


class Place(NamedTuple):
    """
    Where a forward listens or leads.

    :ivar udp: whether it is about datagrams.
    :ivar host: an address or, for a destination, a name.
    """

    udp: bool
    host: str
    port: int


def parse_place(text: str, default: str | None = None) -> Place:
    """
    Read ``[tcp:|udp:][HOST:]PORT``, with an IPv6 address in brackets.

    :param default: the host where none is given, for a port to listen on, which may be 0; None: there must
        be one, and a port.
    :raises ValueError: for another text.
    """
    found = _PLACE.fullmatch(text)
    host = found and (found["ipv6"] or found["host"] or default)
    least = 1 if default is None else 0
    if not found or not host or not least <= int(found["port"]) <= 65535:
        form = "HOST:PORT" if default is None else "[udp:][ADDRESS:]PORT"
        raise ValueError(f"{text}: {form} is due")
    return Place(found["kind"] == "udp", host, int(found["port"]))


def _listening_at(text: str) -> Place:
    """
    Where *text* says to listen.

    :raises ValueError: for another text.
    """
    place = parse_place(text, _LOOPBACK)
    if literal(place.host) is None:
        raise ValueError(f"{text}: an address such as {_LOOPBACK} is due, not {place.host}")
    return place


def _leading_to(text: str, listen: Place) -> Place:
    """
    The destination that *text* describes, to which clients of the port *listen* are led.

    :raises ValueError: for another text, and a name that the DNS does not allow.
    """
    place = parse_place(text)
    if place.udp and not listen.udp:
        raise ValueError(f"{text}: the port to listen on needs udp:, too")
    return place._replace(host=destination_of(place.host, place.port).host)


class ForwardService(Service):
    """
    Listens, and leads through *proxy* what comes.

    :param proxy: the proxy.
    :param listen: where to listen: ``[tcp:|udp:][ADDRESS:]PORT``; without an address, on 127.0.0.1.
    :param destinations: for each of these the destination, ``HOST:PORT``. None: each connection and
        datagram leads to where its sender has sent it, before this machine's packet filter led it here.
    :raises ValueError: for a text of another form, or another number of destinations.
    """

    def __init__(
        self, proxy: Proxy, listen: Sequence[str], destinations: Sequence[str] | None = None
    ) -> None:
        self._proxy = proxy
        self._places = list(map(_listening_at, listen))
        if destinations is not None and len(destinations) != len(listen):
            raise ValueError(f"{len(listen)} ports to listen on have {len(destinations)} destinations")
        self._destinations: list[Place | None] = [None] * len(listen)
        if destinations is not None:
            self._destinations = list(map(_leading_to, destinations, self._places))
        self._ports: list[Any] = []
        self._associations = FlowAssociations(proxy.reactor, proxy.associate, _tell)

    def privilegedStartService(self) -> None:
        """
        Open the ports.

        :raises OSError: and its like, when one cannot be opened.
        """
        for place, destination in zip(self._places, self._destinations, strict=True):
            opened = self._open_udp if place.udp else self._open_tcp
            self._ports.append(opened(place, destination))

    def startService(self) -> None:
        """Open the ports, unless they are open."""
        if not self._ports:
            self.privilegedStartService()
        super().startService()

    def stopService(self) -> Any:
        """Close the ports and all associations; connections end by themselves."""
        super().stopService()
        ports, self._ports = self._ports, []
        self._associations.close()
        return gatherResults([maybeDeferred(port.stopListening) for port in ports])

    @property
    def ports(self) -> list[tuple[str, int]]:
        """The addresses and ports, in the order in which they were given."""
        return [(port.getHost().host, port.getHost().port) for port in self._ports]

    def _open_tcp(self, place: Place, destination: Place | None) -> Any:
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        # An IPv6 port is for IPv6 alone, so that one for IPv4 with the same number can be beside it.
        with socket.create_server((place.host, place.port), family=family, backlog=_BACKLOG) as listening:
            listening.setblocking(False)
            if destination is None:
                allow_foreign(listening)
            factory = ForwardFactory(self._proxy, destination)
            return self._proxy.reactor.adoptStreamPort(listening.fileno(), family, factory)

    def _open_udp(self, place: Place, destination: Place | None) -> Any:
        reactor = self._proxy.reactor
        if destination is None:
            transparent = TransparentUDP(
                reactor, listening_socket(place.host, place.port), self._associations.send
            )
            transparent.startReading()
            return transparent
        protocol = ForwardedDatagrams(self._associations, Address.of(destination.host, destination.port))
        return reactor.listenUDP(place.port, protocol, interface=place.host, maxPacketSize=65535)


def _tell(problem: object) -> None:
    _log.warn("datagrams are not forwarded: {problem}", problem=problem)


class ForwardFactory(Factory):
    """
    Leads each connection through *proxy*.

    :param destination: where to; None: where the client wanted to.
    """

    noisy = False

    def __init__(self, proxy: Proxy, destination: Place | None) -> None:
        self.proxy = proxy
        self.destination = destination
        self.throttle = LogThrottle(proxy.reactor)

    def buildProtocol(self, addr: Any) -> JoinedEnd:
        """A client has come."""
        return _Client(self)


_FACTORY: Any = Factory.forProtocol(JoinedEnd)
_FACTORY.noisy = False


class _Client(JoinedEnd):
    """A client's connection."""

    def __init__(self, factory: ForwardFactory) -> None:
        super().__init__(self._gone)
        self._factory = factory
        self._dialing: Any = None

    def connectionMade(self) -> None:
        """Reading waits, so that the client's data waits in the kernel."""
        self.transport.pauseProducing()
        self.transport.setTcpKeepAlive(True)
        place = self._factory.destination
        try:
            host, port = original_destination(self.transport) if place is None else place[1:]
        except OSError as problem:
            self._failed(Failure(problem))
            return
        endpoint = self._factory.proxy.connect_endpoint(host, port)
        self._dialing = endpoint.connect(_FACTORY)
        self._dialing.addCallbacks(self._connected, self._failed)

    def _connected(self, destination: JoinedEnd) -> None:
        self._dialing = None
        # What came with the proxy's reply comes before the next turn.
        self._factory.proxy.reactor.callLater(0, self._join, destination)

    def _join(self, destination: JoinedEnd) -> None:
        if self.lost is not None:
            destination.abort()
        else:
            join(self._factory.proxy.reactor, self, destination)

    def _failed(self, reason: Failure) -> None:
        self._dialing = None
        if self.lost is None and self._factory.throttle.due():
            words = reason.value if reason.check(ProxiedConnectError, OSError) else reason.getErrorMessage()
            _log.warn("a connection is not forwarded: {problem}", problem=words)
        self.abort()

    def _gone(self, reason: Failure) -> None:
        if self._dialing is not None:
            self._dialing.cancel()


class ForwardedDatagrams(DatagramProtocol):
    """
    A UDP port that leads to one destination; each client has an association.

    :param associations: through the proxy.
    :param destination: where to.
    """

    noisy = False
    transport: Any

    def __init__(self, associations: FlowAssociations, destination: Address) -> None:
        self._associations = associations
        self._destination = destination

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """A client has sent *datagram*."""

        def back(data: bytes) -> None:
            if self.transport is not None:
                self.transport.write(data, addr)

        self._associations.send(back, (id(self), addr), self._destination, datagram)
