"""What the tests of ``socksproxy ctl`` share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.ctl import Operator
from ..support.nodes import FakeNode


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Operator:
    """An operator whose server has its admin socket at ``admin``."""
    return Operator(capsys, tmp_path / "admin")


@pytest.fixture
def two() -> Iterator[FakeNode]:
    """Another node, which is called n2."""
    with FakeNode("n2") as node:
        yield node
