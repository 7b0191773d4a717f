#!/usr/bin/env python3
"""
Hundreds of sessions at a time through a real ``twistd socks``, for minutes, in a seeded random mix.

    python benchmarks/soak.py
    python benchmarks/soak.py --seconds 60 --seed 1234

It fails, and says why, when a byte comes otherwise than it was sent, when a
session stalls, when an end or a reset does not come through, when the proxy
complains, or when it holds more descriptors or memory at the end than after
the warm-up. Every few seconds the proxy's configuration becomes another one, with
rules or without, that permits the same things: no session may be the worse for it.
``mix.py`` has the kinds of session.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import peers
import proc
from mix import KINDS, Kind
from proc import Holding
from processes import CannotStart, Server
from progress import clock
from sessions import Session, Unexpected, World

#: Seconds without progress after which a session counts as stalled.
STALLED = 30.0

#: Failures after which there is no point in going on.
_ENOUGH = 10

#: Seconds in which the proxy must have closed what belonged to sessions that are over.
_SETTLE = 20.0

#: Bytes by which the proxy's own memory may grow after the warm-up. The heap takes some minutes to find its
#: size, and grows by 3 MiB on the way; a hundred bytes kept of each session of a whole run are 5 MiB.
_GROWTH = 5 << 20

#: Descriptors of pipes that the proxy may keep for later.
_PIPES = 64

#: Seconds between two lines on how it goes.
_EVERY = 5.0

#: Seconds between two changes of the configuration, in a run that is not short.
_RELOAD_EVERY = 3.0

#: The configurations, in turn. In the second one all that is denied is what nobody asks for.
_CONFIGURATIONS = (
    "[timeouts]\nconnect-timeout = 30\n",
    """
[[rule]]
name = "nobody-there"
allow = false
networks = ["192.0.2.0/24"]
[[rule]]
name = "all"
allow = true
networks = ["0.0.0.0/0", "::/0"]
""",
)

#: What the proxy says when it goes by another one.
_RELOADED = "reloaded: "

#: What twistd says when it has stopped all that it ran.
_LAST_WORDS = "Server Shut Down"

_COMPLAINTS = re.compile(r"^.*(?:Traceback|Unhandled|\[.*#(?:error|critical)\]).*$", re.MULTILINE)


class Crowd:
    """
    Keeps a number of sessions going.

    :param world: theirs.
    :param size: sessions at a time.
    :param kinds: what they are.
    :ivar over: sessions that are over, by kind.
    :ivar moved: bytes that have been sent or received in them.
    :ivar failures: what went wrong.
    """

    def __init__(self, world: World, size: int, kinds: Sequence[Kind] = KINDS) -> None:
        self.over: Counter[str] = Counter()
        self.moved = 0
        self.failures: list[str] = []
        self._world = world
        self._size = size
        self._numbers = iter(range(1, 1 << 62))
        self._kinds = choices(world.seed, kinds)
        self._open: dict[asyncio.Task[None], Session] = {}

    @property
    def open(self) -> int:
        """Sessions that are not over."""
        return len(self._open)

    async def run(self, seconds: float, label: str, pid: int) -> None:
        """
        Begin sessions for so many seconds, and let those that are open then come to their end.

        :param label: what this part of the run is called.
        :param pid: the proxy's process, to say what it holds.
        """
        began = last = time.monotonic()
        while len(self.failures) < _ENOUGH:
            now = time.monotonic()
            if now - began < seconds:
                # Not all at once: the listen queue is not what is to be tried.
                for _ in range(min(self._size - len(self._open), max(1, self._size // 20))):
                    self._begin()
            elif not self._open:
                return
            if now - last >= _EVERY:
                last = now
                print(f"{label}, {clock(now - began)} of {clock(seconds)}: {self} Proxy: {proc.holding(pid)}")
            await asyncio.sleep(0.05)
            self._look_for_stalled()
        await self._abandon()

    def __str__(self) -> str:
        return f"{self.open} open, {self.over.total():,} over, {self.moved / 1e9:.2f} GB."

    def _begin(self) -> None:
        kind = next(self._kinds)
        session = Session(next(self._numbers), self._world, kind.name)
        task = asyncio.ensure_future(self._play(session, kind))
        self._open[task] = session
        task.add_done_callback(self._open.pop)

    async def _play(self, session: Session, kind: Kind) -> None:
        try:
            await kind.play(session)
        except (Unexpected, OSError) as problem:
            self.failures.append(f"{session}: {problem or type(problem).__name__}")
        finally:
            session.close()
            self.over[kind.name] += 1
            self.moved += session.moved

    def _look_for_stalled(self) -> None:
        for task, session in self._open.items():
            if session.quiet > STALLED:
                self.failures.append(
                    f"{session} has stalled: nothing for {STALLED:.0f} s, {session.moved} bytes before"
                )
                session.progress()  # say it once
                task.cancel()

    async def _abandon(self) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


def choices(seed: int, kinds: Sequence[Kind] = KINDS) -> Iterator[Kind]:
    """Some of *kinds*, for ever, always the same ones for a seed."""
    source = random.Random(seed)
    weights = [kind.weight for kind in kinds]
    while True:
        yield from source.choices(kinds, weights, k=64)


async def settled(pid: int, idle: Holding) -> Holding:
    """
    What the proxy holds once it has closed what belonged to sessions that are over, or after a while.

    :param idle: what it held before the first session.
    """
    deadline = time.monotonic() + _SETTLE
    while True:
        now = proc.holding(pid)
        if not _too_many(idle, now) or time.monotonic() > deadline:
            return now
        await asyncio.sleep(0.1)


def _too_many(before: Holding, after: Holding) -> dict[str, int]:
    """How many descriptors of which kinds there are more than there should be."""
    allowed = before.descriptors + Counter(pipe=_PIPES)
    return dict(after.descriptors - allowed)


def compare(idle: Holding, before: Holding, after: Holding) -> list[str]:
    """
    What is wrong with what the proxy holds at the end.

    :param idle: what it held before the first session.
    :param before: what it held after the warm-up.
    :param after: what it holds at the end.
    """
    found = []
    if more := _too_many(idle, after):
        found.append(f"the proxy keeps descriptors of sessions that are over: {more}")
    grown = after.anonymous - before.anonymous
    if grown > _GROWTH:
        found.append(f"the proxy's own memory has grown by {grown / (1 << 20):.1f} MiB since the warm-up")
    return found


class Reloads:
    """
    Changes a proxy's configuration now and then.

    :param server: it goes by the file that :func:`configure` has written.
    :param every: seconds from one change to the next.
    """

    def __init__(self, server: Server, every: float) -> None:
        self._server = server
        self._every = every
        self._wanted = 0

    async def run(self) -> None:
        """Do so for ever."""
        while True:
            await asyncio.sleep(self._every)
            self._wanted += 1
            configure(self._server.directory, self._wanted)
            self._server.process.send_signal(signal.SIGHUP)

    async def settled(self) -> list[str]:
        """What is wrong with how it went, as soon as the last one is over."""
        deadline = time.monotonic() + _SETTLE
        # One that comes while another one is read may be one with it.
        while self._done < self._wanted and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        print(f"{self._done} changes of the configuration")
        if self._done < self._wanted:
            return [f"of {self._wanted} changes of the configuration {self._done} came in force"]
        return []

    @property
    def _done(self) -> int:
        return self._server.output.count(_RELOADED)


def configure(directory: Path, number: int) -> str:
    """Write the configuration of that *number*; the file, in which there never is half of it."""
    file, written = directory / "soak.toml", directory / "soak.toml.new"
    written.write_text(_CONFIGURATIONS[number % len(_CONFIGURATIONS)], "utf-8")
    written.replace(file)
    return str(file)


async def soak(server: Server, seconds: float, sessions: int, seed: int) -> list[str]:
    """
    Run it.

    :param server: the proxy.
    :returns: what went wrong.
    """
    pid = server.process.pid
    haste = min(1.0, seconds / 30)
    world = World(server.port, seed, haste=haste)
    crowd = Crowd(world, sessions)
    warm_up = min(30.0, seconds / 4)
    reloads = Reloads(server, max(_RELOAD_EVERY * haste, 1.0))
    reloading = asyncio.ensure_future(reloads.run())
    try:
        idle = proc.holding(pid)
        print(f"idle: {idle}")
        await crowd.run(warm_up, "warm-up", pid)
        before = await settled(pid, idle)
        print(f"after the warm-up: {before}")
        await crowd.run(seconds - warm_up, "soak", pid)
        reloading.cancel()
        missed = await reloads.settled()
        after = await settled(pid, idle)
        print(f"at the end: {after}")
    finally:
        reloading.cancel()
        world.close()
    counted = ", ".join(f"{count:,} {kind}" for kind, count in sorted(crowd.over.items()))
    print(f"{crowd.over.total():,} sessions ({counted}), {crowd.moved / 1e9:.2f} GB")
    return [*crowd.failures, *missed, *compare(idle, before, after)]


def dismiss(server: Server) -> list[str]:
    """End the proxy as an operator would; what is wrong with how it ends, or with what it has said."""
    if server.process.poll() is not None:
        return [f"the proxy has ended by itself with status {server.process.returncode}:\n{server.output}"]
    server.process.send_signal(signal.SIGTERM)
    try:
        status = server.process.wait(_SETTLE)
    except subprocess.TimeoutExpired:
        return [f"the proxy does not end within {_SETTLE:.0f} s of a SIGTERM"]
    output = server.output
    found = [f"the proxy said: {line}" for line in _COMPLAINTS.findall(output)[:_ENOUGH]]
    # twistd shuts down, and then ends itself with the signal that it was sent.
    if status not in (0, -signal.SIGTERM) or _LAST_WORDS not in output:
        found.append(f"the proxy ended with status {status}, and did not shut down in order")
    return found


def main(words: Sequence[str]) -> int:
    """Do it; the exit status."""
    options = parser().parse_args(words)
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}: {options.sessions} sessions at a time for {options.seconds:g} s", flush=True)
    _raise_descriptor_limit()
    ours = peers.ours()
    try:
        server = Server(
            lambda port, directory: [
                *ours.command(ours.binary, port, directory),
                "--config",
                configure(directory, 0),
            ]
        )
    except CannotStart as problem:
        print(f"FAILED: the proxy does not start: {problem}", file=sys.stderr)
        return 1
    with server:
        try:
            failures = asyncio.run(soak(server, options.seconds, options.sessions, seed))
        except proc.Gone:
            failures = []  # dismiss() knows why
        failures += dismiss(server)
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    print(f"{f'{len(failures)} failures' if failures else 'all is well'}, seed {seed}")
    return 1 if failures else 0


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--seconds", type=float, default=300, help="how long, warm-up included [%(default)s]")
    made.add_argument("--sessions", type=int, default=500, help="at a time [%(default)s]")
    made.add_argument("--seed", type=int, help="to see the same mix again [a new one]")
    return made


def _raise_descriptor_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
