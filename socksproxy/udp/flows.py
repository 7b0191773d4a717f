"""
The datagrams of one association that leave through proxies.

Strategy: a :class:`UpstreamFlow` stands for one way out. The first datagram to there asks the proxies for
associations of their own; a few datagrams wait until those stand. From then on, a datagram leaves with the
headers that lead it through the proxies, which are the same for all datagrams to one destination. The socket
is connected to the first proxy's relay, so the system drops what comes from others. When a proxy ends its
association, the flow is closed, and the next datagram opens it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..errors import NameNotFound, describe
from ..net.names import canonical, literal
from ..net.sockets import NewSocket
from ..net.special_addresses import WILDCARD
from ..policy.asking import DestinationCheck
from ..routes.interfaces import ProxyRoute, UpstreamAssociation
from ..wire.datagram import build_header, has_name, parse_datagram
from ..wire.words import Address, AddressType, ProtocolError
from .drops import Drop

#: Datagrams and bytes that wait until the associations of the proxies stand.
MAX_QUEUED, MAX_QUEUED_BYTES = 16, 131072
#: The most ways out of one association; the oldest one makes room.
MAX_FLOWS = 16
#: Seconds without a new attempt after one has failed: at first, and at the most.
PAUSE, LONGEST_PAUSE = 1.0, 30.0

#: The source of datagrams that cannot leave.
NO_SOURCE = ""


class Exit(NamedTuple):
    """
    Where datagrams leave this machine.

    :ivar host: a literal address or a wildcard; NO_SOURCE: they cannot leave.
    :ivar new_socket: makes sockets that leave in a way of their own; None: as all others.
    """

    host: str
    new_socket: NewSocket | None = None


#: Asks the proxies of a way out for associations.
Opens = Callable[[ProxyRoute], "Deferred[UpstreamAssociation]"]


class Destined(Shape):
    """What a flow uses of a destination; see :class:`~socksproxy.udp.targets.Target`."""

    flow: UpstreamFlow | None
    headers: bytes | None
    exit: Exit | None
    sockaddr: tuple[str, int] | None
    until: float

    @property
    def key(self) -> bytes: ...


class ReplyHeaders(Shape):
    """What a flow uses of the :class:`~socksproxy.udp.replies.Replies` of its association."""

    @property
    def most(self) -> int: ...

    def header_from(self, flow: UpstreamFlow, source: Address) -> bytes | None: ...


class FlowOwner(Shape):
    """What a flow uses of its :class:`~socksproxy.udp.association.Association`."""

    check: DestinationCheck
    outlet: Any

    @property
    def targets(self) -> Iterable[Destined]: ...

    @property
    def replies(self) -> ReplyHeaders: ...

    def drop(self, reason: Drop, count: int = 1) -> None: ...
    def pass_on(self, target: Any, payload: bytes) -> None: ...
    def complain(self, what: str) -> None: ...


class UpstreamFlow:
    """
    The datagrams of *association* that leave through *way*.

    :param opens: asks the proxies for associations.
    :ivar port: the port from which datagrams leave; None: the proxies' associations do not stand, or there is
        no proxy.
    :ivar relay: where the first proxy takes datagrams.
    :ivar depth: the headers that a datagram from the relay has, one for each proxy.
    :ivar replies: the headers that datagrams for the client get, by the headers that the relay sends.
    """

    __slots__ = (
        "_association",
        "_not_before",
        "_opening",
        "_opens",
        "_outer",
        "_pause",
        "_queued",
        "_queued_bytes",
        "_since",
        "_upstream",
        "closed",
        "depth",
        "port",
        "relay",
        "replies",
        "way",
    )

    def __init__(self, association: FlowOwner, way: ProxyRoute, opens: Opens) -> None:
        self._association = association
        self._opens = opens
        self.way = way
        self.port: Any = None
        self.relay: tuple[str, int] = "", 0
        self.depth = 1
        self.replies: dict[bytes, bytes] = {}
        self.closed = False
        self._outer: tuple[Address, ...] = ()
        self._upstream: UpstreamAssociation | None = None
        self._opening: Deferred[Any] | None = None
        self._queued: list[tuple[Destined, bytes]] = []
        self._queued_bytes = 0
        self._pause = PAUSE
        self._not_before = self._since = 0.0

    # To the proxies.

    def keep(self, target: Destined, payload: bytes | memoryview) -> None:
        """Keep *payload* until the proxies' associations stand, which are asked for if need be."""
        association = self._association
        if self._upstream is not None:
            self._send_directly(self._upstream, target, payload)
            return
        now = association.check.clock.seconds()
        if self.closed or now < self._not_before:
            association.drop(Drop.UPSTREAM)
            return
        if len(self._queued) >= MAX_QUEUED or self._queued_bytes + len(payload) > MAX_QUEUED_BYTES:
            association.drop(Drop.OVERFLOW)
            return
        self._queued.append((target, bytes(payload)))
        self._queued_bytes += len(payload)
        if self._opening is None:
            self._opening = opening = self._opens(self.way)
            opening.addCallbacks(self.opened, self._failed)

    def _send_directly(
        self, upstream: UpstreamAssociation, target: Destined, payload: bytes | memoryview
    ) -> None:
        """Send *payload* without a proxy, and so all that goes to *target*, until its time is over."""
        assert target.sockaddr is not None
        address = Address.of(*target.sockaddr)
        if address.type is AddressType.DOMAIN_NAME:  # the file of a pool has got its first direct member
            self._association.drop(Drop.UNRESOLVABLE)
            return
        try:
            source = upstream.source(address)
        except OSError:
            source = NO_SOURCE
        if source is None and upstream.new_socket is not None:
            source = WILDCARD[address.type]
        target.exit = None if source is None else Exit(source, upstream.new_socket)
        target.flow = None
        self._association.pass_on(target, bytes(payload))

    def headers_of(self, target: Destined) -> bytes:
        """What datagrams to *target* begin with."""
        if target.headers is not None:
            return target.headers
        assert target.sockaddr is not None
        address = Address.of(*target.sockaddr)
        if self.way.judges and has_name(target.key):  # the policy has judged the address alone
            address = canonical(parse_datagram(target.key)[0].address, lambda _: True)
        headers = b"".join(map(build_header, (*self._outer, address)))
        target.headers = headers
        return headers

    def opened(self, upstream: UpstreamAssociation) -> None:
        """The proxies' associations stand."""
        self._opening = None
        association, outlet = self._association, self._association.outlet
        if self.closed or outlet is None:
            upstream.close()
            return
        self._since = association.check.clock.seconds()
        try:
            self._open_port(upstream)
        except OSError as problem:
            upstream.close()
            self._fails(describe(problem))
            return
        self._upstream = upstream
        upstream.watch(self._lost)
        queued, self._queued, self._queued_bytes = self._queued, [], 0
        for target, payload in queued:
            association.pass_on(target, payload)

    def _open_port(self, upstream: UpstreamAssociation) -> None:
        """
        Open the port for the first proxy, where there is one.

        :raises OSError: as the system gives it.
        """
        if not upstream.relays:
            return
        first, *others = upstream.relays
        self._outer = tuple(others)
        self.depth = len(upstream.relays)
        self.relay = first.host, first.port
        own = _own_host(upstream.own, first)
        self.port = self._association.outlet.open_relay(self, own, upstream.new_socket)

    def _failed(self, failure: Failure) -> None:
        self._opening = None
        if self.closed:
            return
        problem = failure.value
        self._fails(describe(problem) if isinstance(problem, Exception) else str(problem))

    def _fails(self, why: str) -> None:
        """There are no associations of the proxies for now, because of *why*."""
        association = self._association
        association.complain(f"no UDP through {self.way.via}: {why}")
        if self._queued:
            association.drop(Drop.UPSTREAM, len(self._queued))
            self._queued, self._queued_bytes = [], 0
        self._not_before = association.check.clock.seconds() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _lost(self) -> None:
        """A proxy has ended its association."""
        now = self._association.check.clock.seconds()
        self._shut()
        if now - self._since < PAUSE:
            self._fails("the proxy has ended the association at once")
        else:
            self._pause = PAUSE

    def _shut(self) -> None:
        port, self.port = self.port, None
        upstream, self._upstream = self._upstream, None
        self.replies.clear()
        for target in self._association.targets:
            if target.flow is self:
                target.headers = None
        if port is not None:
            port.close()
        if upstream is not None:
            upstream.close()

    def close(self) -> None:
        """The datagrams that wait are lost, and so are the proxies' associations."""
        self.closed = True
        opening, self._opening = self._opening, None
        if self._queued:
            self._association.drop(Drop.UPSTREAM, len(self._queued))
            self._queued, self._queued_bytes = [], 0
        if opening is not None:
            opening.cancel()
        self._shut()
        for target in self._association.targets:
            if target.flow is self:
                target.until = 0.0  # the next datagram finds its way anew

    # From the proxies.

    def header_for(self, headers: bytes) -> bytes | None:
        """
        The header that a datagram with *headers* gets for the client; None: it is dropped, and counted.

        :param headers: all headers before the payload; empty: the datagram has less.
        """
        association = self._association
        try:
            source = self._source(headers)
        except (ProtocolError, NameNotFound):
            association.drop(Drop.MALFORMED)
            return None
        if source is None:
            association.drop(Drop.FRAGMENT)
            return None
        header = association.replies.header_from(self, source)
        if header is not None:
            if len(self.replies) >= association.replies.most:
                self.replies.clear()
            self.replies[headers] = header
        return header

    def _source(self, headers: bytes) -> Address | None:
        """The source of a datagram with *headers*; None: it is a fragment."""
        at, source = 0, None
        for relay in (*self._outer, None):
            header, size = parse_datagram(headers[at:])
            at += size
            if header.fragment:
                return None
            source = canonical(header.address)
            if relay is not None and not _is_from(source, relay):
                raise ProtocolError("it is not from the relay of the next proxy")
        return source

    def sends_to(self, port: int | None) -> bool:
        """Whether a name with this *port* is a destination; None: any port."""
        return any(
            target.flow is self
            and target.sockaddr is not None
            and literal(target.sockaddr[0]) is None
            and port in (None, target.sockaddr[1])
            for target in self._association.targets
        )


class UpstreamFlows:
    """
    The ways out of one association.

    :param association: the association.
    """

    __slots__ = ("_association", "_flows")

    def __init__(self, association: FlowOwner) -> None:
        self._association = association
        self._flows: list[UpstreamFlow] = []

    def __iter__(self) -> Iterator[UpstreamFlow]:
        return iter(self._flows)

    def of(self, way: ProxyRoute, opens: Opens) -> UpstreamFlow:
        """The flow of *way*."""
        for flow in self._flows:
            if flow.way is way:
                return flow
        identity = way.identity
        for flow in self._flows:
            if flow.way.identity == identity:  # after a reload that has changed nothing of it
                flow.way = way
                return flow
        if len(self._flows) >= MAX_FLOWS:
            self._flows.pop(0).close()
        flow = UpstreamFlow(self._association, way, opens)
        self._flows.append(flow)
        return flow

    def keep_used(self) -> None:
        """Close the flows to which no destination leads any more."""
        used = {target.flow for target in self._association.targets}
        unused = [flow for flow in self._flows if flow not in used]
        self._flows = [flow for flow in self._flows if flow in used]
        for flow in unused:
            flow.close()

    def close(self) -> None:
        """Close all flows."""
        flows, self._flows = self._flows, []
        for flow in flows:
            flow.close()


def _own_host(own: Address, relay: Address) -> str:
    """The address from which datagrams to *relay* leave; the connection to the proxy has left from *own*."""
    alike = own.type is relay.type and _is_loopback(own) is _is_loopback(relay)
    return own.host if alike else WILDCARD[relay.type]


def _is_loopback(address: Address) -> bool:
    return address.host == "::1" or address.host.startswith("127.")


def _is_from(source: Address, relay: Address) -> bool:
    """Whether *source* is *relay*, whose address another machine knows if it is a name."""
    if relay.type is AddressType.DOMAIN_NAME:
        return source.port == relay.port
    return source == canonical(relay)
