"""The machine: its cores, and what it is."""

from __future__ import annotations

import os
import platform
import re
import resource
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple


class Cores(NamedTuple):
    """
    Who runs where.

    :ivar server: the core of a server.
    :ivar load: the core of the load and its origin.
    """

    server: int
    load: int

    @property
    def both(self) -> tuple[int, int]:
        """For what is measured with the server and the load on the same two."""
        return self.server, self.load


def cores() -> Cores:
    """The first two cores that this process may use, or twice the one."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[min(1, len(usable) - 1)])


def pinned(cpus: Collection[int]) -> Callable[[], None] | None:
    """
    What a child process has to call between fork and exec, so that it and all its threads stay on *cpus*.

    :returns: None for no cores at all: nothing is to be done.
    """
    if not cpus:
        return None
    return lambda: os.sched_setaffinity(0, cpus)


def facts() -> dict[str, str]:
    """What the machine is, in words."""
    soft = Path("/proc/sys/fs/pipe-user-pages-soft")
    found = {
        "Processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores usable",
        "Memory": _memory(),
        "Kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Descriptors": f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]} at the most for one process",
    }
    if soft.exists():
        found["Pipe pages"] = f"{soft.read_text().strip()} for one user (not for root)"
    return found


def busy() -> float:
    """The load of the last minute, before anything was measured."""
    return os.getloadavg()[0]


class Noise(NamedTuple):
    """
    What else the machine did during a run.

    :ivar load: the load average of the last minute before it.
    :ivar stolen: the share of processor time that the hypervisor kept for other machines.
    """

    load: float
    stolen: float

    @property
    def is_loud(self) -> bool:
        """Whether figures are not worth much: a core was taken away, or other programs ran."""
        return self.stolen > 0.02 or self.load > max(os.cpu_count() or 1, 2) + 1


class NoiseMeter:
    """Listens from the moment that it is made."""

    def __init__(self) -> None:
        self._load = busy()
        self._before = _ticks()

    def heard(self) -> Noise:
        """What the machine did since then."""
        all_ticks, stolen = (now - before for now, before in zip(_ticks(), self._before, strict=True))
        return Noise(self._load, stolen / all_ticks if all_ticks else 0.0)


def _ticks() -> tuple[int, int]:
    """The ticks of all cores since the start, and the stolen ones among them."""
    found = re.search(r"^cpu +(.*)$", _text("/proc/stat"), re.MULTILINE)
    fields = [int(word) for word in found[1].split()[:8]] if found else []
    return sum(fields), fields[7] if len(fields) > 7 else 0


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", _text("/proc/cpuinfo"), re.MULTILINE)
    name = found[1].strip() if found else platform.processor() or "unknown"
    return (
        f"{name} (a virtual machine)"
        if re.search(r"^flags.*\bhypervisor\b", _text("/proc/cpuinfo"), re.M)
        else name
    )


def _memory() -> str:
    found = re.search(r"^MemTotal: +(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    return f"{int(found[1]) / (1 << 20):.1f} GiB" if found else "unknown"


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
