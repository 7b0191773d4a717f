"""
UDP ASSOCIATE: datagrams through a proxy (RFC 1928, section 7).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..net.names import literal
from ..wire.datagram import build_header, parse_datagram
from ..wire.words import UNSPECIFIED, Address, Command, ProtocolError, Request, Version
from .connecting import Attempt, host_behind
from .destinations import destination_of, handshake_for
from .handshake import Login

_UNSPECIFIED6 = Address.of("::", 0)
#: Bytes of the longest datagram.
_LONGEST = 65535


class Associating(Attempt):
    """
    An association, from the connection to the proxy to its end.

    :param reactor: opens the connection and the UDP port.
    :param proxy: leads to the proxy.
    :param login: who the client is.
    :param protocol: the caller's.
    """

    def __init__(
        self, reactor: Any, proxy: IStreamClientEndpoint, login: Login | None, protocol: DatagramProtocol
    ) -> None:
        request = Request(Version.SOCKS5, Command.UDP_ASSOCIATE, UNSPECIFIED)
        super().__init__(reactor, proxy, handshake_for(request, login), request)
        self._login = login
        self._protocol = protocol
        self.transport: AssociationTransport | None = None

    def connected(self, negotiator: Any) -> None:
        """Some proxies take only an unspecified address of the connection's own family."""
        if isinstance(negotiator.transport.getPeer(), IPv6Address):
            self._request = self._request._replace(destination=_UNSPECIFIED6)
            self._handshake = handshake_for(self._request, self._login)
        super().connected(negotiator)

    def answered(self, address: Address) -> None:
        """The proxy's relay is at *address*."""
        assert self.negotiator is not None
        control = self.negotiator.transport
        relay = host_behind(address, control)
        place = relay, address.port
        transport = AssociationTransport(self, self._protocol, place, self._handshake.wrapping)
        try:
            port = self._reactor.listenUDP(
                0, transport.link, interface=_own_interface(control, relay), maxPacketSize=_LONGEST
            )
        except Exception:
            self.failed(Failure())
            return
        try:
            transport.opened(port)
        except Exception:
            port.stopListening()
            self.failed(Failure())
            return
        self.transport = transport
        self.result.callback(transport)

    def received(self, data: bytes) -> None:
        """What the proxy sends behind its reply says nothing."""
        if self.transport is None:
            super().received(data)

    def lost(self, reason: Failure) -> None:
        """The association ends with its connection."""
        if self.transport is None:
            super().lost(reason)
        else:
            self.transport.ended(reason.value)


@implementer(IUDPTransport)
class AssociationTransport:
    """
    Sends and receives datagrams through a proxy.

    The protocol's ``stopProtocol`` is called when the association ends, by :meth:`stopListening` or because
    the proxy has closed the connection on which it was asked for.
    """

    def __init__(
        self, attempt: Attempt, protocol: DatagramProtocol, relay: tuple[str, int], wrapping: Any
    ) -> None:
        self._attempt = attempt
        # The socket is not connected to it: Twisted's reactor ends a connected port when an ICMP error comes.
        self._relay = relay
        self._protocol = protocol
        self._wrapping = wrapping
        self._port: Any = None
        self._only: tuple[str, int] | None = None
        self._waiting: list[Deferred[BaseException | None]] = []
        self._over = False
        self._reason: BaseException | None = None
        self.link = _Link(self)

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        """
        Send a datagram.

        :param packet: the data, which goes in one piece (FRAG is 0).
        :param addr: a name, which the proxy looks up, or a literal address, and a port; None: what
            :meth:`connect` has been told.
        :raises InvalidDestination: for what no header can carry.
        """
        if self._over:
            return
        addr = self._only if addr is None else addr
        if addr is None:
            raise ValueError("a datagram has no destination: give one, or connect")
        data = _header_for(*addr) + packet
        self._port.write(data if self._wrapping is None else self._wrapping.wrap_datagram(data), self._relay)

    def writeSequence(self, packets: Any, addr: tuple[str, int]) -> None:
        """Send one datagram of several pieces."""
        self.write(b"".join(packets), addr)

    def connect(self, host: str, port: int) -> None:
        """
        Send to *host* and *port* where nothing else is said. Datagrams of others are dropped if *host* is
        literal.

        :raises InvalidDestination: for what no header can carry.
        """
        destination = destination_of(host, port)
        self._only = (destination.host, destination.port)

    def getHost(self) -> IPv4Address | IPv6Address:
        """This end of the way to the proxy."""
        host: IPv4Address | IPv6Address = self._port.getHost()
        return host

    def when_ended(self) -> Deferred[BaseException | None]:
        """Fires when the association ends: with the reason, or None after :meth:`stopListening`."""
        waiting: Deferred[BaseException | None] = Deferred()
        if self._over:
            waiting.callback(self._reason)
        else:
            self._waiting.append(waiting)
        return waiting

    def stopListening(self) -> Deferred[None]:
        """End the association; fires when its port is closed."""
        return self.ended(None)

    def loseConnection(self) -> None:
        """The same."""
        self.stopListening()

    def getBroadcastAllowed(self) -> bool:
        """There are no broadcasts through a proxy."""
        return False

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """See :meth:`getBroadcastAllowed`."""

    # What happens.

    def opened(self, port: Any) -> None:
        """The UDP *port* leads to the proxy's relay."""
        self._port = port
        protocol: Any = self._protocol
        protocol.makeConnection(self)

    def received(self, data: bytes, sender: tuple[str, int]) -> None:
        """A datagram has come from *sender*. Only the relay's count."""
        if sender != self._relay:
            return
        try:
            plain = data if self._wrapping is None else self._wrapping.unwrap_datagram(data)
            header, start = parse_datagram(plain)
        except ProtocolError:
            return
        source = header.address.host, header.address.port
        if header.fragment or self._over:
            return
        if self._only is not None and source != self._only and literal(self._only[0]) is not None:
            return
        self._protocol.datagramReceived(plain[start:], source)

    def ended(self, reason: BaseException | None) -> Deferred[None]:
        """The association is over, because of *reason*."""
        if self._over:
            return succeed(None)
        self._over = True
        self._reason = reason
        self._attempt.close()
        closed = maybeDeferred(self._port.stopListening)
        self._protocol.doStop()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(reason)
        return closed


class _Link(DatagramProtocol):
    """The protocol of the UDP port."""

    noisy = False

    def __init__(self, association: AssociationTransport) -> None:
        self._association = association

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._association.received(datagram, addr)


@lru_cache(maxsize=256)
def _header_for(host: str, port: int) -> bytes:
    return build_header(destination_of(host, port))


def _own_interface(control: Any, relay: str) -> str:
    """
    The address that datagrams to *relay* leave from: that of the connection, where the family is the same.
    """
    own = control.getHost()
    if isinstance(own, IPv6Address if ":" in relay else IPv4Address):
        host: str = own.host
        return host
    return "::" if ":" in relay else "0.0.0.0"
