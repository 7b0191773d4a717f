"""The options of TCP sockets: see :mod:`socksproxy.net.tcp_options`."""

from __future__ import annotations

import socket
import sys

import pytest

from socksproxy.net.tcp_options import SOCKET_OPTIONS, reset_on_close, set_options, socket_options
from socksproxy.values.timeouts import Timeouts


def test_the_system_takes_them() -> None:
    with socket.socket() as link:
        set_options(link, SOCKET_OPTIONS)
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems lack options, or call them otherwise")
def test_keepalive_and_user_timeout() -> None:
    with socket.socket() as link:
        set_options(link, socket_options(Timeouts(keepalive=7, keepalive_interval=3, user_timeout=9)))
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 3
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 9000


def test_reset_on_close() -> None:
    """The peer gets a reset."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as peer,
    ):
        link, _ = server.accept()
        reset_on_close(link)
        link.close()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
