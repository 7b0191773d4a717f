"""
Associations on Twisted's UDP transports, for other platforms and reactors than the engine's.
"""

from __future__ import annotations

from contextlib import closing
from errno import EMSGSIZE
from socket import AF_INET, AF_INET6, SO_REUSEPORT, SOCK_DGRAM, SOL_SOCKET, SocketType
from typing import Any

from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from ..net.names import plain
from ..net.ports import bindable, enlarge_buffers
from ..net.sockets import NewSocket
from ..values.outgoing import FreeAddress, Outgoing, free_bind
from ..wire.datagram import header_size
from .association import Association, Outlet
from .demux import Demux
from .drops import Drop
from .flows import UpstreamFlow

#: Bytes of a buffer in which every datagram has room.
_LARGEST = 65536


class TransportPort(DatagramProtocol):
    """
    A UDP port of an association.

    :param reactor: one with :class:`twisted.internet.interfaces.IReactorUDP`.
    :param host: the literal address to bind, as :func:`socksproxy.net.ports.host_of` gives it.
    :param port: the port to bind; 0: any.
    :param shared: whether further sockets may be on the port.
    :param peer: the only peer, to which the socket is connected; None: any.
    :param new_socket: makes the socket; None: it leaves as all others.
    :raises OSError: as the system gives it.
    :ivar port: the listening port.
    :ivar closed: whether the port is closed.
    """

    noisy = False
    transport: Any

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        shared: bool = False,
        peer: tuple[Any, ...] | None = None,
        new_socket: NewSocket | None = None,
    ) -> None:
        self.reactor = reactor
        self.closed = False
        self.port = listen(reactor, self, host, port, shared, peer, new_socket)

    def send(self, data: bytes | memoryview, to: Any) -> None:
        """
        Send *data* to the address *to*.

        :raises OSError: as the system gives it.
        """
        try:
            self.port.write(data, to)
        except MessageLengthError as problem:
            raise OSError(EMSGSIZE, str(problem)) from None

    def close(self) -> None:
        """Close the port."""
        self.closed = True
        self.port.stopListening()
        link = getattr(self.port, "socket", None)
        if link is not None:
            link.close()  # Twisted closes it in the next turn only, and its port may be needed at once


class ClientTransport(TransportPort):
    """
    A port that clients send to. For the other parameters see :class:`TransportPort`.

    :param demux: finds the association of a datagram.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        demux: Demux,
        shared: bool = False,
        peer: tuple[Any, ...] | None = None,
    ) -> None:
        self.demux = demux
        super().__init__(reactor, host, port, shared, peer)

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port of the socket."""
        host = self.port.getHost()
        return host.host.partition("%")[0], host.port

    def outlet(self, association: Association, outgoing: Outgoing) -> TransportOutlet:
        """The ports of *association*, which this is one of. For *outgoing* see :class:`.Outlet`."""
        return TransportOutlet(association, self, outgoing)

    def datagramReceived(self, data: bytes, addr: tuple[Any, ...]) -> None:
        host, port = _host(addr)
        association = self.demux.find(host, port, data)
        if association is not None and association.outlet is not None:
            association.outlet.client = addr
            association.from_client(data)


class DestinationTransport(TransportPort):
    """
    A port from which datagrams of one association leave. For the other parameters see :class:`TransportPort`.

    :param outlet: the outlet of the association.
    """

    def __init__(
        self, reactor: Any, host: str, outlet: TransportOutlet, new_socket: NewSocket | None
    ) -> None:
        self._outlet = outlet
        super().__init__(reactor, host, 0, new_socket=new_socket)

    def datagramReceived(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._outlet.from_destination(data, *_host(addr))


class RelayTransport(TransportPort):
    """
    A port from which datagrams of one association leave through proxies. For the other parameters see
    :class:`TransportPort`. The socket is not connected: an ICMP error would end Twisted's port.

    :param outlet: the outlet of the association.
    :param flow: the way through the proxies.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        outlet: TransportOutlet,
        flow: UpstreamFlow,
        new_socket: NewSocket | None,
    ) -> None:
        self._outlet = outlet
        self._flow = flow
        super().__init__(reactor, host, 0, new_socket=new_socket)

    def datagramReceived(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if _host(addr) == self._flow.relay:
            self._outlet.from_relay(self._flow, data)


class TransportOutlet(Outlet):
    """The Twisted ports of an association."""

    __slots__ = ()

    def open(self, host: str, new_socket: NewSocket | None = None) -> DestinationTransport:
        return DestinationTransport(self.port.reactor, host, self, new_socket)

    def open_relay(self, flow: UpstreamFlow, host: str, new_socket: NewSocket | None) -> RelayTransport:
        return RelayTransport(self.port.reactor, host, self, flow, new_socket)

    def from_relay(self, flow: UpstreamFlow, data: bytes) -> None:
        """Take *data* from the first proxy's relay."""
        association, end = self.association, 0
        if association.outlet is not self:
            return
        for _ in range(flow.depth):
            size = header_size(memoryview(data)[end:])
            end = end + size if size else len(data) + 1
        headers = data[:end] if end <= len(data) else b""
        header = flow.replies.get(headers) or flow.header_for(headers)
        if header is not None:
            self._reply(header, data[end:])

    def from_destination(self, data: bytes, host: str, port: int) -> None:
        """Take *data* from a destination, or from any other source."""
        association, source = self.association, (host, port)
        if association.outlet is not self:
            return
        header = association.replies.headers.get(source) or association.replies.header_for(source, host, port)
        if header is not None:
            self._reply(header, data)

    def _reply(self, header: bytes, data: bytes) -> None:
        association = self.association
        if self.client is None:
            association.drop(Drop.FILTERED)
            return
        metering = association.metering
        if metering is None or association.admit(metering.download(header), (len(data),)):
            self.reply(header, data)


def listen(
    reactor: Any,
    protocol: DatagramProtocol,
    host: str,
    port: int,
    shared: bool = False,
    peer: tuple[Any, ...] | None = None,
    new_socket: NewSocket | None = None,
) -> Any:
    """
    Open a UDP port.

    :param host: a literal address, as :func:`socksproxy.net.ports.host_of` gives it.
    :param shared: whether further sockets of this user may be on the port.
    :param peer: the address to which the socket is connected; None: the socket is not.
    :param new_socket: makes the socket; None: it leaves as all others.
    :raises OSError: as the system gives it.
    """
    if "%" in host or shared or isinstance(host, FreeAddress) or new_socket is not None:
        return _adopt(reactor, protocol, host, port, shared, peer, new_socket or SocketType)
    try:
        opened = reactor.listenUDP(port, protocol, interface=host, maxPacketSize=_LARGEST)
    except CannotListenError as problem:
        raise problem.socketError from None
    link = getattr(opened, "socket", None)
    if link is not None:
        enlarge_buffers(link)
    return opened


def _adopt(
    reactor: Any,
    protocol: DatagramProtocol,
    host: str,
    port: int,
    shared: bool,
    peer: tuple[Any, ...] | None,
    new_socket: NewSocket,
) -> Any:
    """Open a UDP port that Twisted cannot open: in a zone, shared, or with other options."""
    family = AF_INET6 if ":" in host else AF_INET
    with closing(new_socket(family, SOCK_DGRAM)) as link:
        link.setblocking(False)
        if shared:
            link.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        free_bind(link, host)
        link.bind(bindable(host, port))
        if peer is not None:
            link.connect(peer)
        enlarge_buffers(link)
        # The reactor makes a duplicate of the socket.
        return reactor.adoptDatagramPort(link.fileno(), family, protocol, _LARGEST)


def _host(addr: tuple[Any, ...]) -> tuple[str, int]:
    """The literal address and the port of *addr*, without a zone; an IPv4-mapped address stands as IPv4."""
    return plain(addr[0].partition("%")[0]), addr[1]
