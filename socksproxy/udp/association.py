"""
One association: which of its datagrams are passed on, and which are dropped.

Strategy: an association owns no socket. Its :class:`Outlet` (:mod:`~socksproxy.udp.sockets`,
:mod:`~socksproxy.udp.transports`) brings it datagrams and sends those that pass. The bytes of a datagram's
header are the key to its :class:`~socksproxy.udp.targets.Target`, and the source of a reply is the key to the
header that the reply gets. Outlets look into both tables first. Only the first datagram to a destination is
parsed, and only for that one the policy and the resolver are asked. Every queue and every table has a
maximum size. No datagram ends an association.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..events import Cause
from ..identity import Client
from ..limits.buckets import Meter, Meters
from ..negotiation import IWrapping
from ..net.sockets import NewSocket
from ..policy.asking import DestinationCheck
from ..routes.interfaces import ProxyRoute
from ..runtime.deadlines import Deadlines
from ..values.outgoing import Outgoing
from ..values.udp import UDPSettings
from ..wire.datagram import fragment_of, header_size, unfragmented
from ..wire.words import Address, ProtocolError
from .drops import Drop, drop_for
from .flows import NO_SOURCE, Exit, Opens, UpstreamFlow, UpstreamFlows
from .metering import Metering
from .reassembly import Reassembly
from .replies import Replies
from .targets import DatagramRoute, Target, Targets, name_of


class AssociationContext(NamedTuple):
    """
    What the associations of one factory have in common.

    :ivar check: the policy, the names and the clock.
    :ivar settings: the settings of UDP ASSOCIATE.
    :ivar reassemblies: ends sets of fragments that take too long.
    :ivar closed: called with each association whose sockets are closed, before the association's own *ended*.
    :ivar watch_idle: called with the seconds that an association may be idle, where a rule says so.
    :ivar complain: called with what an operator should know of a client's association.
    """

    check: DestinationCheck
    settings: UDPSettings
    reassemblies: Deadlines[Reassembly]
    closed: Callable[[Association], None]
    watch_idle: Callable[[float], None] = lambda _: None
    complain: Callable[[Client, str], None] = lambda *_: None


class Association:
    """
    One client's datagrams.

    :param context: what all associations of the factory have in common.
    :param client: the client.
    :param host: the literal address from which the client's datagrams come.
    :param port: the port from which the client says that its datagrams will come; the first good datagram
        decides. None: the client does not say.
    :param ended: called once, with the association, when its sockets are closed.
    :param wrapping: encapsulates every datagram of the client, with its header, as the authentication has
        agreed on; None: datagrams are not encapsulated.
    :ivar check: the policy, the names and the clock: of the context, or of the session.
    :ivar route: gives the route to an address, and to the name that the client has sent; None: all
        datagrams take the same route.
    :ivar metering: how much payload may pass; None: there is no limit. See :meth:`meter`.
    :ivar active: the clock's seconds when the last datagram passed, or when the association began;
        outlets set it.
    :ivar latched: whether a datagram has told the port from which the client's datagrams come.
    :ivar outlet: the association's sockets.
    :ivar flows: the ways out through proxies; None: none has been taken.
    :ivar targets: the destinations.
    :ivar replies: the datagrams from destinations.
    :ivar sent: bytes from the client to destinations, in :attr:`datagrams_sent` datagrams.
    :ivar received: bytes from destinations to the client, in :attr:`datagrams_received` datagrams.
    :ivar dropped: datagrams of either direction that were not passed on, by reason.
    :ivar how: why the association has ended; None: it has not.
    """

    __slots__ = (
        "_context",
        "_ended",
        "_fragments",
        "_idle",
        "_idle_as_all",
        "_unwrapped",
        "active",
        "check",
        "client",
        "datagrams_received",
        "datagrams_sent",
        "dropped",
        "flows",
        "host",
        "how",
        "latched",
        "metering",
        "outlet",
        "port",
        "received",
        "replies",
        "route",
        "sent",
        "targets",
        "wrapping",
    )

    def __init__(
        self,
        context: AssociationContext,
        client: Client,
        host: str,
        port: int | None,
        ended: Callable[[Association], None],
        wrapping: IWrapping | None = None,
    ) -> None:
        self.client = client
        self.check = context.check
        self.host = host
        self.port = port
        self.latched = False
        self.outlet: Outlet | None = None
        self.targets = Targets(self, context.settings)
        self.flows: UpstreamFlows | None = None
        self.replies = Replies(self, context.settings)
        self.sent = self.received = self.datagrams_sent = self.datagrams_received = 0
        self.dropped: dict[Drop, int] = {}
        self.how: Cause | None = None
        self.wrapping = wrapping
        self.route: Callable[[Address, str | None], DatagramRoute] | None = None
        self.metering: Metering | None = None
        self._idle = 0.0
        self._idle_as_all = False
        self._unwrapped: bytes | None = None
        self._context = context
        self._ended: Callable[[Association], None] | None = ended
        self._fragments: Reassembly | None = None
        self.active = context.check.clock.seconds()

    # From the client.

    def latch(self, host: str, port: int, data: bytes) -> bool:
        """
        Whether *data*, from a port that is not known as the client's, comes from the client after all.

        If it does, *port* is the client's from now on. The first good datagram from the client's address
        decides, whatever port the client has named: the client does not know to which port NAT changes its
        own, and some clients name a wrong one.

        Only the client can have sent an encapsulated datagram. :meth:`from_client` takes that datagram next.

        :param host: the source's literal address; an IPv4-mapped address stands as IPv4.
        :param data: the whole datagram where it is encapsulated; else its beginning is enough.
        """
        if host != self.host or not (port == self.port or self.may_latch):
            self.drop(Drop.FOREIGN)
            return False
        if self.wrapping is not None:
            self.can_unwrap(data)
            data = self._unwrapped or b""
        if not header_size(data):
            self._unwrapped = None
            self.drop(Drop.MALFORMED)
            return False
        self.port, self.latched = port, True
        return True

    def can_unwrap(self, data: bytes) -> bool:
        """
        Whether the client has encapsulated the datagram *data*; always True where datagrams are not
        encapsulated.

        A datagram can be unwrapped only once, so the result is kept for :meth:`latch` and
        :meth:`from_client`.
        """
        if self.wrapping is not None and self._unwrapped is None:
            self._unwrapped = _unwrap(self.wrapping, data) or None
        return self.wrapping is None or self._unwrapped is not None

    @property
    def may_latch(self) -> bool:
        """Whether any port of the client's address may become the client's."""
        return not self.latched or self.may_move

    @property
    def may_move(self) -> bool:
        """Whether the client may change its port."""
        return self._context.settings.relatch

    def from_client(self, data: bytes | memoryview) -> None:
        """Take the datagram *data* from the client."""
        if self.wrapping is not None:
            unwrapped, self._unwrapped = self._unwrapped, None
            data = _unwrap(self.wrapping, bytes(data)) if unwrapped is None else unwrapped
        end = header_size(data)
        if not end:
            self.drop(Drop.MALFORMED)
            return
        header, payload = bytes(data[:end]), data[end:]
        fragment = fragment_of(header)
        if fragment:
            self._take_fragment(fragment, unfragmented(header), bytes(payload))
        else:
            self.send(header, payload)

    def send(self, header: bytes, payload: bytes | memoryview) -> None:
        """Take *payload* from the client, with *header*, which is whole and whose FRAG is 0."""
        target = self.targets.by_header.get(header)
        if target is None or target.until <= self.check.clock.seconds():
            target = self.targets.renewed(header)
            if target is None:
                return
        else:
            target.used = True
        if target.sockaddr is not None and self.outlet is not None:
            self.outlet.send(target, payload)
        else:
            self.targets.keep(target, payload)

    def pass_on(self, target: Target, payload: bytes) -> None:
        """Send *payload* to *target*, whose address is known."""
        if self.outlet is not None:
            self.outlet.send(target, payload)

    def _take_fragment(self, fragment: int, header: bytes, payload: bytes) -> None:
        if self._fragments is None:
            context = self._context
            self._fragments = Reassembly(context.reassemblies, context.check.clock, self.drop)
        whole = self._fragments.add(fragment, header, payload)
        if whole is not None:
            self.send(header, whole)

    def to_client(self, header: bytes, payload: bytes) -> bytes | None:
        """The datagram for the client, encapsulated if need be; None: it is too big, and is dropped."""
        data = header + payload
        if self.wrapping is None:
            return data
        try:
            return self.wrapping.wrap_datagram(data)
        except ProtocolError:
            self.drop(Drop.TOO_BIG)
            return None

    # Routes and limits.

    def choose_route(self, target: Target, address: Address) -> Drop | None:
        """Decide how datagrams go to *address*, the address of *target*; why they are dropped, if so."""
        if self.route is None:
            return None
        route = self.route(address, name_of(target.key))
        if route.closed:
            return Drop.UPSTREAM
        target.exit = None if route.source is None else Exit(route.source)
        target.flow = None if route.way is None else self.flow(route.way, route.opens)
        target.headers = None
        if route.rule != target.rule:
            target.rule, target.meters = route.rule, self._meters_of_rule(route)
            self.replies.forget()
        if route.idle is None:
            self._idle_as_all = True
            return None
        self._idle = max(self._idle, route.idle)
        self._context.watch_idle(route.idle)
        return None

    def flow(self, way: ProxyRoute, opens: Opens) -> UpstreamFlow:
        """The flow of datagrams that leave by *way*; *opens* asks the proxies for associations."""
        if self.flows is None:
            self.flows = UpstreamFlows(self)
        return self.flows.of(way, opens)

    def complain(self, what: str) -> None:
        """Tell the operator *what* is wrong."""
        self._context.complain(self.client, what)

    def _meters_of_rule(self, route: DatagramRoute) -> Meters | None:
        if route.rule is None or route.meters is None:
            return None
        if self.metering is None:
            self.metering = Metering(None)
        return self.metering.of_rule(route.rule, route.meters)

    def meter(self, meters: Meters | None) -> None:
        """
        Pass on as much as *meters* allow from now on, and drop the rest.

        :param meters: the meters of this association only; None: there is no limit.
        """
        before = self.metering
        live = self._ended is not None
        self.metering = Metering(meters) if meters is not None and live else None
        if before is None:
            return
        before.leave(meters)
        if not before.by_rule:
            return
        self.replies.forget()
        for target in self.targets:
            target.rule = target.meters = None
            if target.sockaddr is None or not live:
                continue
            refused = self.choose_route(target, Address.of(*target.sockaddr))
            if refused is not None:
                target.sockaddr, target.flow, target.drop = None, None, refused

    def admit(self, meter: Meter | None, sizes: Sequence[int]) -> int:
        """
        How many datagrams *meter* lets pass, the first ones; the others are counted as dropped.

        :param meter: of the :attr:`metering`; None: all pass.
        :param sizes: the lengths of the payloads.
        """
        if meter is None:
            return len(sizes)
        passed = meter.let(sizes)
        if passed < len(sizes):
            self.drop(Drop.LIMITED, len(sizes) - passed)
            # The datagrams that pass are sent first. The next one finds that none passes any more.
            if not passed and meter.exhausted:
                self.abort(Cause.QUOTA)
        return passed

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count *count* datagrams as dropped."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    # What others do to an association.

    def reconsider(self, client: Client, check: DestinationCheck) -> None:
        """
        Ask anew about every destination. See :meth:`socksproxy.udp.targets.Targets.reconsider`.

        :param client: the client, as it is known now.
        :param check: the policy and the names from now on.
        """
        self.client, self.check = client, check
        for header, payload in self.targets.reconsider():
            self.send(header, payload)
        if self.flows is not None:
            self.flows.keep_used()
        if self.outlet is not None:
            self.outlet.keep_used()
        self.replies.forget()

    def is_idle(self, now: float) -> bool:
        """Whether no datagram has passed for the longest time that one of the destinations allows."""
        idle = self._idle
        if self._idle_as_all or not idle:
            idle = max(idle, self._context.settings.idle)
        return now - self.active >= idle

    def abort(self, how: Cause = Cause.ABORTED) -> None:
        """End the association at once."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self.how = how
        self.meter(None)
        if self._fragments is not None:
            self._fragments.clear()
            self._fragments = None
        outlet, self.outlet = self.outlet, None
        if self.flows is not None:
            self.flows.close()
        self.targets.close()
        self.replies.forget()
        if outlet is not None:
            outlet.close()
        self._context.closed(self)
        ended(self)


class Outlet:
    """
    The sockets of an association: in the engine, or on Twisted's transports.

    A subclass opens a socket for destinations with :meth:`open`. A port of either kind has ``send(data,
    to)``, which raises an OSError, and ``close()``.

    :param association: the association.
    :param port: the port that the client sends to, and from which replies leave; it has a ``demux``.
    :param outgoing: the addresses from which datagrams to destinations leave.
    :ivar client: the address for replies, as a socket takes it; None: it is not known yet.
    """

    __slots__ = ("_by_exit", "_by_family", "_outgoing", "association", "client", "port")

    def __init__(self, association: Association, port: Any, outgoing: Outgoing) -> None:
        self.association = association
        self.client: tuple[Any, ...] | None = None
        if association.port is not None:
            self.client = (association.host, association.port)
        self.port = port
        # Ports for destinations: of IPv4 and IPv6, and by the exit of datagrams.
        self._by_family: list[Any] = [None, None]
        self._by_exit: dict[Exit, Any] = {}
        self._outgoing = outgoing

    def open(self, host: str, new_socket: NewSocket | None = None) -> Any:
        """
        A new port for datagrams that leave from *host*.

        :param new_socket: makes the socket; None: it leaves as all others.
        :raises OSError: as the system gives it.
        """
        raise NotImplementedError

    def open_relay(self, flow: UpstreamFlow, host: str, new_socket: NewSocket | None) -> Any:
        """
        A new port for datagrams of *flow* that leave from *host*, for datagrams from the flow's relay alone.

        :param new_socket: makes the socket; None: it leaves as all others.
        :raises OSError: as the system gives it.
        """
        raise NotImplementedError

    def port_to(self, target: Target) -> Any | None:
        """The port from which datagrams to *target* leave; None: there is none."""
        port = self._by_family[target.ipv6] if target.exit is None else self._by_exit.get(target.exit)
        return port or self._open(target)

    def _open(self, target: Target) -> Any | None:
        exit_ = target.exit
        host = self._outgoing.ipv6 or "::" if target.ipv6 else self._outgoing.ipv4 or "0.0.0.0"
        if exit_ is not None and exit_.host == NO_SOURCE:
            return None
        if exit_ is not None:
            self.keep_used()
        try:
            port = self.open(host) if exit_ is None else self.open(*exit_)
        except OSError:
            return None  # no descriptor is left, or this machine lacks the family or the address
        if exit_ is None:
            self._by_family[target.ipv6] = port
        else:
            self._by_exit[exit_] = port
        return port

    def keep_used(self) -> None:
        """Close the ports at exits by which no datagrams leave any more."""
        used = {target.exit for target in self.association.targets}
        for exit_ in [each for each in self._by_exit if each not in used]:
            self._by_exit.pop(exit_).close()

    def send(self, target: Target, payload: bytes | memoryview) -> None:
        """Send *payload* to *target*, whose address is known."""
        flow = target.flow
        if flow is not None and flow.port is None:
            flow.keep(target, payload)
            return
        association, metering = self.association, self.association.metering
        if metering is not None and not association.admit(metering.upload(target), (len(payload),)):
            return
        if flow is not None:
            port = flow.port
            to: tuple[str, int] | None = flow.relay
            data: bytes | memoryview = flow.headers_of(target) + bytes(payload)
        else:
            port, to, data = self.port_to(target), target.sockaddr, payload
        if port is None:
            association.drop(Drop.UNREACHABLE)
        elif self._write(port, data, to):
            association.datagrams_sent += 1
            association.sent += len(payload)

    def reply(self, header: bytes, payload: bytes) -> None:
        """Send *payload* to the client, with *header*, and encapsulated if need be."""
        association = self.association
        datagram = association.to_client(header, payload)
        if datagram is not None and self._write(self.port, datagram, self.client):
            association.datagrams_received += 1
            association.received += len(payload)

    def _write(self, port: Any, data: bytes | memoryview, to: Any) -> bool:
        """Whether the system takes *data*; else it is counted as dropped."""
        association = self.association
        try:
            port.send(data, to)
        except OSError as problem:
            association.drop(drop_for(problem))
            return False
        association.active = association.check.clock.seconds()
        return True

    def close(self) -> None:
        """Close the sockets; the client's port only when no other association has it."""
        for port in (*self._by_family, *self._by_exit.values()):
            if port is not None:
                port.close()
        if not self.port.demux.remove(self.association):
            self.port.close()


def _unwrap(wrapping: IWrapping, data: bytes) -> bytes:
    """The datagram that is encapsulated in *data*; empty: there is none."""
    try:
        return wrapping.unwrap_datagram(data)
    except ProtocolError:
        return b""
