"""Where things are."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
#: What is built here, and what has been measured; git ignores it.
BUILD = ROOT / "build" / "benchmarks"
DOCS = ROOT / "docs"

#: The Unix socket of a server in its own directory, on which a balancer reaches it.
SOCKET = "balanced.sock"
