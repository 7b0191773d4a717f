#!/usr/bin/env python3
"""
Measure this server beside itself, configured in another way: what a way to run it costs.

    python benchmarks/variants.py proxy workers limits shared metrics datagrams spread

proxy      behind HAProxy with PROXY headers (send-proxy-v2), beside HAProxy without them
workers    --workers 2 beside one process
limits     --workers 2 with limits on sessions and new sessions, beside --workers 2 without
shared     --workers 2 with these limits, beside one process with them
metrics    with [metrics] in the file, beside a server that counts nothing; also the time of echoes
datagrams  datagrams through one SOCKS5 upstream, which is this server, too, beside datagrams without it
spread     how evenly the sessions fall on two workers

In each round both are started afresh, and the first one changes. The figure is the median of the rounds'
ratios, as in pair.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import load
import machine
import processes
from governed import CONFIGURATIONS
from measure import ratio_with_interval

_BALANCER = """
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen socks
    bind 127.0.0.1:{port}
    server one 127.0.0.1:{server} {options}
"""
#: Limits on sessions and on new sessions.
_LIMITS = CONFIGURATIONS["counts"][1]


@dataclass(frozen=True)
class Variant:
    """
    A way to run the server.

    :ivar options: of the server; ``{port}`` is its port.
    :ivar config: the text of its configuration file; none: there is no file.
    :ivar upstream: whether there is an upstream, whose port is ``{upstream}`` in the configuration.
    :ivar balanced: what HAProxy has on the server's line, in front of it; None: there is no HAProxy.
    """

    options: tuple[str, ...] = ("--port", "{port}")
    config: str = ""
    balanced: str | None = None
    upstream: bool = False


#: The load, and what it is made of.
_SESSIONS = (("rate", "session"),)
#: By the name of a pair that has other loads.
_LOADS = {
    "metrics": (("rate", "session"), ("rtt", "echo")),
    "datagrams": (("udp", "datagram echo"),),
}
_UPSTREAM = """
[upstreams.one]
type = "socks5"
address = "127.0.0.1:{upstream}"

[outgoing]
via = "one"
"""
_TWO = ("--port", "{port}", "--workers", "2")
#: By the name of a pair: the way that costs something, and the way to compare it with.
PAIRS = {
    "proxy": (
        Variant(("--listen", "haproxy:tcp:{port}:interface=127.0.0.1"), balanced="send-proxy-v2"),
        Variant(balanced=""),
    ),
    "workers": (Variant(_TWO), Variant()),
    "limits": (Variant(_TWO, config=_LIMITS), Variant(_TWO)),
    "shared": (Variant(_TWO, config=_LIMITS), Variant(config=_LIMITS)),
    "metrics": (Variant(config="[metrics]\n"), Variant()),
    "datagrams": (Variant(config=_UPSTREAM, upstream=True), Variant()),
}


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("what", nargs="+", choices=[*PAIRS, "spread"])
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--count", type=int, default=10_000, help="sessions of a round [%(default)s]")
    return made


def main(words: Sequence[str]) -> int:
    """Do it; the exit status."""
    options = parser().parse_args(words)
    binary = load.build()
    print(f"load average before: {machine.busy():.2f}")
    for name in options.what:
        if name == "spread":
            print(f"spread: {_spread(binary, options.count)}", flush=True)
            continue
        for load_of, thing in _LOADS.get(name, _SESSIONS):
            rounds = []
            for number in range(options.rounds):
                pair = PAIRS[name] if number % 2 else reversed(PAIRS[name])
                # An echo takes less than a session.
                count = options.count if load_of == "rate" else 20 * options.count
                found = {variant: _measure(binary, variant, count, load_of) for variant in pair}
                rounds.append(tuple(found[variant] for variant in PAIRS[name]))
            for key, unit in (("per_s", f"{thing}s/s"), ("cpu_us_per", f"µs of processor time per {thing}")):
                print(_line(name, unit, [(new[key], old[key]) for new, old in rounds]), flush=True)
    return 0


def _measure(binary: Path, variant: Variant, count: int, load_of: str = "rate") -> dict[str, float]:
    cores = machine.cores()
    with contextlib.ExitStack() as stack:
        upstream = 0
        if variant.upstream:
            upstream = stack.enter_context(_running(Variant(), core=cores.load)).port
        server = stack.enter_context(_running(variant, upstream=upstream))
        port = stack.enter_context(_balanced(variant, server))
        arguments = [load_of, "-c", "64", "-n", str(count)]
        outcome = load.run(binary, arguments, port, server.process.pid, (cores.load,))
    if outcome.problem or outcome.failed:
        raise SystemExit(outcome.problem or f"{outcome.failed} sessions failed")
    return outcome.figures


def _running(variant: Variant, *more: str, upstream: int = 0, core: int | None = None) -> processes.Server:
    """
    The server.

    :param upstream: the port of its upstream.
    :param core: the core that it has; None: the server's.
    """

    def command(port: int, directory: Path) -> Sequence[str]:
        words = [option.format(port=port) for option in (*variant.options, *more)]
        if variant.config:
            file = directory / "socks.toml"
            file.write_text(variant.config.replace("{upstream}", str(upstream)), "utf-8")
            words += ["--config", str(file)]
        return [sys.executable, "-m", "twisted", "socks", *words]

    return processes.Server(command, (machine.cores().server if core is None else core,))


@contextlib.contextmanager
def _balanced(variant: Variant, server: processes.Server) -> Iterator[int]:
    """The port for the load: HAProxy's, on the load's core, or the *server*'s own."""
    if variant.balanced is None:
        yield server.port
        return
    port = processes.free_port()
    file = server.directory / "haproxy.cfg"
    file.write_text(_BALANCER.format(port=port, server=server.port, options=variant.balanced), "utf-8")
    with subprocess.Popen(
        ["haproxy", "-db", "-f", str(file)],
        stderr=subprocess.DEVNULL,
        preexec_fn=machine.pinned((machine.cores().load,)),
    ) as balancer:
        try:
            processes.wait_for(port)
            yield port
        finally:
            balancer.kill()


def _spread(binary: Path, count: int) -> str:
    """How many sessions each of two workers has served."""
    variant = Variant(_TWO)
    with _running(variant, "--log", "access.log", "--log-format", "json") as server:
        cores = machine.cores()
        load.run(binary, ["rate", "-c", "64", "-n", str(count)], server.port, 0, (cores.load,))
        lines = (server.directory / "access.log").read_text("utf-8").splitlines()
        workers = Counter(json.loads(line)["id"].split(".")[1] for line in lines)
    shares = [served / workers.total() * len(workers) for served in workers.values()]
    return f"{dict(workers)}, shares of the mean {min(shares):.3f} to {max(shares):.3f}"


def _line(name: str, unit: str, pairs: Sequence[tuple[float, float]]) -> str:
    new, old = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = ratio_with_interval([after / before for after, before in pairs])
    return f"{name} [{unit}]: {new:.1f} beside {old:.1f}, ratio {ratio}"


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    raise SystemExit(main(sys.argv[1:]))
