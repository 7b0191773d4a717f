"""
Associations on Twisted's UDP transports: for other platforms and reactors.
"""

from __future__ import annotations

from socket import AF_INET6, SOCK_DGRAM, socket
from typing import Any

from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from ..net.names import plain
from ..net.ports import bindable
from ..net.udp_options import enlarge_buffers
from ..values.outgoing import Outgoing
from .association import Association
from .demux import Demux
from .drops import Drop
from .targets import Target

#: Bytes of the largest datagram, and more.
_LARGEST = 65536


class ClientTransport(DatagramProtocol):
    """
    A port that clients send to.

    :param demux: finds the association of a datagram.
    :ivar port: the listening port.
    :ivar closed: whether its last association has left it.
    """

    noisy = False
    transport: Any

    def __init__(self, demux: Demux) -> None:
        self._demux = demux
        self.port: Any = None
        self.closed = False

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port that it is bound to."""
        host = self.port.getHost()
        return host.host.partition("%")[0], host.port

    def datagramReceived(self, data: bytes, addr: tuple[Any, ...]) -> None:
        host, port = _host(addr)
        association = self._demux.find(host, port, data)
        if association is not None and association.outlet is not None:
            association.outlet.client = addr
            association.from_client(data)

    def leave(self, association: Association) -> None:
        """*association* is over; without any other the port is closed."""
        if not self._demux.remove(association):
            self.closed = True
            self.port.stopListening()
            link = getattr(self.port, "socket", None)
            if link is not None:
                link.close()  # Twisted closes it in the next turn only, and its port may be wanted at once


class DestinationTransport(DatagramProtocol):
    """
    From where an association's datagrams leave, of one family.

    :param outlet: the association's.
    """

    noisy = False
    transport: Any

    def __init__(self, outlet: TransportOutlet) -> None:
        self._outlet = outlet

    def datagramReceived(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._outlet.from_destination(data, *_host(addr))


class TransportOutlet:
    """
    The transports of an association.

    :param reactor: makes them.
    :param association: whose they are.
    :param port: what the client sends to, and replies leave from.
    :param outgoing: where datagrams to destinations leave from.
    :ivar client: where replies go, as a socket takes it; None: not known yet.
    """

    def __init__(
        self,
        reactor: Any,
        association: Association,
        port: ClientTransport,
        outgoing: Outgoing,
    ) -> None:
        self.client: tuple[Any, ...] | None = None
        if association.port is not None:
            self.client = (association.host, association.port)
        self._reactor = reactor
        self._association = association
        self._port = port
        self._outgoing = outgoing
        # By the family, or by the address that single destinations want them to have.
        self._outgoing_ports: dict[bool | str, Any] = {}

    def close(self) -> None:
        for port in self._outgoing_ports.values():
            port.stopListening()
        self._port.leave(self._association)

    def send(self, target: Target, payload: bytes | memoryview) -> None:
        association = self._association
        if association.metering is not None and not association.admit_upload(target, (len(payload),)):
            return
        port = self._outgoing_ports.get(target.source or target.ipv6) or self._open(target)
        if port is None:
            association.drop(Drop.UNREACHABLE)
        elif self._write(port, payload, target.sockaddr):
            association.datagrams_sent += 1
            association.sent += len(payload)
            association.active = self._reactor.seconds()

    def from_destination(self, data: bytes, host: str, port: int) -> None:
        """*data* has come from a destination, or from another source."""
        association, source = self._association, (host, port)
        if association.outlet is not self:
            return
        header = association.sources.get(source) or association.header_for(source, host, port)
        if header is None:
            return
        if self.client is None:
            association.drop(Drop.FILTERED)
            return
        if association.metering is not None and not association.admit_download(header, (len(data),)):
            return
        datagram = association.to_client(header, data)
        if datagram is not None and self._write(self._port.port, datagram, self.client):
            association.datagrams_received += 1
            association.received += len(data)
            association.active = self._reactor.seconds()

    def _write(self, port: Any, data: bytes | memoryview, to: Any) -> bool:
        try:
            port.write(data, to)
        except MessageLengthError:
            self._association.drop(Drop.TOO_BIG)
        except OSError as problem:
            self._association.failed(problem)
        else:
            return True
        return False

    def _open(self, target: Target) -> Any:
        host = self._outgoing.ipv6 or "::" if target.ipv6 else self._outgoing.ipv4 or "0.0.0.0"
        try:
            port = listen(self._reactor, DestinationTransport(self), target.source or host, 0)
        except OSError:
            return None  # no descriptor, no such family here, or not our address
        self._outgoing_ports[target.source or target.ipv6] = port
        return port


class TransportSockets:
    """
    Makes associations' ports with Twisted. See :class:`~socksproxy.udp.registry.SocketMaker`.

    :param reactor: one with :class:`twisted.internet.interfaces.IReactorUDP`.
    :param outgoing: where datagrams to destinations leave from.
    """

    def __init__(self, reactor: Any, outgoing: Outgoing) -> None:
        self._reactor = reactor
        self._outgoing = outgoing

    def open(self, host: str, port: int, demux: Demux) -> ClientTransport:
        protocol = ClientTransport(demux)
        protocol.port = listen(self._reactor, protocol, host, port)
        return protocol

    def outlet(self, association: Association, port: Any) -> TransportOutlet:
        return TransportOutlet(self._reactor, association, port, self._outgoing)


def listen(reactor: Any, protocol: DatagramProtocol, host: str, port: int) -> Any:
    """
    Open a UDP port.

    :param host: a literal address, as :func:`socksproxy.net.ports.host_of` gives it.
    :raises OSError: as the system gives it.
    """
    if "%" in host:
        return _listen_in_zone(reactor, protocol, host, port)
    try:
        opened = reactor.listenUDP(port, protocol, interface=host, maxPacketSize=_LARGEST)
    except CannotListenError as problem:
        raise problem.socketError from None
    link = getattr(opened, "socket", None)
    if link is not None:
        enlarge_buffers(link)
    return opened


def _listen_in_zone(reactor: Any, protocol: DatagramProtocol, host: str, port: int) -> Any:
    """Likewise: Twisted binds without the zone, which the system refuses."""
    with socket(AF_INET6, SOCK_DGRAM) as link:
        link.setblocking(False)
        link.bind(bindable(host, port))
        enlarge_buffers(link)
        # The reactor has a duplicate of it.
        return reactor.adoptDatagramPort(link.fileno(), AF_INET6, protocol, _LARGEST)


def _host(addr: tuple[Any, ...]) -> tuple[str, int]:
    """The literal address and the port of *addr*, without a scope and without an IPv4-mapped disguise."""
    return plain(addr[0].partition("%")[0]), addr[1]
