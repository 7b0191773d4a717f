"""Many datagrams with one system call: see :mod:`socksproxy.udp.batch`."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from socksproxy.udp import sockets
from socksproxy.udp.batch import SLOTS, Batch
from socksproxy.wire.datagram import IPV4_SIZE

from ..support.udp import udp_socket

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no engine")


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two sockets, the second of which does not block."""
    one, other = udp_socket(request.param), udp_socket(request.param)
    other.setblocking(False)
    yield one, other
    one.close()
    other.close()


@pytest.mark.parametrize("apart", [False, True])
def test_receive(pair: Pair, apart: bool) -> None:
    """Sizes, sources and contents are each datagram's own."""
    one, other = pair
    batch = Batch(one.family, apart)
    assert batch.receive(other.fileno()) == 0
    sent = [b"", b"a", b"0123456789", b"0123456789abc", bytes(65000), b"x" * 70]
    for payload in sent:
        one.sendto(payload, other.getsockname())
    assert batch.receive(other.fileno()) == len(sent)
    assert batch.sizes == [len(payload) for payload in sent]
    for slot, payload in enumerate(sent):
        at, size = batch.at(slot), len(payload)
        if apart:
            assert batch.head(slot)[:size] == payload[:IPV4_SIZE]
            assert batch.view[at : at + max(0, size - IPV4_SIZE)] == payload[IPV4_SIZE:]
        else:
            assert batch.view[at : at + size] == payload
    assert sockets._peer(batch.name(0)) == one.getsockname()
    assert batch.names_are(batch.name(0), 0, len(sent))


def test_more_than_a_batch(pair: Pair) -> None:
    one, other = pair
    batch = Batch(one.family, False)
    for number in range(SLOTS + 3):
        one.sendto(bytes([number]), other.getsockname())
    assert batch.receive(other.fileno()) == SLOTS
    assert batch.receive(other.fileno()) == 3
    assert [batch.view[batch.at(slot)] for slot in range(3)] == [SLOTS, SLOTS + 1, SLOTS + 2]


def test_sources_differ(pair: Pair) -> None:
    one, other = pair
    with udp_socket(one.getsockname()[0]) as third:
        batch = Batch(one.family, False)
        for sock in (one, one, third, one):
            sock.sendto(b"x", other.getsockname())
        batch.receive(other.fileno())
        name = batch.name(0)
        found = [batch.names_are(name, slot, slot + 1) for slot in range(4)]
        assert found == [True, True, False, True]
        assert batch.names_are(name, 0, 2)
        assert not batch.names_are(name, 0, 4)


def test_send_several(pair: Pair) -> None:
    """Headers are written before each of them, and the kernel cuts the whole where it must."""
    one, other = pair
    batch = Batch(one.family, False)
    link = sockets.bound(one.getsockname()[0], 0)
    for header in (b"first-header", b"2nd"):
        payloads = [bytes([number]) * 20 for number in range(39)] + [b"shorter"]
        for payload in payloads:
            one.sendto(payload, other.getsockname())
        batch.receive(other.fileno())
        for start, stop in ((10, 20), (0, 10), (20, 40), (0, 5), (0, 12), (0, 40)):
            batch.stamp(header, start, stop)
            assert batch.send(link, one.getsockname(), start, stop, -len(header), len(header))
            expected = [header + payload for payload in payloads[start:stop]]
            assert [one.recv(100) for _ in expected] == expected
    assert not batch.send(link, one.getsockname(), 0, 1, 0, 0), "one alone"
    assert not batch.send(link, one.getsockname(), 0, 5, 0, -20), "nothing cannot be cut"
    assert not batch.send(link, one.getsockname(), 30, 40, 0, -7), "nor can nothing be the last"
    assert not batch.send(link, one.getsockname(), 0, 39, 0, 60000), "more than one datagram can be"
    broadcast = "127.255.255.255" if ":" not in one.getsockname()[0] else "::ffff:127.255.255.255"
    with pytest.raises(OSError):  # noqa: PT011
        batch.send(link, (broadcast, 9), 0, 5, 0, 0)
    link.close()


def test_headers_are_not_taken_for_others(pair: Pair) -> None:
    """Where two sources take turns, each has its own header, whatever was written before."""
    one, other = pair
    batch = Batch(one.family, False)
    link = sockets.bound(one.getsockname()[0], 0)
    for number in range(12):
        one.sendto(bytes([number]), other.getsockname())
    batch.receive(other.fileno())
    for header, start, stop in ((b"aa", 0, 12), (b"bb", 4, 8), (b"aa", 0, 12), (b"bb", 0, 6), (b"bb", 3, 12)):
        batch.stamp(header, start, stop)
        assert batch.send(link, one.getsockname(), start, stop, -2, 2)
        expected = [header + bytes([number]) for number in range(start, stop)]
        assert [one.recv(100) for _ in expected] == expected
    link.close()
