"""
One association: which of its datagrams are passed on, and which are dropped.

Strategy: an association owns no socket and does no I/O. An outlet (:mod:`~socksproxy.udp.sockets`,
:mod:`~socksproxy.udp.transports`) brings it datagrams and takes those that pass. The bytes of a datagram's
header are the key to its :class:`~socksproxy.udp.targets.Target`, and the source of a reply is the key to the
header that the reply gets. Outlets look into both tables first: only the first datagram of a destination is
parsed, and asks the policy and the resolver. Whatever waits, waits in a bounded queue. Whatever is
remembered, is in a bounded table. No datagram ends an association.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol as Shape

from ..events import Cause
from ..identity import Client
from ..limits.buckets import Meter, Meters
from ..negotiation import IWrapping
from ..policy.asking import DestinationCheck, answer_at_once, ask
from ..runtime.deadlines import Deadlines
from ..values.udp import Filtering, UDPSettings
from ..wire.datagram import build_header, fragment_of, header_size, unfragmented
from ..wire.words import Address, Command, ProtocolError
from .drops import Drop, drop_for
from .metering import Metering
from .reassembly import Reassembly
from .targets import DatagramRoute, Target, Targets, name_of


class Outlet(Shape):
    """
    The sockets of an association.

    :ivar client: where replies go, as a socket takes it; None: not known yet.
    """

    client: tuple[Any, ...] | None

    def send(self, target: Target, payload: bytes | memoryview) -> None:
        """Send *payload* to *target*, whose address is known."""

    def close(self) -> None:
        """Close the sockets."""


class AssociationContext(NamedTuple):
    """
    What the associations of one factory have in common.

    :ivar check: the policy, names, and the clock.
    :ivar settings: how UDP ASSOCIATE is served.
    :ivar reassemblies: ends sets of fragments that take too long.
    :ivar closed: called with each association whose sockets are closed, before the association's own *ended*.
    :ivar watch_idle: called with the seconds that an association may be idle, where a rule says so.
    """

    check: DestinationCheck
    settings: UDPSettings
    reassemblies: Deadlines[Reassembly]
    closed: Callable[[Association], None]
    watch_idle: Callable[[float], None] = lambda _: None


class Association:
    """
    One client's datagrams.

    :param context: what it has in common with others.
    :param client: whose it is.
    :param host: the literal address that the client's datagrams come from.
    :param port: the port that they come from, as the client says; the first good datagram tells.
        None: the client does not say.
    :param ended: called once, with the association, when its sockets are closed.
    :param wrapping: what was agreed on with the client: each datagram is encapsulated, header and
        all; None: they are as they are.
    :ivar check: the policy, names and the clock: of the context, or what its session puts in their place.
    :ivar route: gives the route of an address, and of the name that was asked for; None: there is one route
        for all.
    :ivar metering: how much of datagrams' payload may pass; None: whatever comes. See :meth:`meter`.
    :ivar active: the clock's seconds when the last datagram has passed, or when the association began;
        outlets set it.
    :ivar latched: whether a datagram has told the port that the client's datagrams come from.
    :ivar outlet: its sockets.
    :ivar targets: the destinations.
    :ivar sources: the headers for replies, by what the outlet knows their sources by.
    :ivar sent: bytes from the client to destinations, and :attr:`datagrams_sent`.
    :ivar received: bytes from destinations to the client, and :attr:`datagrams_received`.
    :ivar dropped: datagrams of either direction that were not passed on, by reason.
    :ivar how: why it has ended; None: it has not.
    """

    __slots__ = (
        "_context",
        "_ended",
        "_fragments",
        "_idle",
        "_idle_as_all",
        "_seen",
        "_since",
        "_unwrapped",
        "active",
        "check",
        "client",
        "datagrams_received",
        "datagrams_sent",
        "dropped",
        "errno",
        "host",
        "how",
        "latched",
        "metering",
        "outlet",
        "port",
        "received",
        "route",
        "sent",
        "sources",
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
        self.sources: dict[Any, bytes] = {}
        self.sent = self.received = self.datagrams_sent = self.datagrams_received = 0
        self.dropped: dict[Drop, int] = {}
        self.how: Cause | None = None
        self.errno = 0
        self.wrapping = wrapping
        self.route: Callable[[Address, str | None], DatagramRoute] | None = None
        self.metering: Metering | None = None
        self._idle = 0.0
        self._idle_as_all = False
        self._unwrapped: bytes | None = None
        self._context = context
        self._ended: Callable[[Association], None] | None = ended
        self._fragments: Reassembly | None = None
        self._seen = 0
        self.active = self._since = context.check.clock.seconds()

    # From the client.

    def latch(self, host: str, port: int, data: bytes) -> bool:
        """
        Whether *data*, from a port that is not known as the client's, is the client's after all.

        If so, *port* is the client's from now on. The first good datagram from the client's address
        tells, whatever port the client has named: it does not know what NAT makes of that, and
        some name another one.

        Only the client can have sent a datagram that is encapsulated. :meth:`from_client` is given it next.

        :param host: the source's literal address, without an IPv4-mapped disguise.
        :param data: the datagram, or its beginning where it is not encapsulated.
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
        Whether *data* is a datagram of this client, where datagrams are encapsulated; else always True.

        A datagram can be unwrapped only once, so it is kept for :meth:`latch` and :meth:`from_client`.
        """
        if self.wrapping is not None and self._unwrapped is None:
            self._unwrapped = _unwrap(self.wrapping, data) or None
        return self.wrapping is None or self._unwrapped is not None

    @property
    def may_latch(self) -> bool:
        """Whether any port of the client's address may become the client's."""
        return not self.latched or self._context.settings.relatch

    def from_client(self, data: bytes | memoryview) -> None:
        """The client has sent *data*."""
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
        """The client has sent *payload* with *header*, which is whole and has no FRAG."""
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
        if self.outlet is not None:
            self.outlet.send(target, payload)

    def _take_fragment(self, fragment: int, header: bytes, payload: bytes) -> None:
        if self._fragments is None:
            context = self._context
            self._fragments = Reassembly(context.reassemblies, context.check.clock, self.drop)
        whole = self._fragments.add(fragment, header, payload)
        if whole is not None:
            self.send(header, whole)

    # From destinations.

    def header_for(self, source: Any, host: str, port: int) -> bytes | None:
        """
        The header for replies from *source*, which is not in :attr:`sources`; None: they are dropped.

        :param source: what the outlet knows it by.
        :param host: its literal address, without an IPv4-mapped disguise.
        """
        if not self._passes(host, port):
            self.drop(Drop.FILTERED)
            return None
        if len(self.sources) >= self._context.settings.destinations:
            self.forget_sources()
        header = self.sources[source] = build_header(Address.of(host, port))
        if self.metering is not None:
            self.metering.add_replies(header, host, port, self.targets)
        return header

    def to_client(self, header: bytes, payload: bytes) -> bytes | None:
        """The datagram for the client, as it is to get it; None: it cannot be had, and is counted."""
        data = header + payload
        if self.wrapping is None:
            return data
        try:
            return self.wrapping.wrap_datagram(data)
        except ProtocolError:
            self.drop(Drop.TOO_BIG)
            return None

    def _passes(self, host: str, port: int) -> bool:
        known = self.targets.has_contact(host, port)
        if self._context.settings.filtering is not Filtering.ENDPOINT_INDEPENDENT:
            return known
        answer = ask(self.check.policy, self.client, Command.UDP_ASSOCIATE, Address.of(host, port))
        # No answer is waited for about each source that may happen to send something.
        return answer_at_once(answer, known)

    def forget_sources(self) -> None:
        """Look at every source of replies anew."""
        self.sources.clear()
        if self.metering is not None:
            self.metering.forget_replies()

    # How datagrams go, and how many.

    def choose_route(self, target: Target, address: Address) -> None:
        if self.route is None:
            return
        route = self.route(address, name_of(target.key))
        target.source = route.source
        if route.rule != target.rule:
            target.rule, target.meters = route.rule, self._meters_of_rule(route)
            self.forget_sources()
        if route.idle is None:
            self._idle_as_all = True
            return
        self._idle = max(self._idle, route.idle)
        self._context.watch_idle(route.idle)

    def _meters_of_rule(self, route: DatagramRoute) -> Meters | None:
        if route.rule is None or route.meters is None:
            return None
        if self.metering is None:
            self.metering = Metering(None)
        return self.metering.of_rule(route.rule, route.meters)

    def meter(self, meters: Meters | None) -> None:
        """
        Pass on as much as *meters* allow from now on; what comes beyond that is dropped.

        :param meters: no other association has them; None: whatever comes.
        """
        before = self.metering
        live = self._ended is not None
        self.metering = Metering(meters) if meters is not None and live else None
        if before is None:
            return
        before.leave(meters)
        if not before.has_rules:
            return
        self.forget_sources()
        for target in self.targets:
            target.rule = target.meters = None
            if target.sockaddr is not None and live:
                self.choose_route(target, Address.of(*target.sockaddr))

    def admit_upload(self, target: Target, sizes: Sequence[int]) -> int:
        """
        How many of the datagrams to *target* pass, the first of them; the rest is counted as dropped.

        Outlets ask only where there is a :attr:`metering`.

        :param sizes: the lengths of their payloads.
        """
        return self._admit(None if self.metering is None else self.metering.upload(target), sizes)

    def admit_download(self, header: bytes, sizes: Sequence[int]) -> int:
        """As :meth:`admit_upload`, for datagrams to the client that get *header*."""
        return self._admit(None if self.metering is None else self.metering.download(header), sizes)

    def _admit(self, meter: Meter | None, sizes: Sequence[int]) -> int:
        if meter is None:
            return len(sizes)
        passed = meter.let(sizes)
        if passed < len(sizes):
            self.drop(Drop.LIMITED, len(sizes) - passed)
            # Those that pass are sent yet; the next one finds that nothing does.
            if not passed and meter.exhausted:
                self.abort(Cause.QUOTA)
        return passed

    def drop(self, reason: Drop, count: int = 1) -> None:
        """*count* datagrams are not passed on."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def failed(self, problem: OSError) -> None:
        """The system did not take a datagram."""
        self.drop(drop_for(problem))

    # Life.

    def reconsider(self, client: Client, check: DestinationCheck) -> None:
        """
        Ask anew about every destination: see :meth:`socksproxy.udp.targets.Targets.reconsider`.

        :param client: whose association it is, as it is known now.
        :param check: the policy and the names from now on.
        """
        self.client, self.check = client, check
        for header, payload in self.targets.reconsider():
            self.send(header, payload)
        self.forget_sources()

    def is_idle(self, now: float) -> bool:
        """
        Whether no datagram has passed for as long as the most patient one of its destinations allows.

        It is asked now and then.
        """
        passed = self.datagrams_sent + self.datagrams_received
        if passed != self._seen:
            self._seen, self._since = passed, now
        idle = self._idle
        if self._idle_as_all or not idle:
            idle = max(idle, self._context.settings.idle)
        return now - self._since >= idle

    def abort(self, how: Cause = Cause.ABORTED) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self.how = how
        self.meter(None)
        if self._fragments is not None:
            self._fragments.clear()
            self._fragments = None
        outlet, self.outlet = self.outlet, None
        self.targets.close()
        self.forget_sources()
        if outlet is not None:
            outlet.close()
        self._context.closed(self)
        ended(self)


def _unwrap(wrapping: IWrapping, data: bytes) -> bytes:
    """What is encapsulated in *data*; nothing, if that cannot be had."""
    try:
        return wrapping.unwrap_datagram(data)
    except ProtocolError:
        return b""
