"""The results in reStructuredText."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from figures import Figure
from measure import Results, Sample
from peers import OURS, Peer

HEADER = ".. Written by benchmarks/; changes here are lost.\n"


class Comparison(NamedTuple):
    """
    How many times as good this server is as another.

    :ivar than: the other's name.
    :ivar times: above 1 is better, whether the figure is to be high or low.
    """

    than: str
    times: float


def number(value: float) -> str:
    """With as many digits as are worth reading."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def listing(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A ``list-table``; a cell may have several lines."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", "   :stub-columns: 1", ""]
    for row in (header, *rows):
        for position, cell in enumerate(row):
            opening = "   * - " if position == 0 else "     - "
            first, *others = cell.split("\n")
            lines.append((opening + first).rstrip())
            lines += [" " * len(opening) + other for other in others]
    return "\n".join(lines) + "\n"


def fields(facts: Mapping[str, str]) -> str:
    """A field list."""
    return "".join(f":{name}: {text}\n" for name, text in facts.items())


def comparisons(figure: Figure, results: Results, peers: Sequence[Peer]) -> list[Comparison]:
    """This server beside each of *peers* that has the figure, the best of them first."""
    mine = _median(results, figure.name, OURS)
    if not mine:
        return []
    found = []
    for peer in peers:
        theirs = _median(results, figure.name, peer.name)
        if theirs and not peer.is_ours:
            times = mine / theirs if figure.more_is_better else theirs / mine
            found.append(Comparison(peer.name, times))
    return sorted(found, key=lambda comparison: comparison.times)


def document(
    facts: Mapping[str, str],
    figures: Sequence[Figure],
    results: Results,
    servers: Sequence[Peer],
    pictures: Mapping[str, str],
) -> str:
    """
    All of the results, to be included.

    :param facts: about the machine and the servers.
    :param pictures: the files of the pictures, by what they show.
    """
    parts = [HEADER, fields(facts)]
    shared = [figure for figure in figures if not figure.run.only_ours]
    alone = [figure for figure in figures if figure.run.only_ours]
    if shared:
        parts += [_table(shared, results, servers), _legend(shared)]
        notes = _notes(shared, results, servers)
        parts += [notes] if notes else []
        against = _against(shared, results, servers)
        parts += [against] if against else []
    if alone or any(figure.beside for figure in figures):
        parts.append(_beside(figures, alone, results))
    for shows, file in pictures.items():
        parts.append(f".. image:: {file}\n   :alt: {shows}\n")
    return "\n".join(parts)


def _median(results: Results, figure: str, server: str) -> float | None:
    sample = results.get((figure, server))
    return sample.median if sample else None


def _cell(sample: Sample | None) -> str:
    """The median, the spread, and what failed."""
    if sample is None or sample.median is None:
        return "n/a"
    lines = [f"**{number(sample.median)}**"]
    if len(sample.values) > 1:
        lines.append(f"{number(min(sample.values))} … {number(max(sample.values))}")
    if sample.failed:
        lines.append(f"{sample.failed:,} failed")
    return "\n".join(f"| {line}" for line in lines)


def _titled(figure: Figure) -> str:
    return f"{figure.title} ({figure.unit})"


def _table(figures: Sequence[Figure], results: Results, servers: Sequence[Peer]) -> str:
    rows = [
        [_titled(figure), *(_cell(results.get((figure.name, server.name))) for server in servers)]
        for figure in figures
    ]
    return listing("Side by side", ["", *(server.name for server in servers)], rows)


def _legend(figures: Sequence[Figure]) -> str:
    text = "The median, and below it the lowest and the highest of the rounds."
    low = [figure.title for figure in figures if not figure.more_is_better]
    return f"{text} Less is better for: {'; '.join(low)}.\n" if low else f"{text}\n"


def _notes(figures: Sequence[Figure], results: Results, servers: Sequence[Peer]) -> str:
    """Why figures are missing, each reason once."""
    reasons: dict[tuple[str, str], str] = {}
    for figure in figures:
        for server in servers:
            sample = results.get((figure.name, server.name))
            if sample is not None and sample.median is None and sample.problem:
                reasons.setdefault((server.name, figure.run.label), sample.problem)
    lines = [f"* {server}, {run}: {reason}.\n" for (server, run), reason in reasons.items()]
    return "Not measured:\n\n" + "".join(lines) if lines else ""


def _against(figures: Sequence[Figure], results: Results, servers: Sequence[Peer]) -> str:
    rows = []
    for figure in figures:
        found = comparisons(figure, results, servers)
        if found:
            others = ", ".join(f"{times:.2f} times {than}" for than, times in found[1:])
            rows.append([figure.title, f"{found[0].times:.2f} times {found[0].than}", others])
    if not rows:
        return ""
    title = f"How many times as good {OURS} is (above 1: better)"
    return listing(title, ["", "the best of the others", "the rest"], rows)


def _beside(figures: Sequence[Figure], alone: Sequence[Figure], results: Results) -> str:
    """What this server pays for something more."""
    titles = {figure.name: figure.title for figure in figures}
    shown = [figure for figure in figures if figure in alone or figure.beside]
    rows = []
    for figure in shown:
        sample = results.get((figure.name, OURS), Sample())
        other = figure.beside or ""
        times = sample.beside(results.get((other, OURS), Sample()))
        ratio = f"{times} times {titles.get(other, other)}" if times else ""
        rows.append([_titled(figure), _cell(sample) if sample.median else sample.problem or "n/a", ratio])
    return listing(f"{OURS} with more to do, or more to do it with", ["", OURS, ""], rows)
