"""The Python in the README and on the page on embedding has the types that the package says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .support.docs import DOCS, README, ROOT, blocks

pytest.importorskip("mypy")


@pytest.mark.slow
def test_types_of_examples(tmp_path: Path) -> None:
    """What a reader copies passes ``mypy --strict``; functions may go without annotations."""
    opening = ".. code-block:: python"
    # Each of the README's stands alone; those of the page go on from one another.
    texts = [*blocks(README, opening), "\n".join(blocks(DOCS / "embedding.rst", opening))]
    assert len(texts) > 1
    assert all("SOCKSFactory(" in text or "socksproxy.client" in text for text in texts)
    for number, text in enumerate(texts):
        (tmp_path / f"block_{number}.py").write_text(text, "utf-8")
    command: list[str | Path] = [sys.executable, "-m", "mypy", "--strict", "--allow-untyped-defs"]
    said = subprocess.run(
        [
            *command,
            *("--check-untyped-defs", "--allow-untyped-calls", "--config-file", ROOT / "pyproject.toml"),
            *("--cache-dir", ROOT / ".mypy_cache", *sorted(tmp_path.glob("*.py"))),  # type: ignore[list-item]
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
