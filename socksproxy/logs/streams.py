"""
Files and streams to which logs go. Writing to a stream does not wait for its reader.

Strategy: a pipe or a terminal is opened anew, so that it does not block here, and stays as it is for the
other programs that share it. A socket, or a stream of another user, cannot be opened anew: it is asked for
room before each write.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import stat
from collections.abc import Callable
from threading import RLock

#: Names of the streams that the process was started with.
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"(?:/dev|/proc/self)/fd/([0-9]{1,9})")


class StreamWriter(io.TextIOBase):
    """
    The end of a text stream to which a log is written.

    When the stream has no room, one text waits, and later texts are lost. Their number stands before the
    first text that is written after them. Any thread may write.

    :param path: the stream, such as ``/dev/stdout`` or ``/dev/fd/N``.
    :param notice: gives the text that tells how many texts are lost.
    :param charset: the encoding of the stream; characters that it lacks are escaped.
    :raises OSError: when the stream is not there.
    """

    def __init__(self, path: str, notice: Callable[[int], str], charset: str = "utf-8") -> None:
        self._charset = charset
        self._descriptor = open_for_appending(path)
        self._write = write_if_ready if may_wait(self._descriptor) else os.write
        self._notice = notice
        self._waiting = b""
        self._lost = 0
        # A signal handler may log while its own thread writes.
        self._lock = RLock()

    def write(self, text: str) -> int:
        """Write *text*, or lose it."""
        with self._lock:
            self._send()
            if self._waiting:
                self._lost += 1
                return len(text)
            lost, self._lost = self._lost, 0
            notice = self._notice(lost) if lost else ""
            self._waiting = (notice + text).encode(self._charset, "backslashreplace")
            self._send()
        return len(text)

    def close(self) -> None:
        """Close the stream."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        super().close()

    def _send(self) -> None:
        try:
            while self._waiting:
                self._waiting = self._waiting[self._write(self._descriptor, self._waiting) :]
        except OSError:
            pass  # there is no room, or no reader


def own_descriptor(path: str) -> int | None:
    """The descriptor of this process that *path* names, as ``/dev/stdout`` does; None: it names a file."""
    if path in _STREAMS:
        return _STREAMS[path]
    named = _DESCRIPTOR.fullmatch(path)
    return None if named is None else int(named[1])


def open_for_appending(path: str) -> int:
    """
    A descriptor that appends to the file or stream of *path*. A file that is missing is made.

    :raises OSError: when it cannot be opened.
    """
    # Without blocking, because a FIFO whose reader is slow or gone must not stop the server.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    own = own_descriptor(path)
    if own is None:
        return os.open(path, flags | os.O_CREAT, 0o640)
    kind = os.fstat(own).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        try:
            # Opened anew, the stream does not block here, and stays as it is for other programs.
            return os.open(path, flags)
        except OSError:
            pass  # for example a stream of another user, who has started this process
    # A socket cannot be opened anew. A file, opened anew, would be written at two positions at once.
    return os.dup(own)


def may_wait(descriptor: int) -> bool:
    """Whether to write to *descriptor* may wait for a reader."""
    kind = os.fstat(descriptor).st_mode
    stream = stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISSOCK(kind)
    return stream and os.get_blocking(descriptor)


def write_if_ready(descriptor: int, data: bytes) -> int:
    """
    Write to a stream that other programs share, and that therefore must stay one that blocks.

    :returns: how many bytes are written. A pipe or socket that is ready has room for :data:`select.PIPE_BUF`.
    :raises BlockingIOError: when there is no room.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    # A terminal that is ready may have room for one byte only. It does not block during the write.
    terminal = os.isatty(descriptor)
    written = 0
    while written < len(data) and poll.poll(0):
        piece = data[written : written + select.PIPE_BUF]
        written += (_write_to_terminal if terminal else os.write)(descriptor, piece)
    if not written:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return written


def _write_to_terminal(descriptor: int, data: bytes) -> int:
    os.set_blocking(descriptor, False)
    try:
        return os.write(descriptor, data)
    finally:
        os.set_blocking(descriptor, True)
