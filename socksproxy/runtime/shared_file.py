"""
A file in memory that processes share, and its lock.
"""

from __future__ import annotations

import os
import tempfile
from fcntl import LOCK_EX, LOCK_UN, lockf


def memory_file() -> int:
    """The descriptor of a new, empty file without a name, in memory where there is such a thing."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("socksproxy")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class RecordLock:
    """
    A context in which no other process has the lock of the file *descriptor*.

    It is a record lock, which the kernel takes from a process that dies.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    # Each session takes the lock, and contextlib's way would take as long as the system calls.

    def __enter__(self) -> None:
        lockf(self._descriptor, LOCK_EX)

    def __exit__(self, *raised: object) -> None:
        lockf(self._descriptor, LOCK_UN)
