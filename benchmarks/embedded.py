#!/usr/bin/env python3
"""
How long the rest of a program waits while the proxy, in the same process, moves bulk data and echoes.

Measured are the requests to a Twisted web server, and the reactor's calls that are due at once:
``callLater(0)``, and ``callFromThread`` from a thread.

    python benchmarks/embedded.py

Other programs on the machine make the waits longer. With ``--processor-time`` they do not: then a wait is the
processor time that the program takes meanwhile, which is how long it does other things first.

It fails when an answer is missing or wrong, or when no data moved.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import load
import machine
from paths import DOCS, HERE
from peers import OURS, runtime
from processes import CannotStart, Server, free_port
from proxy import BODY, WAITS
from report import HEADER, listing, number

RESULTS = "performance-embedded.rst"

#: Seconds between an answer and the next request, and those that an answer may take.
_BETWEEN = 0.002
_PATIENCE = 30.0

#: Echoes at a time, beside the downloads.
_ECHOES = 64

#: Name of the waits of those who ask the web server.
WEB = "web request"

_OK = b"HTTP/1.1 200 OK\r\n"
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class WrongAnswer(Exception):
    """The web server does not do what it should."""


class Latency(NamedTuple):
    """How long answers took, in microseconds."""

    answers: int
    median: float
    p99: float
    longest: float

    @classmethod
    def of(cls, taken: Sequence[float]) -> Latency:
        """The summary of single times."""
        ordered = sorted(taken)
        return cls(len(ordered), ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1])


#: By what has waited.
Latencies = Mapping[str, Latency]


def ask(sock: socket.socket) -> None:
    """
    One request on a connection that stays open.

    :raises WrongAnswer: unless the answer is the right one.
    """
    sock.sendall(_REQUEST)
    answer = b""
    while not answer.endswith(BODY):
        more = sock.recv(4096)
        if not more:
            raise WrongAnswer(f"the connection ended after {answer!r}")
        answer += more
        if not answer.startswith(_OK[: len(answer)]):
            raise WrongAnswer(repr(answer))


def probe(port: int, seconds: float, clock: Callable[[], float] = time.perf_counter) -> Latencies:
    """
    Ask a web server over and over, for so many seconds; and how long calls waited meanwhile.

    :param clock: measures the answers.
    """
    taken = []
    _waits(port)
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask(sock)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = clock()
            ask(sock)
            taken.append((clock() - began) * 1e6)
            time.sleep(_BETWEEN)
    return {WEB: Latency.of(taken)} | {kind: Latency.of(each) for kind, each in _waits(port).items()}


def _waits(port: int) -> dict[str, list[float]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{WAITS.decode()}", timeout=_PATIENCE) as answer:
        told: dict[str, list[float]] = json.load(answer)
    return told


def _processor_time(pid: int) -> Callable[[], float]:
    """The clock of the processor time of the process *pid*, as clock_getcpuclockid(3) makes it."""
    return partial(time.clock_gettime, (~pid << 3) | 2)


def measure(
    binary: Path,
    seconds: float,
    streams: int,
    more: Sequence[str] = (),
    checkout: Path | None = None,
    processor_time: bool = False,
) -> tuple[Latencies, Latencies, load.Outcome]:
    """
    The waits without and with a load, and what the downloads moved.

    :param binary: the load generator.
    :param seconds: of each of the two.
    :param streams: downloads at a time.
    :param more: further options of ``proxy.py``.
    :param checkout: the proxy's code; None: the installed one.
    :param processor_time: whether the waits are processor time of the program.
    """
    cores = machine.cores()
    web_port = free_port()
    words = ["--processor-time", *more] if processor_time else more
    path = [] if checkout is None else [str(checkout.resolve())]
    # Before what may be installed: an editable install finds one checkout only.
    script = str(HERE / "proxy.py")
    code = f"import runpy, sys; sys.path[:0] = {path}; runpy.run_path({script!r}, None, '__main__')"

    def command(port: int, directory: Path) -> list[str]:
        return [sys.executable, "-c", code, "--port", str(port), "--web-port", str(web_port), *words]

    with Server(command, (cores.server,)) as server:
        clock = _processor_time(server.process.pid) if processor_time else time.perf_counter
        _keep_out_of_the_way((cores.load,))
        quiet = probe(web_port, seconds, clock)
        # It begins before the probing and ends after it.
        load_words = [
            "down",
            "-c",
            str(streams),
            "-n",
            str(streams),
            "-b",
            str(1 << 50),
            "-t",
            str(seconds + 1),
        ]
        bulk = load.begin(binary, load_words, server.port, cpus=(cores.load,))
        load_words = ["rtt", "-c", str(_ECHOES), "-n", str(1 << 30), "-t", str(seconds + 1)]
        echoes = load.begin(binary, load_words, server.port, cpus=(cores.load,))
        time.sleep(0.5)
        try:
            busy = probe(web_port, seconds, clock)
        finally:
            outcome = load.finish(bulk)
            load.finish(echoes)
    return quiet, busy, outcome


def _keep_out_of_the_way(cpus: Sequence[int]) -> None:
    """Share the load's core, and go first there: who asks shall not wait for the load."""
    os.sched_setaffinity(0, cpus)
    # Without the right to do so, the figures are a little too high.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def document(quiet: Latencies, busy: Latencies, gbit: float, about: str) -> str:
    """
    The table, to be included.

    :param about: how and where it was measured.
    """
    rows = [
        [f"{kind}, {name}", f"{latency.answers:,}", *(number(value) for value in latency[1:])]
        for kind in quiet
        for name, latency in (
            ("no load", quiet[kind]),
            (f"{gbit:.1f} Gbit/s and {_ECHOES} echoes through the proxy", busy[kind]),
        )
    ]
    table = listing("How long it takes (µs)", ["", "number", "median", "99 %", "longest"], rows)
    return f"{HEADER}\n{table}\n{about}\n"


def main(words: Sequence[str]) -> int:
    """Do it; the exit status."""
    options = parser().parse_args(words)
    facts = machine.facts()
    try:
        binary = load.build()
        more = ["--no-engine"] if options.no_engine else []
        quiet, busy, outcome = measure(
            binary, options.seconds, options.streams, more, options.checkout, options.processor_time
        )
    except (load.NoCompiler, CannotStart, WrongAnswer, OSError) as problem:
        print(f"FAILED: {problem}", file=sys.stderr)
        return 1
    gbit = outcome.figures.get("gbit", 0)
    for name, latencies in (("without load", quiet), ("with load", busy)):
        for kind, latency in latencies.items():
            figures = (
                f"median {latency.median:.0f} µs, p99 {latency.p99:.0f} µs, longest {latency.longest:.0f} µs"
            )
            print(f"{name}: {latency.answers:,} times, {kind}, {figures}")
    print(f"{options.streams} streams through {OURS}: {gbit:.1f} Gbit/s")
    if outcome.failed or not gbit:
        print(f"FAILED: {outcome.problem or f'{outcome.failed} streams failed'}", file=sys.stderr)
        return 1
    if options.output is not None:
        command = shlex.join(["python", "benchmarks/embedded.py", *words])
        about = f"``{command}``: {runtime()}, {facts['Processor']}, {facts['Kernel']}."
        (options.output / RESULTS).write_text(document(quiet, busy, gbit, about), "utf-8")
    return 0


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument(
        "--seconds", type=float, default=10, help="without load, and again with it [%(default)s]"
    )
    made.add_argument("--streams", type=int, default=16, help="downloads at a time [%(default)s]")
    made.add_argument("--no-engine", action="store_true", help="relay over Twisted's transports")
    made.add_argument(
        "--processor-time", action="store_true", help="measure the program's processor time, not the time"
    )
    made.add_argument("--checkout", type=Path, help="another checkout of this server, such as an older one")
    made.add_argument("--output", type=Path, help=f"write {RESULTS} into this directory, such as {DOCS.name}")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
