"""Servers and stores of the tests in this folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.valkey import Valkey


@pytest.fixture(scope="session")
def common() -> Iterator[Valkey]:
    """A server for tests that leave it as it is; each has a site of its own."""
    with tempfile.TemporaryDirectory() as directory:
        server = Valkey(Path(directory))
        yield server
        server.stop()


@pytest.fixture
def valkey() -> Iterator[Callable[..., Valkey]]:
    """``valkey(...)``: start a :class:`Valkey` of the test's own."""
    servers: list[Valkey] = []
    with tempfile.TemporaryDirectory() as directory:

        def started(*arguments: str) -> Valkey:
            place = Path(directory) / str(len(servers))
            place.mkdir()
            servers.append(Valkey(place, *arguments))
            return servers[-1]

        yield started
        for server in servers:
            server.stop()
