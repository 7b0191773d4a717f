"""
To which association a datagram belongs that comes to a port for clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Protocol as Shape

from .association import Association

#: Associations of one address that try to unwrap an encapsulated datagram.
_MOST_TRIED = 64


class Demux(Shape):
    """
    Finds the association of a datagram.

    :ivar changed: called when what it found for an address may not hold any more.
    """

    changed: Callable[[], None]

    def add(self, association: Association) -> None:
        """*association* is served here."""

    def remove(self, association: Association) -> bool:
        """It is not any more. Returned is whether any other one is."""

    def find(self, host: str, port: int, data: bytes) -> Association | None:
        """
        The association that a datagram belongs to; None: it belongs to none, and is counted.

        :param host: the source's literal address, without an IPv4-mapped disguise.
        :param data: the datagram's beginning, its header at the least.
        """

    def abort(self) -> None:
        """End the associations that are served here."""


class PrivateDemux:
    """The demultiplexer of a port that is one association's own."""

    __slots__ = ("_association", "changed")

    def __init__(self) -> None:
        self.changed: Callable[[], None] = _nothing
        self._association: Association | None = None

    def add(self, association: Association) -> None:
        self._association = association

    def remove(self, association: Association) -> bool:
        self._association = None
        return False

    def find(self, host: str, port: int, data: bytes) -> Association | None:
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
        if self._association is not None:
            self._association.abort()


class SharedDemux:
    """
    The demultiplexer of a port that all associations share: they are told apart by where datagrams come from.

    A client's port is that of the first datagram that no other association has.
    It goes to the association whose request has named that port; else to the oldest
    one of its address that has had no datagram yet, first to those that have named no
    port; where datagrams are encapsulated, to the one that can open it. When all have
    had one, a client with one association may change its port, if that is allowed at
    all; of several, nobody could tell which.

    It knows the clients of this process alone. Several processes on one port
    would need their kernel to give each client's datagrams to the process
    that has its connection, which it cannot know.

    :ivar foreign: datagrams that belong to no association.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = _nothing
        self.foreign = 0
        self._by_peer: dict[tuple[str, int], Association] = {}
        self._peers: dict[Association, tuple[str, int]] = {}
        self._by_host: dict[str, dict[Association, None]] = {}
        self._waiting: dict[str, dict[Association, None]] = {}
        # Those that have named a port, from which nothing has come yet.
        self._expecting: dict[str, dict[Association, None]] = {}

    def add(self, association: Association) -> None:
        """See :meth:`Demux.add`. Where another one has its port already, its first datagram tells it."""
        host, port = association.host, association.port
        self._by_host.setdefault(host, {})[association] = None
        if port is None or (host, port) in self._by_peer:
            association.port = None
            self._waiting.setdefault(host, {})[association] = None
        else:
            self._assign(association, port)
            self._expecting.setdefault(host, {})[association] = None

    def remove(self, association: Association) -> bool:
        peer = self._peers.pop(association, None)
        if peer is not None:
            del self._by_peer[peer]
        for table in (self._by_host, self._waiting, self._expecting):
            _remove_from(table, association)
        self.changed()
        return bool(self._by_host)

    def find(self, host: str, port: int, data: bytes) -> Association | None:
        known = self._by_peer.get((host, port))
        if known is not None and known.latched:
            return known
        candidates = islice(self._candidates(host) if known is None else [known], _MOST_TRIED)
        first = next(candidates, None)
        if first is None:
            self.foreign += 1
            return None
        association = next((each for each in chain([first], candidates) if each.can_unwrap(data)), first)
        if not association.latch(host, port, data):
            return None
        self._assign(association, port)
        self.changed()
        return association

    def _candidates(self, host: str) -> Iterator[Association]:
        waiting, expecting = self._waiting.get(host, {}), self._expecting.get(host, {})
        if waiting or expecting:
            return chain(waiting, expecting)
        of_host = self._by_host.get(host, {})
        only = next(iter(of_host), None)
        return iter([only] if only is not None and len(of_host) == 1 and only.may_latch else [])

    def _assign(self, association: Association, port: int) -> None:
        before = self._peers.pop(association, None)
        if before is not None:
            del self._by_peer[before]
        for table in (self._waiting, self._expecting):
            _remove_from(table, association)
        peer = self._peers[association] = (association.host, port)
        self._by_peer[peer] = association

    def abort(self) -> None:
        for of_host in list(self._by_host.values()):
            for association in list(of_host):
                association.abort()


def _remove_from(table: dict[str, dict[Association, None]], association: Association) -> None:
    of_host = table.get(association.host)
    if of_host is None:
        return
    of_host.pop(association, None)
    if not of_host:
        del table[association.host]


def _nothing() -> None:
    """The default of ``changed``."""
