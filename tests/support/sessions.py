"""Sessions that are looked at from inside, and clients of theirs."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from socksproxy.session.parts import Phase
from socksproxy.session.session import Session

from .proxy import Proxy, ask5, echoes


def connected(proxy: Proxy, port: int, host: str = "127.0.0.1") -> socket.socket:
    """A client's connection through the proxy."""
    sock = proxy.connect()
    assert ask5(sock, host, port)[0] == 0
    echoes(sock)
    return sock


def refused(proxy: Proxy, port: int) -> int:
    with proxy.connect() as sock:
        return ask5(sock, "127.0.0.1", port)[0]


def ends(sock: socket.socket) -> bool:
    """Whether the proxy has closed it, sooner or later."""
    with suppress(ConnectionResetError):
        return sock.recv(1) == b""
    return True


def the_session(proxy: Proxy) -> Session:
    """The only one there is."""
    (session,) = proxy.sessions.live
    return session


def in_phase(proxy: Proxy, phase: Phase) -> Callable[[], bool]:
    return lambda: len(proxy.sessions.live) == 1 and the_session(proxy).phase is phase


class Stuck:
    """A destination whose queue is full: connecting to it takes for ever."""

    def __init__(self) -> None:
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))
        self.listening.listen(0)
        self.port: int = self.listening.getsockname()[1]
        self._waiting: list[socket.socket] = []

    def __enter__(self) -> Stuck:
        while True:
            sock = socket.socket()
            sock.settimeout(0.05)  # one that is accepted is accepted at once
            self._waiting.append(sock)
            try:
                sock.connect(("127.0.0.1", self.port))
            except TimeoutError:
                return self

    def __exit__(self, *_: object) -> None:
        for sock in (self.listening, *self._waiting):
            sock.close()
