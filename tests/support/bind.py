"""Clients that ask for BIND, and their peers."""

from __future__ import annotations

import socket
from collections.abc import Callable

from socksproxy.wire.words import Address, Command

from .proxy import PATIENCE, Proxy, ask4, ask5, reply4, reply5

Ask = Callable[..., "tuple[int, Address]"]


def bind(sock: socket.socket, version: int, host: str, port: int = 0) -> tuple[int, Address]:
    """Ask for a BIND; the first reply."""
    ask: Ask = ask4 if version == 4 else ask5
    return ask(sock, host, port, Command.BIND)


def begun(proxy: Proxy, host: str) -> tuple[socket.socket, Address]:
    """A client whose BIND waits for *host*, and where that is to connect."""
    sock = proxy.connect()
    code, address = bind(sock, 5, host)
    assert code == 0
    return sock, address


def second(sock: socket.socket, version: int) -> tuple[int, Address]:
    """The second reply."""
    return reply4(sock) if version == 4 else reply5(sock)


def meet(address: Address, source: str | None = None, port: int = 0) -> socket.socket:
    """The peer's connection to *address*, from *source*."""
    bound = None if source is None else (source, port)
    return socket.create_connection((address.host, address.port), PATIENCE, source_address=bound)


def turned_away(sock: socket.socket) -> bool:
    """Whether the connection was closed without a word."""
    with sock:
        try:
            return sock.recv(1) == b""
        except ConnectionResetError:
            return True
