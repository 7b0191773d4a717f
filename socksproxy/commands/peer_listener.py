"""
Listening for one connection: what BIND waits for.

A port of Twisted's writes two lines to the log for each time that it opens, and
cannot close the one that it does not want before it has made a protocol. So this
is a plain socket that the reactor watches. The relay takes the connection as it
needs it: a socket for the relay engine, or a Twisted transport.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from socket import SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, SocketType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import SHORTAGES
from ..logs.throttle import complain
from ..net.dial import Destination, Dialed, adopted
from ..net.names import unmapped
from ..net.sockets import NewSocket
from ..net.tcp_options import SocketOption, set_options
from ..relay.epoll_events import READABLE
from ..values.outgoing import free_bind
from ..wire.words import Address

_log = Logger(namespace="socksproxy")

#: Connections that wait to be accepted; one of them is the peer's.
_BACKLOG = 16
#: How many are looked at in one turn of the reactor, so that others have theirs.
_BUDGET = 16

#: Makes of an accepted socket, non-blocking, what the relay takes.
Take = Callable[[SocketType], "SocketType | Destination"]


def listening_socket(host: str, port: int, new_socket: NewSocket | None = None) -> socket.socket:
    """
    A socket that listens on the literal address *host*, or a wildcard, and on *port* (0: any).

    :param new_socket: makes the socket; None: it is like all others.
    :raises OSError: as the system gives it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = None if new_socket is None else new_socket(family, SOCK_STREAM).detach()
    listening = socket.socket(family, SOCK_STREAM, fileno=made)
    try:
        listening.setblocking(False)
        # The port's last connection may not be forgotten yet, and a range has few.
        listening.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        free_bind(listening, host)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


@implementer(IReadDescriptor)
class PeerListener:
    """
    Waits for one connection, from a peer that *admits* accepts. Other connections are closed at once.

    :param reactor: watches the socket; one with :class:`twisted.internet.interfaces.IReactorFDSet`.
    :param listening: the socket; it is closed when the peer has come, or when the wait is over.
    :param admits: whether the peer with this address is the one.
    :param take: makes of the connection what the relay takes.
    :ivar accepted: fires with the connection, :attr:`~socksproxy.net.dial.Dialed.reached` being the
        peer's address; cancelling it closes the listener.
    :ivar port: where it listens.
    """

    def __init__(
        self, reactor: Any, listening: socket.socket, admits: Callable[[Address], bool], take: Take
    ) -> None:
        self._reactor = reactor
        self._listening: socket.socket | None = listening
        self._admits = admits
        self._take = take
        self.port: int = listening.getsockname()[1]
        self.accepted: Deferred[Dialed] = Deferred(lambda _: self._close())
        reactor.addReader(self)

    # What the reactor asks.

    def fileno(self) -> int:
        """See :meth:`twisted.internet.interfaces.IFileDescriptor.fileno`."""
        return -1 if self._listening is None else self._listening.fileno()

    def logPrefix(self) -> str:
        """See :meth:`twisted.internet.interfaces.ILoggingContext.logPrefix`."""
        return "bind"

    def connectionLost(self, reason: object) -> None:
        """The reactor stops, or the socket is broken."""
        self.accepted.cancel()

    def doRead(self) -> None:
        """There are connections to accept."""
        for _ in range(_BUDGET):
            if self._listening is None:
                return
            try:
                accepted, sockaddr = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno in SHORTAGES:
                    self._close()
                    self.accepted.errback(problem)
                    return
                continue  # it went away in the queue
            peer = _address(sockaddr)
            try:
                admitted = self._admits(peer)
            except Exception:
                # A fault of ours: it costs one connection, and the peer may yet come.
                complain(_log, "a peer of a BIND cannot be judged; its connection is closed")
                admitted = False
            if admitted:
                self._accept(accepted, peer)
            else:
                accepted.close()

    def _accept(self, accepted: socket.socket, peer: Address) -> None:
        self._close()
        open: socket.socket | SocketType = accepted
        try:
            own = _address(accepted.getsockname())
            open = link = SocketType(accepted.family, SOCK_STREAM, 0, accepted.detach())
            link.setblocking(False)
            taken = self._take(link)
        except Exception as problem:
            open.close()
            self.accepted.errback(problem)
            return
        self.accepted.callback(Dialed(taken, peer, own))

    def _close(self) -> None:
        listening = self._listening
        if listening is not None:
            self._reactor.removeReader(self)
            self._listening = None
            listening.close()


def for_engine(engine: Callable[[], Any], options: Sequence[SocketOption]) -> Take:
    """
    What the relay over an engine takes: the socket, registered.

    :param engine: gives the present one.
    :param options: what sockets are told.
    """

    def take(link: SocketType) -> SocketType:
        set_options(link, options)
        engine().register(link.fileno(), _Waiting())
        return link

    return take


def for_transports(reactor: Any, options: Sequence[SocketOption]) -> Take:
    """What the relay over transports takes: the protocol of a transport. Sockets are told *options*."""

    def take(link: SocketType) -> Destination:
        set_options(link, options)
        return adopted(reactor, link)

    return take


class _Waiting:
    """Keeps what happens on a socket until the relay takes it over."""

    missed = 0

    def event(self, mask: int) -> None:
        """Something happened."""
        self.missed |= mask & READABLE

    def abort(self) -> None:
        """Nothing to do: the session that waits for the socket closes it."""


def _address(sockaddr: Any) -> Address:
    return unmapped(sockaddr[0].partition("%")[0], sockaddr[1])
