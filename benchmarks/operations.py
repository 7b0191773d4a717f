#!/usr/bin/env python3
"""
Measure what it costs to look at a server: echoes while it is looked at, beside echoes while it is not.

    python benchmarks/operations.py
    python benchmarks/operations.py --workers 2 --sessions 10000

The server has many sessions that do nothing, and 64 with echoes. All of these look at once: a page of
/v1/sessions once a second, a list of the fastest sessions once a second as ``top`` has it, 20 readers of
/v1/events, and ten scrapes a second. In each round the echoes run once with them and once without, and
the first one changes. The figure is the median of the rounds' ratios.

``--turns`` also tells the longest calls of the event loop, in processor time; it costs some speed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import load
import machine
import processes
from measure import ratio_with_interval
from paths import HERE

_CONFIG = """
[metrics]

[[admin.listener]]
endpoint = "unix:admin.sock"
"""
#: Readers of events, and scrapes a second.
_READERS, _SCRAPES = 20, 10
#: Who looks.
LOOKERS = ("pages", "top", "readers", "scrapes")
#: What looks once a second.
_TOP = ("/v1/status", "/v1/sessions?sort=rate&limit=20")


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--workers", type=int, default=1)
    made.add_argument("--sessions", type=int, default=9000, help="that do nothing [%(default)s]")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--seconds", type=int, default=4, help="of each half of a round [%(default)s]")
    made.add_argument("--concurrency", type=int, default=64, help="sessions with echoes [%(default)s]")
    made.add_argument("--only", choices=LOOKERS, help="who looks alone")
    made.add_argument("--turns", action="store_true", help="tell the longest calls, too")
    return made


def main(words: Sequence[str]) -> int:
    """Do it; the exit status."""
    options = parser().parse_args(words)
    binary = load.build()
    print(f"load average before: {machine.busy():.2f}")
    rounds = []
    with _running(options.workers, options.turns) as server, _idle(binary, server, options) as held:
        for number in range(options.rounds):
            found = {}
            for looking in (True, False) if number % 2 else (False, True):
                with _looking(server, options.only) if looking else contextlib.nullcontext():
                    found[looking] = _echoes(binary, server, options)
            rounds.append((found[True], found[False]))
        if held.poll() is not None:
            raise SystemExit("the sessions that do nothing have ended")
        if options.turns:
            print("longest calls:", (server.directory / "turns").read_text("utf-8"))
    for key, unit in (("p99us", "µs, 99th percentile"), ("p50us", "µs, median"), ("per_s", "echoes/s")):
        pairs = [(new[key], old[key]) for new, old in rounds]
        new, old = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratio = ratio_with_interval([after / before for after, before in pairs])
        print(f"{unit}: {new:.0f} looked at, {old:.0f} alone, ratio {ratio}", flush=True)
    return 0


def _echoes(binary: Path, server: processes.Server, options: argparse.Namespace) -> dict[str, float]:
    words = ["rtt", "-c", str(options.concurrency), "-n", "100000000", "-t", str(options.seconds)]
    outcome = load.run(binary, words, server.port, server.process.pid, (machine.cores().load,))
    if outcome.problem or outcome.failed:
        raise SystemExit(outcome.problem or f"{outcome.failed} sessions failed")
    return outcome.figures


def _running(workers: int, turns: bool) -> processes.Server:
    def command(port: int, directory: Path) -> Sequence[str]:
        (directory / "socks.toml").write_text(_CONFIG, "utf-8")
        program = [str(HERE / "watched_turns.py")] if turns else ["-m", "twisted"]
        words = [sys.executable, *program, "socks", "--port", str(port), "--config", "socks.toml"]
        return [*words, "--workers", str(workers)] if workers > 1 else words

    cores = machine.cores()
    return processes.Server(command, (cores.server,) if workers == 1 else cores.both)


@contextlib.contextmanager
def _idle(binary: Path, server: processes.Server, options: argparse.Namespace) -> Iterator[Any]:
    """Sessions that are open and do nothing."""
    seconds = 60 + options.rounds * 2 * (options.seconds + 2)
    arguments = ["idle", "-c", "64", "-n", str(options.sessions), "-b", str(seconds)]
    process = load.begin(binary, arguments, server.port, 0, (machine.cores().load,))
    try:
        _wait_for_sessions(server.directory / "admin.sock", options.sessions)
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for_sessions(admin: Path, count: int) -> None:
    deadline = time.monotonic() + load.PATIENCE
    while time.monotonic() < deadline:
        status, text = asyncio.run(_get(admin, "/v1/status"))
        if status == 200 and f'"sessions": {count}'.encode() in text:
            return
        time.sleep(0.5)
    raise SystemExit(f"the server does not have {count} sessions")


@contextlib.contextmanager
def _looking(server: processes.Server, only: str | None) -> Iterator[None]:
    """Have all of them look, or *only* those, from a process of its own; then tell how much it saw."""
    counts = {name: multiprocessing.Value("L", 0) for name in LOOKERS}
    arguments = (server.directory / "admin.sock", machine.cores().load, only, counts)
    process = multiprocessing.Process(target=_look, args=arguments, daemon=True)
    begun = time.monotonic()
    process.start()
    try:
        yield
    finally:
        took = time.monotonic() - begun
        process.kill()
        process.join()
    told = ", ".join(f"{count.value / took:.1f} {name}/s" for name, count in counts.items())
    print(f"looked at: {told}", flush=True)


def _look(admin: Path, core: int, only: str | None, counts: dict[str, Any]) -> None:
    os.sched_setaffinity(0, (core,))
    asyncio.run(_look_all(admin, only, counts))


async def _look_all(admin: Path, only: str | None, counts: dict[str, Any]) -> None:
    work = {
        "pages": [_repeat(admin, ("/v1/sessions",), 1.0, counts["pages"])],
        "top": [_repeat(admin, _TOP, 1.0, counts["top"])],
        "readers": [_read(admin, counts["readers"]) for _ in range(_READERS)],
        "scrapes": [_repeat(admin, ("/metrics",), 1 / _SCRAPES, counts["scrapes"])],
    }
    chosen = [each for name, some in work.items() for each in some if only in (None, name)]
    await asyncio.gather(*chosen)


async def _repeat(admin: Path, paths: Sequence[str], every: float, count: Any) -> None:
    due = time.monotonic()
    while True:
        for path in paths:
            status, _ = await _get(admin, path)
            if status != 200:
                raise SystemExit(f"{path}: status {status}")
        count.value += 1
        due = max(due + every, time.monotonic() - 1)
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def _get(admin: Path, path: str) -> tuple[int, bytes]:
    reader, writer = await _asked(admin, path)
    data = await reader.read()
    writer.close()
    return int(data.split(None, 2)[1]), data


async def _asked(admin: Path, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(admin))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return reader, writer


async def _read(admin: Path, count: Any) -> None:
    reader, _ = await _asked(admin, "/v1/events")
    while line := await reader.readline():
        count.value += line.startswith(b"event:")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    raise SystemExit(main(sys.argv[1:]))
