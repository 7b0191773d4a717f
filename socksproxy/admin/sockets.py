"""
The file of an admin socket, which is never open to others, not for an instant.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress

#: Connections that may wait to be accepted.
_BACKLOG = 128


def listen_at(path: str, mode: int) -> socket.socket:
    """
    A Unix socket that listens at *path*.

    The file has its *mode* from the moment that it exists: a later chmod would leave it open for a moment.
    A file that a server has left which was killed is replaced.

    :raises OSError: when the socket cannot be opened, or another process listens there.
    """
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX)
    try:
        mask = os.umask(0o777 & ~mode)
        try:
            listening.bind(path)
        finally:
            os.umask(mask)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path: str) -> None:
    try:
        there = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:  # its queue is full
            pass
    raise OSError(errno.EADDRINUSE, "another process listens there")


class SocketFile:
    """
    The file of a socket that listens, as it is now.

    :param path: where.
    """

    def __init__(self, path: str) -> None:
        # The path may be relative, and the process may go elsewhere.
        self._path = os.path.abspath(path)
        self._identity = _identity(self._path)

    def remove(self) -> None:
        """Remove the file, unless it is another one by now."""
        if self._identity is not None and _identity(self._path) == self._identity:
            with suppress(OSError):  # this process may not have the right to, after it has changed its user
                os.unlink(self._path)


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    # A new file may have the number of one that is gone.
    return status.st_dev, status.st_ino, status.st_mtime_ns
