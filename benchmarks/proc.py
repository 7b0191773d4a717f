"""What the kernel says of a process."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple


class Gone(Exception):
    """The process has ended."""


class Holding(NamedTuple):
    """
    What a process holds.

    :ivar descriptors: by kind: ``socket``, ``pipe``, ``anon_inode``, or a path.
    :ivar anonymous: bytes of memory that are its own: what a leak makes grow, and other processes do not.
    :ivar rss: bytes resident.
    :ivar pss: bytes resident, the shared ones divided by those who share them.
    """

    descriptors: Counter[str]
    anonymous: int
    rss: int
    pss: int

    def __str__(self) -> str:
        own, rss, pss = (f"{size / (1 << 20):.1f}" for size in (self.anonymous, self.rss, self.pss))
        return f"{self.descriptors.total():,} descriptors, {own} MiB of its own (RSS {rss}, PSS {pss})"


def holding(pid: int) -> Holding:
    """
    What process *pid* holds now.

    :raises Gone: when it has ended, though nobody may have asked for its status yet.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        descriptors = _descriptors(pid)
    except (FileNotFoundError, ProcessLookupError):
        raise Gone(pid) from None
    sizes = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    if not sizes:
        raise Gone(pid)
    return Holding(descriptors, sizes["Anonymous"], sizes["Rss"], sizes["Pss"])


def _descriptors(pid: int) -> Counter[str]:
    found: Counter[str] = Counter()
    directory = f"/proc/{pid}/fd"
    for name in os.listdir(directory):
        try:
            target = os.readlink(f"{directory}/{name}")
        except OSError:
            continue  # closed meanwhile
        found[target.partition(":")[0]] += 1
    return found
