"""The way between workers and the router of their datagrams."""

from __future__ import annotations

import socket
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.testing import StringTransport

from socksproxy.workers.datagrams import Way, go

from ..support.logs import heard
from ..support.proxy import Playing, until

Message = tuple[list[Any], bytes]


def connected(received: list[Message]) -> tuple[Way, StringTransport]:
    way, transport = Way(lambda message, data: received.append((message, data))), StringTransport()
    way.makeConnection(transport)
    return way, transport


MESSAGES: list[Message] = [
    (["open", 1, "192.0.2.1"], b""),
    (["from", 1, 4000], b"a line\nand another\n"),
    (["from", 1, 4000], bytes(65_507)),
]


def test_any_pieces() -> None:
    """Messages arrive as they were sent, whatever is in the datagrams."""
    way, transport = connected([])
    for message, data in MESSAGES:
        way.send(message, data)
    sent, received = transport.value(), list[Message]()
    other, _ = connected(received)
    for start in range(0, len(sent), 1000):
        other.dataReceived(sent[start : start + 1000])
    assert received == MESSAGES


def test_no_room() -> None:
    """Datagrams are lost while the other end does not keep up; what is said about sockets is not."""
    received: list[Message] = []
    way, transport = connected(received)
    way.pauseProducing()
    way.send(["from", 1, 4000], b"lost")
    way.send(["close", 1], b"")
    way.resumeProducing()
    way.send(["from", 2, 4001], b"kept")
    other, _ = connected(received)
    other.dataReceived(transport.value())
    assert received == [(["close", 1], b""), (["from", 2, 4001], b"kept")]


def test_a_fault_costs_one_message() -> None:
    received: list[Message] = []

    def take(message: list[Any], data: bytes) -> None:
        if message == ["wrong"]:
            raise RuntimeError("a fault")
        received.append((message, data))

    way, transport = connected([])
    for message in (["wrong"], ["right"]):
        way.send(message, b"")
    other = Way(take)
    other.makeConnection(StringTransport())
    with heard() as lines:
        other.dataReceived(transport.value())
    assert received == [(["right"], b"")]
    assert len([line for line in lines if "a datagram between workers fails" in line]) == 1
    assert not other.transport.disconnecting


@pytest_twisted.inlineCallbacks
def test_over_a_socket() -> Playing:
    """The descriptor is closed, the socket is not; the end of one end is told to the other."""
    ends = [sock.detach() for sock in socket.socketpair(socket.AF_UNIX)]
    received: list[Message] = []
    ended: list[bool] = []
    first = go(reactor, ends[0], Way(lambda *_: None))
    second = Way(lambda message, data: received.append((message, data)), lambda: ended.append(True))
    assert go(reactor, ends[1], second) is second
    for message, data in MESSAGES:
        first.send(message, data)
    yield until(lambda: len(received) == len(MESSAGES))
    assert received == MESSAGES
    first.transport.loseConnection()
    yield until(lambda: ended)
