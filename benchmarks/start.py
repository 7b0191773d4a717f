#!/usr/bin/env python3
"""
Measure how long the server takes from exec to its first client, beside an empty service of ``twistd``.

    python benchmarks/start.py
    python benchmarks/start.py --rounds 21 -- --config socks.toml

In each round both are started afresh, and the first one changes. The empty service listens and does
nothing else. A start ends when a connection is accepted. The figures are medians; the interval holds the
true median of the rounds' ratios with a probability of at least 95 %. What stands behind ``--`` goes to
this server. Other work on the machine lengthens times; it lengthens processor time less.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import machine
import processes
from measure import interval

_TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
_EMPTY = """
from twisted.application.internet import TCPServer
from twisted.application.service import Application
from twisted.internet.protocol import Factory

application = Application("empty")
TCPServer({port}, Factory(), interface="127.0.0.1").setServiceParent(application)
"""

#: Seconds after which a start has failed.
_PATIENCE = 60.0
#: Seconds between two attempts to connect.
_LOOK_EVERY = 0.001


class Start(NamedTuple):
    """
    One start.

    :ivar seconds: from before the exec to the accepted connection.
    :ivar cpu: processor time until then, in seconds.
    """

    seconds: float
    cpu: float


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--tree", type=Path, default=Path(__file__).parents[1], help="the checkout to measure")
    made.add_argument("options", nargs="*", help="of this server")
    return made


def main(words: Sequence[str]) -> int:
    """Do it; the exit status."""
    arguments = parser().parse_args(words)
    print(f"load average before: {machine.busy():.2f}")
    found: dict[str, list[Start]] = {"empty service": [], "socks": []}
    with TemporaryDirectory() as directory:
        for number in range(arguments.rounds + 1):
            for name in sorted(found, reverse=bool(number % 2)):
                port = processes.free_port()
                program = _empty(directory, port) if name == "empty service" else _socks(arguments, port)
                started = _start(program, port, directory)
                if number:  # the first round fills the caches
                    found[name].append(started)
    for name, starts in found.items():
        times, cpus = zip(*starts, strict=True)
        wall, cpu = 1000 * statistics.median(times), 1000 * statistics.median(cpus)
        print(f"{name:14} {wall:5.0f} ms from exec to accepting, {cpu:5.0f} ms of processor time")
    for index, what in enumerate(("time", "processor time")):
        pairs = zip(found["socks"], found["empty service"], strict=True)
        ratios = sorted(ours[index] / empty[index] for ours, empty in pairs)
        low, high = interval(len(ratios))
        print(
            f"ratio of {what}: {statistics.median(ratios):.2f} ({ratios[low]:.2f} to {ratios[high]:.2f}), "
            f"{len(ratios)} rounds"
        )
    return 0


def _socks(arguments: argparse.Namespace, port: int) -> Sequence[str]:
    # Before what may be installed: an editable install finds one checkout only.
    code = f"import sys; sys.path.insert(0, {str(arguments.tree.resolve())!r}); {_TWISTD}"
    return [sys.executable, "-c", code, "-n", "socks", "--port", str(port), *arguments.options]


def _empty(directory: str, port: int) -> Sequence[str]:
    file = Path(directory, "empty.tac")
    file.write_text(_EMPTY.format(port=port))
    return [sys.executable, "-c", _TWISTD, "-n", "-y", str(file)]


def _start(program: Sequence[str], port: int, directory: str) -> Start:
    # As after an installation: compiled code is kept, in a place of its own for either checkout.
    variables = {**processes.environment(), "PYTHONPYCACHEPREFIX": f"{directory}/compiled"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    process = subprocess.Popen(
        [*program],
        cwd=directory,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _accepts(port):
            if process.poll() is not None or time.perf_counter() - began > _PATIENCE:
                raise SystemExit(f"does not start: {' '.join(program)}")
            time.sleep(_LOOK_EVERY)
        return Start(time.perf_counter() - began, processes.cpu_time([process.pid]))
    finally:
        process.terminate()
        process.wait()


def _accepts(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
