#!/usr/bin/env python3
"""
Measure what a store for several nodes costs one node: beside the same server with the same limits, alone.

    python benchmarks/store.py plenty user few [--rounds 12] [--count 2000]

plenty     limits on sessions and new sessions of 200 client addresses, which are never near
user       the same for a user with a password as well
few        at most 10 sessions for each of the 200 client addresses

Both servers run all the time on one core, and the load turns from one to the other: in each round each has
its sessions, and the first one changes. The store runs on the core of the load. Of processor time, the figure
is the median of the rounds' ratios; the delay is the median of the rounds' differences between the median
times of one session, with one session at a time. What a session costs the store, in calls, bytes and
processor time, is told, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import load
import machine
import processes
from fleet import HERE, Store
from governed import CONFIGURATIONS, LOGIN
from measure import ratio_with_interval

_SHARED = '[shared]\nstore = "redis://{here}:{store}"\n'
#: Sessions before those of a round.
_WARM = 400
#: Sessions of a round that come one at a time, for each of the others.
_ALONE = 0.2
_PLENTY = CONFIGURATIONS["counts"][1]


@dataclass(frozen=True)
class Governed:
    """
    What the server limits.

    :ivar config: the text of its file.
    :ivar login: the user and the password of each session; empty: there is none.
    """

    config: str
    login: str = ""


LIMITS = {
    "plenty": Governed(_PLENTY),
    "user": Governed(f'[authentication]\nauth = ["memory:{LOGIN}"]\n{_PLENTY}', LOGIN),
    "few": Governed("[limits]\nmax-sessions-per-client = 10\n"),
}


@dataclass(frozen=True)
class Figures:
    """
    What one server has done.

    :ivar processor: microseconds of its processor time for a session.
    :ivar rate: sessions a second.
    :ivar median: microseconds of a session, one at a time.
    """

    processor: float
    rate: float
    median: float


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("limits", nargs="+", choices=LIMITS)
    made.add_argument("--rounds", type=int, default=12)
    made.add_argument("--count", type=int, default=2000, help="sessions of a round [%(default)s]")
    return made


def main(words: Sequence[str]) -> int:
    """Do it; the exit status."""
    options = parser().parse_args(words)
    binary = load.build()
    print(f"load average before: {machine.busy():.2f}")
    for name in options.limits:
        with _store() as store, _running(LIMITS[name], store) as new, _running(LIMITS[name]) as old:
            for server in (new, old):
                _measure(binary, LIMITS[name], server, 100)  # accounts, and the store's scripts
            rounds = []
            used = [0.0] * 4
            for number in range(options.rounds):
                found = {}
                for server in (new, old) if number % 2 else (old, new):
                    before = _used(store)
                    found[server] = _measure(binary, LIMITS[name], server, options.count)
                    if server is new:
                        spent = [now - then for now, then in zip(_used(store), before, strict=True)]
                        used = [each + more for each, more in zip(used, spent, strict=True)]
                rounds.append((found[new], found[old]))
        print("\n".join(_lines(name, rounds)))
        sessions = options.rounds * (_WARM + options.count * (1 + _ALONE))
        calls, received, sent, processor = (each / sessions for each in used)
        print(
            f"{name} [the store, per session]: {calls:.3f} calls, {received:.0f} bytes in, {sent:.0f} out, "
            f"{processor:.1f} µs",
            flush=True,
        )
    return 0


def _measure(binary: Path, governed: Governed, server: processes.Server, count: int) -> Figures:
    login = ["-u", governed.login] if governed.login else []

    def run(concurrency: int, sessions: int) -> dict[str, float]:
        arguments = ["rate", "-c", str(concurrency), "-n", str(sessions), *login]
        outcome = load.run(binary, arguments, server.port, server.process.pid, (machine.cores().load,))
        if outcome.problem or outcome.failed:
            raise SystemExit(outcome.problem or f"{outcome.failed} sessions failed: {server.output}")
        return outcome.figures

    run(64, _WARM)  # the other server has had its turn, and this one has forgotten its clients
    before = _processor(server)
    many = run(64, count)
    return Figures((_processor(server) - before) / count, many["per_s"], run(1, int(count * _ALONE))["p50us"])


def _processor(server: processes.Server) -> float:
    """Microseconds of processor time of the server so far; the kernel counts it exactly here."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


@contextlib.contextmanager
def _store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory))
        for task in Path(f"/proc/{store.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), (machine.cores().load,))
        try:
            yield store
        finally:
            store.process.kill()
            store.process.wait()


def _used(store: Store) -> tuple[float, float, float, float]:
    """The calls, the bytes in and out, and the microseconds of the store so far."""
    with socket.create_connection((HERE, store.port), 10) as link:
        link.sendall(b"INFO everything\r\nQUIT\r\n")
        text = b""
        while some := link.recv(65536):
            text += some
    facts = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    calls = sum(
        int(facts[key].partition("calls=")[2].partition(",")[0])
        for key in ("cmdstat_evalsha", "cmdstat_eval")
        if key in facts
    )
    processor = float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])
    received, sent = int(facts["total_net_input_bytes"]), int(facts["total_net_output_bytes"])
    return calls, received, sent, processor * 1e6


def _running(governed: Governed, store: Store | None = None) -> processes.Server:
    def command(port: int, directory: Path) -> Sequence[str]:
        file = directory / "socks.toml"
        shared = "" if store is None else _SHARED.format(here=HERE, store=store.port)
        file.write_text(governed.config + shared, "utf-8")
        return [sys.executable, "-m", "twisted", "socks", "--port", str(port), "--config", str(file)]

    return processes.Server(command, (machine.cores().server,))


def _lines(name: str, rounds: Sequence[tuple[Figures, Figures]]) -> Iterator[str]:
    def both(what: str) -> list[tuple[float, float]]:
        return [(getattr(new, what), getattr(old, what)) for new, old in rounds]

    for what, unit in (("processor", "µs of processor time per session"), ("rate", "sessions/s")):
        new, old = (statistics.median(values) for values in zip(*both(what), strict=True))
        ratio = ratio_with_interval([after / before for after, before in both(what)])
        yield f"{name} [{unit}]: {new:.1f} beside {old:.1f}, ratio {ratio}"
    delay = statistics.median(new - old for new, old in both("median"))
    yield f"{name} [µs that the median session takes longer]: {delay:.0f}"


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    raise SystemExit(main(sys.argv[1:]))
