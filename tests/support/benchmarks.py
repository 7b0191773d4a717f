"""The programs of ``benchmarks/``, run as one would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"

#: Seconds that a program may take here; far more than it needs.
PATIENCE = 240.0


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program, and wait."""
    return subprocess.run(
        [sys.executable, BENCHMARKS / program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
