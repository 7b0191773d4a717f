"""One connection of a check."""

from __future__ import annotations

import contextlib
import socket

import pytest

from socksproxy.probe.link import Link
from socksproxy.probe.outcome import Failed

from ..support.origin import Origin


def test_end_that_never_comes() -> None:
    """A server that sends for ever does not fill the memory until the time is over."""

    def flood(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(bytes(65536))

    with (
        Origin(flood) as server,
        Link(socket.create_connection(("127.0.0.1", server.port)), 10) as link,
        pytest.raises(Failed, match=r"^the server sent \d{7} bytes where the end"),
    ):
        link.wait_for_end()
