"""
A client of DNS servers, by UDP, and by TCP if an answer is too long for UDP.

Strategy: a few sockets serve all questions. Each is connected to one server, so that the system drops
datagrams from elsewhere and tells when the server's port is closed. A socket takes a limited number of
questions in a limited time, and closes when its last question is over; the next socket has another port (RFC
5452, section 9.2). A question keeps the sockets that it was sent from until it is over: a late answer to an
earlier attempt counts, and an answer to another question is ignored. Servers are tried in turn. When the
first server answers no question for the time of an attempt, the next server is the first from then on.

twisted.names is not used because it opens a socket for each question, logs lines for each socket, and takes
any message with the right id for the answer.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import inf
from socket import SocketType
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from ..runtime.turns import Turns
from .dns_messages import HEADER, Answer, Outcome, Question, build_query, read_answer, with_id
from .sockets import NewSocket

#: Sockets for UDP, and connections, that are open at once.
MOST_SOCKETS, MOST_STREAMS = 6, 4
#: The greatest number of servers.
MOST_SERVERS = MOST_SOCKETS
#: Questions that a socket takes, and seconds in which it takes them.
QUESTIONS_PER_SOCKET, SOCKET_AGE = 64, 10.0
#: Seconds without a question after which all sockets close.
IDLE = 0.5
#: Seconds until the next attempt, for each round through the servers.
ROUNDS = (1.0, 2.0, 4.0)
#: The greatest number of seconds for all attempts together.
LONGEST = 9.0
#: Seconds that a connection may take, with the answer.
STREAM_TIME = 4.0
_DATAGRAMS_AT_ONCE = 64
_LONGEST_DATAGRAM = 4096


class Server(NamedTuple):
    """A DNS server: a literal address, as the system writes it, and a port."""

    host: str
    port: int


class NoAnswer(Exception):
    """No server has answered a question."""


#: The number of a server, and how many seconds to wait for it.
_Attempt = tuple[int, float]


class _Query:
    """A question that waits for its answer."""

    __slots__ = ("answer", "failed", "over", "question", "schedule", "sent", "stream", "timer", "wire")

    def __init__(self, question: Question, schedule: list[_Attempt], answer: Deferred[Answer]) -> None:
        self.question = question
        self.wire = build_query(question)
        # The attempts that are left, the next one last.
        self.schedule = schedule
        self.answer = answer
        self.over = False
        self.failed: set[int] = set()
        self.sent: list[tuple[_Socket, int]] = []
        self.stream: Deferred[Any] | None = None
        self.timer: IDelayedCall | None = None


class DNSClient:
    """
    Asks DNS servers.

    :param reactor: for sockets and timeouts.
    :param servers: one to :data:`MOST_SERVERS` servers.
    :param chance: for ids and ports; None: the system's random numbers.
    :ivar new_socket: makes the sockets for UDP.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[Server],
        chance: random.Random | None = None,
        new_socket: NewSocket = SocketType,
    ) -> None:
        self._reactor = reactor
        self.new_socket = new_socket
        self.servers = tuple(servers)
        self._chance = random.SystemRandom() if chance is None else chance
        self._first = 0
        self._heard = [-inf] * len(self.servers)
        self._sockets: dict[int, list[_Socket]] = {number: [] for number in range(len(self.servers))}
        self._sockets_each = MOST_SOCKETS // len(self.servers)
        self._streams = Turns(MOST_STREAMS, 1024, MOST_STREAMS)
        self._closing: IDelayedCall | None = None
        self._open = 0

    def ask(self, question: Question) -> Deferred[Answer]:
        """
        Ask *question*.

        :returns: fires with an answer that is neither :attr:`Outcome.FAILED` nor :attr:`Outcome.TRUNCATED`.
            Cancelling it frees all that the question holds.
        :raises NoAnswer: (by the Deferred) when no server has an answer.
        """
        answer: Deferred[Answer] = Deferred(lambda _: self._release(query))
        query = _Query(question, self._schedule(), answer)
        self._open += 1
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        self._try_next(query)
        return answer

    def _schedule(self) -> list[_Attempt]:
        count = len(self.servers)
        in_turn = [(self._first + number) % count for number in range(count)]
        attempts = [(server, seconds) for seconds in ROUNDS for server in in_turn]
        while sum(seconds for _, seconds in attempts) > LONGEST:
            attempts.pop()
        attempts.reverse()
        return attempts

    def _try_next(self, query: _Query) -> None:
        while query.schedule:
            server, seconds = query.schedule.pop()
            if server in query.failed:
                continue
            try:
                self._send(query, server)
            except OSError:
                query.failed.add(server)
            else:
                query.timer = self._reactor.callLater(seconds, self._timed_out, query, server, seconds)
                return
        self._end(query, Failure(NoAnswer("no DNS server has answered")))

    def _send(self, query: _Query, server: int) -> None:
        link = self._socket_for(server)
        id = self._chance.getrandbits(16)
        while id in link.queries:
            id = self._chance.getrandbits(16)
        link.send(with_id(query.wire, id))
        link.queries[id] = query
        query.sent.append((link, id))

    def _timed_out(self, query: _Query, server: int, seconds: float) -> None:
        query.timer = None
        # A server that has answered other questions meanwhile works; it has no answer for this name.
        if server == self._first and self._heard[server] <= self._reactor.seconds() - seconds:
            self._first = (server + 1) % len(self.servers)
        self._try_next(query)

    # Answers.

    def received(self, query: _Query, server: int, data: bytes) -> None:
        """Take *data*, which has the right id, from *server*."""
        answer = read_answer(data, query.question)
        if answer is None:
            return
        self._heard[server] = self._reactor.seconds()
        if answer.outcome is Outcome.TRUNCATED:
            self._ask_by_stream(query, server)
        elif answer.outcome is Outcome.FAILED:
            self.failed(query, server)
        else:
            self._end(query, answer)

    def failed(self, query: _Query, server: int) -> None:
        """Try the next server, because *server* has no answer to *query*."""
        if query.over or server in query.failed:
            return
        query.failed.add(server)
        self._stop_timer(query)
        self._try_next(query)

    def lost(self, link: _Socket) -> None:
        """Forget *link*, which is closed."""
        if link in self._sockets[link.server]:
            self._sockets[link.server].remove(link)

    def _end(self, query: _Query, result: Answer | Failure) -> None:
        self._release(query)
        query.answer.callback(result)

    def _release(self, query: _Query) -> None:
        query.over = True
        self._stop_timer(query)
        query.schedule.clear()
        for link, id in query.sent:
            link.queries.pop(id, None)
            if not link.queries and self._is_old(link):
                self._close(link)
        query.sent.clear()
        if query.stream is not None:
            query.stream.cancel()
        self._open -= 1
        if not self._open and self._closing is None:
            self._closing = self._reactor.callLater(IDLE, self._close_all)

    def _stop_timer(self, query: _Query) -> None:
        timer, query.timer = query.timer, None
        if timer is not None:
            timer.cancel()

    # Sockets.

    def _socket_for(self, server: int) -> _Socket:
        sockets = self._sockets[server]
        for link in list(sockets):
            if not link.queries and self._is_old(link):
                self._close(link)
        if len(sockets) < self._sockets_each:
            try:
                sockets.append(_Socket(self._reactor, self, server))
            except OSError:
                if not sockets:
                    raise
        usable = [link for link in sockets if not self._is_old(link)] or sockets
        return usable[self._chance.randrange(len(usable))]

    def _is_old(self, link: _Socket) -> bool:
        return link.left <= 0 or self._reactor.seconds() >= link.until

    def _close(self, link: _Socket) -> None:
        self.lost(link)
        link.close()

    def _close_all(self) -> None:
        self._closing = None
        for sockets in self._sockets.values():
            for link in list(sockets):
                self._close(link)

    # TCP.

    def _ask_by_stream(self, query: _Query, server: int) -> None:
        if query.stream is not None:
            return
        self._stop_timer(query)
        query.timer = self._reactor.callLater(STREAM_TIME, self._stream_timed_out, query, server)
        query.stream = self._streams.run(lambda: _streamed(self._reactor, self.servers[server], query))
        query.stream.addBoth(self._told_by_stream, query, server)

    def _stream_timed_out(self, query: _Query, server: int) -> None:
        query.timer = None
        if query.stream is not None:
            query.stream.cancel()

    def _told_by_stream(self, answer: Answer | Failure, query: _Query, server: int) -> None:
        query.stream = None
        if isinstance(answer, Failure) or answer.outcome in (Outcome.FAILED, Outcome.TRUNCATED):
            self.failed(query, server)
        else:
            self._end(query, answer)


@implementer(IReadDescriptor)
class _Socket:
    """
    A UDP socket that is connected to a server. Twisted's own port would log lines for each socket.

    :ivar queries: the questions that were sent from it and are not over, by their ids.
    :ivar left: how many questions it still takes.
    :ivar until: the clock's seconds until which it takes questions.
    """

    def __init__(self, reactor: Any, client: DNSClient, server: int) -> None:
        self.server = server
        self.queries: dict[int, _Query] = {}
        self.left = QUESTIONS_PER_SOCKET
        self.until = reactor.seconds() + SOCKET_AGE
        self._reactor = reactor
        self._client = client
        self._socket = connected_socket(client.servers[server], client.new_socket)
        reactor.addReader(self)

    def fileno(self) -> int:
        number: int = self._socket.fileno()
        return number

    def logPrefix(self) -> str:
        return "DNS"

    def send(self, data: bytes) -> None:
        """
        Send *data*, which is lost if the system has no room for it.

        :raises OSError: when there is no route to the server.
        """
        self.left -= 1
        with suppress(BlockingIOError):
            try:
                self._socket.send(data)
            except ConnectionRefusedError:
                # The error belongs to an earlier datagram, and this one is not sent yet.
                self._reactor.callLater(0, self._refused, self._waiting())
                self._socket.send(data)

    def doRead(self) -> None:
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                data = self._socket.recv(_LONGEST_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                self._refused(self._waiting())
                return
            query = self.queries.get(int.from_bytes(data[:2], "big")) if len(data) >= HEADER else None
            if query is not None:
                self._client.received(query, self.server, data)
            if self._socket.fileno() < 0:
                return

    def _waiting(self) -> list[_Query]:
        return list(dict.fromkeys(self.queries.values()))

    def _refused(self, queries: Iterable[_Query]) -> None:
        """The server's port is closed, or there is no route to it."""
        for query in queries:
            self._client.failed(query, self.server)

    def connectionLost(self, reason: Failure) -> None:
        self.close()
        self._client.lost(self)
        self._refused(self._waiting())

    def close(self) -> None:
        """Free the descriptor."""
        self._reactor.removeReader(self)
        self._socket.close()


def connected_socket(server: Server, new_socket: NewSocket = SocketType) -> Any:
    """
    A UDP socket that is connected to *server*, from a port of the system's choice.

    :param new_socket: makes it.
    :raises OSError: when there is no descriptor or no route.
    """
    opened = new_socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.connect(server)
    except OSError:
        opened.close()
        raise
    return opened


def _streamed(reactor: Any, server: Server, query: _Query) -> Deferred[Answer]:
    """Ask *server* by TCP (RFC 7766); the Deferred can be cancelled."""
    kind = TCP6ClientEndpoint if ":" in server.host else TCP4ClientEndpoint
    stream = _Stream(query)
    streams = Factory()
    streams.noisy = False  # the factory of connectProtocol() logs lines for each connection
    streams.protocol = lambda: stream
    connecting = kind(reactor, server.host, server.port, timeout=STREAM_TIME).connect(streams)
    stream.answer = Deferred(lambda _: stream.cancelled(connecting))
    connecting.addErrback(stream.failed)
    return stream.answer


class _Stream(Int16StringReceiver):
    transport: Any = None

    def __init__(self, query: _Query) -> None:
        self.answer: Deferred[Answer]
        self._query = query

    def connectionMade(self) -> None:
        self.sendString(self._query.wire)

    def stringReceived(self, string: bytes) -> None:
        answer = read_answer(string, self._query.question)
        if answer is not None and not self.answer.called:
            self.answer.callback(answer)
            self.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.failed(reason)

    def failed(self, reason: Failure) -> None:
        """There is no answer."""
        if not self.answer.called:
            self.answer.errback(reason)

    def cancelled(self, connecting: Deferred[Any]) -> None:
        """No caller waits for the answer any more."""
        if self.transport is None:
            connecting.cancel()
        else:
            self.transport.abortConnection()
