"""
The reassembly of a client's fragmented datagram (RFC 1928, section 7).

A set begins with position 1, and positions follow one another without a gap. Any other fragment loses the
set: a set with a fragment that is lost or out of order cannot be repaired here.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from ..runtime.deadlines import Deadlines
from ..wire.datagram import LAST_FRAGMENT
from .drops import Drop

#: Seconds that a set may take; the RFC asks for at least five.
TIME = 5.0
#: Bytes of the longest payload over IPv4.
MAX_DATAGRAM = 65507


class Reassembly:
    """
    One client's set of fragments, which may be empty.

    :param deadlines: calls :meth:`clear` for a set that takes longer than :data:`TIME`.
    :param clock: the source of time.
    :param drop: called with :attr:`Drop.FRAGMENT` and the number of fragments that were dropped.
    """

    __slots__ = ("_clock", "_deadlines", "_drop", "_header", "_parts", "_size")

    def __init__(
        self, deadlines: Deadlines[Reassembly], clock: IReactorTime, drop: Callable[[Drop, int], None]
    ) -> None:
        self._deadlines = deadlines
        self._clock = clock
        self._drop = drop
        self._header = b""
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> int:
        """How many fragments wait for the rest of their set."""
        return len(self._parts)

    def add(self, fragment: int, header: bytes, payload: bytes) -> bytes | None:
        """
        Take a fragment.

        :param fragment: FRAG: the position, 1 to 127, and whether the set ends; 0 is no position.
        :param header: the header without FRAG, which is the same in all fragments of a set.
        :returns: the payload of the whole datagram; None: fragments are missing yet.
        """
        position = fragment & ~LAST_FRAGMENT
        if position == 1:
            self.clear()
            self._header = header
            self._deadlines.start(self, self._clock.seconds())
        elif position != len(self._parts) + 1 or header != self._header or not self._parts:
            self.clear()
            self._drop(Drop.FRAGMENT, 1)
            return None
        self._parts.append(payload)
        self._size += len(payload)
        if self._size > MAX_DATAGRAM:
            self.clear()
            return None
        if not fragment & LAST_FRAGMENT:
            return None
        whole = b"".join(self._parts)
        self._forget()
        return whole

    def clear(self) -> None:
        """Drop the set, whose time is over or which another set follows."""
        if self._parts:
            self._drop(Drop.FRAGMENT, len(self._parts))
            self._forget()

    def _forget(self) -> None:
        self._deadlines.stop(self)
        self._parts = []
        self._size = 0
        self._header = b""
