"""
Associations on plain sockets in the relay engine.

A socket is read in batches (:mod:`~socksproxy.udp.batch`). Neighbours in a batch
that have the same source, header and length are a run: what is known of the
first is known of all, and the kernel takes them all at once. What is not known
yet goes to the :class:`~socksproxy.udp.association.Association`, one by one.

A socket gives at most a few batches in a turn of the reactor, and all of them
together what streams may move; the rest waits in the kernel, whose buffers are bounded.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
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
from ..net.ports import bindable
from ..net.udp_options import enlarge_buffers
from ..relay.engine import RelayEngine
from ..values.outgoing import Outgoing
from ..wire.datagram import IPV4_SIZE, LONGEST_SIZE, header_size, is_ipv4
from .association import Association
from .batch import MASK, NAME_SIZES, SLOTS, Batch
from .demux import Demux
from .drops import Drop
from .targets import LONGEST, Target

_log = Logger(namespace="socksproxy")

#: Batches of one socket in a turn.
_TURNS = 4
#: What a datagram counts of the bytes of a turn, beside its own.
_COST = 2048
#: Likewise, one that has to be parsed, and whose destination the policy may be asked about.
_COST_OF_THE_FIRST = 16384
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})


class Batches:
    """The room for the datagrams of one engine."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, bool], Batch] = {}

    def get(self, family: int, apart: bool) -> Batch:
        """The room for sockets of *family*; see :class:`~socksproxy.udp.batch.Batch`."""
        batch = self._made.get((family, apart))
        if batch is None:
            batch = self._made[family, apart] = Batch(family, apart)
        return batch


_batches: WeakKeyDictionary[RelayEngine, Batches] = WeakKeyDictionary()


class Readable:
    """
    A UDP socket in the engine.

    :param engine: tells when there is something to read.
    :param link: bound and non-blocking.
    :param apart: see :class:`~socksproxy.udp.batch.Batch`.
    :raises OSError: when the engine has no room for it; the socket is closed then.
    :ivar queued: whether the engine has a note to call :meth:`pump`.
    """

    __slots__ = ("__weakref__", "_batch", "_engine", "_fd", "link", "queued")

    mask = MASK

    def __init__(self, engine: RelayEngine, link: SocketType, apart: bool) -> None:
        self.link = link
        self.queued = False
        self._engine = engine
        self._fd = link.fileno()
        self._batch = _batches.setdefault(engine, Batches()).get(link.family, apart)
        try:
            engine.register(self._fd, self, MASK)
        except OSError:
            link.close()
            raise

    def event(self, mask: int) -> None:
        """There is something to read."""
        if not self.queued:
            self.pump()

    def pump(self) -> None:
        """Take what there is, or as much as others leave time for."""
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
        """*count* datagrams are in *batch*."""
        raise NotImplementedError

    def abort(self) -> None:
        """The engine closes, or the socket's owner has failed."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the socket."""
        if self._fd >= 0:
            self._engine.drop(self._fd)
            self._fd = -1
            self.link.close()


class ClientPort(Readable):
    """
    A socket that clients send to.

    :param demux: finds the association of a datagram.
    """

    __slots__ = ("_demux", "_name", "_outlet")

    def __init__(self, engine: RelayEngine, link: SocketType, demux: Demux) -> None:
        super().__init__(engine, link, True)
        self._demux = demux
        # The last one to speak is likely to be the next.
        self._name: bytes | None = None
        self._outlet: SocketOutlet | None = None
        demux.changed = self._forget

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port that it is bound to."""
        name = self.link.getsockname()
        return name[0].partition("%")[0], name[1]

    def abort(self) -> None:
        self._demux.abort()

    def take(self, batch: Batch, count: int) -> None:
        start = 0
        while start < count:
            name = batch.name(start)
            stop = start + 1
            if batch.names_are(name, start, count):
                stop = count
            try:
                outlet = self._outlet if name == self._name else self._find(batch, start, name)
                if outlet is None:
                    stop = start + 1  # what the next one says may make it the client's
                else:
                    outlet.from_client(batch, start, stop)
            except Exception:
                self._failed(name)
            start = stop

    def _failed(self, name: bytes) -> None:
        """A fault of ours: it costs the client at *name* its association, and other clients nothing."""
        complain(_log, "an association failed")
        if name == self._name and self._outlet is not None:
            self._outlet.abort()

    def _find(self, batch: Batch, slot: int, name: bytes) -> SocketOutlet | None:
        peer = _peer(name)
        # The whole of it: one that is encapsulated is the client's or not as a whole.
        association = self._demux.find(plain(peer[0]), peer[1], _datagram(batch, slot))
        outlet = association.outlet if association is not None else None
        if not isinstance(outlet, SocketOutlet):
            return None
        self._name, self._outlet = name, outlet
        outlet.client = peer
        return outlet

    def _forget(self) -> None:
        self._name = self._outlet = None

    @property
    def closed(self) -> bool:
        """Whether its last association has left it."""
        return self._fd < 0

    def leave(self, association: Association) -> None:
        """*association* is over; without any other the socket is closed."""
        if not self._demux.remove(association):
            self.close()


class DestinationPort(Readable):
    """
    The socket from which an association's datagrams leave, of one family.

    :param outlet: the association's.
    """

    __slots__ = ("_outlet",)

    def __init__(self, engine: RelayEngine, link: SocketType, outlet: SocketOutlet) -> None:
        super().__init__(engine, link, False)
        self._outlet = outlet

    def abort(self) -> None:
        self._outlet.abort()

    def take(self, batch: Batch, count: int) -> None:
        self._outlet.from_destinations(batch, count)


class SocketOutlet:
    """
    The sockets of an association.

    :param engine: for the sockets to come.
    :param association: whose they are.
    :param port: what the client sends to, and replies leave from.
    :param outgoing: where datagrams to destinations leave from.
    :ivar client: where replies go, as a socket takes it; None: not known yet.
    """

    __slots__ = (
        "_by_family",
        "_by_source",
        "_engine",
        "_outgoing",
        "_port",
        "_segments",
        "association",
        "client",
    )

    def __init__(
        self,
        engine: RelayEngine,
        association: Association,
        port: ClientPort,
        outgoing: Outgoing,
    ) -> None:
        self.association = association
        self.client: tuple[Any, ...] | None = None
        if association.port is not None:
            self.client = (association.host, association.port)
        self._engine = engine
        self._outgoing = outgoing
        self._port = port
        self._segments = LONGEST
        self._by_family: list[DestinationPort | None] = [None, None]
        # By the addresses that single destinations want them to have.
        self._by_source: dict[str, DestinationPort] = {}

    def abort(self) -> None:
        """The engine closes."""
        self.association.abort()

    def close(self) -> None:
        for port in (*self._by_family, *self._by_source.values()):
            if port is not None:
                port.close()
        self._port.leave(self.association)

    # To destinations.

    def send(self, target: Target, payload: bytes | memoryview) -> None:
        association = self.association
        if association.metering is not None and not association.admit_upload(target, (len(payload),)):
            return
        link, to = self._link(target), target.sockaddr
        if link is None or to is None:
            association.drop(Drop.UNREACHABLE)
            return
        try:
            link.sendto(payload, to)
        except OSError as problem:
            association.failed(problem)
            return
        association.datagrams_sent += 1
        association.sent += len(payload)
        association.active = self._engine.reactor.seconds()

    def from_client(self, batch: Batch, start: int, stop: int) -> None:
        """The datagrams of *batch* from *start* to before *stop* are the client's."""
        association = self.association
        if association.wrapping is not None:
            self._unwrap(batch, start, stop)
            return
        targets, now = association.targets.by_header, self._engine.reactor.seconds()
        alike = _alike(batch, start, stop)
        while start < stop and association.outlet is self:
            key, extra = _key(batch, start)
            target = targets.get(key)
            if target is None or target.sockaddr is None or target.until <= now:
                # The first of its kind, or one whose time has come.
                self._engine.spent += _COST_OF_THE_FIRST
                association.from_client(_datagram(batch, start))
                start += 1
                continue
            end = stop if alike and not extra else _run(batch, start, stop, extra, len(key))
            target.used = True
            association.active = now
            self._send_run(batch, start, end, target, extra, len(key))
            start = end

    def _unwrap(self, batch: Batch, start: int, stop: int) -> None:
        """Likewise, where each of them is encapsulated: none is like another."""
        for slot in range(start, stop):
            if self.association.outlet is not self:
                return
            self._engine.spent += _COST_OF_THE_FIRST
            self.association.from_client(_datagram(batch, slot))

    def _send_run(
        self, batch: Batch, start: int, stop: int, target: Target, offset: int, header: int
    ) -> None:
        association = self.association
        if association.metering is not None:
            stop = start + association.admit_upload(
                target, [size - header for size in batch.sizes[start:stop]]
            )
            if start == stop or association.outlet is not self:
                return
        link = self._link(target)
        if link is None:
            association.drop(Drop.UNREACHABLE, stop - start)
            return
        passed, octets, target.segments = self._pass_on(
            batch, start, stop, link, target.sockaddr, offset, -header, target.segments
        )
        association.datagrams_sent += passed
        association.sent += octets

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
        Send a run, at once if that can be had.

        :param offset: from where in their slots the datagrams go out.
        :param longer: how much longer they go out than they came in.
        :param segments: the longest of which the system takes several at once.
        :returns: how many were taken, their bytes, and *segments* as it is now.
        """
        sizes, size = batch.sizes, batch.sizes[start] + longer
        if size <= segments:
            try:
                if batch.send(link, to, start, stop, offset, longer):
                    last = sizes[stop - 1] + longer
                    return stop - start, size * (stop - start - 1) + last, segments
            except OSError as problem:
                # Longer than the way takes in one piece, or an interface that cannot: one by one, then.
                if problem.errno not in _FULL:
                    segments = size - 1
        passed = octets = 0
        for slot in range(start, stop):
            at, size = batch.at(slot) + offset, sizes[slot] + longer
            try:
                link.sendto(batch.view[at : at + size], to)
            except OSError as problem:
                self.association.failed(problem)
                continue
            passed += 1
            octets += size
        return passed, octets, segments

    def _link(self, target: Target) -> SocketType | None:
        port = self._by_family[target.ipv6] if target.source is None else self._by_source.get(target.source)
        return port.link if port is not None else self._open(target)

    def _open(self, target: Target) -> SocketType | None:
        host = self._outgoing.ipv6 or "::" if target.ipv6 else self._outgoing.ipv4 or "0.0.0.0"
        try:
            link = bound(target.source or host, 0)
            port = DestinationPort(self._engine, link, self)
        except OSError:
            return None  # no descriptor, no such family here, or not our address
        if target.source is None:
            self._by_family[target.ipv6] = port
        else:
            self._by_source[target.source] = port
        return link

    # To the client.

    def from_destinations(self, batch: Batch, count: int) -> None:
        """*count* datagrams in *batch* have come from destinations, or from other sources."""
        association = self.association
        start = 0
        while start < count and association.outlet is self:
            name = batch.name(start)
            header = association.sources.get(name)
            if header is None:
                host, port = _peer(name)[:2]
                header = association.header_for(name, plain(host), port)
            if header is None or self.client is None:
                if header is not None:
                    association.drop(Drop.FILTERED)
                start += 1
                continue
            stop = _run_of_replies(batch, start, count, name)
            self._reply_run(batch, start, stop, header)
            start = stop

    def _reply_run(self, batch: Batch, start: int, stop: int, header: bytes) -> None:
        association, longer = self.association, len(header)
        association.active = self._engine.reactor.seconds()
        if association.metering is not None:
            stop = start + association.admit_download(header, batch.sizes[start:stop])
            if start == stop or association.outlet is not self:
                return
        if association.wrapping is not None:
            self._wrap(batch, start, stop, header)
            return
        batch.stamp(header, start, stop)
        passed, octets, self._segments = self._pass_on(
            batch, start, stop, self._port.link, self.client, -longer, longer, self._segments
        )
        association.datagrams_received += passed
        association.received += octets - passed * longer

    def _wrap(self, batch: Batch, start: int, stop: int, header: bytes) -> None:
        """Likewise, where each of them is to be encapsulated."""
        association, to = self.association, self.client
        assert to is not None
        for slot in range(start, stop):
            self._engine.spent += _COST_OF_THE_FIRST
            at, size = batch.at(slot), batch.sizes[slot]
            datagram = association.to_client(header, bytes(batch.view[at : at + size]))
            if datagram is None:
                continue
            try:
                self._port.link.sendto(datagram, to)
            except OSError as problem:
                association.failed(problem)
                continue
            association.datagrams_received += 1
            association.received += size


class EngineSockets:
    """
    Makes what an association needs in *engine*. See :class:`~socksproxy.udp.registry.SocketMaker`.

    :param engine: tells what happens on the sockets.
    :param outgoing: where datagrams to destinations leave from.
    """

    def __init__(self, engine: RelayEngine, outgoing: Outgoing) -> None:
        self._engine = engine
        self._outgoing = outgoing

    def open(self, host: str, port: int, demux: Demux) -> ClientPort:
        return ClientPort(self._engine, bound(host, port), demux)

    def outlet(self, association: Association, port: Any) -> SocketOutlet:
        return SocketOutlet(self._engine, association, port, self._outgoing)


def bound(host: str, port: int) -> SocketType:
    """
    A UDP socket on *host* and *port*, non-blocking, with room for some of the largest datagrams.

    :param host: a literal address, as :func:`socksproxy.net.ports.host_of` gives it.
    :raises OSError: as the system gives it.
    """
    family = AF_INET6 if ":" in host else AF_INET
    link = SocketType(family, SOCK_DGRAM | SOCK_NONBLOCK)
    try:
        enlarge_buffers(link)
        if family == AF_INET6:
            link.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        link.bind(bindable(host, port))
    except OSError:
        link.close()
        raise
    return link


def _peer(name: bytes) -> tuple[Any, ...]:
    """The kernel's address *name*, as a socket of Python's takes it."""
    port = name[2] << 8 | name[3]
    if len(name) == NAME_SIZES[AF_INET]:
        return inet_ntoa(name[4:8]), port
    return inet_ntop(AF_INET6, name[8:24]), port, 0, unpack("I", name[24:28])[0]


def _datagram(batch: Batch, slot: int, most: int = 1 << 16) -> bytes:
    """A copy of the client's datagram in *slot*, *most* bytes at the most."""
    size, at = min(batch.sizes[slot], most), batch.at(slot)
    return batch.head(slot)[:size] + batch.view[at : at + max(0, size - IPV4_SIZE)]


def _key(batch: Batch, slot: int) -> tuple[bytes, int]:
    """The header of the client's datagram in *slot*, if it has one, and how much of it is in the slot."""
    head, size = batch.head(slot), batch.sizes[slot]
    if is_ipv4(head) and size >= IPV4_SIZE:
        return head, 0
    start = _datagram(batch, slot, LONGEST_SIZE)
    end = header_size(start)
    # A header shorter than what is kept apart, of a very short name, leaves the payload in two places.
    return (start[:end], end - IPV4_SIZE) if end >= IPV4_SIZE else (b"", 0)


def _alike(batch: Batch, start: int, stop: int) -> bool:
    """Whether all datagrams of the client from *start* to before *stop* begin alike and are equally long."""
    return batch.equally_long(start, stop) and batch.heads_are(batch.head(start), start, stop)


def _run(batch: Batch, start: int, stop: int, extra: int, header: int) -> int:
    """
    Up to where, before *stop*, the client's datagrams are a run: all have the first one's header and length.

    The last of a run may be shorter, as long as something is left of it.

    :param extra: how much of the header is in the slot.
    :param header: how long it is.
    """
    view, head = batch.view, batch.head(start)
    at = batch.at(start)
    rest = view[at : at + extra]

    def alike(slot: int) -> bool:
        at = batch.at(slot)
        return batch.heads_are(head, slot, slot + 1) and (not extra or view[at : at + extra] == rest)

    return _end(batch.sizes, start, stop, alike, header)


def _run_of_replies(batch: Batch, start: int, stop: int, name: bytes) -> int:
    """Likewise for datagrams to the client, all from *name*."""
    if batch.equally_long(start, stop) and batch.names_are(name, start, stop):
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
