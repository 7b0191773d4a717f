"""
Which association a datagram from a client belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Generic, Protocol, TypeVar

from .association import Association

#: Associations of one address that try to unwrap an encapsulated datagram.
_MOST_TRIED = 64


class PrivateDemux:
    """
    The demultiplexer of a port that one association has alone.

    :ivar changed: called when the association of an address may have changed.
    """

    __slots__ = ("_association", "changed")

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._association: Association | None = None

    def add(self, association: Association) -> None:
        """Serve *association*."""
        self._association = association

    def remove(self, association: Association) -> bool:
        """Serve *association* no more; returned is whether there is another one."""
        self._association = None
        return False

    def find(self, host: str, port: int, data: bytes) -> Association | None:
        """
        The association of a datagram; None: it belongs to none, and is counted.

        :param host: the source's literal address; an IPv4-mapped address stands as IPv4.
        :param data: the datagram's beginning, with its header at least.
        """
        association = self._association
        if association is None:
            return None
        if host == association.host and port == association.port and association.latched:
            return association
        if not association.latch(host, port, data):
            return None
        self.changed()
        return association

    def abort(self) -> None:
        """End the association."""
        if self._association is not None:
            self._association.abort()


class Peer(Protocol):
    """What :class:`Peers` knows of an association; see :class:`.Association`."""

    host: str
    port: int | None
    latched: bool

    @property
    def may_latch(self) -> bool: ...


T = TypeVar("T", bound=Peer)


class Peers(Generic[T]):
    """
    The associations on one port, by the sources of their datagrams.

    The first datagram from an unknown port goes to the association whose request has named that port. Else
    it goes to the oldest association of its address that has had no datagram yet; associations that have
    named no port come first. When all associations of an address have had a datagram, the client may change
    its port if that is allowed and if it has one association only: of several associations the proxy could
    not tell which one moves.
    """

    def __init__(self) -> None:
        self._by_peer: dict[tuple[str, int], T] = {}
        self._peers: dict[T, tuple[str, int]] = {}
        self._by_host: dict[str, dict[T, None]] = {}
        self._waiting: dict[str, dict[T, None]] = {}
        # Associations that have named a port from which nothing has come yet.
        self._expecting: dict[str, dict[T, None]] = {}

    def add(self, association: T) -> None:
        """Serve *association*. If another one has its port already, its first datagram tells the port."""
        host, port = association.host, association.port
        self._by_host.setdefault(host, {})[association] = None
        if port is None or (host, port) in self._by_peer:
            association.port = None
            self._waiting.setdefault(host, {})[association] = None
        else:
            self.assign(association, port)
            self._expecting.setdefault(host, {})[association] = None

    def remove(self, association: T) -> bool:
        """Serve *association* no more; returned is whether there is another one."""
        peer = self._peers.pop(association, None)
        if peer is not None:
            del self._by_peer[peer]
        for table in (self._by_host, self._waiting, self._expecting):
            _remove_from(table, association)
        return bool(self._by_host)

    def at(self, host: str, port: int) -> T | None:
        """The association whose client has, or has named, this address and *port*."""
        return self._by_peer.get((host, port))

    def candidates(self, host: str, port: int) -> Iterator[T]:
        """The associations, best first, that a datagram from this address and *port* may belong to."""
        known = self.at(host, port)
        return iter([known]) if known is not None else islice(self._candidates(host), _MOST_TRIED)

    def _candidates(self, host: str) -> Iterator[T]:
        waiting, expecting = self._waiting.get(host, {}), self._expecting.get(host, {})
        if waiting or expecting:
            return chain(waiting, expecting)
        of_host = self._by_host.get(host, {})
        only = next(iter(of_host), None)
        return iter([only] if only is not None and len(of_host) == 1 and only.may_latch else [])

    def assign(self, association: T, port: int) -> None:
        """The client of *association* has *port*."""
        before = self._peers.pop(association, None)
        if before is not None:
            del self._by_peer[before]
        for table in (self._waiting, self._expecting):
            _remove_from(table, association)
        peer = self._peers[association] = (association.host, port)
        self._by_peer[peer] = association


class SharedDemux(Peers[Association]):
    """
    The demultiplexer of a port that all associations share. The source of a datagram tells the association.

    :class:`Peers` says which one that is. Where datagrams are encapsulated, an unknown port's goes to the
    association that can unwrap it.

    Only one process can serve such a port alone. With several, see :mod:`~socksproxy.udp.routing`.

    :ivar changed: called when the association of an address may have changed.
    :ivar foreign: datagrams that belong to no association.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changed: Callable[[], None] = lambda: None
        self.foreign = 0

    def remove(self, association: Association) -> bool:
        """See :meth:`Peers.remove`."""
        is_used = super().remove(association)
        self.changed()
        return is_used

    def find(self, host: str, port: int, data: bytes) -> Association | None:
        """See :meth:`PrivateDemux.find`."""
        known = self.at(host, port)
        if known is not None and known.latched:
            return known
        candidates = self.candidates(host, port)
        first = next(candidates, None)
        if first is None:
            self.foreign += 1
            return None
        association = next((each for each in chain([first], candidates) if each.can_unwrap(data)), first)
        if not association.latch(host, port, data):
            return None
        self.assign(association, port)
        self.changed()
        return association

    def abort(self) -> None:
        """End all associations."""
        for of_host in list(self._by_host.values()):
            for association in list(of_host):
                association.abort()


def _remove_from(table: dict[str, dict[T, None]], association: T) -> None:
    of_host = table.get(association.host)
    if of_host is None:
        return
    of_host.pop(association, None)
    if not of_host:
        del table[association.host]


class Demux(Protocol):
    """What a port that clients send to has of a demultiplexer; see :class:`PrivateDemux`."""

    changed: Callable[[], None]

    def add(self, association: Association) -> None: ...

    def remove(self, association: Association) -> bool: ...

    def find(self, host: str, port: int, data: bytes) -> Association | None: ...

    def abort(self) -> None: ...
