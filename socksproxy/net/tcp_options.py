"""
The options of a session's TCP sockets, on both sides of the proxy and in both relays.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from struct import pack
from typing import Protocol as Shape

from ..values.timeouts import NEVER, Timeouts

#: Level, name and value, as :meth:`socket.socket.setsockopt` takes them.
SocketOption = tuple[int, int, int]

# On, with zero seconds: a socket that is closed drops its unsent data and sends a reset (socket(7)).
_NO_LINGER = pack("ii", 1, 0)

#: The greatest numbers of seconds that Linux takes.
LONGEST_KEEPALIVE = 32767
LONGEST_USER_TIMEOUT = (1 << 31) // 1000 - 1

# None where the platform has no such option.
_KEEPALIVE_IDLE: int | None = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
_KEEPALIVE_INTERVAL: int | None = getattr(socket, "TCP_KEEPINTVL", None)
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)


class HasOptions(Shape):
    """A socket, of Python's or of C's."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


def socket_options(timeouts: Timeouts) -> tuple[SocketOption, ...]:
    """
    The options of every TCP socket of a session.

    Small messages go at once. Urgent data stays in the stream (RFC 6093, section 3.3): the relay passes
    it on like all other data, and FTP's ABOR loses no byte.

    :param timeouts: how long a peer may be silent.
    """
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)]
    if timeouts.keepalive != NEVER:
        options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
        options += _where_known(_KEEPALIVE_IDLE, int(timeouts.keepalive))
        options += _where_known(_KEEPALIVE_INTERVAL, timeouts.keepalive_interval)
    if timeouts.user_timeout is not None:
        options += _where_known(_USER_TIMEOUT, 1000 * timeouts.user_timeout)
    return tuple(options)


def _where_known(name: int | None, value: int | None) -> list[SocketOption]:
    return [] if name is None or value is None else [(socket.IPPROTO_TCP, name, value)]


#: The options where nothing else is said.
SOCKET_OPTIONS = socket_options(Timeouts())


def set_options(link: HasOptions, options: Iterable[SocketOption]) -> None:
    """
    Set *options* on the TCP socket *link*.

    :raises OSError: as the system gives it.
    """
    for option in options:
        link.setsockopt(*option)


def reset_on_close(link: socket.SocketType) -> None:
    """Have the peer of *link* get a reset when *link* is closed (RFC 9293, section 3.10.5)."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
