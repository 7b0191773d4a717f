"""What a busy machine, and coverage, may do to a measurement."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

_Measured = TypeVar("_Measured")

#: How often is measured at the most.
_TRIES = 8
#: How many times the processor's time of Python code may be its own while coverage counts lines.
_COVERED = 4


def steady(measure: Callable[[], _Measured], fits: Callable[[_Measured], object]) -> None:
    """
    See that what *measure* returns *fits*, the first time or a later time.

    A busy machine stops now and then who measures, or what is measured, for a part of the time.
    """
    measured = []
    for _ in range(_TRIES):
        measured.append(measure())
        if fits(measured[-1]):
            return
    raise AssertionError(f"none of these fits: {measured}")


def processor_seconds(most: float) -> float:
    """*most* seconds of the processor's time, or what they become while coverage counts lines."""
    coverage = sys.modules.get("coverage")
    return most * (_COVERED if coverage is not None and coverage.Coverage.current() is not None else 1)
