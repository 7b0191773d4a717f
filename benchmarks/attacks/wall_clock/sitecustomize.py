"""
A wall clock that steps.

Python imports this module at its start when this directory is in ``PYTHONPATH``. From then on
:func:`time.time` adds the seconds that the file named by ``WALL_CLOCK_STEP`` holds. The
monotonic clock stays as it is, as it does when an administrator sets the time of a machine.
"""

from __future__ import annotations

import os
import time


def _step_wall_clock(path: str) -> None:
    descriptor, real = os.open(path, os.O_RDONLY), time.time

    def stepped() -> float:
        return real() + float(os.pread(descriptor, 32, 0) or 0)

    time.time = stepped


if "WALL_CLOCK_STEP" in os.environ:
    _step_wall_clock(os.environ["WALL_CLOCK_STEP"])
