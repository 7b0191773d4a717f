"""
The UDP sockets of programs.

Datagrams for the name server and for the proxy go to one socket of ours, the gate: a program's socket is
connected to it, or the address of a datagram is replaced. The program's port tells the gate whose datagram
it is. What the gate sends back has another source than the program expects, so calls that receive with an
address are answered here, for these sockets alone.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.protocol import DatagramProtocol

from ..wire.words import Address
from . import kernel, sockaddr
from .call import Call, CallResult
from .name_server import answer
from .stand_ins import StandIns
from .streams import family_here, is_blocking
from .ways import Bypass, Ways

#: Sockets that are known at the same time. The one that was not used longest is forgotten.
MOST_FLOWS = 16384
_MOST_BYTES = 65535
_MSG_ERRQUEUE = 0x2000
# Control data that names other routers: IP_RETOPTS, IPV6_2292RTHDR, IPV6_RTHDR.
_ROUTES = {(socket.IPPROTO_IP, 7), (socket.IPPROTO_IPV6, 5), (socket.IPPROTO_IPV6, 57)}
# Where the number of an interface stands in IP_PKTINFO, IPV6_2292PKTINFO and IPV6_PKTINFO.
_INTERFACE_AT = {(socket.IPPROTO_IP, 8): 0, (socket.IPPROTO_IPV6, 2): 16, (socket.IPPROTO_IPV6, 50): 16}


class Flow(NamedTuple):
    """
    A socket and its one destination.

    :ivar peer: the destination as the program has written it.
    :ivar way: the name server, or what the proxy is asked for.
    """

    cookie: bytes
    peer: bytes
    way: Bypass | Address


class Received(NamedTuple):
    """
    What a call has received.

    :ivar size: what the call returns.
    :ivar name_size: bytes of the address.
    :ivar control_size: bytes of the control data.
    :ivar flags: such as ``MSG_TRUNC``.
    """

    size: int
    name_size: int
    control_size: int
    flags: int


class DatagramGate(DatagramProtocol):
    """
    The socket on 127.0.0.1 that receives what programs send.

    :param stand_ins: for the answers of the name server.
    :param send: takes each datagram for the proxy: see :meth:`.associations.FlowAssociations.send`.
    """

    transport: Any

    def __init__(
        self, stand_ins: StandIns, send: Callable[[Callable[[bytes], None], Flow, Address, bytes], None]
    ) -> None:
        self._stand_ins = stand_ins
        self._send = send
        self._by_port: dict[int, Flow] = {}
        self._by_cookie: dict[bytes, tuple[int, Flow]] = {}

    @property
    def port(self) -> int:
        """Its port."""
        port: int = self.transport.getHost().port
        return port

    def flow_of(self, cookie: bytes) -> Flow | None:
        """The flow of the socket *cookie*; None: it has none."""
        known = self._by_cookie.get(cookie)
        return None if known is None else known[1]

    def add(self, port: int, flow: Flow) -> None:
        """From now on, *flow* is what comes from *port*."""
        self.remove(flow.cookie)
        if len(self._by_cookie) >= MOST_FLOWS:
            self.remove(next(iter(self._by_cookie)))
        self._by_cookie[flow.cookie] = port, flow
        self._by_port[port] = flow

    def remove(self, cookie: bytes) -> None:
        """Forget the flow of the socket *cookie*, if it has one."""
        known = self._by_cookie.pop(cookie, None)
        if known is not None and self._by_port.get(known[0]) is known[1]:
            del self._by_port[known[0]]

    def datagramReceived(self, data: bytes, address: Any) -> None:
        """A program has sent *data*."""
        flow = self._by_port.get(address[1])
        if flow is None:
            return
        if flow.way is Bypass.NAMES:
            said = answer(data, self._stand_ins)
            if said:
                self.transport.write(said, address)
        else:
            assert isinstance(flow.way, Address)
            self._send(lambda back: self.transport.write(back, address), flow, flow.way, data)


class Datagrams:
    """
    The calls.

    :param ways: where each destination is reached.
    :param gate: where the rest goes.
    :param check: raises OSError while the proxy takes no datagrams.
    :param direct: whether UDP goes around the proxy.
    """

    def __init__(
        self, ways: Ways, gate: DatagramGate, check: Callable[[], None], direct: bool = False
    ) -> None:
        self._ways = ways
        self._gate = gate
        self._check = check
        self._all_direct = direct

    def connect(self, call: Call, address: bytes) -> int:
        """connect(2). No datagram is sent: getaddrinfo connects only to learn its own address."""
        destination = call.destination(address)
        if destination is None:
            self._gate.remove(call.cookie)
            return -kernel.connect(call.socket.fileno(), address)
        way = self._way_to(destination)
        if way is Bypass.DIRECT:
            self._gate.remove(call.cookie)
            return -kernel.connect(call.socket.fileno(), address)
        here = sockaddr.build(family_here(call.socket), "127.0.0.1", self._gate.port)
        problem = kernel.connect(call.socket.fileno(), here)
        if not problem:
            self._add_flow(call, address, way)
        return -problem

    def send(self, call: Call, message: sockaddr.SocketMessage, flags: int) -> int:
        """
        sendmsg(2) and sendto(2).

        :returns: how many bytes are sent.
        :raises OSError: (ENETUNREACH) for a second destination of a socket whose first one is behind the
            proxy.
        """
        memory = call.memory
        address = call.address(*message.name) if message.name.place else b""
        control = _by_usual_routes(sockaddr.parse_control(memory.read(*message.control)))
        if sum(part.size for part in message.parts) > _MOST_BYTES:
            raise OSError(errno.EMSGSIZE, "message too long")
        data = [memory.read(*part) for part in message.parts]
        target = self._target(call, address) if address else None
        return call.socket.sendmsg(data, control, flags | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, target)

    def _target(self, call: Call, address: bytes) -> Any:
        """Where a datagram to *address* goes."""
        destination = call.destination(address)
        if destination is None:
            raise OSError(errno.EAFNOSUPPORT, "address family not supported")
        way = self._way_to(destination)
        if way is Bypass.DIRECT:
            if sockaddr.family_of(address) != call.socket.family:  # an IPv4 address for an IPv6 socket
                address = sockaddr.build(call.socket.family, destination.host, destination.port)
            return sockaddr.for_python(address)
        flow = self._gate.flow_of(call.cookie)
        if flow is not None and flow.way != way:
            raise OSError(errno.ENETUNREACH, "the socket has another destination already")
        family = family_here(call.socket)
        if flow is None:
            _bind(call.socket)
            self._add_flow(call, address, way)
        return sockaddr.for_python(sockaddr.build(family, "127.0.0.1", self._gate.port))

    def receive(self, call: Call, message: sockaddr.SocketMessage, flags: int) -> Received | CallResult:
        """recvmsg(2) and recvfrom(2)."""
        flow = None if flags & _MSG_ERRQUEUE else self._gate.flow_of(call.cookie)
        if flow is None:
            return CallResult.PASS
        memory = call.memory  # the caller must be there before its datagram is taken
        how = flags & ~socket.MSG_TRUNC | socket.MSG_DONTWAIT
        try:
            data, control, told, source = call.socket.recvmsg(_MOST_BYTES, message.control.size, how)
        except BlockingIOError:
            if flags & socket.MSG_DONTWAIT or not is_blocking(call.socket):
                raise
            return CallResult.WAIT
        taken = 0
        for place, size in message.parts:
            memory.write(place, data[taken : taken + size])
            taken += len(data[taken : taken + size])
        peer = flow.peer if source[1] == self._gate.port else sockaddr.from_python(source)
        if message.name.place:
            memory.write(message.name.place, peer[: message.name.size])
        packed = sockaddr.build_control(control)
        memory.write(message.control.place, packed)
        if taken < len(data):
            told |= socket.MSG_TRUNC
        size = len(data) if flags & socket.MSG_TRUNC else taken
        return Received(size, len(peer), len(packed), told)

    def peer_of(self, cookie: bytes) -> bytes | None:
        """What ``getpeername`` tells for the socket *cookie*; None: what the kernel has."""
        flow = self._gate.flow_of(cookie)
        return None if flow is None else flow.peer

    def _way_to(self, destination: Address) -> Bypass | Address:
        way = self._ways.way_to(destination)
        if self._all_direct and isinstance(way, Address) and way == destination:
            return Bypass.DIRECT
        if isinstance(way, Address):
            self._check()
        return way

    def _add_flow(self, call: Call, peer: bytes, way: Bypass | Address) -> None:
        port: int = call.socket.getsockname()[1]
        self._gate.add(port, Flow(call.cookie, peer, way))


def _by_usual_routes(control: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """
    *control* data without the interface, since even a datagram to 127.0.0.1 would leave the machine by it.

    :raises OSError: (EPERM) for a source route.
    """
    kept = []
    for level, kind, content in control:
        if (level, kind) in _ROUTES:
            raise PermissionError(errno.EPERM, "a source route leads around the proxy")
        at = _INTERFACE_AT.get((level, kind))
        if at is not None:
            content = content[:at] + bytes(4) + content[at + 4 :]
        kept.append((level, kind, content))
    return kept


def _bind(link: socket.socket) -> None:
    """Give *link* a port, which the gate knows it by, unless it has one."""
    if not link.getsockname()[1]:
        link.bind(("::" if link.family == socket.AF_INET6 else "0.0.0.0", 0))
