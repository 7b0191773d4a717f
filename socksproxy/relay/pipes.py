"""
Pipes to splice through: a bounded pool, within what the system allows.
"""

from __future__ import annotations

import os
from fcntl import fcntl

_F_SETPIPE_SZ = 1031
_F_GETPIPE_SZ = 1032

#: Bytes that a pipe should hold: what one splice moves at the most.
WANTED = 1 << 20
#: A pipe that holds less is no better than the buffer. Unprivileged users get
#: such ones beyond /proc/sys/fs/pipe-user-pages-soft.
LEAST = 1 << 16


class Pipe:
    """
    A non-blocking pipe.

    :param read: the descriptor to read from.
    :param write: the descriptor to write to.
    :param size: bytes that there is room for.
    :ivar held: bytes that are in the pipe.
    """

    __slots__ = ("held", "read", "size", "write")

    def __init__(self, read: int, write: int, size: int) -> None:
        self.read = read
        self.write = write
        self.size = size
        self.held = 0

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.read)
        os.close(self.write)


class PipePool:
    """
    Lends pipes.

    :param most: how many there are at once; a pump that gets none uses a buffer.
    :param keep: how many wait, open, to be lent again.
    :param wanted: bytes that a pipe should hold.
    """

    __slots__ = ("_free", "_keep", "_most", "_wanted", "lent")

    def __init__(self, most: int = 256, keep: int = 32, wanted: int = WANTED) -> None:
        self._most = most
        self._keep = keep
        self._wanted = wanted
        self._free: list[Pipe] = []
        self.lent = 0

    def take(self) -> Pipe | None:
        """An empty pipe, or None when there is none to be had."""
        if self.lent >= self._most:
            return None
        pipe = self._free.pop() if self._free else self._open()
        if pipe is not None:
            self.lent += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take *pipe* back; one that is not empty is closed."""
        self.lent -= 1
        if not pipe.held and len(self._free) < self._keep:
            self._free.append(pipe)
        else:
            pipe.close()

    def close(self) -> None:
        """Close the pipes that wait."""
        while self._free:
            self._free.pop().close()

    def _open(self) -> Pipe | None:
        try:
            read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # out of descriptors
            return None
        pipe = Pipe(read, write, _enlarged(write, self._wanted))
        if pipe.size >= LEAST:
            return pipe
        pipe.close()
        return None


def _enlarged(write: int, wanted: int) -> int:
    """Make the pipe hold *wanted* bytes, or the next smaller size that is allowed; what it holds then."""
    size = wanted
    while size > LEAST:
        try:
            return fcntl(write, _F_SETPIPE_SZ, size)
        except OSError:  # over pipe-max-size, or over the user's share
            size //= 2
    return fcntl(write, _F_GETPIPE_SZ)
