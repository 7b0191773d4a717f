"""
What takes the messages of a log, and never makes the server wait.

Strategy: a file is written at once. A socket is tried at once, too; what it does not take waits in a queue
that has a bound, and is tried again in a moment. What finds no room in the queue is lost. Losses are counted,
and one line a minute tells their number.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import describe
from ..values.logs import LogKind, LogPlace
from .streams import may_wait, open_for_appending, own_descriptor, write_if_ready

#: Seconds between two warnings that messages cannot be written.
WARN_EVERY = 60.0
#: Bytes of messages that wait for a socket.
MOST_WAITING = 1 << 22
#: Seconds until a socket that has no room, or no reader, is tried again.
AGAIN = 0.1
#: Seconds until a server is connected to again: the first time, and at the most.
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
#: Seconds in which a server must have been connected to.
_CONNECT_WITHIN = 10.0
#: Seconds in which the last messages must have been sent.
CLOSE_WITHIN = 1.0
#: Bytes of a message to a Unix socket, which takes no longer ones as a rule.
_LONGEST_DATAGRAM = 1 << 16

_log = Logger(namespace="socksproxy")


class Sink(Protocol):
    """
    Takes messages; a message is complete, as the place wants it.

    :ivar losses: counts those that are lost.
    """

    losses: Losses

    def write(self, data: bytes) -> None:
        """Take a message, or lose it."""

    def reopen(self) -> str | None:
        """Go on in a new file of the same name, if it is a file; returned is why that cannot be, or None."""

    def close(self) -> Deferred[None]:
        """Messages that come later are lost; fires when those before have been sent, or cannot be."""

    def fileno(self) -> int:
        """The descriptor of a file; -1: it is none, or closed."""


class Losses:
    """
    Counts the messages that are lost, and says so.

    :param name: the place, for the warning.
    :param clock: seconds that only go forward.
    :ivar count: the messages since the last one that was taken.
    :ivar total: the messages since the start.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self.count = 0
        self.total = 0
        self._warned: float | None = None

    def add(self, reason: str) -> None:
        """One more is lost."""
        self.count += 1
        self.total += 1
        now = self._clock()
        if self._warned is not None and now - self._warned < WARN_EVERY:
            return
        # First, for the warning may be lost in the same way.
        self._warned = now
        _log.warn(
            "{path} cannot be written, {lost} lines are lost: {reason}",
            path=self.name,
            lost=self.count,
            reason=reason,
        )

    def end(self) -> None:
        """Messages are taken again."""
        lost, self.count, self._warned = self.count, 0, None
        _log.info("{path} is written again, {lost} lines are lost", path=self.name, lost=lost)


class FileSink:
    """
    Appends messages to a file or a stream; each is one write.

    :param path: the file; it is made if there is none.
    :param clock: seconds that only go forward, for the warnings.
    :param descriptor: the file, if it is open already.
    :raises OSError: when the file cannot be opened for appending.
    """

    def __init__(self, path: str, clock: Callable[[], float], descriptor: int | None = None) -> None:
        self.path = path
        self._descriptor = open_for_appending(path) if descriptor is None else descriptor
        self._may_wait = may_wait(self._descriptor)
        self._torn = False
        self.losses = Losses(path, clock)

    def fileno(self) -> int:
        """The descriptor of the open file."""
        return self._descriptor

    def write(self, data: bytes) -> None:
        """See :meth:`Sink.write`."""
        if self._torn:
            data = b"\n" + data
        try:
            written = (write_if_ready if self._may_wait else os.write)(self._descriptor, data)
        except OSError as problem:
            self.losses.add(problem.strerror or str(problem))
            return
        if written != len(data):
            # The disk is full: the next line must not go on from here.
            self._torn = True
            self.losses.add("only a part of a line could be written")
            return
        self._torn = False
        if self.losses.count:
            self.losses.end()

    def reopen(self) -> str | None:
        """See :meth:`Sink.reopen`."""
        if own_descriptor(self.path) is not None:
            return None  # it cannot be moved; and in a worker the name means another stream
        try:
            fresh = open_for_appending(self.path)
        except OSError as problem:
            words = f"{self.path} cannot be opened again, the old file goes on: {problem.strerror}"
            _log.warn("{words}", words=words)
            return words
        old, self._descriptor = self._descriptor, fresh
        self._may_wait = may_wait(fresh)
        self._torn = False
        if old >= 0:
            os.close(old)
        return None

    def close(self) -> Deferred[None]:
        """See :meth:`Sink.close`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        return succeed(None)


class Queue:
    """
    Messages that wait for a socket.

    :param losses: is told of those that find no room.
    """

    def __init__(self, losses: Losses) -> None:
        self.messages: deque[bytes] = deque()
        self.losses = losses
        self._size = 0

    def add(self, data: bytes, reason: str) -> None:
        """*data* waits; *reason* says why it would be lost."""
        if self._size + len(data) > MOST_WAITING:
            self.losses.add(reason)
            return
        self._size += len(data)
        self.messages.append(data)

    def drain(self, send: Callable[[bytes], object]) -> None:
        """Give all of them to *send*, which raises where it takes no more."""
        while self.messages:
            send(self.messages[0])
            self._size -= len(self.messages.popleft())
        if self.losses.count:
            self.losses.end()


class DatagramSink:
    """
    Sends each message as a datagram to a Unix socket.

    :param path: the socket.
    :param name: the place, for warnings.
    :param clock: for the next attempt.
    """

    def __init__(self, path: str, name: str, clock: Any) -> None:
        self._path = path
        self._clock = clock
        self.losses = Losses(name, clock.seconds)
        self._queue = Queue(self.losses)
        self._socket: socket.socket | None = None
        self._timer: IDelayedCall | None = None
        self._reason = ""
        self._closed = False

    def fileno(self) -> int:
        """See :meth:`Sink.fileno`."""
        return -1

    def write(self, data: bytes) -> None:
        """See :meth:`Sink.write`."""
        data = data[:_LONGEST_DATAGRAM]
        if self._timer is None and not self._closed:
            try:
                self._send(data)
                return
            except OSError as problem:
                self._failed(problem)
        self._queue.add(data, self._reason)

    def reopen(self) -> None:
        """See :meth:`Sink.reopen`; it is no file."""

    def close(self) -> Deferred[None]:
        """See :meth:`Sink.close`; a message that is sent has been taken."""
        self._try_again()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        return succeed(None)

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            made.setblocking(False)
            self._socket = made
        self._socket.sendto(data, self._path)

    def _failed(self, problem: OSError) -> None:
        self._reason = describe(problem)
        self._timer = self._clock.callLater(AGAIN, self._try_again)

    def _try_again(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        try:
            self._queue.drain(self._send)
        except OSError as problem:
            self._failed(problem)


@implementer(IPushProducer)
class _Link(TwistedProtocol):
    """A connection to a server of logs, which takes messages unless it is full."""

    def __init__(self, sink: StreamSink) -> None:
        self._sink = sink
        self.full = False

    def connectionMade(self) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.makeConnection`."""
        transport: Any = self.transport
        transport.registerProducer(self, True)
        transport.setTcpKeepAlive(True)
        self._sink.connected(self)

    def send(self, data: bytes) -> None:
        """
        Send a message.

        :raises BlockingIOError: when the server does not read.
        """
        if self.full:
            raise BlockingIOError
        assert self.transport is not None
        self.transport.write(data)

    def leave(self) -> None:
        """Send what has been given, and close."""
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()

    def pauseProducing(self) -> None:
        """See :class:`twisted.internet.interfaces.IPushProducer`."""
        self.full = True

    def resumeProducing(self) -> None:
        """See :class:`twisted.internet.interfaces.IPushProducer`."""
        self.full = False
        self._sink.flush()

    def stopProducing(self) -> None:
        """See :class:`twisted.internet.interfaces.IPushProducer`."""
        self.full = True

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        """See :meth:`twisted.internet.interfaces.IProtocol.connectionLost`."""
        self.full = True
        self._sink.disconnected(reason)


class StreamSink:
    """
    Sends messages to a server over one connection, by octet counting (RFC 6587, section 3.4.1).

    The first message connects. What a connection has taken when it breaks may be lost and not counted.

    :param endpoint: where to connect.
    :param name: the place, for warnings.
    :param clock: for the next attempt.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, name: str, clock: Any) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self.losses = Losses(name, clock.seconds)
        self._queue = Queue(self.losses)
        self._link: _Link | None = None
        self._connecting: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._delay = FIRST_DELAY
        self._reason = "no connection yet"
        self._closing: Deferred[None] | None = None

    def fileno(self) -> int:
        """See :meth:`Sink.fileno`."""
        return -1

    def write(self, data: bytes) -> None:
        """See :meth:`Sink.write`."""
        if self._closing is not None:
            return
        data = b"%d %b" % (len(data), data)
        link = self._link
        if link is not None and not link.full:
            link.send(data)
            return
        self._queue.add(data, self._reason if link is None else "the server does not read")
        if link is None and self._connecting is None and self._timer is None:
            self._connect()

    def reopen(self) -> None:
        """See :meth:`Sink.reopen`; it is no file."""

    def close(self) -> Deferred[None]:
        """See :meth:`Sink.close`."""
        if self._closing is not None:
            return self._closing
        closing: Deferred[None] = Deferred()
        self._closing = closing
        self._stop_timer()
        if self._link is not None:
            self.flush()
            self._link.leave()
        if self._link is not None or self._connecting is not None:
            self._timer = self._clock.callLater(CLOSE_WITHIN, self._give_up)
        else:
            self._end()
        return closing

    def connected(self, link: _Link) -> None:
        """The server is connected to."""
        self._link, self._delay = link, FIRST_DELAY
        self.flush()
        if self._closing is not None:
            link.leave()

    def flush(self) -> None:
        """The connection has room."""
        try:
            if self._link is not None:
                self._queue.drain(self._link.send)
        except BlockingIOError:
            pass  # flush() is called again

    def disconnected(self, reason: Failure) -> None:
        """There is no connection any more."""
        self._link = None
        self._again(reason)

    def _connect(self) -> None:
        self._timer = None
        self._connecting = connecting = self._endpoint.connect(Factory.forProtocol(lambda: _Link(self)))
        connecting.addBoth(self._settled)

    def _settled(self, result: Any) -> None:
        self._connecting = None
        if isinstance(result, Failure):
            self._again(result)

    def _again(self, reason: Failure) -> None:
        problem = reason.value
        self._reason = describe(problem) if isinstance(problem, Exception) else str(problem)
        if self._closing is not None:
            self._end()
            return
        self._timer = self._clock.callLater(self._delay, self._connect)
        self._delay = min(LONGEST_DELAY, self._delay * 2)

    def _give_up(self) -> None:
        self._timer = None
        link, connecting = self._link, self._connecting
        self._end()
        if connecting is not None:
            connecting.cancel()
        if link is not None:
            transport: Any = link.transport
            transport.abortConnection()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _end(self) -> None:
        self._stop_timer()
        if self._closing is not None and not self._closing.called:
            self._closing.callback(None)


def check_socket(path: str) -> None:
    """
    See that nothing but a socket is at *path*. One that is not there yet may come.

    :raises OSError: when something else is there.
    """
    if os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        raise OSError(errno.ENOTSOCK, "not a socket", path)


def sink_for(
    place: LogPlace,
    reactor: Any,
    clock: Callable[[], float] = time.monotonic,
    descriptor: int | None = None,
    tls: Any = None,
) -> Sink:
    """
    What takes messages for *place*.

    :param reactor: connects, and has the time for sockets; a file needs none.
    :param clock: seconds that only go forward, for warnings about files.
    :param descriptor: the file, if it is open already.
    :param tls: verifies the server, where that is one with TLS.
    :raises OSError: when a file cannot be opened, or something is in the place of a socket.
    """
    if place.is_file:
        return FileSink(place.path, clock, descriptor)
    if place.kind in (LogKind.LOCAL, LogKind.JOURNALD):
        check_socket(place.path)
        return DatagramSink(place.path, place.text, reactor)
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, place.host, place.port, _CONNECT_WITHIN)
    if place.kind is LogKind.TLS:
        endpoint = wrapClientTLS(tls, endpoint)
    return StreamSink(endpoint, place.text, reactor)
