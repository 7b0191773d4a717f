"""
A connection that is being made, in the relay engine.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from socket import SO_ERROR, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, SocketType
from typing import Any, Protocol as Shape

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from ..net.sockets import NewSocket
from ..net.tcp_options import SocketOption
from ..values.outgoing import free_bind
from .epoll_events import BROKEN, READABLE

#: The outcome of an attempt that goes on.
_OPEN = object()

_STREAM = int(SOCK_STREAM | SOCK_NONBLOCK)
#: Linux: bind the address now, choose the port when connecting (24, or None where there is no such thing).
_BIND_ADDRESS_NO_PORT = 24


class AttemptEngine(Shape):
    """What an attempt needs of the engine."""

    def register(self, fd: int, handler: Attempt) -> None: ...

    def drop(self, fd: int) -> None: ...


def itself(link: SocketType) -> SocketType:
    """The socket, for a caller who makes nothing else of it."""
    return link


class Attempt:
    """
    Connects a stream socket, and calls who waits for it: what a Deferred does for one callback, faster.

    The attempt ends with what *made* returns; the socket is non-blocking and registered for everything. The
    caller drops the socket from the engine before it closes it. Or the attempt ends with the failure of an
    :class:`OSError` as the system gives it, or of what *made* raises, and then the socket is closed.

    :param engine: tells of the socket's events.
    :param sockaddr: a literal address and a port.
    :param family: ``AF_INET`` or ``AF_INET6``.
    :param source: the address (and port, or 0) to connect from; None: the system chooses.
    :param options: what the socket is told.
    :param made: what the caller makes of the connected socket.
    :param new_socket: makes the socket, of a family and a type.
    :ivar link: the socket; None: the attempt has ended.
    :ivar missed: events that are not used up, for the relay that takes the socket over.
    """

    __slots__ = ("_engine", "_made", "_outcome", "_then", "link", "missed")

    def __init__(
        self,
        engine: AttemptEngine,
        sockaddr: tuple[str, int],
        family: int,
        source: tuple[str, int] | None,
        options: Iterable[SocketOption],
        made: Callable[[SocketType], Any],
        new_socket: NewSocket,
    ) -> None:
        self._engine = engine
        self._made = made
        self._outcome: Any = _OPEN
        self._then: tuple[Any, ...] | None = None
        self.link: SocketType | None = None
        self.missed = 0
        try:
            self.link = link = new_socket(family, _STREAM)
            for option in options:
                link.setsockopt(*option)
            if source is not None:
                _bind(link, source)
            number = link.connect_ex(sockaddr)
            if number and number != errno.EINPROGRESS:
                raise OSError(number, os.strerror(number))
            engine.register(link.fileno(), self)
        except OSError as problem:
            self.fail(problem)
            return
        if not number:
            self.event(0)

    def addBoth(self, then: Callable[..., Any], *arguments: Any) -> None:
        """Call *then* once, with the result or a Failure, and with *arguments*."""
        if self._outcome is _OPEN:
            self._then = (then, *arguments)
        else:
            then(self._outcome, *arguments)

    def event(self, mask: int) -> None:
        """The attempt has come to an end, or its socket waits for a relay."""
        self.missed |= mask & READABLE
        link = self.link
        if link is None:
            return
        try:
            number = link.getsockopt(SOL_SOCKET, SO_ERROR) if mask & BROKEN else 0
            if number:
                raise OSError(number, os.strerror(number))
            result = self._made(link)
        except Exception as problem:
            self.fail(problem)
        else:
            self.link = None
            self._end(result)

    def fail(self, problem: Exception) -> None:
        """End with *problem*."""
        self.cancel()
        self._end(Failure(problem))

    def abort(self) -> None:
        """The engine closes: the connection is not wanted any more."""
        if self.link is not None:
            self.fail(CancelledError())

    def cancel(self) -> None:
        """Close the socket. Nothing is called any more."""
        link, self.link = self.link, None
        if link is not None:
            self._engine.drop(link.fileno())
            link.close()

    def _end(self, outcome: Any) -> None:
        self._outcome = outcome
        if self._then is not None:
            then, *arguments = self._then
            self._then = None
            then(outcome, *arguments)


def _bind(link: SocketType, source: tuple[str, int]) -> None:
    if not source[1]:
        # Without it, on an old kernel, the port is chosen now, and there are fewer of them.
        with suppress(OSError):
            link.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
    free_bind(link, source[0])
    link.bind(source)
