"""Prints what the checks found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from .check import Result
from .outcome import CheckOutcome
from .speed import Figure

#: Columns of a check's id.
ID_WIDTH = 32


def rows(result: Result) -> Iterator[str]:
    """The lines of a table for *result*: the verdict, what was expected and, where it was not met, found."""
    check = result.check
    told = f"  ({result.found})" if result.found and result.verdict is CheckOutcome.PASS else ""
    yield f"{result.verdict.value:<10}  {check.id:<{ID_WIDTH}}  {check.expected}{told}"
    if result.verdict is not CheckOutcome.PASS:
        yield f"{'':<10}  {'':<{ID_WIDTH}}  {result.found} [{check.source}]"


def figures_in_lines(figures: Sequence[Figure]) -> Iterator[str]:
    """A line for each of *figures*."""
    for figure in figures:
        value = "not measured" if figure.value is None else f"{figure.value:.4g} {figure.unit}"
        yield f"{'figure':<10}  {value:<{ID_WIDTH}}  {figure.name}"


def summary(results: Sequence[Result]) -> str:
    """How many there are of each verdict."""
    counts = Counter(result.verdict for result in results)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in CheckOutcome)


def as_json(server: str, results: Sequence[Result], figures: Sequence[Figure]) -> str:
    """All of it for programs: one JSON object."""
    return json.dumps(
        {
            "server": server,
            "checks": [
                {
                    "id": result.check.id,
                    "verdict": result.verdict.value,
                    "expected": result.check.expected,
                    "found": result.found,
                    "source": result.check.source,
                }
                for result in results
            ],
            "figures": [figure._asdict() for figure in figures],
        },
        indent=2,
    )
