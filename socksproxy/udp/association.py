"""
One association: whose datagrams go where, and which of them go nowhere.

It owns no socket and does no I/O. An outlet (:mod:`~socksproxy.udp.sockets`,
:mod:`~socksproxy.udp.transports`) brings it datagrams and takes those that pass.

Strategy: the bytes of a datagram's header are the key to its :class:`Target`,
and a reply's source the key to the header that it gets. Both tables are open to
the outlet, which looks into them first: parsing, policy and names are for the
first datagram of a destination. Whatever waits, waits in a bounded queue;
whatever is remembered, is in a bounded table. No datagram ends an association.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from enum import Enum
from math import inf
from typing import Any, NamedTuple, Protocol as Shape

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import NameNotFound, NotAllowed
from ..events import Cause
from ..identity import Client
from ..limits.buckets import Meter, Meters
from ..negotiation import IWrapping
from ..net.local import has_route
from ..net.names import canonical, reads_as_address
from ..net.special_addresses import Special, special
from ..policy.asking import Means, ask, ask_again, permitted_addresses
from ..runtime.deadlines import Deadlines
from ..values.udp import Filtering, UDPSettings
from ..wire.datagram import LAST_FRAGMENT, build_header, parse_datagram
from ..wire.words import Address, AddressType, Command, ProtocolError
from .reassembly import Reassembly

_log = Logger(namespace="socksproxy")

#: Seconds for which the policy's word on a destination holds.
LIFETIME = 30.0
#: Seconds for which a name's address does: a short TTL is none of what a resolver tells.
NAME_LIFETIME = 5.0
#: What may wait for names and for a policy that takes its time: datagrams and bytes of an association.
MAX_WAITING = 64
MAX_WAITING_BYTES = 131072
#: Names and decisions of an association that may be waited for at once.
MAX_ASKED = 32

#: No datagram is longer.
LONGEST = 65535

_IPV4_END, _IPV6_END, _TYPE_AT, _NAME_AT = 10, 22, 3, 4
_NOWHERE = frozenset({Special.UNSPECIFIED, Special.MULTICAST, Special.BROADCAST})


class Drop(Enum):
    """Why a datagram is not passed on; the value is the access record's word for it."""

    #: From the client, but no SOCKS datagram.
    MALFORMED = "malformed"
    #: To the client's port, but not from the client.
    FOREIGN = "foreign"
    #: A fragment whose set did not come together.
    FRAGMENT = "fragment"
    DENIED = "denied"
    UNRESOLVABLE = "unresolvable"
    #: There was no room for it, in a queue of ours or of the system's.
    OVERFLOW = "overflow"
    #: From somebody whom the client has not sent to.
    FILTERED = "filtered"
    #: It came faster than its association's bytes may.
    LIMITED = "limited"
    TOO_BIG = "too_big"
    UNREACHABLE = "unreachable"


_DROP_BY_ERRNO = {
    errno.EMSGSIZE: Drop.TOO_BIG,
    errno.EAGAIN: Drop.OVERFLOW,
    errno.ENOBUFS: Drop.OVERFLOW,
    errno.ENOMEM: Drop.OVERFLOW,
    # A packet filter on this machine, or the broadcast address of a network.
    errno.EACCES: Drop.DENIED,
    errno.EPERM: Drop.DENIED,
}


class Target:
    """
    Where the datagrams of one header go.

    :ivar key: the header.
    :ivar rule: of the limits that hold there beside the association's own; None: of none.
    :ivar meters: how much may be sent there by all of these; None: the association's own say.
    :ivar sockaddr: a checked literal address and a port; None: nowhere, or not known yet.
    :ivar ipv6: the family of *sockaddr*.
    :ivar until: the clock's seconds up to which this holds.
    :ivar used: whether it was of use again since somebody last looked.
    :ivar segments: the longest datagrams of which the system takes several at once for it.
    :ivar source: the literal address of ours that they leave from; None: that of all.
    :ivar waiting: what goes there as soon as it is known where; None: nothing is being waited for.
    """

    __slots__ = (
        "contact",
        "drop",
        "ipv6",
        "key",
        "meters",
        "pending",
        "rule",
        "segments",
        "sockaddr",
        "source",
        "until",
        "used",
        "waiting",
    )

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.sockaddr: tuple[str, int] | None = None
        self.ipv6 = False
        self.until = 0.0
        self.used = False
        self.segments = LONGEST
        self.source: str | None = None
        self.waiting: list[bytes] | None = None
        self.pending: Deferred[Any] | None = None
        self.drop = Drop.DENIED
        self.contact: object = None
        self.rule: str | None = None
        self.meters: Meters | None = None


class Way(NamedTuple):
    """
    What is said of how datagrams go to a destination.

    :ivar source: the literal address that they leave from; None: that of all.
    :ivar idle: seconds that the association may be without a datagram, 0: for ever; None: as all may.
    :ivar rule: the name of the one whose limits hold there beside the association's own; None: there is none.
    :ivar meters: gives the meters, nobody else's, of all that passes under a rule, by its name.
    """

    source: str | None = None
    idle: float | None = None
    rule: str | None = None
    meters: Callable[[str], Meters | None] | None = None


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


class Terms(NamedTuple):
    """
    What the associations of one factory have in common.

    :ivar means: the policy, names, and the clock.
    :ivar settings: what the operator said.
    :ivar reassemblies: ends sets of fragments that take too long.
    :ivar over: called with each association whose sockets are closed, before the association's own *ended*.
    :ivar look: called with the seconds that an association may be idle, where those are its own.
    """

    means: Means
    settings: UDPSettings
    reassemblies: Deadlines[Association]
    over: Callable[[Association], None]
    look: Callable[[float], None] = lambda _: None


class Association:
    """
    One client's datagrams.

    :param terms: what it has in common with others.
    :param client: whose it is.
    :param host: the literal address that the client's datagrams come from.
    :param port: the port that they come from, as the client says; the first good datagram tells.
        None: the client does not say.
    :param ended: called once, with the association, when its sockets are closed.
    :param wrapping: what was agreed on with the client: each datagram is encapsulated, header and
        all; None: they are as they are.
    :ivar means: what it has of the terms, or what its session has put in place of that.
    :ivar way: tells of an address, and of the name that was asked for, how datagrams go there; None: as to
        all others.
    :ivar meters: how much of datagrams' payload may pass; None: whatever comes. See :meth:`meter`.
    :ivar reply_meters: likewise of what comes from destinations under rules with limits, by the headers for
        replies.
    :ivar active: the clock's seconds when the last datagram has passed, or when the association began;
        outlets set it.
    :ivar latched: whether a datagram has told the port that the client's datagrams come from.
    :ivar outlet: its sockets.
    :ivar targets: by the headers of the client's datagrams.
    :ivar sources: the headers for replies, by what the outlet knows their sources by.
    :ivar sent: bytes from the client to destinations, and :attr:`datagrams_sent`.
    :ivar received: bytes from destinations to the client, and :attr:`datagrams_received`.
    :ivar dropped: datagrams of either direction that were not passed on, by reason.
    """

    __slots__ = (
        "_asked",
        "_by_rule",
        "_contacts",
        "_ended",
        "_fragments",
        "_idle",
        "_idle_as_all",
        "_seen",
        "_since",
        "_terms",
        "_unwrapped",
        "_waiting",
        "_waiting_bytes",
        "active",
        "client",
        "datagrams_received",
        "datagrams_sent",
        "dropped",
        "errno",
        "host",
        "how",
        "latched",
        "means",
        "meters",
        "outlet",
        "port",
        "received",
        "reply_meters",
        "sent",
        "sources",
        "targets",
        "way",
        "wrapping",
    )

    def __init__(
        self,
        terms: Terms,
        client: Client,
        host: str,
        port: int | None,
        ended: Callable[[Association], None],
        wrapping: IWrapping | None = None,
    ) -> None:
        self.client = client
        self.means = terms.means
        self.host = host
        self.port = port
        self.latched = False
        self.outlet: Outlet | None = None
        self.targets: dict[bytes, Target] = {}
        self.sources: dict[Any, bytes] = {}
        self.sent = self.received = self.datagrams_sent = self.datagrams_received = 0
        self.dropped: dict[Drop, int] = {}
        self.how: Cause | None = None
        self.errno = 0
        self.wrapping = wrapping
        self.way: Callable[[Address, str | None], Way] | None = None
        self._idle = 0.0
        self._idle_as_all = False
        self.meters: Meters | None = None
        self._by_rule: dict[str, Meters | None] | None = None
        self.reply_meters: dict[bytes, Meters] = {}
        self._unwrapped: bytes | None = None
        self._terms = terms
        self._ended: Callable[[Association], None] | None = ended
        self._contacts: dict[object, int] = {}
        self._fragments: Reassembly | None = None
        self._asked = self._waiting = self._waiting_bytes = 0
        self._seen = 0
        self.active = self._since = terms.means.clock.seconds()

    # What comes from the client's side.

    def latch(self, host: str, port: int, data: bytes) -> bool:
        """
        Whether *data*, from a port that is not known as the client's, is the client's after all.

        If so, *port* is the client's from now on. The first good datagram from the client's address
        tells, whatever port the client has named: it does not know what NAT makes of that, and
        some name another one.

        If it is encapsulated, nobody else can be the sender. :meth:`from_client` is given it next.

        :param host: the source's literal address, without an IPv4-mapped disguise.
        :param data: the datagram, or its beginning where it is not encapsulated.
        """
        if host != self.host or not (port == self.port or self.open_to_latch):
            self.drop(Drop.FOREIGN)
            return False
        if self.wrapping is not None:
            self.opens(data)
            data = self._unwrapped or b""
        if not header_end(data):
            self._unwrapped = None
            self.drop(Drop.MALFORMED)
            return False
        self.port, self.latched = port, True
        return True

    def opens(self, data: bytes) -> bool:
        """
        Whether *data* can be taken out of its cover, if it has to have one.

        That can be done only once, so it is kept for :meth:`latch` and :meth:`from_client`.
        """
        if self.wrapping is not None and self._unwrapped is None:
            self._unwrapped = self._unwrap(self.wrapping, data) or None
        return self.wrapping is None or self._unwrapped is not None

    @property
    def open_to_latch(self) -> bool:
        """Whether any port of the client's address may become the client's."""
        return not self.latched or self._terms.settings.relatch

    def from_client(self, data: bytes | memoryview) -> None:
        """The client has sent *data*."""
        if self.wrapping is not None:
            latched, self._unwrapped = self._unwrapped, None
            data = self._unwrap(self.wrapping, bytes(data)) if latched is None else latched
        end = header_end(data)
        if not end:
            self.drop(Drop.MALFORMED)
        elif data[2]:
            self._take_fragment(data, end)
        else:
            self.send(bytes(data[:end]), data[end:])

    def _unwrap(self, wrapping: IWrapping, data: bytes) -> bytes:
        """What is encapsulated in *data*; nothing, if that cannot be had."""
        try:
            return wrapping.unwrap_datagram(data)
        except ProtocolError:
            return b""

    def send(self, key: bytes, payload: bytes | memoryview) -> None:
        """The client has sent *payload* with the header *key*, which is whole and has no FRAG."""
        target = self.targets.get(key)
        if target is None:
            target = self._add_target(key)
        else:
            target.used = True
            if target.until <= self._terms.means.clock.seconds():
                target = self._renewed(target)
        if target is None:
            return
        if target.sockaddr is not None and self.outlet is not None:
            self.outlet.send(target, payload)
        elif target.waiting is not None:
            self._wait(target, bytes(payload))
        else:
            self.drop(target.drop)

    def _renewed(self, target: Target) -> Target | None:
        """What is known of *target* is old: ask again, and go on as before until the answer is there."""
        if target.pending is None:
            self._ask(target)
            return target
        # The last question has not been answered for all that time.
        del self.targets[target.key]
        self._forget(target)
        return self._add_target(target.key)

    def _take_fragment(self, data: bytes | memoryview, end: int) -> None:
        if self._fragments is None:
            self._fragments = Reassembly()
        fragments, fragment = self._fragments, data[2]
        position, last = fragment & ~LAST_FRAGMENT, bool(fragment & LAST_FRAGMENT)
        key = b"\0\0\0" + bytes(data[3:end])
        whole = fragments.add(position, last, key, bytes(data[end:]))
        self._count_fragments(fragments)
        reassemblies = self._terms.reassemblies
        if position == 1 or not fragments.pending:
            reassemblies.stop(self)
        if position == 1 and fragments.pending:
            reassemblies.start(self, self._terms.means.clock.seconds())
        if whole is not None:
            self.send(key, whole)

    def fragments_expired(self) -> None:
        """A set of fragments has taken too long."""
        if self._fragments is not None:
            self._fragments.clear()
            self._count_fragments(self._fragments)

    def _count_fragments(self, fragments: Reassembly) -> None:
        if fragments.dropped:
            self.drop(Drop.FRAGMENT, fragments.dropped)
            fragments.dropped = 0

    # What comes from destinations.

    def header_for(self, source: Any, host: str, port: int) -> bytes | None:
        """
        The header for replies from *source*, which is not in :attr:`sources`; None: they are dropped.

        :param source: what the outlet knows it by.
        :param host: its literal address, without an IPv4-mapped disguise.
        """
        if not self._passes(host, port):
            self.drop(Drop.FILTERED)
            return None
        if len(self.sources) >= self._terms.settings.destinations:
            self._forget_sources()
        header = self.sources[source] = build_header(Address.of(host, port))
        meters = self._meters_of(host, port) if self._by_rule else None
        if meters is not None:
            self.reply_meters[header] = meters
        return header

    def _meters_of(self, host: str, port: int) -> Meters | None:
        """What limits replies from there: what limits datagrams to there, or to another port of that host."""
        found = None
        for target in self.targets.values():
            if target.sockaddr == (host, port):
                return target.meters
            if target.sockaddr is not None and target.sockaddr[0] == host:
                found = target.meters or found
        return found

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
        filtering = self._terms.settings.filtering
        if filtering is not Filtering.ENDPOINT_INDEPENDENT:
            return self._contact(host, port) in self._contacts
        answer = ask(self.means.policy, self.client, Command.UDP_ASSOCIATE, Address.of(host, port))
        if isinstance(answer, Deferred):
            # Nobody is asked about everybody who may happen to send something.
            answer.addErrback(_let_go)
            answer.cancel()
            return self._contact(host, port) in self._contacts
        return answer

    def _contact(self, host: str, port: int) -> object:
        filtering = self._terms.settings.filtering
        return (host, port) if filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT else host

    # How much may pass, for outlets: they ask only where there are meters.

    def meter(self, meters: Meters | None) -> None:
        """
        Pass on as much as *meters* allow from now on; what comes beyond that is dropped.

        :param meters: nobody else's; None: whatever comes.
        """
        before, self.meters = self.meters, None if self._ended is None else meters
        if before is not None and before is not meters:
            before.leave()
        by_rule, self._by_rule = self._by_rule, None
        if by_rule is None:
            return
        for of_rule in by_rule.values():
            if of_rule is not None:
                of_rule.leave()
        self._forget_sources()
        for target in self.targets.values():
            target.rule = target.meters = None
            if target.sockaddr is not None and self._ended is not None:
                self._find_way(target, Address.of(*target.sockaddr))

    def _meters_under(self, way: Way) -> Meters | None:
        """What is one association's place among all that passes under a rule, however many destinations."""
        if way.rule is None or way.meters is None:
            return None
        if self._by_rule is None:
            self._by_rule = {}
        if way.rule not in self._by_rule:
            self._by_rule[way.rule] = way.meters(way.rule)
        return self._by_rule[way.rule]

    def let_up(self, target: Target, sizes: Sequence[int]) -> int:
        """How many of the datagrams to *target* whose payloads are *sizes* long pass; the rest is counted."""
        meters = target.meters or self.meters
        return self._let(None if meters is None else meters.up, sizes)

    def let_down(self, header: bytes, sizes: Sequence[int]) -> int:
        """Likewise of those for the client that get *header*."""
        meters = self.reply_meters.get(header) or self.meters
        return self._let(None if meters is None else meters.down, sizes)

    def _let(self, meter: Meter | None, sizes: Sequence[int]) -> int:
        if meter is None:
            return len(sizes)
        passed = meter.let(sizes)
        if passed < len(sizes):
            self.drop(Drop.LIMITED, len(sizes) - passed)
            # Those that pass are sent yet; the next one finds that nothing does.
            if not passed and meter.exhausted:
                self.abort(Cause.QUOTA)
        return passed

    # Counting, for outlets.

    def drop(self, reason: Drop, count: int = 1) -> None:
        """*count* datagrams are not passed on."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def failed(self, problem: OSError) -> None:
        """The system did not take a datagram."""
        self.drop(_DROP_BY_ERRNO.get(problem.errno or 0, Drop.UNREACHABLE))

    # Destinations.

    def _add_target(self, key: bytes) -> Target | None:
        try:
            address = _destination(key, self.means.names.defines)
        except ProtocolError:
            self.drop(Drop.MALFORMED)
            return None
        except NameNotFound:
            self.drop(Drop.UNRESOLVABLE)
            return None
        if self._asked >= MAX_ASKED and address.type is AddressType.DOMAIN_NAME:
            self.drop(Drop.OVERFLOW)
            return None
        if len(self.targets) >= self._terms.settings.destinations:
            self._make_room()
        target = self.targets[key] = Target(key)
        self._ask(target, address)
        return target

    def _ask(self, target: Target, address: Address | None = None) -> None:
        """Find out where *target* is, and whether the client may send there."""
        if address is None:
            address = _destination(target.key)
        means = self.means
        target.until = means.clock.seconds() + LIFETIME
        if address.type is not AddressType.DOMAIN_NAME and _leads_nowhere(address):
            self._settle(target, None, Drop.DENIED)
            return
        answer = ask(means.policy, self.client, Command.UDP_ASSOCIATE, address)
        if address.type is not AddressType.DOMAIN_NAME and not isinstance(answer, Deferred):
            self._settle(target, address if answer else None, Drop.DENIED)
            return
        if target.sockaddr is None:
            target.waiting = []
        self._asked += 1
        pending: Deferred[Any] = maybeDeferred(
            permitted_addresses, means, self.client, Command.UDP_ASSOCIATE, address, answer, _nothing
        )
        target.pending = pending
        pending.addCallbacks(self._found, self._not_found, callbackArgs=(target,), errbackArgs=(target,))
        pending.addErrback(self._broke, target)

    def _found(self, addresses: list[Address], target: Target) -> None:
        usable = [address for address in map(canonical, addresses) if not _leads_nowhere(address)]
        self._settle(target, _best(usable, target.sockaddr), Drop.DENIED)

    def _not_found(self, failure: Failure, target: Target) -> None:
        if self.outlet is None or self.targets.get(target.key) is not target:
            return  # it was cancelled
        failure.trap(NameNotFound, NotAllowed)
        self._settle(target, None, Drop.DENIED if failure.check(NotAllowed) else Drop.UNRESOLVABLE)

    def _broke(self, failure: Failure, target: Target) -> None:
        _log.failure("{client}: a destination of UDP failed", failure, client=self.client)
        self._settle(target, None, Drop.UNRESOLVABLE)

    def _settle(self, target: Target, address: Address | None, otherwise: Drop) -> None:
        """It is known where *target* is; None: its datagrams are dropped."""
        if target.pending is not None:
            target.pending = None
            self._asked -= 1
            named = target.key[_TYPE_AT] == AddressType.DOMAIN_NAME
            target.until = self._terms.means.clock.seconds() + (NAME_LIFETIME if named else LIFETIME)
        self._leave(target)
        waiting, target.waiting = target.waiting, None
        target.segments = LONGEST
        if address is None:
            target.sockaddr, target.drop = None, otherwise
        else:
            target.sockaddr = (address.host, address.port)
            target.ipv6 = address.type is AddressType.IPV6
            self._find_way(target, address)
            contact = target.contact = self._contact(address.host, address.port)
            self._contacts[contact] = self._contacts.get(contact, 0) + 1
        for payload in waiting or ():
            self._waiting -= 1
            self._waiting_bytes -= len(payload)
            if address is None:
                self.drop(otherwise)
            elif self.outlet is not None:
                self.outlet.send(target, payload)

    def _find_way(self, target: Target, address: Address) -> None:
        if self.way is None:
            return
        way = self.way(address, _name_of(target.key))
        target.source = way.source
        if way.rule != target.rule:
            target.rule, target.meters = way.rule, self._meters_under(way)
            self._forget_sources()
        if way.idle is None:
            self._idle_as_all = True
            return
        idle = way.idle or inf
        self._idle = max(self._idle, idle)
        self._terms.look(idle)

    def _wait(self, target: Target, payload: bytes) -> None:
        assert target.waiting is not None
        if self._waiting >= MAX_WAITING or self._waiting_bytes + len(payload) > MAX_WAITING_BYTES:
            self.drop(Drop.OVERFLOW)
            return
        self._waiting += 1
        self._waiting_bytes += len(payload)
        target.waiting.append(payload)

    def _leave(self, target: Target) -> None:
        """The client has nothing to do with *target*'s address any more."""
        contact, target.contact = target.contact, None
        if contact is None:
            return
        left = self._contacts[contact] - 1
        if left:
            self._contacts[contact] = left
            return
        del self._contacts[contact]
        self._forget_sources()

    def _make_room(self) -> None:
        """
        Forget some destinations, best those that were not used for long.

        Some at once, because replies are looked up anew after that.
        """
        for _ in range(2 * len(self.targets)):
            key = next(iter(self.targets))
            target = self.targets.pop(key)
            if target.used:
                target.used = False
                self.targets[key] = target
                continue
            self._forget(target)
            if len(self.targets) <= self._terms.settings.destinations * 7 // 8:
                return

    def _forget(self, target: Target) -> None:
        pending, target.pending = target.pending, None
        if pending is not None:
            self._asked -= 1
            pending.cancel()
        for payload in target.waiting or ():
            self._waiting -= 1
            self._waiting_bytes -= len(payload)
            self.drop(Drop.OVERFLOW)
        target.waiting = None
        self._leave(target)

    def reconsider(self, client: Client, means: Means) -> None:
        """
        Ask anew about every destination.

        One that is still permitted stays, lest what it is about to answer is lost. The others, and those of
        which nobody can tell at once, are asked about when the next datagram goes there.

        :param client: whose association it is, as it is known now.
        :param means: what it has from now on.
        """
        self.client, self.means = client, means
        for target in list(self.targets.values()):
            self._stop_asking(target)
            reached = None if target.sockaddr is None else Address.of(*target.sockaddr)
            if reached is not None and self._still_permits(target, reached):
                self._settle(target, reached, Drop.DENIED)
                continue
            del self.targets[target.key]
            waiting, target.waiting = target.waiting, None
            self._forget(target)
            for payload in waiting or ():
                self._waiting -= 1
                self._waiting_bytes -= len(payload)
                self.send(target.key, payload)
        self._forget_sources()

    def _stop_asking(self, target: Target) -> None:
        """What is being asked about *target* is not asked in the right way any more."""
        pending, target.pending = target.pending, None
        if pending is not None:
            self._asked -= 1
            target.until = 0.0
            pending.cancel()

    def _still_permits(self, target: Target, reached: Address) -> bool:
        answer = ask_again(
            self.means.policy, self.client, Command.UDP_ASSOCIATE, _destination(target.key), [reached]
        )
        if isinstance(answer, Deferred):
            answer.addErrback(_let_go)
            answer.cancel()
            return False
        return answer

    # Life.

    def _forget_sources(self) -> None:
        self.sources.clear()
        self.reply_meters.clear()

    def renew(self) -> None:
        """Look at everybody who replies anew."""
        self._forget_sources()

    def is_idle(self, now: float) -> bool:
        """
        Whether no datagram has passed for as long as its destinations allow, the most patient one of them.

        It is asked now and then.
        """
        passed = self.datagrams_sent + self.datagrams_received
        if passed != self._seen:
            self._seen, self._since = passed, now
        idle = self._idle
        if self._idle_as_all or not idle:
            idle = max(idle, self._terms.settings.idle or inf)
        return now - self._since >= idle

    def abort(self, how: Cause = Cause.ABORTED) -> None:
        """See :meth:`socksproxy.relay.interfaces.IRelay.abort`."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self.how = how
        self.meter(None)
        self._terms.reassemblies.stop(self)
        if self._fragments is not None:
            self.fragments_expired()
        outlet, self.outlet = self.outlet, None
        for target in self.targets.values():
            self._forget(target)
        self.targets.clear()
        self._forget_sources()
        if outlet is not None:
            outlet.close()
        self._terms.over(self)
        ended(self)


def header_end(data: bytes | memoryview) -> int:
    """Where the payload of the datagram *data* begins; 0: it has no whole header."""
    size = len(data)
    if size < _IPV4_END - 2:  # the shortest: a name of one letter
        return 0
    kind = data[_TYPE_AT]
    if kind == AddressType.IPV4:
        end = _IPV4_END
    elif kind == AddressType.IPV6:
        end = _IPV6_END
    elif kind == AddressType.DOMAIN_NAME and data[_NAME_AT]:
        end = _NAME_AT + 1 + data[_NAME_AT] + 2
    else:
        return 0
    return end if size >= end else 0


def _destination(key: bytes, defines: Callable[[str], bool] = reads_as_address) -> Address:
    """
    The destination of the header *key*.

    :param defines: whether the hosts file has a name; by default every name that is asked about, because
        the destination has been added already.
    :raises NameNotFound: for what cannot be the name of a host.
    """
    address = canonical(parse_datagram(key)[0].address, defines)
    if not address.port:
        raise ProtocolError("port 0 is no destination")
    return address


def _name_of(key: bytes) -> str | None:
    """The name in the header *key*; None: it has an address."""
    address = _destination(key)
    return address.host if address.type is AddressType.DOMAIN_NAME else None


def _leads_nowhere(address: Address) -> bool:
    """Whether *address* is nobody's in particular, and nothing is sent there whatever the policy says."""
    return special(address.host) in _NOWHERE


def _best(addresses: list[Address], present: tuple[str, int] | None) -> Address | None:
    """The one of a name's addresses to send to: the one in use if it still holds, else one with a route."""
    for address in addresses:
        if (address.host, address.port) == present:
            return address
    for address in addresses:
        if len(addresses) == 1 or _has_route(address):
            return address
    return addresses[0] if addresses else None


def _has_route(address: Address) -> bool:
    return has_route(address.host, address.port)


def _let_go(_: Failure) -> None:
    """Nobody waits for it any more."""


def _nothing() -> None:
    """Nobody is to know when the name has been looked up."""
