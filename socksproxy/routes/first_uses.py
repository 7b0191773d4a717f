"""
The first uses of sticky sessions, and the members that they have moved to: a file that all workers share.

Strategy: the file has a fixed size, so it is bounded, and every process reads and writes it in place. An
entry is found by a keyed hash, whose first half names a part of the file. All entries of a part are read at
once. In a full part a new entry takes the place of the one that ends first. The kernel has the file in
memory, so a look takes microseconds, and it survives the process. The lock is a record lock, which the kernel
takes from a process that dies. A file that is cut short or overwritten costs entries, and nothing else.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf
from hashlib import blake2b
from typing import NamedTuple

from ..errors import describe

#: The mark and the layout of our files.
_MARK = b"SOCKS sticky 1\n\0"
_SECRET = 16
_HEADER = len(_MARK) + _SECRET
_KEY = 16
#: Of an entry: the key, the first use and the end in milliseconds since the epoch, and the hash of a member.
_ENTRY = struct.Struct(f"<{_KEY}sQQQ")
_WAYS, _PARTS = 16, 4096

#: How many entries there can be.
MOST = _WAYS * _PARTS

_MILLISECONDS = 1000

#: How often the lock is tried, and the seconds between two attempts.
_ATTEMPTS, _LOOK_AGAIN = 200, 0.0001


class FirstUsesError(Exception):
    """The file cannot be used; the operator reads the message."""


class Entry(NamedTuple):
    """
    What is known of one sticky session, or of its member of one pool.

    :ivar began: the first use, in milliseconds since the epoch.
    :ivar ends: the end of its time, alike.
    :ivar member: the hash of the member that it has moved to; 0: it has not moved.
    """

    began: int
    ends: int
    member: int


_NOTHING = Entry(0, 0, 0)


class FirstUses:
    """
    The entries.

    :param path: the path of the file; a missing file is made. None: the entries are in memory.
    :param wall: tells the seconds since the epoch.
    :raises FirstUsesError: when the file cannot be used.
    """

    def __init__(self, path: str | None = None, wall: Callable[[], float] = time.time) -> None:
        self.path = path
        self._wall = wall
        self._descriptor = -1
        self._secret = os.urandom(_SECRET) if path is None else b""
        self._memory: dict[bytes, Entry] = {}
        if path is not None:
            try:
                self._open(path)
            except (OSError, ValueError) as problem:
                self.close()
                said = describe(problem) if isinstance(problem, OSError) else problem
                raise FirstUsesError(f"{path}: {said}") from None

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def sealed(self, name: bytes) -> bytes:
        """32 bytes that stand for *name*, and that tell others nothing of *name*."""
        return blake2b(name, digest_size=32, key=self._secret, person=b"sealed").digest()

    def began(self, name: bytes, seconds: float) -> Entry:
        """
        The entry of *name*, which is new where its time is over.

        :param seconds: for how long a new one counts.
        :raises FirstUsesError: when the file cannot be read or written.
        """

        def decide(known: Entry | None, now: int) -> Entry:
            return known or Entry(now, now + int(seconds * _MILLISECONDS), 0)

        return self._change(name, decide)

    def moved(self, name: bytes) -> int:
        """
        The hash of the member that *name* has moved to; 0: it has not moved.

        :raises FirstUsesError: when the file cannot be read.
        """
        return self._change(name, lambda known, _: known or _NOTHING).member

    def move(self, name: bytes, ends: int, member: int) -> None:
        """
        Note that *name* has moved to the member with the hash *member*, until *ends*.

        :raises FirstUsesError: when the file cannot be read or written.
        """
        self._change(name, lambda known, now: Entry(now, ends, member))

    def _change(self, name: bytes, decide: Callable[[Entry | None, int], Entry]) -> Entry:
        """
        Have the entry of *name* be what *decide* makes of the present one and the time; it is returned.

        One that ends at once is not kept.
        """
        if self.path is None:
            return self._in_memory(name, self._now(), decide)
        try:
            self._lock()
            try:
                # Now, and not before: for an earlier moment, what another process has just begun is to come.
                return self._in_file(name, self._now(), decide)
            finally:
                lockf(self._descriptor, LOCK_UN)
        except OSError as problem:
            raise FirstUsesError(f"{self.path}: {describe(problem)}") from None

    def _now(self) -> int:
        return int(self._wall() * _MILLISECONDS)

    def _lock(self) -> None:
        """
        Keep other processes out. Ours need the file for microseconds, and any other one stops no session.

        :raises OSError: (ETIMEDOUT) when another process keeps the lock.
        """
        for _ in range(_ATTEMPTS):
            try:
                lockf(self._descriptor, LOCK_EX | LOCK_NB)
                return
            except (BlockingIOError, PermissionError):
                time.sleep(_LOOK_AGAIN)
        raise OSError(errno.ETIMEDOUT, "another process keeps it locked")

    def _in_file(self, name: bytes, now: int, decide: Callable[[Entry | None, int], Entry]) -> Entry:
        key = blake2b(name, digest_size=_KEY, key=self._secret).digest()
        part = int.from_bytes(key[: _KEY // 2], "big") % _PARTS
        offset, size = _HEADER + part * _WAYS * _ENTRY.size, _WAYS * _ENTRY.size
        data = os.pread(self._descriptor, size, offset).ljust(size, b"\0")
        entries = list(_ENTRY.iter_unpack(data))
        ends = [end if end > now >= began else 0 for _, began, end, _ in entries]
        place = next((at for at, entry in enumerate(entries) if entry[0] == key), None)
        known = None if place is None or not ends[place] else Entry(*entries[place][1:])
        entry = decide(known, now)
        if entry is not known and entry.ends > now:
            place = ends.index(min(ends)) if place is None else place
            os.pwrite(self._descriptor, _ENTRY.pack(key, *entry), offset + place * _ENTRY.size)
        return entry

    def _in_memory(self, name: bytes, now: int, decide: Callable[[Entry | None, int], Entry]) -> Entry:
        known = self._memory.get(name)
        if known is not None and known.ends <= now:
            known = None
        entry = decide(known, now)
        if entry is not known and entry.ends > now:
            self._memory.pop(name, None)  # to the end
            if len(self._memory) >= MOST:
                del self._memory[next(iter(self._memory))]
            self._memory[name] = entry
        return entry

    def _open(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        self._lock()
        try:
            header = os.pread(self._descriptor, _HEADER, 0)
            if not header:
                header = _MARK + os.urandom(_SECRET)
                os.pwrite(self._descriptor, header, 0)
                os.ftruncate(self._descriptor, _HEADER + MOST * _ENTRY.size)
            if len(header) < _HEADER or not header.startswith(_MARK):
                raise ValueError("is no file of sticky sessions")
        finally:
            lockf(self._descriptor, LOCK_UN)
        self._secret = header[len(_MARK) :]
