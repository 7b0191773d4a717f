"""What a relay whose client's end is encapsulated does beside the contract."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from socksproxy.events import Cause
from socksproxy.wire.words import ProtocolError
from tests.support.wrapping import MOST, Swapped

from ..support.relay import PATIENCE, Harness, is_reset, read_exactly, read_to_end

Playing = Generator[Any, Any, None]


@pytest.fixture
def relay() -> Iterator[Harness]:
    harness = Harness("wrapped")
    yield harness
    harness.close()


@pytest_twisted.inlineCallbacks
def test_a_message_that_cannot_be(relay: Harness) -> Playing:
    """Both ends are reset at once, what came before it has been delivered, and the record says why."""

    def scenario(client: Any, destination: socket.socket) -> None:
        client.sendall(b"before")
        assert read_exactly(destination, 6) == b"before"
        client._sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert is_reset(destination)
        assert is_reset(client)

    relay.start()
    yield relay.run(scenario)
    ended = yield relay.finished()
    assert ended.how is Cause.BROKEN
    assert (ended.sent, relay.endings) == (6, 1)


class Failing(Swapped):
    """The context is good for nothing any more."""

    def wrap(self, data: bytes) -> bytes:
        raise ProtocolError("the context has expired")


@pytest_twisted.inlineCallbacks
def test_a_message_that_cannot_be_made(relay: Harness) -> Playing:
    """Nothing is sent bare in its place."""
    relay._wrapping = Failing()

    def scenario(client: Any, destination: socket.socket) -> None:
        destination.sendall(b"in the clear")
        assert is_reset(destination)
        with pytest.raises(ConnectionResetError):
            client._sock.recv(100)

    relay.start()
    yield relay.run(scenario)
    ended = yield relay.finished()
    assert ended.how is Cause.BROKEN
    assert (ended.received, ended.problem) == (0, "the context has expired")


@pytest_twisted.inlineCallbacks
def test_byte_by_byte(relay: Harness) -> Playing:
    """A message is delivered when its last byte is there."""
    data = Swapped().wrap(b"x" * (MOST + 1))

    def scenario(client: Any, destination: socket.socket) -> bytes:
        client._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sender = threading.Thread(
            target=lambda: [client._sock.sendall(data[at : at + 1]) for at in range(len(data))]
        )
        sender.start()
        arrived = read_exactly(destination, MOST + 1)
        sender.join()
        destination.close()
        return arrived

    relay.start()
    assert (yield relay.run(scenario)) == b"x" * (MOST + 1)
    yield deferToThread(relay.client.close)
    yield relay.finished()


@pytest_twisted.inlineCallbacks
def test_an_end_within_a_message(relay: Harness) -> Playing:
    """The beginning of a message is not delivered; the end is."""
    data = Swapped().wrap(b"whole") + Swapped().wrap(b"cut off")[:-1]

    def scenario(client: Any, destination: socket.socket) -> bytes:
        client._sock.sendall(data)
        client._sock.shutdown(socket.SHUT_WR)
        arrived = read_to_end(destination)
        destination.sendall(b"answer")
        destination.close()
        assert read_to_end(client) == b"answer"
        return arrived

    relay.start()
    assert (yield relay.run(scenario)) == b"whole"
    yield relay.finished()


@pytest_twisted.inlineCallbacks
def test_slow_client_stops_the_destination(relay: Harness) -> Playing:
    """What waits for a client that does not read waits with the destination: memory is bounded."""
    kernel = 0
    for sock, option in (
        (relay.destination, socket.SO_SNDBUF),
        (relay._destination, socket.SO_RCVBUF),
        (relay._client, socket.SO_SNDBUF),
        (relay.client, socket.SO_RCVBUF),
    ):
        sock.setsockopt(socket.SOL_SOCKET, option, 1 << 17)
        kernel += sock.getsockopt(socket.SOL_SOCKET, option)

    def fill(client: Any, destination: socket.socket) -> int:
        destination.setblocking(False)
        taken, chunk = 0, bytes(1 << 16)
        while taken < 64 << 20 and select.select([], [destination], [], 1.0)[1]:
            taken += destination.send(chunk)
        destination.settimeout(PATIENCE)
        return taken

    def drain(client: Any, destination: socket.socket) -> int:
        destination.shutdown(socket.SHUT_WR)
        arrived = len(read_to_end(client))
        client.close()
        return arrived

    relay.start()
    taken = yield relay.run(fill)
    assert taken <= 2 * kernel + (1 << 20)
    assert (yield relay.run(drain)) == taken
    yield relay.finished()
