#!/usr/bin/env python3
"""
Measure two checkouts of this server beside each other: what a change costs.

    python benchmarks/pair.py ../before . --figures rate64cpu,rtt64cpu,udp64cpu,idle --rounds 9
    python benchmarks/pair.py ../before . -- --config governed.toml

In each round both are started afresh, and the first one changes. The figure is the median of the
rounds' ratios NEW / OLD, with an interval that holds the true median with a probability of at least 95 %
(of the sorted ratios, by the binomial distribution). What stands behind ``--`` goes to both servers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import load
import machine
import processes
from figures import FIGURES, Figure, Run
from measure import ratio_with_interval

_BY_NAME = {figure.name: figure for figure in FIGURES} | {
    "rtt64cpu": Figure(
        "rtt64cpu", "Processor time of one echo", "µs", Run("rtt", 64, 300_000), "cpu_us_per", False
    )
}
_TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("old", type=Path, help="a checkout")
    made.add_argument("new", type=Path, help="another one")
    made.add_argument("--figures", default="rate64cpu,rtt64cpu,udp64cpu,idle", metavar="A,B")
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--scale", type=float, default=0.5)
    made.add_argument("options", nargs="*", help="of both servers")
    return made


def main(words: Sequence[str]) -> int:
    """Do it; the exit status."""
    # By itself argparse takes what stands behind "--" only next to the other positional arguments.
    own = words.index("--") if "--" in words else len(words)
    arguments = parser().parse_args(words[:own])
    arguments.options += words[own + 1 :]
    unknown = [name for name in arguments.figures.split(",") if name not in _BY_NAME]
    if unknown:
        print(f"{', '.join(unknown)}: not one of {', '.join(_BY_NAME)}", file=sys.stderr)
        return 2
    binary = load.build()
    print(f"load average before: {machine.busy():.2f}")
    for figure in map(_BY_NAME.__getitem__, arguments.figures.split(",")):
        pairs = []
        for number in range(arguments.rounds):
            trees = [arguments.old, arguments.new]
            values = {
                tree: _measure(binary, tree.resolve(), figure, arguments)
                for tree in (trees if number % 2 else reversed(trees))
            }
            if None not in values.values():
                pairs.append((values[arguments.old] or 0.0, values[arguments.new] or 0.0))
        print(_line(figure, pairs), flush=True)
    return 0


def _measure(binary: Path, tree: Path, figure: Figure, arguments: argparse.Namespace) -> float | None:
    run, cores = figure.run, machine.cores()

    def command(port: int, directory: Path) -> Sequence[str]:
        words = [*run.own(directory), *(option.format(directory=directory) for option in arguments.options)]
        # Before what may be installed: an editable install finds one checkout only.
        code = f"import sys; sys.path.insert(0, {str(tree)!r}); {_TWISTD}"
        return [sys.executable, "-c", code, "-n", "socks", "--port", str(port), *words]

    with processes.Server(command, (cores.server,)) as server:
        outcome = load.run(
            binary, run.arguments(arguments.scale, False), server.port, server.process.pid, (cores.load,)
        )
    if outcome.problem or outcome.failed:
        print(f"{figure.name}: {outcome.problem or f'{outcome.failed} failed'}", file=sys.stderr)
        return None
    return outcome.figures.get(figure.key)


def _line(figure: Figure, pairs: Sequence[tuple[float, float]]) -> str:
    if not pairs:
        return f"{figure.name:>10}: nothing was measured"
    old, new = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = ratio_with_interval([after / before for before, after in pairs])
    return f"{figure.name:>10} [{figure.unit}]: {old:.2f} -> {new:.2f}, ratio {ratio}"


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    raise SystemExit(main(sys.argv[1:]))
