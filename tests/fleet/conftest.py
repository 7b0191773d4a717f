"""The fleet of the tests in this folder."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fleet import ORIGIN, Fleet
from tests.support.origin import Origin, echo

#: For tests that take more than half a minute: nox -s long runs them.
LONG = pytest.mark.skipif("SOCKSPROXY_LONG" not in os.environ, reason="takes long: nox -s long runs it")


@contextmanager
def running(make: Callable[[Path], Fleet] = Fleet) -> Iterator[Fleet]:
    """The fleet that *make* starts in a directory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    with tempfile.TemporaryDirectory() as directory:
        fleet = make(Path(directory))
        try:
            yield fleet
        finally:
            fleet.stop()


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with running() as fleet:
        yield fleet


@pytest.fixture
def origin(fleet: Fleet) -> Iterator[Origin]:
    with fleet.inside("origin"):
        origin = Origin(echo, ORIGIN)
    with origin:
        yield origin


def told(what: str, value: object) -> None:
    """Print a figure, for ``pytest -s``."""
    print(f"\n{what}: {value}", flush=True)
