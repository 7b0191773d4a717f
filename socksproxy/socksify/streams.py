"""
``connect`` on a TCP socket of a program, and Fast Open.

The program's own socket is connected, to the proxy or directly, and the handshake runs on it; then the call
returns and the socket is the program's again. Nothing remains between the program and the proxy.

A socket that does not block gets its result from the call, too: as soon as it were connected to the proxy
it would be writable, and the program would write into the handshake. So a call through the proxy never says
EINPROGRESS; a direct one does.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import F_GETFL, F_SETFL, fcntl
from typing import Any

from twisted.logger import Logger

from ..client.connecting import Conversation
from ..client.errors import InvalidDestination
from ..client.handshake import HandshakeFailed
from ..logs.throttle import LogThrottle
from ..wire.words import Address
from . import kernel, sockaddr
from .call import SO_COOKIE, Call, CallResult, is_close_on_exec
from .replies import errno_for
from .upstream import RunProxy
from .waiting import LOOK, RESTART, signals_for
from .ways import Bypass, Ways

MSG_FASTOPEN = 0x20000000
#: Sockets whose destination is remembered for ``getpeername``.
MOST_PEERS = 65536
#: Bytes of a Fast Open that are sent at once; the program sends the rest itself.
_MOST_EARLY = 65536
#: Seconds for which the result of a call that a signal has interrupted waits for the repeated call.
_UNCLAIMED = 30.0
_COOKIE = (socket.SOL_SOCKET, SO_COOKIE, 8)
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_WITHOUT_WAITING = int(socket.MSG_DONTWAIT)
_QUIETLY = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_DISCONNECT = socket.AF_UNSPEC.to_bytes(2, "little") + bytes(14)

#: Options that a socket takes over when it replaces another one.
_OPTIONS = [
    (getattr(socket, level), getattr(socket, option))
    for level, options in {
        "SOL_SOCKET": "SO_KEEPALIVE SO_OOBINLINE SO_PRIORITY",
        "IPPROTO_TCP": "TCP_NODELAY TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_USER_TIMEOUT TCP_QUICKACK "
        "TCP_NOTSENT_LOWAT",
    }.items()
    for option in options.split()
]
_STRUCTURES = [
    (socket.SOL_SOCKET, socket.SO_LINGER, 8),
    (socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16),
    (socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16),
    (socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16),
]

_log = Logger(namespace="socksproxy")


class LinkConnecting:
    """
    A socket that becomes connected.

    :param reactor: watches the socket.
    :param link: the socket; it may block, and it stays as it is.
    :param handshake: what follows on it; None: nothing.
    :param done: called once, with 0 or the errno.
    :param unreachable: called with the errno when there is no connection to the proxy.
    """

    def __init__(
        self,
        reactor: Any,
        link: socket.socket,
        handshake: Conversation | None,
        done: Callable[[int], None],
        unreachable: Callable[[int], None] = lambda problem: None,
    ) -> None:
        self._reactor = reactor
        self._link = link
        self._handshake = handshake
        self._done = done
        self._unreachable = unreachable
        self._timer: Any = None
        self._unsent = b""
        self._address = b""
        self.connected = False

    def start(self, address: bytes, timeout: float | None) -> None:
        """
        Connect to *address*.

        :param timeout: seconds for everything; None: as long as the kernel tries.
        """
        self._address = address
        with _without_blocking(self._link):
            result = kernel.connect(self._link.fileno(), address)
        if result in (errno.EISCONN, errno.EALREADY, errno.EINVAL):
            self._handshake = None  # the socket is in use already, and stays as it is
            self._end(result)
            return
        if result not in (0, errno.EINPROGRESS):
            self._failed(result)
            return
        if timeout is not None:
            self._timer = self._reactor.callLater(timeout, self._end, errno.ETIMEDOUT)
        if result == 0:
            self._begin()
        else:
            self._reactor.addWriter(self)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._link.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "socksproxy run"

    def doWrite(self) -> None:
        """The socket is connected, or its buffer has room again, or there is an error."""
        problem = self._link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            self._failed(problem)
        elif not self.connected:
            self._begin()
        else:
            self._send(b"")

    def doRead(self) -> None:
        """
        The proxy has sent something. The bytes behind its reply are the program's: they stay where they are.
        """
        assert self._handshake is not None
        try:
            data = self._link.recv(65536, _PEEK)
            said = self._handshake.receive(data)
            taken = len(data) - len(self._handshake.rest) if self._handshake.done else len(data)
            self._link.recv(taken, _WITHOUT_WAITING)
        except BlockingIOError:
            return
        except HandshakeFailed as problem:
            _log.debug("the proxy: {problem}", problem=problem)
            self._end(errno_for(problem))
            return
        except OSError as problem:
            self._end(problem.errno or errno.ECONNRESET)
            return
        self._send(said)
        if self._handshake is not None and self._handshake.done:
            self._end(0)

    def interrupt(self) -> None:
        """A signal ends the call; the socket is as before."""
        self._end(RESTART)

    def connectionLost(self, reason: object) -> None:
        """The reactor has found an error on the socket."""
        self._failed(self._link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET)

    def _failed(self, problem: int) -> None:
        """There is no connection. "Refused" is the destination's word, and not said of the proxy."""
        if self._handshake is None or self.connected:
            self._end(problem)
            return
        self._unreachable(problem)
        self._end(errno.ENETUNREACH)

    def _begin(self) -> None:
        self._reactor.removeWriter(self)
        self.connected = True
        # A second call ends the first one in the kernel's eyes: the next one, the program's, is EISCONN.
        kernel.connect(self._link.fileno(), self._address)
        if self._handshake is None:
            self._end(0)
            return
        self._reactor.addReader(self)
        self._send(self._handshake.begin())

    def _send(self, data: bytes) -> None:
        self._unsent += data
        if not self._unsent:
            return
        try:
            sent = self._link.send(self._unsent, _QUIETLY)
        except BlockingIOError:
            sent = 0
        except OSError as problem:
            self._end(problem.errno or errno.EPIPE)
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._reactor.addWriter(self)
        else:
            self._reactor.removeWriter(self)

    def _end(self, result: int) -> None:
        done, self._done = self._done, lambda result: None
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if result == RESTART or (result and self._handshake is not None):
            # The program may try another address with the same socket.
            kernel.connect(self._link.fileno(), _DISCONNECT)
            self._link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._handshake = None
        done(result)


class Streams:
    """
    The TCP sockets of all programs.

    :param reactor: watches the sockets, and its clock limits the time.
    :param ways: where each destination is reached.
    :param upstream: the proxy.
    :param names_port: the port on 127.0.0.1 of the name server for TCP.
    :param timeout: seconds for a connection through the proxy.
    """

    def __init__(self, reactor: Any, ways: Ways, upstream: RunProxy, names_port: int, timeout: float) -> None:
        self._reactor = reactor
        self._ways = ways
        self._upstream = upstream
        self._names_port = names_port
        self._timeout = timeout
        self._throttle = LogThrottle(reactor)
        self._running: dict[bytes, _Attempt] = {}
        self._unclaimed: dict[bytes, int] = {}
        #: By the cookie of the socket: the address that the program has connected it to.
        self.peers: dict[bytes, bytes] = {}

    def connect(self, call: Call, address: bytes, early: bytes | None = None) -> int | CallResult:
        """
        Connect the socket of *call* to *address*.

        :param early: what the program sends at once (Fast Open); None: it does not.
        :returns: what the call returns, now or later.
        :raises OSError: what the program is told.
        """
        call.close_memory()  # a handshake takes long, and descriptors are few
        repeated = self._repeated(call)
        if repeated is not None:
            return repeated
        destination = call.destination(address)
        if destination is None:  # AF_UNSPEC disconnects; the kernel refuses all else
            self.peers.pop(call.cookie, None)
            return -kernel.connect(call.socket.fileno(), address)
        way = self._ways.way_to(destination)
        if way is Bypass.DIRECT:
            return self._direct(_Attempt(call, call.socket, None, early), address)
        if way is Bypass.NAMES:
            here = sockaddr.build(family_here(call.socket), "127.0.0.1", self._names_port)
            return self._direct(_Attempt(call, call.socket, address, early), here)
        assert isinstance(way, Address)
        return self._through_proxy(call, way, address, early)

    def _repeated(self, call: Call) -> int | CallResult | None:
        """The answer to another call for a socket that is being connected already; None: it is none."""
        cookie = call.cookie
        result = self._unclaimed.pop(cookie, None)
        if result is not None:
            return result
        attempt = self._running.get(cookie)
        if attempt is None:
            return None
        if call.listener.is_valid(attempt.call.notice.id):
            raise OSError(errno.EALREADY, "operation already in progress")
        # A signal has interrupted the first one, and the kernel has repeated it.
        attempt.call = call
        return CallResult.LATER

    def _direct(self, attempt: _Attempt, address: bytes) -> int | CallResult:
        link = attempt.link
        if attempt.early is not None or is_blocking(link):
            return self._start(attempt, None, address)
        if attempt.peer is not None:
            self._remember(attempt.call.cookie, attempt.peer)
        return -kernel.connect(link.fileno(), address)

    def _through_proxy(
        self, call: Call, destination: Address, peer: bytes, early: bytes | None
    ) -> int | CallResult:
        try:
            handshake = self._upstream.handshake(destination)
        except InvalidDestination:
            raise OSError(errno.ENETUNREACH, "the protocol has no form for the address") from None
        link = call.socket
        address = self._upstream.sockaddr_for(link.family)
        if address is None or (address[8:].startswith(sockaddr.MAPPED) and not _takes_mapped(link)):
            link = _twin(call.socket)
            address = self._upstream.sockaddr_for(link.family)
        assert address is not None
        return self._start(_Attempt(call, link, peer, early), handshake, address)

    def _start(self, attempt: _Attempt, handshake: Conversation | None, address: bytes) -> CallResult:
        cookie = attempt.call.cookie
        self._running[cookie] = attempt
        timeout = self._timeout if handshake is not None else None
        connecting = LinkConnecting(
            self._reactor,
            attempt.link,
            handshake,
            lambda result: self._finished(cookie, attempt, result),
            self._unreachable,
        )
        connecting.start(address, timeout)
        self._reactor.callLater(LOOK, self._look, cookie, attempt, connecting)
        return CallResult.LATER

    def _look(self, cookie: bytes, attempt: _Attempt, connecting: LinkConnecting) -> None:
        """A connection can take long: look whether a signal such as that of Control-C waits for the call."""
        if self._running.get(cookie) is not attempt:
            return
        notice = attempt.call.notice
        if signals_for(notice.thread).stops and attempt.call.listener.is_valid(notice.id):
            connecting.interrupt()
        else:
            self._reactor.callLater(LOOK, self._look, cookie, attempt, connecting)

    def _unreachable(self, problem: int) -> None:
        if self._throttle.due():
            _log.warn("the proxy cannot be reached: {problem}", problem=os.strerror(problem).lower())

    def _finished(self, cookie: bytes, attempt: _Attempt, problem: int) -> None:
        """The socket of *attempt* is connected, or there is a *problem*, an errno."""
        del self._running[cookie]
        call, link = attempt.call, attempt.link
        result = -problem
        if not problem:
            result, cookie = attempt.hand_over(cookie)
        if result >= 0 and attempt.peer is not None:
            self._remember(cookie, attempt.peer)
        if not call.answer(result) and problem != RESTART:
            self._unclaimed[cookie] = result
            self._reactor.callLater(_UNCLAIMED, self._unclaimed.pop, cookie, None)
        call.close()
        link.close()

    def _remember(self, cookie: bytes, peer: bytes) -> None:
        self.peers.pop(cookie, None)
        if len(self.peers) >= MOST_PEERS:
            del self.peers[next(iter(self.peers))]
        self.peers[cookie] = peer


class _Attempt:
    """
    A call, and the socket that becomes connected for it.

    :param link: the program's socket, or one that takes its place.
    :param peer: what ``getpeername`` tells from then on; None: what the kernel has.
    :param early: what is sent at once; None: nothing.
    """

    __slots__ = ("call", "early", "link", "peer")

    def __init__(self, call: Call, link: socket.socket, peer: bytes | None, early: bytes | None) -> None:
        self.call = call
        self.link = link
        self.peer = peer
        self.early = early

    def hand_over(self, cookie: bytes) -> tuple[int, bytes]:
        """
        The link is connected: what the call returns, and the cookie of the socket that the program has now.
        """
        try:
            if self.link is not self.call.socket and self.link.getsockopt(*_COOKIE) != cookie:
                _put_in_place(self.call, self.link)
                cookie = self.link.getsockopt(*_COOKIE)
            if self.early is None:
                return 0, cookie
            return self.link.send(self.early[:_MOST_EARLY], _QUIETLY), cookie
        except OSError as problem:
            return -(problem.errno or errno.ENETUNREACH), cookie


def is_blocking(link: socket.socket) -> bool:
    """Whether calls of the program on *link* wait."""
    flags: int = fcntl(link.fileno(), F_GETFL)
    return not flags & os.O_NONBLOCK


@contextmanager
def _without_blocking(link: socket.socket) -> Iterator[None]:
    """
    Inside, calls on the socket do not block.

    The flag is the program's, too. It changes for the few microseconds of one call, while a thread
    of the program waits for its own ``connect`` on the same socket.
    """
    flags = fcntl(link.fileno(), F_GETFL)
    if flags & os.O_NONBLOCK:
        yield
        return
    fcntl(link.fileno(), F_SETFL, flags | os.O_NONBLOCK)
    try:
        yield
    finally:
        fcntl(link.fileno(), F_SETFL, flags)


def _takes_mapped(link: socket.socket) -> bool:
    """Whether the IPv6 socket *link* can reach IPv4 addresses; it is made to where it may."""
    if not link.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        own: str = link.getsockname()[0]
        return own == "::" or own.startswith("::ffff:")
    try:
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    except OSError:  # it is bound
        return False
    return True


def family_here(link: socket.socket) -> int:
    """
    The family of addresses with which *link* reaches 127.0.0.1.

    :raises OSError: (EADDRNOTAVAIL) when it cannot.
    """
    if link.family == socket.AF_INET6 and not _takes_mapped(link):
        raise OSError(errno.EADDRNOTAVAIL, "an IPv6 socket that is bound does not reach the name server")
    return link.family


def _twin(link: socket.socket) -> socket.socket:
    """A socket with the options of *link*, which reaches IPv6 and IPv4."""
    twin = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    twin.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    for level, option in _OPTIONS:
        with suppress(OSError):
            twin.setsockopt(level, option, link.getsockopt(level, option))
    for level, option, size in _STRUCTURES:
        with suppress(OSError):
            twin.setsockopt(level, option, link.getsockopt(level, option, size))
    fcntl(twin.fileno(), F_SETFL, fcntl(link.fileno(), F_GETFL))
    return twin


def _put_in_place(call: Call, twin: socket.socket) -> None:
    """Give the program *twin* in the place of its socket."""
    target = call.notice.arguments[0] & 0xFFFFFFFF
    call.listener.replace(call.notice.id, twin.fileno(), target, is_close_on_exec(call))
