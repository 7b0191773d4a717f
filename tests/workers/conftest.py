"""What tests of workers as processes share."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ..support.origin import Origin, echo


@pytest.fixture
def origin() -> Iterator[Origin]:
    """What sends back what comes."""
    with Origin(echo) as server:
        yield server


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    """Sessions that are closed after the test."""
    opened: list[socket.socket] = []
    yield opened
    for client in opened:
        client.close()
