"""Where things are."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
#: What is built here, and what has been measured; git ignores it.
BUILD = ROOT / "build" / "benchmarks"
DOCS = ROOT / "docs"
