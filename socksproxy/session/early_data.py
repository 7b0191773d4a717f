"""
Early data: what clients send before it can go on, and what all sessions together may keep of it.

A session keeps as much as :data:`~socksproxy.negotiation.MAX_EARLY`, which is
little for one session and much for ten thousand. So there is a limit for all
together, too. Beyond it a session that keeps more than :data:`FREE` is not read
any more, until there is room; its client waits, and loses nothing.
"""

from __future__ import annotations

from typing import Protocol as Shape

#: Bytes that all sessions together may keep.
MOST = 32 << 20
#: Bytes that every session may keep, whatever others do: a handshake needs no more.
FREE = 8192
#: Bytes of one read before the relay: no request is longer, and little comes behind one.
READ = 4096


class Reader(Shape):
    """A session whose client can be made to wait."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class EarlyData:
    """
    Counts the early data of all sessions.

    :param most: bytes that they may keep together.
    :ivar kept: bytes that they keep together.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.kept = 0
        #: What each session keeps that keeps anything.
        self._sizes: dict[Reader, int] = {}
        #: The sessions that are not read, in the order in which they came to that.
        self._waiting: dict[Reader, None] = {}

    def keeps(self, reader: Reader, size: int) -> None:
        """*reader* keeps *size* bytes from now on."""
        before = self._sizes.pop(reader, 0)
        if size:
            self._sizes[reader] = size
        elif not before:
            return
        self.kept += size - before
        if size <= FREE:
            if reader in self._waiting:
                self._go_on(reader)
        elif self.kept > self._most and reader not in self._waiting:
            self._waiting[reader] = None
            reader.pause_reading()
        if self._waiting and size < before:
            # As many go on as there is room for what each of them reads next.
            for _ in range(max(0, self._most - self.kept) // READ):
                if not self._waiting:
                    return
                self._go_on(next(iter(self._waiting)))

    def _go_on(self, reader: Reader) -> None:
        del self._waiting[reader]
        reader.resume_reading()
