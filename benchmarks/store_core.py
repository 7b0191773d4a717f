#!/usr/bin/env python3
"""
How many sessions fill one core of the store that nodes share.

    python benchmarks/store_core.py [--count 3200] [--rounds 5]

Each session has four limits and one rate, asks the store, and ends: nothing is lent ahead. Questions come one
by one, and several at once, as they do under load. Eight nodes have sessions. Of each figure it is the
median of the rounds; processor time, calls and bytes are the store's own counters.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis

from fleet import HERE, Store
from socksproxy.shared.asking import Ask, Need, Timing
from socksproxy.shared.scripts import prefix
from socksproxy.shared.thread import StoreThread
from socksproxy.values.shared import SharedSettings, StoreAddress

ALONE_AND_TOGETHER = 1, 8, 32
ROWS = "n:server sessions", "n:network 10.0.0.0/24 sessions"


class Nothing:
    """Takes all reports."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def spent(store: Any) -> tuple[float, float, float, float]:
    """The microseconds, the calls, and the bytes in and out of the store so far."""
    told = store.info("all")
    calls = sum(told.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))
    seconds = told["used_cpu_user"] + told["used_cpu_sys"]
    return seconds * 1e6, calls, told["total_net_input_bytes"], told["total_net_output_bytes"]


def session(chance: random.Random) -> Ask:
    """What a session asks."""
    client, user = (f"{kind}{chance.randrange(200)}" for kind in ("client 10.0.0.", "user u"))
    counts = [*ROWS, f"n:{client} sessions", f"n:{user} sessions"]
    return Ask([*(Need(row, 1e5) for row in counts), Need(f"r:{user} arrivals", 10, 1e5)], lambda _: None)


def served(thread: StoreThread, chance: random.Random, together: int, count: int) -> None:
    """Have so many sessions begin and end."""
    for _ in range(count // together):
        asks = [session(chance) for _ in range(together)]
        thread.inbox.put(asks)
        thread._turn()
        thread.changes.extend((row, -1) for ask in asks for row in ask.rows)


def main() -> int:
    """The status for the shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=3200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = Store(Path(directory))
        try:
            client: Any = Redis(HERE, server.port, protocol=2)
            for number in range(7):
                client.zadd(f"{prefix('socks')}nodes", {f"x{number}/1": (time.time() + 3600) * 1000})
                for row in ROWS:
                    client.hset(f"{prefix('socks')}{row}", f"x{number}/1", 50)
            reports: Any = Nothing()
            settings = SharedSettings(store=StoreAddress.of(f"redis://{HERE}:{server.port}"), node="n1")
            patient = Timing(patience=5.0)
            thread = StoreThread(settings, patient, reports, lambda call, *arguments: call(*arguments))
            if not thread._open():
                raise SystemExit("the store cannot be used")
            chance = random.Random(1)
            served(thread, chance, 8, 800)
            for together in ALONE_AND_TOGETHER:
                rounds = []
                for _ in range(options.rounds):
                    before = spent(client)
                    served(thread, chance, together, options.count)
                    after = spent(client)
                    rounds.append([(b - a) / options.count for a, b in zip(before, after, strict=True)])
                micros, calls, received, sent = sorted(rounds)[len(rounds) // 2]
                print(
                    f"{together} at once [per session]: {micros:.0f} µs, {calls:.2f} calls, "
                    f"{received:.0f} bytes in, {sent:.0f} out; one core is full at "
                    f"{1e6 / micros:.0f} sessions/s",
                    flush=True,
                )
        finally:
            server.process.kill()
            server.process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
