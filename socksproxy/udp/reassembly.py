"""
Fragments of a client's datagram, and how they become one again (RFC 1928, section 7).

A set begins with position 1, and goes on by one. Everything else loses the set:
UDP that has lost or swapped a piece cannot be mended here.
"""

from __future__ import annotations

#: Seconds that a set may take; the RFC wants five at the least.
TIME = 5.0
#: Bytes that a datagram can have over IPv4.
MAX_DATAGRAM = 65507


class Reassembly:
    """
    One client's set of fragments, if there is one.

    :ivar dropped: fragments that were thrown away since somebody last set it to 0.
    """

    __slots__ = ("_destination", "_parts", "_size", "dropped")

    def __init__(self) -> None:
        self.dropped = 0
        self._destination = b""
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> int:
        """How many fragments wait for the rest of their set."""
        return len(self._parts)

    def add(self, position: int, last: bool, destination: bytes, payload: bytes) -> bytes | None:
        """
        Take a fragment.

        :param position: 1 to 127; 0 is no position.
        :param last: whether it ends the set.
        :param destination: what must be the same in all of a set.
        :returns: the payload of the whole datagram, when it is.
        """
        if position == 1:
            self.clear()
            self._destination = destination
        elif position != len(self._parts) + 1 or destination != self._destination or not self._parts:
            self.clear()
            self.dropped += 1
            return None
        self._parts.append(payload)
        self._size += len(payload)
        if self._size > MAX_DATAGRAM:
            self.clear()
            return None
        if not last:
            return None
        whole = b"".join(self._parts)
        self._forget()
        return whole

    def clear(self) -> None:
        """Throw the set away: its time is over, or another one begins."""
        self.dropped += len(self._parts)
        self._forget()

    def _forget(self) -> None:
        self._parts = []
        self._size = 0
        self._destination = b""
