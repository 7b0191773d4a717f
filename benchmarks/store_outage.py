#!/usr/bin/env python3
"""
What clients wait longer when the store that nodes share fails under traffic.

    python benchmarks/store_outage.py nothing stopped killed cut [--part 0.3] [--seconds 4]

nothing    the store goes on: what the machine does by itself
stopped    SIGSTOP, and SIGCONT later
killed     SIGKILL, and another one at the same port later
cut        nothing passes on the way to it, and later everything again

Sessions of 200 client addresses begin at a steady rate, a part of what the server sustains. Each address may
have 10 sessions, so each session asks the store. A session's time is from when it should have begun to the
reply, so what waits behind others counts. The figures are those of windows of a quarter of a second: before,
during and after. Where other programs run, ``chrt -r 5`` before the command keeps them out.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import selectors
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import load
import machine
import processes
from fleet import HERE, Store, StoreRelay

_WINDOW = 0.25
#: Where the server listens, and the origin.
_SERVER = "127.0.0.1"
_CLIENTS = 200
_CONFIG = """
[limits]
max-sessions-per-client = 10
[shared]
store = "redis://{here}:{port}"
"""
#: Seconds of a session that count as longer.
LONGER = 0.05
#: Seconds before those that count.
_WARM = 2.0
#: Seconds for the last sessions.
_PATIENCE = 5.0
_GREETING, _GRANTED = b"\x05\x01\x00", b"\x05\x00\x05\x00"


class Session(NamedTuple):
    """
    A session.

    :ivar due: when it should have begun, in seconds from the beginning.
    :ivar took: seconds until the reply.
    :ivar good: whether it was granted.
    """

    due: float
    took: float
    good: bool


class Traffic:
    """
    Begins sessions at a steady rate.

    :param port: the server's.
    :param origin: the origin's.
    :param rate: sessions a second.
    :param later: what happens, and after how many seconds.
    """

    def __init__(
        self, port: int, origin: int, rate: float, later: Sequence[tuple[float, Callable[[], object]]]
    ) -> None:
        self._port = port
        self._request = (
            _GREETING + b"\x05\x01\x00\x01" + socket.inet_aton(_SERVER) + origin.to_bytes(2, "big")
        )
        self._rate = rate
        self._later = list(later)
        heapq.heapify(self._later)
        self._selector = selectors.EpollSelector()
        self._done: list[Session] = []
        self._number = 0

    def run(self, seconds: float) -> list[Session]:
        """The sessions of so many seconds."""
        began, due = time.monotonic(), 0.0
        while True:
            now = time.monotonic() - began
            if due >= seconds and (now > seconds + _PATIENCE or not self._selector.get_map()):
                break
            if self._later and now >= self._later[0][0]:
                threading.Thread(target=heapq.heappop(self._later)[1]).start()
            while due <= now and due < seconds:
                self._begin(due)
                self._number += 1
                due = self._number / self._rate
            for key, _ in self._selector.select(min(max(due - now, 0), 0.01)):
                self._hear(key.fileobj, key.data, began)
        left = self._selector.get_map().values()
        return sorted([*self._done, *(Session(key.data[0], _PATIENCE, False) for key in left)])

    def _begin(self, due: float) -> None:
        link = socket.socket()
        link.setblocking(False)
        link.bind((f"127.0.1.{self._number % _CLIENTS + 1}", 0))
        link.connect_ex((_SERVER, self._port))
        self._selector.register(link, selectors.EVENT_WRITE, [due, b""])

    def _hear(self, link: Any, session: list[Any], began: float) -> None:
        try:
            if not session[1] and self._selector.get_key(link).events == selectors.EVENT_WRITE:
                link.send(self._request)
                self._selector.modify(link, selectors.EVENT_READ, session)
                return
            data = link.recv(64)
        except OSError:
            data = b""
        session[1] += data
        if data and len(session[1]) < 12:
            return
        took = time.monotonic() - began - session[0]
        self._done.append(Session(session[0], took, session[1].startswith(_GRANTED)))
        self._selector.unregister(link)
        link.close()


class Outage(NamedTuple):
    """
    How the store fails.

    :ivar port: where the server reaches it.
    :ivar begin: what makes it fail.
    :ivar end: what mends it.
    """

    port: int
    begin: Callable[[], object]
    end: Callable[[], object]


def outage(kind: str, store: Store) -> Outage:
    """The outage of that *kind*."""
    if kind == "cut":
        way = StoreRelay(store.port)
        return Outage(way.port, way.open.clear, way.open.set)
    if kind == "killed":
        return Outage(store.port, lambda: store.process.kill(), store.start)
    if kind == "stopped":
        send = store.process.send_signal
        return Outage(store.port, lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT))
    return Outage(store.port, lambda: None, lambda: None)


def lines(kind: str, sessions: Sequence[Session], seconds: float) -> Iterator[str]:
    """What a run shows before, during and after the fault, each for so many *seconds*."""
    windows: dict[int, list[float]] = {}
    for session in sessions:
        windows.setdefault(int(session.due / _WINDOW), []).append(session.took * 1000)
    p99 = {
        number: statistics.quantiles(took, n=100, method="inclusive")[98]
        for number, took in windows.items()
        if len(took) > 1
    }
    per = round(seconds / _WINDOW)
    first = round(_WARM / _WINDOW)
    usual = statistics.median(p99[number] for number in range(first, first + per) if number in p99)
    for name, begin in (("before", first), ("during", first + per), ("after", first + 2 * per)):
        found = [f"{p99.get(number, 0):.0f}" for number in range(begin, begin + per)]
        count = sum(len(windows.get(number, ())) for number in range(begin, begin + per))
        yield f"{kind} {name}: {count / seconds:.0f} sessions/s, p99 of each window in ms: {' '.join(found)}"
    worst = max(p99.values())
    over = [number for number, found in p99.items() if number >= first and found > usual + LONGER * 1000]
    late = [each for each in sessions if each.took > LONGER + usual / 1000 and each.due > _WARM]
    yield (
        f"{kind}: usual p99 {usual:.1f} ms, the worst window's {worst:.1f} ms; {len(over)} windows over the "
        f"usual + {LONGER * 1000:.0f} ms, {len(late)} sessions so late; {sum(not s.good for s in sessions)} "
        f"of {len(sessions)} refused"
    )
    for name, at in (("fails", _WARM + seconds), ("is back", _WARM + 2 * seconds)):
        near = [each for each in late if at - 0.3 <= each.due <= at + 1.5]
        if near:
            begun = [each.due - at for each in near]
            yield (
                f"{kind}, when the store {name}: {len(near)} sessions late, begun {min(begun):.3f} to "
                f"{max(begun):.3f} s after that, the longest {max(each.took for each in near) * 1000:.0f} ms"
            )


def main(words: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="+", choices=["nothing", "stopped", "killed", "cut"])
    parser.add_argument("--part", type=float, default=0.3, help="of what the server sustains [%(default)s]")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each part of a run [%(default)s]")
    options = parser.parse_args(words)
    binary = load.build()
    origin = socket.create_server((_SERVER, 0), backlog=4096)
    threading.Thread(target=_serve, args=(origin,), daemon=True).start()
    cores = machine.cores()
    os.sched_setaffinity(0, {cores.load})
    for kind in options.kinds:
        print(f"load average: {machine.busy():.2f}", flush=True)
        with tempfile.TemporaryDirectory() as directory:
            store = Store(Path(directory))
            fault = outage(kind, store)

            try:
                with processes.Server(partial(_command, fault.port), (cores.server,)) as server:
                    full = load.run(binary, ["rate", "-c", "64", "-n", "3000"], server.port)
                    rate = full.figures["per_s"] * options.part
                    seconds = options.seconds
                    steps = [(_WARM + seconds, fault.begin), (_WARM + 2 * seconds, fault.end)]
                    traffic = Traffic(server.port, origin.getsockname()[1], rate, steps)
                    print("\n".join(lines(kind, traffic.run(_WARM + 3 * seconds), seconds)), flush=True)
                    told = server.output.count("until it answers")
                    print(f"{kind}: the server has found the store down {told} times", flush=True)
            finally:
                with contextlib.suppress(OSError):
                    store.process.send_signal(signal.SIGCONT)
                store.process.kill()
                store.process.wait()
    return 0


def _command(store: int, port: int, place: Path) -> Sequence[str]:
    """What runs the server."""
    file = place / "socks.toml"
    file.write_text(_CONFIG.format(here=HERE, port=store))
    return [sys.executable, "-m", "twisted", "socks", "--port", str(port), "--config", str(file)]


def _serve(origin: socket.socket) -> None:
    while True:
        with contextlib.suppress(OSError):
            origin.accept()[0].close()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
