"""
What a process tells of itself: that it lives, its time, its memory and its descriptors.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from resource import RLIMIT_NOFILE, RUSAGE_SELF, getpagesize, getrlimit, getrusage

from .columns import HEARTBEAT, OwnColumn
from .table import CPU_SECONDS, DESCRIPTORS, MICROSECOND, REACTOR_LAG, RESIDENT_BYTES

_PAGES = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")


class ProcessGauges:
    """
    The gauges of this process.

    :param own: where they are counted.
    :param needed: how many descriptors the process has at least, where the system does not tell.
    """

    def __init__(self, own: OwnColumn, needed: Callable[[], int]) -> None:
        self._own = own
        self._needed = needed
        self._cpu = own.place(CPU_SECONDS)
        self._resident = own.place(RESIDENT_BYTES)
        self._lag = own.place(REACTOR_LAG)
        self._open = own.place(DESCRIPTORS, "open")
        self._limit = own.place(DESCRIPTORS, "limit")
        self._cpu_before = 0

    def update(self, late: float) -> None:
        """
        See what they are now.

        :param late: seconds by which the reactor has called too late.
        """
        counts = self._own.counts
        counts[HEARTBEAT] = int(time.monotonic() / MICROSECOND)
        cpu = int(time.process_time() / MICROSECOND)
        counts[self._cpu] += cpu - self._cpu_before
        self._cpu_before = cpu
        counts[self._resident] = resident_bytes()
        counts[self._lag] = max(0, int(late / MICROSECOND))
        counts[self._open] = open_descriptors() or self._needed()
        soft, _ = getrlimit(RLIMIT_NOFILE)
        counts[self._limit] = max(0, soft)


def resident_bytes() -> int:
    """The memory of this process; the most that it has had, where the system does not tell."""
    try:
        return int(_PAGES.read_bytes().split()[1]) * getpagesize()
    except OSError:
        return getrusage(RUSAGE_SELF).ru_maxrss * 1024


def open_descriptors() -> int:
    """How many descriptors this process has; 0: the system does not tell without a list of them."""
    try:
        return os.stat(_DESCRIPTORS).st_size  # since Linux 6.2
    except OSError:
        return 0
