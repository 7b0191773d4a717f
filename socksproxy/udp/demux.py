"""
Which association a datagram from a client belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice

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


class SharedDemux:
    """
    The demultiplexer of a port that all associations share. The source of a datagram tells the association.

    The first datagram from an unknown port goes to the association whose request has named that port. Else it
    goes to the oldest association of its address that has had no datagram yet; associations that have named
    no port come first. Where datagrams are encapsulated, it goes to the association that can unwrap it. When
    all associations of an address have had a datagram, the client may change its port if that is allowed and
    if it has one association only: of several associations the proxy could not tell which one moves.

    Only one process can serve such a port. The kernel would have to give each client's datagrams to the
    process that has the client's connection, which the kernel does not know.

    :ivar changed: called when the association of an address may have changed.
    :ivar foreign: datagrams that belong to no association.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.foreign = 0
        self._by_peer: dict[tuple[str, int], Association] = {}
        self._peers: dict[Association, tuple[str, int]] = {}
        self._by_host: dict[str, dict[Association, None]] = {}
        self._waiting: dict[str, dict[Association, None]] = {}
        # Associations that have named a port from which nothing has come yet.
        self._expecting: dict[str, dict[Association, None]] = {}

    def add(self, association: Association) -> None:
        """Serve *association*. If another one has its port already, its first datagram tells the port."""
        host, port = association.host, association.port
        self._by_host.setdefault(host, {})[association] = None
        if port is None or (host, port) in self._by_peer:
            association.port = None
            self._waiting.setdefault(host, {})[association] = None
        else:
            self._assign(association, port)
            self._expecting.setdefault(host, {})[association] = None

    def remove(self, association: Association) -> bool:
        """Serve *association* no more; returned is whether there is another one."""
        peer = self._peers.pop(association, None)
        if peer is not None:
            del self._by_peer[peer]
        for table in (self._by_host, self._waiting, self._expecting):
            _remove_from(table, association)
        self.changed()
        return bool(self._by_host)

    def find(self, host: str, port: int, data: bytes) -> Association | None:
        """See :meth:`PrivateDemux.find`."""
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
        """End all associations."""
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


Demux = PrivateDemux | SharedDemux
