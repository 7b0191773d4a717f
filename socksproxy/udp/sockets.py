"""
Associations on plain sockets in the relay engine.

Strategy: a socket is read in batches (:mod:`~socksproxy.udp.batch`). Neighbours in a batch that have the same
source, header and length are a run. One look-up serves the whole run, and the kernel takes it with one call.
Datagrams to an unknown destination go to the :class:`~socksproxy.udp.association.Association` one by one.

In one turn of the reactor a socket gives at most a few batches, and all sockets together give as much as
streams may move. The rest waits in the kernel, whose buffers are bounded.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SO_ERROR,
    SO_REUSEPORT,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOL_SOCKET,
    SocketType,
    inet_ntoa,
    inet_ntop,
)
from struct import unpack
from typing import Any
from weakref import WeakKeyDictionary

from twisted.logger import Logger

from ..logs.throttle import complain
from ..net.names import plain
from ..net.ports import bindable, enlarge_buffers
from ..net.sockets import NewSocket
from ..relay.engine import RelayEngine
from ..relay.epoll_events import ERROR
from ..values.outgoing import Outgoing, free_bind
from ..wire.datagram import IPV4_SIZE, LONGEST_SIZE, header_size, is_ipv4
from .association import Association, Outlet
from .batch import MASK, NAME_SIZES, ROOM, SLOTS, Batch
from .demux import Demux
from .drops import Drop, drop_for
from .flows import UpstreamFlow
from .targets import LONGEST, Target

_log = Logger(namespace="socksproxy")

#: Batches of one socket in a turn.
_TURNS = 4
#: Bytes of a turn that a datagram costs, beside its own.
_COST = 2048
#: Bytes of a turn that a datagram costs which is parsed, and about whose destination the policy may be asked.
_COST_OF_THE_FIRST = 16384
#: Errors that say nothing of how long a datagram may be; the last one is of a datagram before.
_PASSING = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ECONNREFUSED})

# The batches of an engine, by the parameters of a batch.
_batches: WeakKeyDictionary[RelayEngine, dict[tuple[int, bool], Batch]] = WeakKeyDictionary()


class SocketPort:
    """
    A UDP socket in the engine.

    :param engine: the engine.
    :param link: a socket that is bound and non-blocking.
    :param apart: see :class:`~socksproxy.udp.batch.Batch`.
    :raises OSError: when the engine has no room for the socket, which is closed then.
    :ivar queued: whether the engine has a note to call :meth:`pump`.
    """

    __slots__ = ("__weakref__", "_batch", "_engine", "_fd", "link", "queued")

    mask = MASK

    def __init__(self, engine: RelayEngine, link: SocketType, apart: bool) -> None:
        self.link = link
        self.queued = False
        self._engine = engine
        self._fd = link.fileno()
        batches, kind = _batches.setdefault(engine, {}), (link.family, apart)
        if kind not in batches:
            batches[kind] = Batch(*kind)
        self._batch = batches[kind]
        try:
            engine.register(self._fd, self, MASK)
        except OSError:
            link.close()
            raise

    def event(self, mask: int) -> None:
        """Read, unless the engine will call :meth:`pump` anyway."""
        if not self.queued:
            self.pump()

    def pump(self) -> None:
        """Read what has come, or as much as this turn has time for."""
        engine, batch = self._engine, self._batch
        for _ in range(_TURNS):
            if self._fd < 0:
                return
            if engine.spent > engine.turn_bytes:
                engine.again(self)
                return
            count = batch.receive(self._fd)
            if not count:
                return
            engine.spent += count * _COST + sum(batch.sizes)
            self.take(batch, count)
            if count < SLOTS:
                return

    def take(self, batch: Batch, count: int) -> None:
        """Take *count* datagrams, which are in *batch*."""
        raise NotImplementedError

    def abort(self) -> None:
        """The engine closes, or the socket's owner has failed."""
        raise NotImplementedError

    def send(self, data: bytes | memoryview, to: Any) -> None:
        """
        Send *data* to the address *to*.

        :raises OSError: as the system gives it.
        """
        self.link.sendto(data, to)

    @property
    def closed(self) -> bool:
        """Whether the socket is closed."""
        return self._fd < 0

    def close(self) -> None:
        """Close the socket."""
        if self._fd >= 0:
            self._engine.drop(self._fd)
            self._fd = -1
            self.link.close()


class ClientPort(SocketPort):
    """
    A socket that clients send to.

    :param host: the literal address to bind, as :func:`socksproxy.net.ports.host_of` gives it.
    :param port: the port to bind; 0: any.
    :param demux: finds the association of a datagram.
    :param shared: whether further sockets may be on the port.
    :param peer: the only client, to which the socket is connected; None: any.
    :raises OSError: as the system gives it.
    """

    __slots__ = ("_name", "_outlet", "demux")

    def __init__(
        self,
        engine: RelayEngine,
        host: str,
        port: int,
        demux: Demux,
        shared: bool = False,
        peer: tuple[Any, ...] | None = None,
    ) -> None:
        super().__init__(engine, bound(host, port, shared, peer), True)
        self.demux = demux
        # The client that has sent last: it is likely to send next.
        self._name: bytes | None = None
        self._outlet: SocketOutlet | None = None
        demux.changed = self._forget

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port of the socket."""
        name = self.link.getsockname()
        return name[0].partition("%")[0], name[1]

    def outlet(self, association: Association, outgoing: Outgoing) -> SocketOutlet:
        """The sockets of *association*, which this is one of. For *outgoing* see :class:`.Outlet`."""
        return SocketOutlet(self._engine, association, self, outgoing)

    def event(self, mask: int) -> None:
        """See :meth:`Readable.event`. That its client is gone is nothing to a socket that is connected."""
        if mask & ERROR:
            self.link.getsockopt(SOL_SOCKET, SO_ERROR)
        super().event(mask)

    def abort(self) -> None:
        self.demux.abort()

    def take(self, batch: Batch, count: int) -> None:
        start = 0
        while start < count:
            name = batch.name(start)
            stop = start + 1
            if stop < count and batch.names_are(name, start, count):
                stop = count
            try:
                outlet = self._outlet if name == self._name else self._find(batch, start, name)
                if outlet is None:
                    stop = start + 1  # the next datagram may latch the port
                else:
                    outlet.from_client(batch, start, stop)
            except Exception:
                self._failed(name)
            start = stop

    def _failed(self, name: bytes) -> None:
        """End the association of the client at *name* after a fault of ours, and no other association."""
        complain(_log, "an association failed")
        if name == self._name and self._outlet is not None:
            self._outlet.abort()

    def _find(self, batch: Batch, slot: int, name: bytes) -> SocketOutlet | None:
        peer = _peer(name)
        # The whole datagram, because an encapsulated one can only be unwrapped as a whole.
        association = self.demux.find(plain(peer[0]), peer[1], _datagram(batch, slot))
        outlet = association.outlet if association is not None else None
        if not isinstance(outlet, SocketOutlet):
            return None
        self._name, self._outlet = name, outlet
        outlet.client = peer
        return outlet

    def _forget(self) -> None:
        self._name = self._outlet = None


class DestinationPort(SocketPort):
    """
    A socket from which datagrams of one association leave, of one family.

    :param host: the literal address to bind.
    :param outlet: the outlet of the association.
    :param new_socket: makes the socket; None: it leaves as all others.
    :raises OSError: as the system gives it.
    """

    __slots__ = ("_outlet",)

    def __init__(
        self, engine: RelayEngine, host: str, outlet: SocketOutlet, new_socket: NewSocket | None
    ) -> None:
        super().__init__(engine, bound(host, 0, new_socket=new_socket), False)
        self._outlet = outlet

    def abort(self) -> None:
        self._outlet.abort()

    def take(self, batch: Batch, count: int) -> None:
        self._outlet.from_destinations(batch, count)


class RelayPort(SocketPort):
    """
    A socket from which datagrams of one association leave through proxies. It is connected to a relay.

    :param host: the literal address to bind.
    :param outlet: the outlet of the association.
    :param flow: the way through the proxies.
    :param new_socket: makes the socket; None: it leaves as all others.
    :raises OSError: as the system gives it.
    """

    __slots__ = ("_flow", "_outlet")

    def __init__(
        self,
        engine: RelayEngine,
        host: str,
        outlet: SocketOutlet,
        flow: UpstreamFlow,
        new_socket: NewSocket | None,
    ) -> None:
        link = bound(host, 0, peer=bindable(*flow.relay), new_socket=new_socket)
        super().__init__(engine, link, True)
        self._outlet = outlet
        self._flow = flow

    def event(self, mask: int) -> None:
        """See :meth:`SocketPort.event`. A relay that is gone for now shows as an error."""
        if mask & ERROR:
            self.link.getsockopt(SOL_SOCKET, SO_ERROR)
        super().event(mask)

    def abort(self) -> None:
        self._outlet.abort()

    def take(self, batch: Batch, count: int) -> None:
        self._outlet.from_relay(self._flow, batch, count)


class SocketOutlet(Outlet):
    """The sockets of an association in *engine*. For the other parameters see :class:`.Outlet`."""

    __slots__ = ("_engine", "_segments")

    def __init__(
        self, engine: RelayEngine, association: Association, port: ClientPort, outgoing: Outgoing
    ) -> None:
        super().__init__(association, port, outgoing)
        self._engine = engine
        self._segments = LONGEST

    def open(self, host: str, new_socket: NewSocket | None = None) -> DestinationPort:
        return DestinationPort(self._engine, host, self, new_socket)

    def open_relay(self, flow: UpstreamFlow, host: str, new_socket: NewSocket | None) -> RelayPort:
        return RelayPort(self._engine, host, self, flow, new_socket)

    def abort(self) -> None:
        """The engine closes."""
        self.association.abort()

    # To destinations.

    def from_client(self, batch: Batch, start: int, stop: int) -> None:
        """Take the datagrams of *batch* from *start* to before *stop*, all of the client."""
        association = self.association
        if association.wrapping is not None:
            self._unwrap(batch, start, stop)
            return
        targets, now = association.targets.by_header, self._engine.reactor.seconds()
        before, alike = association.datagrams_sent, _alike(batch, start, stop)
        while start < stop and association.outlet is self:
            key, extra = _key(batch, start)
            target = targets.get(key)
            if target is None or target.sockaddr is None or target.until <= now:
                # The first datagram to there, or the first after the time of the decision.
                self._engine.spent += _COST_OF_THE_FIRST
                association.from_client(_datagram(batch, start))
                start += 1
                continue
            end = stop if alike and not extra else _run(batch, start, stop, extra, len(key))
            target.used = True
            self._send_run(batch, start, end, target, extra, len(key))
            start = end
        if association.datagrams_sent != before:
            association.active = now

    def _unwrap(self, batch: Batch, start: int, stop: int) -> None:
        """Do what :meth:`from_client` does where datagrams are encapsulated, so that there are no runs."""
        for slot in range(start, stop):
            if self.association.outlet is not self:
                return
            self._engine.spent += _COST_OF_THE_FIRST
            self.association.from_client(_datagram(batch, slot))

    def _send_run(
        self, batch: Batch, start: int, stop: int, target: Target, offset: int, header: int
    ) -> None:
        association, metering, flow = self.association, self.association.metering, target.flow
        if flow is not None and (flow.port is None or len(flow.headers_of(target)) > ROOM):
            for slot in range(start, stop):
                self.send(target, _datagram(batch, slot)[header:])
            return
        if metering is not None:
            sizes = [size - header for size in batch.sizes[start:stop]]
            stop = start + association.admit(metering.upload(target), sizes)
            if start == stop or association.outlet is not self:
                return
        if flow is not None:
            self._send_by(flow, batch, start, stop, target, offset, header)
            return
        port = self.port_to(target)
        if port is None:
            association.drop(Drop.UNREACHABLE, stop - start)
            return
        passed, octets, target.segments = self._pass_on(
            batch, start, stop, port.link, target.sockaddr, offset, -header, target.segments
        )
        association.datagrams_sent += passed
        association.sent += octets

    def _send_by(
        self,
        flow: UpstreamFlow,
        batch: Batch,
        start: int,
        stop: int,
        target: Target,
        offset: int,
        header: int,
    ) -> None:
        """Send a run through proxies, with the headers for them in the place of the client's."""
        association, headers = self.association, flow.headers_of(target)
        longer = len(headers)
        if offset:
            batch.put(headers, start, stop, offset)
        else:
            batch.stamp(headers, start, stop)
        passed, octets, target.segments = self._pass_on(
            batch,
            start,
            stop,
            flow.port.link,
            flow.relay,
            offset - longer,
            longer - header,
            target.segments,
        )
        association.datagrams_sent += passed
        association.sent += octets - passed * longer

    def _pass_on(
        self,
        batch: Batch,
        start: int,
        stop: int,
        link: SocketType,
        to: Any,
        offset: int,
        longer: int,
        segments: int,
    ) -> tuple[int, int, int]:
        """
        Send a run, with one call if the system takes that.

        :param offset: where in its slot a datagram begins.
        :param longer: how many bytes longer a datagram leaves than it came.
        :param segments: the greatest length of datagrams of which the system takes several with one call.
        :returns: how many datagrams the system has taken, their bytes, and *segments* as it is now.
        """
        sizes, size = batch.sizes, batch.sizes[start] + longer
        if size <= segments and stop > start + 1:
            try:
                if batch.send(link, to, start, stop, offset, longer):
                    last = sizes[stop - 1] + longer
                    return stop - start, size * (stop - start - 1) + last, segments
            except OSError as problem:
                # They are longer than the path takes in one piece, or the interface cannot: one by one, then.
                if problem.errno not in _PASSING:
                    segments = size - 1
        passed = octets = 0
        for slot in range(start, stop):
            at, size = batch.at(slot) + offset, sizes[slot] + longer
            try:
                link.sendto(batch.view[at : at + size], to)
            except OSError as problem:
                self.association.drop(drop_for(problem))
                continue
            passed += 1
            octets += size
        return passed, octets, segments

    # To the client.

    def from_destinations(self, batch: Batch, count: int) -> None:
        """Take *count* datagrams, which are in *batch*, from destinations or from any other source."""
        association, replies = self.association, self.association.replies
        headers, start = replies.headers, 0
        while start < count and association.outlet is self:
            name = batch.name(start)
            header = headers.get(name)
            if header is None:
                host, port = _peer(name)[:2]
                header = replies.header_for(name, plain(host), port)
            if header is None or self.client is None:
                if header is not None:
                    association.drop(Drop.FILTERED)
                start += 1
                continue
            stop = _run_of_replies(batch, start, count, name)
            self._reply_run(batch, start, stop, header)
            start = stop

    def from_relay(self, flow: UpstreamFlow, batch: Batch, count: int) -> None:
        """Take *count* datagrams, which are in *batch*, from the first proxy's relay."""
        association, depth, replies = self.association, flow.depth, flow.replies
        start, alike = 0, _alike(batch, 0, count)
        while start < count and association.outlet is self and flow.port is not None:
            headers, extra = _key(batch, start) if depth == 1 else _keys(batch, start, depth)
            header = replies.get(headers)
            if header is None:
                self._engine.spent += _COST_OF_THE_FIRST
                header = flow.header_for(headers)
            if header is None or self.client is None:
                if header is not None:
                    association.drop(Drop.FILTERED)
                start += 1
                continue
            stop = count if alike and not extra else _run(batch, start, count, extra, len(headers))
            self._reply_run(batch, start, stop, header, extra, len(headers))
            start = stop

    def _reply_run(
        self, batch: Batch, start: int, stop: int, header: bytes, extra: int = 0, cut: int = 0
    ) -> None:
        """
        Send a run to the client.

        :param header: what the datagrams get.
        :param extra: the bytes in a slot that are not the client's.
        :param cut: the bytes of a datagram that are not the client's.
        """
        association, longer = self.association, len(header)
        if association.metering is not None:
            sizes = batch.sizes[start:stop] if not cut else [size - cut for size in batch.sizes[start:stop]]
            stop = start + association.admit(association.metering.download(header), sizes)
            if start == stop or association.outlet is not self:
                return
        if association.wrapping is not None:
            for slot in range(start, stop):
                self._engine.spent += _COST_OF_THE_FIRST
                at = batch.at(slot) + extra
                self.reply(header, bytes(batch.view[at : at + batch.sizes[slot] - cut]))
            return
        if extra:
            batch.put(header, start, stop, extra)
        else:
            batch.stamp(header, start, stop)
        passed, octets, self._segments = self._pass_on(
            batch, start, stop, self.port.link, self.client, extra - longer, longer - cut, self._segments
        )
        if passed:
            association.active = self._engine.reactor.seconds()
        association.datagrams_received += passed
        association.received += octets - passed * longer


def bound(
    host: str,
    port: int,
    shared: bool = False,
    peer: tuple[Any, ...] | None = None,
    new_socket: NewSocket | None = None,
) -> SocketType:
    """
    A UDP socket on *host* and *port*, non-blocking, with room for some of the largest datagrams.

    :param host: a literal address, as :func:`socksproxy.net.ports.host_of` gives it.
    :param shared: whether further sockets of this user may be on the port.
    :param peer: the address to which the socket is connected; None: the socket is not.
    :param new_socket: makes the socket; None: it leaves as all others.
    :raises OSError: as the system gives it.
    """
    family = AF_INET6 if ":" in host else AF_INET
    link = (new_socket or SocketType)(family, SOCK_DGRAM | SOCK_NONBLOCK)
    try:
        enlarge_buffers(link)
        if family == AF_INET6:
            link.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        if shared:
            link.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        free_bind(link, host)
        link.bind(bindable(host, port))
        if peer is not None:
            link.connect(peer)
    except OSError:
        link.close()
        raise
    return link


def _peer(name: bytes) -> tuple[Any, ...]:
    """The kernel's address *name*, as a Python socket takes it."""
    port = name[2] << 8 | name[3]
    if len(name) == NAME_SIZES[AF_INET]:
        return inet_ntoa(name[4:8]), port
    return inet_ntop(AF_INET6, name[8:24]), port, 0, unpack("I", name[24:28])[0]


def _datagram(batch: Batch, slot: int, most: int = 1 << 16) -> bytes:
    """A copy of the client's datagram in *slot*, at most *most* bytes of it."""
    size, at = min(batch.sizes[slot], most), batch.at(slot)
    return batch.head(slot)[:size] + batch.view[at : at + max(0, size - IPV4_SIZE)]


def _key(batch: Batch, slot: int) -> tuple[bytes, int]:
    """The header of the client's datagram in *slot*, if it has one, and how many of its bytes are there."""
    head, size = batch.head(slot), batch.sizes[slot]
    if is_ipv4(head) and size >= IPV4_SIZE:
        return head, 0
    start = _datagram(batch, slot, LONGEST_SIZE)
    end = header_size(start)
    # The header of a very short name is shorter than the head, so that the payload is in two places.
    return (start[:end], end - IPV4_SIZE) if end >= IPV4_SIZE else (b"", 0)


def _keys(batch: Batch, slot: int, depth: int) -> tuple[bytes, int]:
    """As :func:`_key`, for *depth* headers, one behind the other."""
    start, end = _datagram(batch, slot, depth * LONGEST_SIZE), 0
    for _ in range(depth):
        size = header_size(memoryview(start)[end:])
        if not size:
            return b"", 0
        end += size
    return start[:end], end - IPV4_SIZE


def _alike(batch: Batch, start: int, stop: int) -> bool:
    """Whether the client's datagrams from *start* to before *stop* begin alike and have one length."""
    if stop == start + 1:  # most batches have one datagram
        return True
    return batch.equally_long(start, stop) and batch.heads_are(batch.head(start), start, stop)


def _run(batch: Batch, start: int, stop: int, extra: int, header: int) -> int:
    """
    Where the run of the client's datagrams ends that begins at *start*: they have one header and one length.

    The last datagram of a run may be shorter, but not empty.

    :param extra: the bytes of the header that are in the slot.
    :param header: the bytes of the header.
    """
    view, head = batch.view, batch.head(start)
    at = batch.at(start)
    rest = view[at : at + extra]

    def alike(slot: int) -> bool:
        at = batch.at(slot)
        return batch.heads_are(head, slot, slot + 1) and (not extra or view[at : at + extra] == rest)

    return _end(batch.sizes, start, stop, alike, header)


def _run_of_replies(batch: Batch, start: int, stop: int, name: bytes) -> int:
    """Where the run of datagrams to the client ends that begins at *start*, all from *name*."""
    alone = stop == start + 1
    if alone or (batch.equally_long(start, stop) and batch.names_are(name, start, stop)):
        return stop
    return _end(batch.sizes, start, stop, lambda slot: batch.names_are(name, slot, slot + 1), 0)


def _end(sizes: list[int], start: int, stop: int, alike: Callable[[int], bool], least: int) -> int:
    size = sizes[start]
    end = start + 1
    while end < stop and alike(end):
        if sizes[end] != size:
            return end + 1 if least < sizes[end] < size else end
        end += 1
    return end
