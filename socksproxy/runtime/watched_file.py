"""
A file that is read again when it has changed.
"""

from __future__ import annotations

import os

from .files import MOST_SMALL, READ_WITHIN, FileContent, FileSignature, file_signature, read_regular_file


class WatchedFile:
    """
    Reads one file, and tells when the file has another content than at the last reading.

    :param path: the file. A relative path counts from the directory in which the process is now: a daemon
        changes its directory later.
    :param most: how many bytes the file may have.
    :param seconds: how long the file system may take to read it.
    :ivar path: the absolute path.
    :ivar signature: the state of the file that was read last. None: no state is known, and whatever is there
        counts as a change.
    """

    __slots__ = ("_most", "_seconds", "_seen", "path", "signature")

    def __init__(self, path: str, most: int = MOST_SMALL, seconds: float = READ_WITHIN) -> None:
        self.path = os.path.abspath(path)
        self.signature: FileSignature | None = None
        self._seen: FileSignature | None = None
        self._most = most
        self._seconds = seconds

    def read(self) -> FileContent:
        """
        Read the file.

        :raises OSError: as :func:`~socksproxy.runtime.files.read_regular_file` does; :attr:`signature` stays.
        """
        content = read_regular_file(self.path, self._most, self._seconds)
        self.signature = self._seen = file_signature(content.status)
        return content

    def changed(self) -> bool:
        """
        Whether the file has changed since it was read.

        :raises OSError: when the status of the file cannot be had.
        """
        return file_signature(os.stat(self.path)) != self.signature

    def settled_change(self) -> bool:
        """
        Whether the file has changed since it was read, and not since the last call of this method.

        A program that writes the file slowly is waited for in this way. A file that is gone has not changed.
        """
        try:
            signature: FileSignature | None = file_signature(os.stat(self.path))
        except OSError:
            signature = None
        settled, self._seen = signature == self._seen, signature
        return settled and signature is not None and signature != self.signature
