"""
Whose a datagram is: what stands between a port that clients send to and their associations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Shape

from .association import Association


class Desk(Shape):
    """
    Knows whose a datagram is.

    :ivar changed: called when what it said of an address may not hold any more.
    """

    changed: Callable[[], None]

    def add(self, association: Association) -> None:
        """*association* is served here."""

    def remove(self, association: Association) -> bool:
        """It is not any more. Returned is whether any other one is."""

    def whose(self, host: str, port: int, data: bytes) -> Association | None:
        """
        The association that a datagram belongs to; None: nobody's, and counted.

        :param host: the source's literal address, without an IPv4-mapped disguise.
        :param data: the datagram's beginning, its header at the least.
        """

    def abort(self) -> None:
        """End the associations that are served here."""


class OwnDesk:
    """The desk of a port that is one association's own."""

    __slots__ = ("_association", "changed")

    def __init__(self) -> None:
        self.changed: Callable[[], None] = _nobody
        self._association: Association | None = None

    def add(self, association: Association) -> None:
        """See :meth:`Desk.add`."""
        self._association = association

    def remove(self, association: Association) -> bool:
        """See :meth:`Desk.remove`."""
        self._association = None
        return False

    def whose(self, host: str, port: int, data: bytes) -> Association | None:
        """See :meth:`Desk.whose`."""
        association = self._association
        if association is None:
            return None
        if host == association.host and port == association.port:
            return association
        if not association.latch(host, port, data):
            return None
        self.changed()
        return association

    def abort(self) -> None:
        """See :meth:`Desk.abort`."""
        if self._association is not None:
            self._association.abort()


class SharedDesk:
    """
    The desk of a port that all associations share: they are told apart by where datagrams come from.

    A client's port is that of its request, or that of the first datagram that no
    other association has: it goes to the oldest one of its address that has no
    port yet; where datagrams are encapsulated, to the one that can open it. When
    all have one, a client with one association may change its port, if that is
    allowed at all; of several, nobody could tell which.

    It knows the clients of this process alone. Several processes on one port
    would need their kernel to give each client's datagrams to the process
    that has its connection, which it cannot know.

    :ivar foreign: datagrams that were nobody's.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = _nobody
        self.foreign = 0
        self._by_peer: dict[tuple[str, int], Association] = {}
        self._peers: dict[Association, tuple[str, int]] = {}
        self._by_host: dict[str, dict[Association, None]] = {}
        self._waiting: dict[str, dict[Association, None]] = {}

    def add(self, association: Association) -> None:
        """See :meth:`Desk.add`. Where another one has its port already, its first datagram tells it."""
        host, port = association.host, association.port
        self._by_host.setdefault(host, {})[association] = None
        if port is None or (host, port) in self._by_peer:
            association.port = None
            self._waiting.setdefault(host, {})[association] = None
        else:
            self._seat(association, port)

    def remove(self, association: Association) -> bool:
        """See :meth:`Desk.remove`."""
        peer = self._peers.pop(association, None)
        if peer is not None:
            del self._by_peer[peer]
        for table in (self._by_host, self._waiting):
            of_host = table.get(association.host)
            if of_host is not None:
                of_host.pop(association, None)
                if not of_host:
                    del table[association.host]
        self.changed()
        return bool(self._by_host)

    def whose(self, host: str, port: int, data: bytes) -> Association | None:
        """See :meth:`Desk.whose`."""
        known = self._by_peer.get((host, port))
        if known is not None:
            return known
        candidates = self._candidates(host)
        if not candidates:
            self.foreign += 1
            return None
        association = next((each for each in candidates if each.opens(data)), candidates[0])
        if not association.latch(host, port, data):
            return None
        self._seat(association, port)
        self.changed()
        return association

    def _candidates(self, host: str) -> list[Association]:
        waiting = self._waiting.get(host)
        if waiting:
            return list(waiting)
        of_host = self._by_host.get(host, {})
        only = next(iter(of_host), None)
        return [only] if only is not None and len(of_host) == 1 and only.open_to_latch else []

    def _seat(self, association: Association, port: int) -> None:
        before = self._peers.pop(association, None)
        if before is not None:
            del self._by_peer[before]
        waiting = self._waiting.get(association.host)
        if waiting is not None:
            waiting.pop(association, None)
            if not waiting:
                del self._waiting[association.host]
        peer = self._peers[association] = (association.host, port)
        self._by_peer[peer] = association

    def abort(self) -> None:
        """See :meth:`Desk.abort`."""
        for of_host in list(self._by_host.values()):
            for association in list(of_host):
                association.abort()


def _nobody() -> None:
    """Whom it tells, until somebody wants to know."""
