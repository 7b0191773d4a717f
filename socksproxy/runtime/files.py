"""
Reading the files that an operator names.

Strategy: a name can be that of a FIFO, of a device without an end, or of a file on a server that does not
answer. So every file is opened without waiting, must be a regular file, has a size limit, and is read by a
daemon thread for which the caller waits a limited time. That thread is of no
:class:`~socksproxy.runtime.pool.Pool`: the caller blocks, and no reactor may run yet.
"""

from __future__ import annotations

import errno
import os
import stat
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

#: Seconds in which a file must have been read.
READ_WITHIN = 10.0
#: Bytes of a key, of certificates, and of other small files.
MOST_SMALL = 1 << 20
_PIECE = 1 << 20


class FileContent(NamedTuple):
    """
    What a file holds.

    :ivar data: all its bytes.
    :ivar status: the file's status before it was read.
    :ivar changed: whether the file changed while it was read.
    """

    data: bytes
    status: os.stat_result
    changed: bool


def read_regular_file(path: str, most: int = MOST_SMALL, seconds: float = READ_WITHIN) -> FileContent:
    """
    Read the regular file at *path*.

    :param most: how many bytes the file may have.
    :param seconds: how long the file system may take.
    :raises OSError: when the file cannot be read, is not a regular file, is too large, or when its file
        system does not answer in time. Its ``strerror`` says so in words for the operator.
    :raises ValueError: when *path* cannot be a path.
    """
    answer: SimpleQueue[FileContent | Exception] = SimpleQueue()
    try:
        # A thread that a file system blocks cannot be ended; a daemon thread does not hold up the process.
        Thread(target=_tell, args=(path, most, answer), name="socksproxy file", daemon=True).start()
    except RuntimeError:
        _tell(path, most, answer)  # the system has no thread left
    try:
        outcome = answer.get(timeout=seconds)
    except Empty:
        words = f"its file system does not answer for {seconds:g} seconds"
        raise OSError(errno.ETIMEDOUT, words, path) from None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _tell(path: str, most: int, answer: SimpleQueue[FileContent | Exception]) -> None:
    try:
        answer.put(_read(path, most))
    except Exception as problem:
        answer.put(problem)


def _read(path: str, most: int) -> FileContent:
    with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
        before = os.fstat(file.fileno())
        if stat.S_ISDIR(before.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", path)
        pieces = []
        size = 0
        # One byte more shows a file that grows, or that lies about its size, such as those of /proc.
        while size <= most and (piece := file.read(min(_PIECE, most + 1 - size))):
            pieces.append(piece)
            size += len(piece)
        if size > most:
            raise OSError(errno.EFBIG, f"is larger than {most} bytes", path)
        after = os.fstat(file.fileno())
    return FileContent(b"".join(pieces), before, file_signature(before) != file_signature(after))


def _open_without_waiting(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO takes until a writer comes.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


class FileSignature(NamedTuple):
    """What of a file changes when its content does."""

    device: int
    inode: int
    size: int
    modified: int


def file_signature(status: os.stat_result) -> FileSignature:
    """The signature of a file with that *status*."""
    return FileSignature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
