"""
``socksproxy connect``: standard input and output joined to one connection through a proxy.

The handshake is Twisted's business. A plain connection then leaves the reactor, and two loops move its
bytes, with splice(2) towards a standard output that is a pipe. A connection with TLS stays with the reactor.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from ..client import errors
from ..client.proxy import Proxy
from ..twisted_internals import detach_socket
from .joining import JoinedEnd

_CHUNK = 1 << 20
_MOST_READ = 65536
#: The connection was reset.
BROKEN = 7
#: The exit status for each kind of failure; a reply of the proxy is 10 and REP of SOCKS5.
STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (errors.ProxyRefusedLogin, 4),
    (errors.NoAcceptableMethod, 4),
    (errors.ProxyProtocolError, 5),
    (errors.ProxyClosed, 5),
    (errors.ReplyTimedOut, 6),
    (errors.ProxyError, 3),
    (errors.GeneralFailure, 11),
    (errors.NotAllowed, 12),
    (errors.DestinationNameNotFound, 14),
    (errors.DestinationUnreachable, 14),
    (errors.DestinationRefused, 15),
    (errors.DestinationTimedOut, 16),
    (errors.CommandNotSupported, 17),
    (errors.AddressTypeNotSupported, 18),
)
_NETWORK_UNREACHABLE, _NETWORK_UNREACHABLE_STATUS = 3, 13


class Unwritten(OSError):
    """A write has failed."""


class NotConnected(Exception):
    """
    There is no connection; the words say why.

    :ivar status: the exit status.
    """

    def __init__(self, problem: BaseException) -> None:
        super().__init__(str(problem))
        self.status = status_of(problem)


def status_of(problem: BaseException) -> int:
    """The exit status for *problem*."""
    if isinstance(problem, errors.DestinationUnreachable) and problem.reply == _NETWORK_UNREACHABLE:
        return _NETWORK_UNREACHABLE_STATUS
    return next((status for kind, status in STATUSES if isinstance(problem, kind)), 1)


def connect(proxy: Proxy, host: str, port: int, listening: Callable[[str], None] | None = None) -> int:
    """
    Join standard input and output to *host* and *port*, until both directions are closed.

    :param listening: where the proxy is to listen for *host* (BIND): is told its address; None: connect.
    :returns: the exit status: 0, or :data:`BROKEN`.
    :raises NotConnected: when there is no connection.
    :raises Unwritten: when standard output takes no more, such as a file on a full disk.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    joining = _Joining(proxy.reactor)
    if listening is None:
        found: Deferred[Any] = proxy.connect_endpoint(host, port).connect(joining.factory)
    else:
        found = proxy.listen_endpoint(host, port).listen(joining.factory)
        found.addCallback(_accepted, listening)
    found.addCallbacks(joining.connected, joining.failed)
    joining.run()
    if joining.problem is not None:
        raise NotConnected(joining.problem)
    if joining.link is None:
        return _written(joining.early, joining.status)
    return copy_both_ways(joining.link, joining.early)


def _accepted(port: Any, listening: Callable[[str], None]) -> Deferred[Any]:
    own = port.getHost()
    listening(f"[{own.host}]:{own.port}" if ":" in own.host else f"{own.host}:{own.port}")
    accepted: Deferred[Any] = port.when_accepted()
    return accepted


class _Joining:
    """The part of the reactor."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._over = False
        self.factory: Any = Factory.forProtocol(lambda: JoinedEnd(self._lost))
        self.factory.noisy = False
        self.problem: BaseException | None = None
        self.link: Any = None
        self.early = b""
        self.status = 0

    def run(self) -> None:
        """Run the reactor until it is not needed any more."""
        if not self._over:
            self._reactor.run(installSignalHandlers=False)

    def connected(self, end: JoinedEnd) -> None:
        """The connection is there. What came with the last reply comes before the next turn."""
        self._reactor.callLater(0, self._join, end)

    def failed(self, reason: Failure) -> None:
        """There is none."""
        self.problem = reason.value
        self._stop()

    def _join(self, end: JoinedEnd) -> None:
        if end.lost is None:
            self.link = detach_socket(end.transport)
        if self.link is not None or end.lost is not None:
            self.early = end.take_early()
            self._stop()
            return
        here = JoinedEnd()
        StandardIO(here, reactor=self._reactor)
        here.join(end)

    def _lost(self, reason: Failure) -> None:
        if not reason.check(ConnectionDone):
            self.status = BROKEN
        # Standard output gets its last bytes first.
        self._reactor.callLater(0, self._stop)

    def _stop(self) -> None:
        if not self._over:
            self._over = True
            self._reactor.callWhenRunning(self._reactor.stop)


def _written(data: bytes, status: int) -> int:
    """Write the last bytes: *status*, since a reader that reads no more is no failure."""
    try:
        _write_all(1, data)
    except Unwritten as problem:
        if problem.errno != errno.EPIPE:
            raise
    return status


def copy_both_ways(link: socket.socket, early: bytes) -> int:
    """
    Move bytes between standard input and output and *link*, until both directions are closed.

    :param early: what has come from *link* already.
    :returns: the exit status.
    :raises Unwritten: when standard output takes no more.
    """
    link.setblocking(True)
    descriptor = link.fileno()
    sender = threading.Thread(target=_send, args=(link,), daemon=True)
    sender.start()
    try:
        _write_all(1, early)
        copy(descriptor, 1)
    except OSError as problem:
        if problem.errno == errno.EPIPE:  # the reader of standard output has what it wants
            return 0
        if isinstance(problem, Unwritten):
            raise
        return BROKEN
    os.close(1)
    os.open(os.devnull, os.O_WRONLY)
    sender.join()
    return 0


def _send(link: socket.socket) -> None:
    try:
        # No splice(2): it keeps the pipe locked while the socket is full, and the pipe's writer hangs.
        copy_by_reading(0, link.fileno())
        link.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the peer reads no more; whether the connection is broken shows on the other side


def copy(source: int, target: int) -> None:
    """
    Move all bytes from *source* to *target*, two descriptors that block, until *source* ends.

    :raises OSError: of the one or the other.
    """
    # splice(2) keeps the pipe locked while it waits for the socket, and the pipe's reader hangs. So it is
    # called only when there is something.
    ready = select.poll()
    ready.register(source, select.POLLIN)
    try:
        while ready.poll() and os.splice(source, target, _CHUNK):
            pass
        return
    except OSError as problem:
        if problem.errno != errno.EINVAL:  # neither is a pipe, or the kernel cannot splice it
            raise
    except AttributeError:
        pass  # another system
    copy_by_reading(source, target)


def copy_by_reading(source: int, target: int) -> None:
    """Move all bytes from *source* to *target* through this process, until *source* ends."""
    while data := os.read(source, _MOST_READ):
        _write_all(target, data)


def _write_all(target: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(target, data) :]
    except OSError as problem:
        raise Unwritten(*problem.args) from None
