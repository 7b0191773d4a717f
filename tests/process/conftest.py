"""What the tests of whole processes share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ends at the end of the test what is entered into it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def directory(stack: ExitStack) -> Path:
    """A directory whose path is short enough for Unix sockets."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory()))
