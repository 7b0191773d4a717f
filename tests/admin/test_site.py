"""HTTP on admin sockets: see :mod:`socksproxy.admin.site`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

from socksproxy.admin import site
from socksproxy.admin.errors import DoneInPart, RequestRefused
from socksproxy.admin.guard import Guard
from socksproxy.admin.routes import ApiRoute, Asked, Routes
from socksproxy.admin.settings import AdminLevel, AdminListener
from socksproxy.admin.site import MOST_BODY, READ_WITHIN, WRITTEN_WITHIN, AdminSite, Stream

from ..support.logs import heard


class Server:
    """A site whose only routes answer what a test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.answer: Any = {"fine": True}
        self.asked: list[Asked] = []
        levels = {"GET": AdminLevel.MONITOR, "POST": AdminLevel.ADMIN}
        table = Routes([ApiRoute(method, "/x", level, self._answer) for method, level in levels.items()])
        self.site = AdminSite(self.clock, table, Guard(AdminListener(endpoint="unix:a")))

    def _answer(self, asked: Asked) -> Any:
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def connect(self) -> tuple[Any, StringTransportWithDisconnection]:
        channel = self.site.buildProtocol(None)
        transport = StringTransportWithDisconnection(UNIXAddress(b"a"))
        transport.protocol = channel
        channel.makeConnection(transport)
        return channel, transport

    def said(self, data: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer to *data*."""
        channel, transport = self.connect()
        channel.dataReceived(data)
        head, _, body = transport.value().partition(b"\r\n\r\n")
        return int(head.split()[1]), body


@pytest.fixture
def server() -> Server:
    return Server()


GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(body: bytes, *lines: bytes) -> bytes:
    head = [b"POST /x HTTP/1.1", b"Host: localhost", b"Content-Type: application/json", *lines]
    if not lines:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*head, b"", body])


def test_headers(server: Server) -> None:
    """No page of another origin can read an answer, show it in a frame, or have it from a cache."""
    channel, transport = server.connect()
    channel.dataReceived(GET)
    head = transport.value().lower()
    for line in (b"cache-control: no-store", b"x-content-type-options: nosniff", b"x-frame-options: deny"):
        assert line in head
    assert b"access-control" not in head
    assert b"connection: close" in head
    assert not transport.connected


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 200),
        (b"", 200),
        (b"[]", 400),
        (b"1", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 60000, 400),
        (b'{"a": NaN}', 200),
        (b'{"a": "' + b"x" * MOST_BODY + b'"}', 413),
    ],
)
def test_body(body: bytes, status: int, server: Server) -> None:
    assert server.said(post(body))[0] == status


def test_chunked_body_is_bounded(server: Server) -> None:
    """A body without an announced length is not kept either."""
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    assert server.said(post(chunk * 5 + b"0\r\n\r\n", b"Transfer-Encoding: chunked"))[0] == 413


def test_body_of_get(server: Server) -> None:
    assert server.said(b"GET /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")[0] == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        # A form is no JSON, and is not read as a form before it is refused.
        (post(b"a=1").replace(b"application/json", b"multipart/form-data; boundary=x"), 415),
        (post(b"a=1").replace(b"application/json", b"a\x1cb"), 415),
        (GET.replace(b"\r\n\r\n", b"\r\nAccept: \xff\r\n\r\n"), 200),
        (post(b"", b"Content-Length: " + b"9" * 5000), 400),
        (post(b"", b"Content-Length: " + b"9" * 50), 400),
    ],
    ids=["form", "type", "accept", "length", "long"],
)
def test_nonsense(data: bytes, status: int, server: Server) -> None:
    """Headers that no client sends get an answer, and the log has no fault."""
    with heard() as lines:
        assert server.said(data)[0] == status
    assert not [line for line in lines if "Traceback" in line]


def test_fault(server: Server) -> None:
    """A fault of ours is told without its words, which the log has."""
    server.answer = KeyError("secret")
    with heard() as lines:
        status, body = server.said(GET)
        assert any("secret" in line for line in lines)
    assert status == 500
    assert b"secret" not in body


def test_refusal(server: Server) -> None:
    server.answer = RequestRefused(409, "not now", matched=3)
    assert server.said(GET) == (409, b'{"error": "not now", "matched": 3}\n')


def test_changes_are_logged(server: Server) -> None:
    """Who has changed what is in the log, and whether it was done; nothing from outside breaks the line."""
    with heard() as lines:
        server.said(post(b"{}"))
        server.answer = RequestRefused(409, "not now")
        server.said(post(b"{}"))
        server.answer = DoneInPart(503, "done on this node alone: the shared store is down")
        server.said(post(b"{}"))
        server.said(GET)
        found = [line for line in lines if line.startswith("admin: ")]
    assert [line.partition("POST /x: ")[2] for line in found] == [
        "done",
        "not done: not now",
        "done on this node alone: the shared store is down",
    ]


def test_late_answer(server: Server) -> None:
    """A client that leaves before the answer stops the work."""
    cancelled: list[int] = []
    server.answer = Deferred(lambda _: cancelled.append(1))
    channel, transport = server.connect()
    channel.dataReceived(GET)
    assert transport.value() == b""
    transport.loseConnection()
    assert cancelled == [1]


def test_client_that_leaves(server: Server) -> None:
    """No fault is logged because a client leaves; where it wanted a change, the log tells so."""
    for data in (GET, post(b"{}")):
        server.answer = Deferred()
        channel, transport = server.connect()
        with heard() as lines:
            channel.dataReceived(data)
            transport.loseConnection()
        expected = [] if data == GET else ["the client has not waited for the end"]
        assert [line.partition("/x: ")[2] for line in lines] == expected


def test_client_that_sends_no_more(server: Server) -> None:
    """``socat`` and others close their direction with the end of the request, and wait for the answer."""
    later: Deferred[Any] = Deferred()
    server.answer = later
    channel, transport = server.connect()
    channel.dataReceived(GET)
    channel.readConnectionLost()
    later.callback({"fine": True})
    assert transport.value().endswith(b'{"fine": true}\n')
    assert not transport.connected


@pytest.mark.parametrize("data", [b"", GET[:-2], post(b"{}")[:-1]], ids=["nothing", "head", "body"])
def test_client_that_sends_too_little(data: bytes, server: Server) -> None:
    """A request that will never be whole is over with its client's direction."""
    channel, transport = server.connect()
    channel.dataReceived(data)
    channel.readConnectionLost()
    assert not transport.connected
    assert not server.asked


def test_stream_without_its_reader(server: Server) -> None:
    """The end of what a reader sends is the end of its stream: nothing else tells that it is gone."""
    server.answer = Endless()
    channel, transport = server.connect()
    channel.dataReceived(GET)
    assert transport.connected
    channel.readConnectionLost()
    assert not transport.connected


class Endless(Stream):
    """A stream that tells nothing."""

    kind = "text/event-stream"

    def start(self, request: Any) -> None:
        pass


def test_words_of_a_client_in_the_log(server: Server) -> None:
    """They do nothing to a terminal, and begin no line."""
    server.answer = RequestRefused(400, "no such parameter: \x1b[2J\nadmin: uid 0")
    with heard() as lines:
        server.said(post(b"{}"))
    assert [line.partition("/x: ")[2] for line in lines] == [
        "not done: no such parameter: \\x1b[2J\\nadmin: uid 0"
    ]


def test_slow_request(server: Server) -> None:
    """A byte now and then does not keep a connection."""
    channel, transport = server.connect()
    for byte in GET[:9]:
        channel.dataReceived(bytes([byte]))
        server.clock.advance(READ_WITHIN / 8)
    assert not transport.connected
    assert not server.clock.getDelayedCalls()


class _Stuck(StringTransportWithDisconnection):
    """The other end does not read."""

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        super().loseConnection()


def test_unread_answer(server: Server) -> None:
    """An answer that is not read in time is given up."""
    channel = server.site.buildProtocol(None)
    transport = _Stuck(UNIXAddress(b"a"))
    transport.protocol = channel
    channel.makeConnection(transport)
    channel.dataReceived(GET * 100)
    assert len(server.asked) == 1
    server.clock.advance(WRITTEN_WITHIN - 1)
    assert transport.connected
    server.clock.advance(2)
    assert not transport.connected
    assert not server.clock.getDelayedCalls()


def test_crowd(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a bound on connections; those that are there go on."""
    monkeypatch.setattr(site, "MOST_CONNECTIONS", 2)
    first, second, third = (server.connect() for _ in range(3))
    assert [each[1].connected for each in (first, second, third)] == [True, True, False]
    first[1].loseConnection()
    assert server.connect()[1].connected
    server.site.close_connections()
    assert not second[1].connected
    assert not server.clock.getDelayedCalls()
