"""
HTTP on admin sockets: reads a request, has it answered, and writes the answer.

Strategy: :mod:`twisted.web.http` parses. A connection carries one request, which has a time to come in, and
its answer has a time to be read; so what a client costs is bounded, whatever it does. Nothing here looks for
files or resources: the table of routes is all there is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from zope.interface import implementer

from ..logs.printable import in_one_line
from .errors import DoneInPart, RequestRefused
from .guard import Guard, peer_of
from .routes import Asked, Routes, parameters_of

_log = Logger(namespace="socksproxy")

#: Seconds in which a request must be whole, and in which a client must have read an answer.
READ_WITHIN = WRITTEN_WITHIN = 10
#: Bytes of a body.
MOST_BODY = 64 << 10
#: Digits of the length of a body.
_MOST_DIGITS = 18
#: Connections of one listener.
MOST_CONNECTIONS = 128

_JSON = "application/json"


class Response(NamedTuple):
    """
    An answer.

    :ivar body: what JSON can carry; or bytes, as they are.
    :ivar status: of HTTP.
    :ivar kind: the type of the bytes.
    :ivar headers: what it has besides, or in place of, the headers of every answer.
    """

    body: Any
    status: int = 200
    kind: str = _JSON
    headers: Mapping[str, str] = {}


class Stream:
    """
    An answer without an end: events, or lines.

    :param kind: the type of its content.
    """

    kind: str

    def start(self, request: AdminRequest) -> None:
        """The headers are written: write to *request* from now on."""
        raise NotImplementedError

    def unread(self) -> None:
        """The answer has no reader (HEAD, or the client is gone), so :meth:`start` is not called."""


class AdminRequest(Request):
    """One request."""

    channel: AdminChannel

    def gotLength(self, length: int | None) -> None:
        """See :meth:`twisted.web.http.Request.gotLength`; the body stays in memory."""
        self.content = BytesIO()
        self._is_too_long = False

    def handleContentChunk(self, data: bytes) -> None:
        """See :meth:`twisted.web.http.Request.handleContentChunk`; of what is too long nothing is kept."""
        assert isinstance(self.content, BytesIO)
        self._is_too_long |= self.content.tell() + len(data) > MOST_BODY
        if not self._is_too_long:
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """See :meth:`twisted.web.http.Request.requestReceived`; there are no forms, so none is parsed."""
        self.method, self.uri, self.clientproto = command, path, version
        self.channel.is_asked = True
        self.process()

    def process(self) -> None:
        """See :meth:`twisted.web.http.Request.process`."""
        site = self.channel.factory
        method = self.method.decode("latin-1")
        answer: Deferred[Any] = maybeDeferred(self._answer, site, method)
        self.notifyFinish().addErrback(lambda _: answer.cancel())
        answer.addErrback(self._refused)
        answer.addCallback(self._reply)
        answer.addErrback(lambda failure: _log.failure("an answer cannot be written", failure))

    def _answer(self, site: AdminSite, method: str) -> Any:
        site.guard.admit(self.requestHeaders, self.transport, self.clientproto)
        path, _, query = self.uri.partition(b"?")
        route, names = site.routes.find(method, path)
        site.guard.permit(route.level, method, self.requestHeaders)
        peer = peer_of(self.transport)
        accept = b",".join(self.requestHeaders.getRawHeaders(b"accept") or ()).decode("latin-1")
        asked = Asked(names, parameters_of(query), self._body(method), peer, accept)
        answer = maybeDeferred(route.answer, asked)
        if route.method != "GET":
            answer.addBoth(self._logged, peer)
        return answer

    def _body(self, method: str) -> Mapping[str, Any]:
        assert isinstance(self.content, BytesIO)
        if self._is_too_long:
            raise RequestRefused(413, f"the body has more than {MOST_BODY} bytes")
        data = self.content.getvalue()
        if not data:
            return {}
        if method in ("GET", "HEAD"):
            raise RequestRefused(400, "a request that reads has no body")
        try:
            body = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):
            raise RequestRefused(400, "the body is not JSON") from None
        if not isinstance(body, dict):
            raise RequestRefused(400, "the body is not an object of JSON")
        return body

    def _logged(self, result: Any, peer: str) -> Any:
        """Have the log tell who has changed what."""
        outcome = "done"
        if isinstance(result, Failure):
            words = result.getErrorMessage()
            outcome = in_one_line(words if result.check(DoneInPart) else f"not done: {words}")
            if self._left(result):
                outcome = "the client has not waited for the end"
        _log.info(
            "admin: {peer}: {method} {path}: {outcome}",
            peer=peer,
            method=self.method.decode("latin-1"),
            path=self.uri.decode("latin-1").encode("unicode_escape").decode("ascii")[:300],
            outcome=outcome,
        )
        return result

    def _left(self, failure: Failure) -> bool:
        """Whether there is no answer because the client is gone."""
        return self._disconnected and failure.check(CancelledError) is not None

    def _refused(self, failure: Failure) -> Response | None:
        if self._left(failure):
            return None
        problem = failure.value
        if not isinstance(problem, RequestRefused):
            _log.failure("admin: a request fails", failure)
            problem = RequestRefused(500, "a fault of the server: its log has it")
        if problem.status == 405:
            self.setHeader("Allow", ", ".join(problem.more.pop("allow", ())))
        if problem.status == 401:
            self.setHeader("WWW-Authenticate", "Bearer")
        return Response({"error": problem.words, **problem.more}, problem.status)

    def _reply(self, reply: Any) -> None:
        if self.finished or self._disconnected:
            if isinstance(reply, Stream):
                reply.unread()
            return
        if not isinstance(reply, (Response, Stream)):
            reply = Response(reply)
        for name, value in _HEADERS.items():
            self.setHeader(name, value)
        self.setHeader("Content-Type", reply.kind)
        if isinstance(reply, Stream):
            self.write(b"")
            if self.method == b"HEAD":
                reply.unread()
                self.finish()
            else:
                self.channel.streams = True
                reply.start(self)
            return
        body = reply.body
        if not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        for name, value in reply.headers.items():
            self.setHeader(name, value)
        self.setResponseCode(reply.status)
        self.setHeader("Content-Length", str(len(body)))
        self.write(body)
        self.finish()


#: What every answer has.
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@implementer(IHalfCloseableProtocol)
class AdminChannel(HTTPChannel):
    """A connection, which carries one request."""

    factory: AdminSite
    transport: Any
    requestFactory = AdminRequest
    #: Whether the request is whole.
    is_asked = False
    #: Whether its answer is a stream.
    streams = False
    timeOut = READ_WITHIN

    def callLater(self, period: float, func: Callable[..., object]) -> Any:
        """See :class:`twisted.protocols.policies.TimeoutMixin`; it would take the global reactor."""
        return self.factory.reactor.callLater(period, func)

    def resetTimeout(self) -> None:
        """See :class:`twisted.protocols.policies.TimeoutMixin`; a byte now and then gains no time."""

    def connectionMade(self) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.connectionMade`."""
        super().connectionMade()
        if not self.factory.entered(self):
            self.setTimeout(None)
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.connectionLost`."""
        super().connectionLost(reason)
        self.factory.left(self)

    def readConnectionLost(self) -> None:
        """The client sends no more, and may wait for its answer. The reader of a stream is gone so."""
        if self.streams or not self.is_asked:
            self.transport.abortConnection()

    def writeConnectionLost(self) -> None:
        """See :meth:`twisted.internet.interfaces.IHalfCloseableProtocol.writeConnectionLost`."""

    def headerReceived(self, line: bytes) -> bool:
        """See :meth:`twisted.web.http.HTTPChannel.headerReceived`; it refuses no length, however long."""
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value.strip()) > _MOST_DIGITS:
            line = b"Content-Length: too long"
        return bool(super().headerReceived(line))

    def timeoutConnection(self) -> None:
        """The request is not whole in time."""
        self.transport.abortConnection()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """See :meth:`twisted.web.http.HTTPChannel.checkPersistence`: no connection lasts."""
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def requestDone(self, request: Request) -> None:
        """See :meth:`twisted.web.http.HTTPChannel.requestDone`."""
        super().requestDone(request)
        if self._abortingCall is None:
            self._abortingCall = self.callLater(WRITTEN_WITHIN, self.forceAbortClient)

    def forceAbortClient(self) -> None:
        """The answer is not read in time."""
        self._abortingCall = None
        self.transport.abortConnection()


class AdminSite(ServerFactory):
    """
    Serves the API on one listener.

    ::

        site = AdminSite(reactor, routes_of(Control(factory)), Guard(AdminListener(endpoint="unix:/run/a")))

    :param reactor: keeps time.
    :param routes: what there is.
    :param guard: decides who may do what; it may be replaced.
    """

    noisy = False

    def __init__(self, reactor: Any, routes: Routes, guard: Guard) -> None:
        self.reactor = reactor
        self.routes = routes
        self.guard = guard
        self._channels: set[AdminChannel] = set()

    def buildProtocol(self, addr: object) -> Any:
        """See :meth:`twisted.internet.protocol.Factory.buildProtocol`."""
        channel = AdminChannel()
        channel.factory = self
        return channel

    def entered(self, channel: AdminChannel) -> bool:
        """Whether there is room for another connection; if so, *channel* counts."""
        if len(self._channels) >= MOST_CONNECTIONS:
            return False
        self._channels.add(channel)
        return True

    def left(self, channel: AdminChannel) -> None:
        """*channel* is closed."""
        self._channels.discard(channel)

    def take_over(self, before: AdminSite) -> None:
        """The connections of *before* count here from now on."""
        self._channels = before._channels

    def close_streams(self) -> None:
        """Close connections whose answers have no end; others have theirs soon."""
        for channel in list(self._channels):
            if channel.streams:
                channel.transport.abortConnection()

    def close_connections(self) -> None:
        """Close all connections at once."""
        for channel in list(self._channels):
            channel.transport.abortConnection()

    def log(self, request: Request) -> None:
        """Twisted calls this with each request; what changes something has a line already."""
