"""The system calls of one CONNECT session, counted with ``strace -c``."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import load
from machine import Cores
from paths import HERE
from peers import OURS, Peer, which
from processes import PATIENCE, CannotStart, Server
from report import HEADER, listing

#: Calls that are made less often than this in a session belong to something else: a timer, or the memory.
_LEAST = 0.01

#: Sessions before counting begins: modules are imported, buffers made.
_WARM_UP = 20

#: How this server is called where it relays over Twisted's transports: as it did before there was an engine.
BEFORE = f"{OURS}, Twisted's transports"
AFTER = f"{OURS}, relay engine"

#: Calls per session, by name.
Counts = dict[str, float]


class NoTracer(Exception):
    """The system calls cannot be counted."""


def own_server(relay: str) -> Callable[[int, Path], Sequence[str]]:
    """The command for this server with one relay or the other; see ``proxy.py``."""
    return lambda port, directory: [
        sys.executable,
        str(HERE / "proxy.py"),
        "--port",
        str(port),
        *(["--no-engine"] if relay == BEFORE else []),
    ]


def of_peer(peer: Peer) -> Callable[[int, Path], Sequence[str]]:
    """The command for a peer."""
    return lambda port, directory: peer.command(peer.binary, port, directory)


def count(
    binary: Path,
    command: Callable[[int, Path], Sequence[str]],
    sessions: int,
    cores: Cores,
    socks4: bool = False,
) -> Counts:
    """
    Count a server's system calls over sessions that come one after the other.

    :param binary: the load generator.
    :param command: starts the server.
    :param sessions: so many.
    :raises NoTracer: when it cannot be done.
    """
    strace = which("strace")
    if strace is None:
        raise NoTracer("strace is not here")
    version = ["-4"] if socks4 else []
    try:
        server = Server(command, (cores.server,))
    except CannotStart as problem:
        raise NoTracer(f"the server does not start: {problem}") from None
    with server, tempfile.TemporaryDirectory() as directory:
        load.run(binary, ["rate", "-n", str(_WARM_UP), *version], server.port)
        table = Path(directory) / "counts"
        with _Tracer(strace, server.pids, table):
            outcome = load.run(binary, ["rate", "-n", str(sessions), *version], server.port)
        if outcome.problem or outcome.failed:
            raise NoTracer(outcome.problem or f"{outcome.failed} sessions failed")
        return {name: calls / sessions for name, calls in parse(table.read_text()).items()}


class _Tracer:
    """``strace -c`` on running processes, while the context lasts."""

    def __init__(self, strace: str, pids: Sequence[int], table: Path) -> None:
        attached = [word for pid in pids for word in ("-p", str(pid))]
        self._expected = len(pids)
        self._table = table
        self._process = subprocess.Popen(
            [strace, "-c", "-f", "-o", str(table), *attached], stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> None:
        # It says on standard error that it has attached, once for each process.
        assert self._process.stderr is not None
        for _ in range(self._expected):
            said = self._process.stderr.readline()
            if "attached" not in said:
                self._process.kill()
                self._process.wait()
                raise NoTracer(f"strace does not attach: {said.strip()}")

    def __exit__(self, *_: object) -> None:
        time.sleep(0.1)  # the last session's close
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=PATIENCE)


def parse(table: str) -> dict[str, int]:
    """The calls of a table that ``strace -c`` has written, by name."""
    found = {}
    for line in table.splitlines():
        row = re.fullmatch(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)", line)
        if row is not None and row[2] != "total":
            found[row[2]] = int(row[1])
    return found


def document(columns: Mapping[str, Counts], facts: str) -> str:
    """
    The tables, to be included.

    :param columns: what was counted, by the server's name.
    :param facts: where and of what, in a sentence.
    """
    sums = [[name, _shown(sum(counts.values()))] for name, counts in columns.items()]
    parts = [HEADER, f"{facts}\n"]
    if BEFORE in columns and AFTER in columns:
        parts.append(_before_and_after(columns[BEFORE], columns[AFTER]))
    parts.append(listing("System calls of one session, all together", ["", "calls"], sums))
    return "\n".join(parts)


def _before_and_after(before: Counts, after: Counts) -> str:
    names = sorted({*before, *after}, key=lambda name: (-before.get(name, 0), -after.get(name, 0)))
    rows = []
    for name in names:
        calls = before.get(name, 0), after.get(name, 0)
        if max(calls) >= _LEAST:
            rows.append([f"``{name}``", *map(_shown, calls)])
    rows.append(["all", _shown(sum(before.values())), _shown(sum(after.values()))])
    return listing("System calls of one session, by name", ["", BEFORE, AFTER], rows)


def _shown(calls: float) -> str:
    return f"{calls:.2f}".rstrip("0").rstrip(".") if calls >= _LEAST else ""
