"""The README and the pages of the documentation, as text."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.rst"
TEXTS = [README, *sorted(DOCS.glob("*.rst"))]


def blocks(path: Path, opening: str) -> list[str]:
    """The indented blocks of *path* that follow *opening*, also those within tabs."""
    pattern = rf"^( *){re.escape(opening)}\n\n((?:\1    .*\n|\n)+)"
    found = re.findall(pattern, path.read_text("utf-8"), re.MULTILINE)
    return [textwrap.dedent(block).strip("\n") + "\n" for _, block in found]


def table(path: Path, heading: str) -> list[str]:
    """The first column of the list-table of *path* with the *heading*."""
    text = path.read_text("utf-8")
    rows = text[text.index(f"   * - {heading}\n") :].split("\n\n")[0]
    return [row.strip("` ") for row in re.findall(r"^   \* - (.*)$", rows, re.MULTILINE)[1:]]
