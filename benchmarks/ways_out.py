#!/usr/bin/env python3
"""
Measure ways out: this server through one SOCKS5 upstream, beside itself without and beside others with it.

    python benchmarks/ways_out.py

rate       new connections through the upstream, beside v2ray's, 3proxy's (``parent``) and direct ones
rtt, down  the processor time of an echo, and of bulk bytes, through the upstream, and without
udp        the processor time of a datagram through the upstream, and without
hole       a pool whose first member drops all packets: seconds until the reply, direct connections, look-ups

"Without" in rtt, down and udp: the server connects directly to the program that is the upstream, and the
client asks that program for the origin. So the bytes take the same way through the same programs, and the
server knows of no upstream. In rate, a direct connection leads straight to the origin.

The upstream is the same process for all, on the load's core; each server has the other core. In each round
the servers take turns, and the next round has the opposite order. A figure is the median of the rounds, and
a ratio that of the rounds' ratios. Peers that are not here are left out. pools.py tells what the choice in a
pool of 1,000 costs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import load
import machine
import peers
import processes
from measure import ratio_with_interval

#: Where the upstream leaves from in the part "hole": all others who come to the origin come directly.
_UPSTREAMS_OWN = "127.0.0.3"
#: Where 3proxy leaves from.
_3PROXYS_OWN = "127.0.0.4"
#: Seconds before each run: connections of the run before have ended, and their ports can be used again.
_REST = 1.5
#: Seconds that a reply may take.
_PATIENCE = 20.0

_ONE = """
[upstreams.one]
type = "socks5"
address = "127.0.0.1:{upstream}"

[outgoing]
via = "one"
"""
_POOL = """
[upstreams.hole]
type = "socks5"
address = "127.0.0.1:{hole}"

[upstreams.last]
type = "socks5"
address = "127.0.0.1:{last}"

[pools.all]
members = ["hole", "last"]

[outgoing]
via = "all"

[names]
resolver = "dns:127.0.0.1:{names}"
"""

#: The server's program, and its arguments: of its port, the upstream's (0: there is none) and its directory.
Way = tuple[str, Callable[[int, int, Path], Sequence[str]]]


def _ours(port: int, upstream: int, directory: Path) -> list[str]:
    words = ["-m", "twisted", "socks", "--port", str(port)]
    if not upstream:
        return words
    return [*words, "--config", _written(directory, "socks.toml", _ONE.format(upstream=upstream))]


def _v2ray(port: int, upstream: int, directory: Path) -> list[str]:
    server = {"address": "127.0.0.1", "port": upstream}
    inbound = {
        "listen": "127.0.0.1",
        "port": port,
        "protocol": "socks",
        "settings": {"auth": "noauth", "udp": True, "ip": "127.0.0.1"},
    }
    outbound = {"protocol": "socks", "settings": {"servers": [server]}}
    # Otherwise it keeps each connection to the upstream for 5 s after the client's end.
    at_once = {"levels": {"0": {"uplinkOnly": 0, "downlinkOnly": 0}}}
    config = {"log": {"loglevel": "none"}, "policy": at_once, "inbounds": [inbound], "outbounds": [outbound]}
    return ["-config", _written(directory, "v2ray.json", json.dumps(config))]


def _3proxy(port: int, upstream: int, directory: Path) -> list[str]:
    # It binds each connection to a port that nothing else may have at its address, not even a connection of
    # another server that has ended a minute ago. So it has an address of its own.
    text = (
        f"maxconn 10000\nexternal {_3PROXYS_OWN}\nauth iponly\nallow *\n"
        f"parent 1000 socks5 127.0.0.1 {upstream}\nsocks -p{port} -i127.0.0.1\n"
    )
    return [_written(directory, "3proxy.cfg", text)]


def _written(directory: Path, name: str, text: str) -> str:
    (directory / name).write_text(text, "utf-8")
    return str(directory / name)


DIRECT, OURS = "without", "ours"
WAYS: dict[str, Way] = {
    DIRECT: (sys.executable, lambda port, _, directory: _ours(port, 0, directory)),
    OURS: (sys.executable, _ours),
    "v2ray": ("v2ray", _v2ray),
    "3proxy": ("3proxy", _3proxy),
}
#: The load by its name: arguments of socksload, and what of it is told.
LOADS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = {
    "rate": (
        ("rate", "-c", "64", "-n", "2000"),
        (("per_s", "connections/s"), ("cpu_us_per", "µs of processor time of a connection")),
    ),
    "rtt": (("rtt", "-c", "64", "-n", "60000"), (("cpu_us_per", "µs of processor time of an echo"),)),
    "down": (
        ("down", "-c", "16", "-n", "16", "-b", "100000000"),
        (("cpu_s_per_gb", "s of processor time of a gigabyte"),),
    ),
    "udp": (("udp", "-c", "64", "-n", "60000"), (("cpu_us_per", "µs of processor time of a datagram"),)),
}
#: By the way, the rounds' figures.
Found = dict[str, list[dict[str, float]]]


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument(
        "what", nargs="*", metavar="PART", help=f"of {', '.join([*LOADS, 'hole'])}; all of them"
    )
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--scale", type=float, default=1.0, help="how much of each load to do [%(default)s]")
    made.add_argument("--upstream", default="hev-socks5-server", choices=[*peers.NAMES, peers.OURS])
    return made


def main(words: Sequence[str]) -> int:
    """Do it; the exit status."""
    options = parser().parse_args(words)
    parts = options.what or [*LOADS, "hole"]
    unknown = set(parts) - {*LOADS, "hole"}
    if unknown:
        print(f"{', '.join(sorted(unknown))}: not one of {', '.join([*LOADS, 'hole'])}", file=sys.stderr)
        return 2
    upstream = upstream_called(options.upstream)
    print(f"load average before: {machine.busy():.2f}; the upstream: {upstream.name}")
    for line in measured(load.build(), upstream, [part for part in parts if part in LOADS], options):
        print(line, flush=True)
    for line in black_hole() if "hole" in parts else ():
        print(line, flush=True)
    return 0


def upstream_called(name: str) -> peers.Peer:
    """The upstream: the one of that *name*, or this server where that one is not here."""
    if name != peers.OURS:
        for peer in peers.find([], [name])[0]:
            return peer
        print(f"{name} is not here: this server is the upstream", file=sys.stderr)
    return peers.ours()


def measured(
    binary: Path, upstream: peers.Peer, parts: Sequence[str], options: argparse.Namespace
) -> Iterator[str]:
    """The figures of all *parts*, in words."""
    with ExitStack() as stack:
        behind = stack.enter_context(processes.start(upstream, (machine.cores().load,)))
        servers = {
            name: stack.enter_context(_running(*way, behind.port))
            for name, way in WAYS.items()
            if name in (DIRECT, OURS) or ("rate" in parts and peers.which(way[0]))
        }
        for part in parts:
            found: Found = {name: [] for name in servers if part == "rate" or name in (DIRECT, OURS)}
            for number in range(options.rounds):
                for name in found if number % 2 else reversed(found):
                    second = 0 if part == "rate" or name == OURS else behind.port
                    found[name].append(_load(binary, servers[name], part, second, options.scale))
            yield from lines(part, found)


def _running(
    program: str, arguments: Callable[[int, int, Path], Sequence[str]], upstream: int
) -> processes.Server:
    def command(port: int, directory: Path) -> list[str]:
        return [peers.which(program) or program, *arguments(port, upstream, directory)]

    return processes.Server(command, (machine.cores().server,))


def _load(binary: Path, server: processes.Server, part: str, second: int, scale: float) -> dict[str, float]:
    """One run; *second* is the port of the second proxy that the client asks; 0: it asks none."""
    *words, last = LOADS[part][0]
    words += [str(max(64, round(int(last) * scale))), *(["-V", str(second)] if second else [])]
    time.sleep(_REST)
    outcome = load.run(binary, words, server.port, server.process.pid, (machine.cores().load,))
    if outcome.problem or outcome.failed:
        print(f"{part}: {outcome.problem or f'{outcome.failed} failed'}", file=sys.stderr)
        return {}
    return outcome.figures


def lines(part: str, found: Found) -> Iterator[str]:
    """The figures in words; each one of this server's beside all others. Runs that failed do not count."""
    for key, unit in LOADS[part][1]:
        own = [figures.get(key, 0.0) for figures in found[OURS]]
        yield f"{part}: {_median(own)} {unit} through the upstream"
        for other, rounds in found.items():
            theirs = [figures.get(key, 0.0) for figures in rounds]
            ratios = [mine / its for mine, its in zip(own, theirs, strict=True) if mine and its]
            if other != OURS:
                ratio = ratio_with_interval(ratios) if ratios else "unknown: the runs failed or are too short"
                yield f"  {other}: {_median(theirs)}, ratio {ratio}"


def _median(values: Sequence[float]) -> str:
    present = [value for value in values if value]
    return f"{statistics.median(present):.3g}" if present else "unknown"


# The first member drops all packets.


def black_hole() -> Iterator[str]:
    """The reply of a pool with a member that lives, and of one without; what came past the pool."""
    with ExitStack() as stack:
        names = stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        names.bind(("127.0.0.1", 0))
        names.setblocking(False)
        origin = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        origin.setblocking(False)
        hole = stack.enter_context(dropping())
        own = Path(stack.enter_context(_upstream_of_its_own()).directory)
        for alive, last in ((True, int((own / "port").read_text())), (False, hole)):
            text = _POOL.format(hole=hole, last=last, names=names.getsockname()[1])

            def command(port: int, directory: Path, text: str = text) -> list[str]:
                file = _written(directory, "socks.toml", text)
                return [sys.executable, "-m", "twisted", "socks", "--port", str(port), "--config", file]

            with processes.Server(command) as server:
                destination = b"\x01\x7f\x00\x00\x01" if alive else b"\x03\x0eorigin.example"
                reply, seconds = asked(server.port, destination + origin.getsockname()[1].to_bytes(2, "big"))
            what = "first member black-holed" if alive else "all members black-holed"
            yield f"hole: {what}: reply {reply} after {seconds:.2f} s"
        hosts = came(origin)
        directly = len(hosts) - hosts.count(_UPSTREAMS_OWN)
        yield f"hole: {directly} direct connections of {len(hosts)}, {_waiting(names)} look-ups"


@contextmanager
def _upstream_of_its_own() -> Iterator[processes.Server]:
    """This server as the upstream, which leaves from an address of its own."""

    def command(port: int, directory: Path) -> list[str]:
        _written(directory, "port", str(port))
        words = ["-m", "twisted", "socks", "--port", str(port), "--outgoing", _UPSTREAMS_OWN]
        return [sys.executable, *words]

    with processes.Server(command) as server:
        yield server


@contextmanager
def dropping() -> Iterator[int]:
    """A port whose SYNs are dropped: nothing accepts there, and its backlog is full."""
    with ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        yield hole.getsockname()[1]


def came(origin: socket.socket) -> list[str]:
    """The addresses from which connections have come to *origin*, which listens and does not block."""
    hosts: list[str] = []
    while True:
        try:
            accepted, (host, _) = origin.accept()
        except BlockingIOError:
            return hosts
        accepted.close()
        hosts.append(host)


def asked(port: int, destination: bytes) -> tuple[int, float]:
    """The reply to a CONNECT, and the seconds that it took."""
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as client:
        client.sendall(b"\x05\x01\x00")
        client.recv(2)
        began = time.monotonic()
        client.sendall(b"\x05\x01\x00" + destination)
        answer = client.recv(10)
        return answer[1], time.monotonic() - began


def _waiting(names: socket.socket) -> int:
    """How many datagrams have come."""
    count = 0
    try:
        while names.recv(1000):
            count += 1
    except BlockingIOError:
        return count
    return count


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the servers, too
    raise SystemExit(main(sys.argv[1:]))
