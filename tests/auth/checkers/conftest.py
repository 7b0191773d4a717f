"""Fixtures of the tests of checkers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ...support.users_files import Watched


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A file with Bob, whose password is ``secret``."""
    from ...support.users_files import Watched  # needs passlib, which other checkers do without

    return Watched(tmp_path / "users")
