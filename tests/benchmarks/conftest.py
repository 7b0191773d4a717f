"""What the tests of ``benchmarks/`` share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import load

from ..support.programs import require

if sys.platform != "linux":
    collect_ignore_glob = ["*"]


@pytest.fixture(scope="session")
def generator() -> Path:
    """The load generator, compiled."""
    require("cc")
    return load.build()
