"""A process whose wall clock steps."""

from __future__ import annotations

import os
from pathlib import Path

_SITE = Path(__file__).parent.parent.parent / "benchmarks" / "attacks" / "wall_clock"


class WallClock:
    """
    The wall clock of the processes that have its environment.

    :param directory: where the file of the step is.
    :ivar environment: what a process needs to have this clock.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "step"
        self._file.write_text("0".ljust(32))
        path = os.pathsep.join(filter(None, (str(_SITE), os.environ.get("PYTHONPATH"))))
        self.environment = {"PYTHONPATH": path, "WALL_CLOCK_STEP": str(self._file)}

    def step(self, seconds: int) -> None:
        """From now on the clock is *seconds* ahead of the true time."""
        # In place, because the processes have the file open.
        with self._file.open("r+b", buffering=0) as file:
            file.write(str(seconds).ljust(32).encode())
