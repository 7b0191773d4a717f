#!/usr/bin/env python3
"""
Measure this server beside every peer on the machine, and write what comes of it into the documentation.

    python benchmarks/compare.py
    python benchmarks/compare.py --modes rate64,rtt64 --rounds 1 --scale 0.1 --peers microsocks --output /tmp

README.rst says what each figure means.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import figures
import load
import machine
import peers
import plot
import report
import syscalls
from figures import Figure
from measure import Measurement, Results, Sample
from paths import DOCS
from peers import Peer

RESULTS = "performance-results.rst"
SYSCALLS = "performance-syscalls.rst"

#: A mode that brings no figures of socksload's.
CONNECTIONS = "connections"

_CHARTS = {
    "connections": "New connections",
    "echoes": "Echoes",
    "bulk": "Bulk data",
    "memory": "Memory of idle sessions",
    "udp": "UDP",
}


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = [figure.name for figure in figures.FIGURES]
    made.add_argument(
        "--modes",
        metavar="A,B",
        help=f"what to measure, of {', '.join([*names, *figures.GROUPS, CONNECTIONS])} [all of it]",
    )
    made.add_argument(
        "--peers", metavar="A,B", help=f"of {', '.join(peers.NAMES)}, or none [those that are here]"
    )
    made.add_argument(
        "--peer",
        metavar="NAME=BINARY",
        action="append",
        default=[],
        help="where a peer is; repeatable [on PATH]",
    )
    made.add_argument(
        "--rounds", type=_positive, default=5, help="of which the median is taken [%(default)s]"
    )
    made.add_argument("--scale", type=float, default=1.0, help="how much of each run to do [%(default)s]")
    made.add_argument("--sessions", type=_positive, default=1000, help=f"of {CONNECTIONS} [%(default)s]")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there too")
    made.add_argument("--output", type=Path, default=DOCS, help="the directory for the results [docs]")
    return made


def main(words: Sequence[str]) -> int:
    """Do it; the exit status."""
    options = parser().parse_args(words)
    command = shlex.join(["python", "benchmarks/compare.py", *words])
    try:
        wanted, connections = _modes(options.modes)
        found, missing = peers.find(options.peer, _names(options.peers))
        binary = load.build()
    except (ValueError, load.NoCompiler) as problem:
        print(problem, file=sys.stderr)
        return 2
    for line in missing:
        print(line, file=sys.stderr)
    servers = [peers.ours(), *found]
    options.output.mkdir(parents=True, exist_ok=True)
    facts = _facts(command, servers)
    if wanted and not _compare(binary, servers, wanted, options, facts):
        return 1
    if connections:
        _count_calls(binary, servers, options, facts)
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [] if text == "none" else text.split(",")


def _modes(text: str | None) -> tuple[list[Figure], bool]:
    """The figures, and whether system calls are counted too."""
    if text is None:
        return list(figures.FIGURES), True
    names = text.split(",")
    return figures.named([name for name in names if name != CONNECTIONS]), CONNECTIONS in names


def _facts(command: str, servers: Sequence[Peer]) -> dict[str, str]:
    cores = machine.cores()
    one = "" if cores.server != cores.load else ": the same one, so figures are not worth much"
    return {
        "Date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
        "Command": f"``{command}``",
        **machine.facts(),
        "Pinned": f"servers to core {cores.server}, the load to core {cores.load}{one}",
        "Load before": f"{machine.busy():.2f}",
        "Servers": "; ".join(f"{server.name} {server.version}" for server in servers),
    }


def _compare(
    binary: Path,
    servers: Sequence[Peer],
    wanted: Sequence[Figure],
    options: argparse.Namespace,
    facts: Mapping[str, str],
) -> bool:
    """Measure, and write the results; whether there are any."""
    measurement = Measurement(binary, servers, wanted, machine.cores(), options.rounds, options.scale)
    try:
        measurement.run()
    except KeyboardInterrupt:
        print("interrupted: what is known so far is written", file=sys.stderr)
    if not any(sample.values for sample in measurement.results.values()):
        print("nothing was measured", file=sys.stderr)
        return False
    scale = "" if options.scale == 1 else f", each with {options.scale:g} of the usual amount"
    facts = {**facts, "Rounds": f"{measurement.complete}{scale}", "Noise": _noise(measurement.results)}
    pictures = _draw(wanted, measurement.results, servers, options.output)
    text = report.document(facts, wanted, measurement.results, servers, pictures)
    _write(options.output / RESULTS, text)
    if options.json is not None:
        _write(options.json, _json(facts, measurement.results))
    print(facts["Noise"])
    for figure in wanted:
        print(_line(figure, measurement.results, servers))
    return True


def _noise(results: Results) -> str:
    """How loud the machine was while it was measured."""
    heard = [noise for sample in results.values() for noise in sample.noise]
    load, stolen = max(noise.load for noise in heard), max(noise.stolen for noise in heard)
    return f"load average up to {load:.2f}, up to {stolen:.1%} of the processor time stolen"


def _draw(
    wanted: Sequence[Figure], results: Results, servers: Sequence[Peer], output: Path
) -> dict[str, str]:
    """Write the pictures; their files by what they show."""
    files = {}
    for chart, title in _CHARTS.items():
        panels = [_panel(figure, results, servers) for figure in wanted if figure.chart == chart]
        panels = [panel for panel in panels if panel.bars]
        if panels:
            files[title] = f"performance-{chart}.svg"
            _write(output / files[title], plot.draw(panels))
    return files


def _panel(figure: Figure, results: Results, servers: Sequence[Peer]) -> plot.Panel:
    bars = []
    for server in servers:
        sample = results.get((figure.name, server.name))
        if sample is not None and sample.median is not None:
            low, high = min(sample.values), max(sample.values)
            bars.append(plot.Bar(server.name, sample.median, low, high, sample.failed, server.is_ours))
    bars.sort(key=lambda bar: bar.value, reverse=figure.more_is_better)
    better = "more" if figure.more_is_better else "less"
    return plot.Panel(figure.title, f"{figure.unit}; {better} is better", bars)


def _line(figure: Figure, results: Results, servers: Sequence[Peer]) -> str:
    """A figure in one line, for the terminal."""
    words = []
    for server in servers:
        sample = results.get((figure.name, server.name))
        if sample is None:
            continue
        failed = f" ({sample.failed} failed)" if sample.failed else ""
        shown = report.number(sample.median) if sample.median is not None else f"none ({sample.problem})"
        words.append(f"{server.name} {shown}{failed}")
        ratio = sample.beside(results.get((figure.beside or "", server.name), Sample()))
        if ratio is not None:
            words.append(f"times {figure.beside}: {ratio}")
    return f"{figure.name:>11} [{figure.unit}]: {', '.join(words)}"


def _json(facts: Mapping[str, str], results: Results) -> str:
    samples = {
        f"{figure}, {server}": {"values": sample.values, "failed": sample.failed, "problem": sample.problem}
        for (figure, server), sample in results.items()
    }
    return json.dumps({"facts": dict(facts), "samples": samples}, indent=1) + "\n"


def _count_calls(
    binary: Path, servers: Sequence[Peer], options: argparse.Namespace, facts: Mapping[str, str]
) -> None:
    """Count the system calls of one session, before and after there was the engine."""
    columns = {}
    candidates = {name: (syscalls.own_server(name), False) for name in (syscalls.BEFORE, syscalls.AFTER)}
    candidates |= {peer.name: (syscalls.of_peer(peer), peer.socks4) for peer in servers if not peer.is_ours}
    for name, (command, socks4) in candidates.items():
        print(f"counting system calls: {name}", file=sys.stderr)
        try:
            columns[name] = syscalls.count(binary, command, options.sessions, machine.cores(), socks4)
        except syscalls.NoTracer as problem:
            print(f"{name}: {problem}", file=sys.stderr)
    if not columns:
        return
    about = (
        f"Counted with ``strace -c`` over {options.sessions:,} sessions, one after the other: connect, "
        f"negotiate, CONNECT, an echo of 64 bytes, close. {facts['Kernel']}, {servers[0].version}."
    )
    _write(options.output / SYSCALLS, syscalls.document(columns, about))
    for name, counts in columns.items():
        print(f"{name}: {sum(counts.values()):.1f} system calls per session")


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
