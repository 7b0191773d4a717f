"""
The contract of the relay, which the engine and the transports relay both keep.
"""

from __future__ import annotations

import hashlib
import random
import select
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from socksproxy.events import Cause
from socksproxy.limits import Rate
from socksproxy.limits.buckets import Bucket, Meter, Meters

from ..support.relay import (
    KINDS,
    PATIENCE,
    Harness,
    Timed,
    an_engine,
    is_reset,
    open_descriptors,
    reactor,
    read_exactly,
    read_to_end,
    reset,
)

Sockets = tuple[socket.socket, socket.socket]
Playing = Generator[Any, Any, None]


@pytest.fixture(params=KINDS)
def relay(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """A harness of each kind; no descriptor may be left behind."""
    if request.param == "engine":
        with an_engine() as engine:
            harness = Harness("engine", engine)
            yield harness
            harness.close()
    else:
        harness = Harness(request.param)
        yield harness
        harness.close()


def pattern(size: int, seed: int = 7) -> bytes:
    """*size* bytes in which nothing can be lost, doubled or swapped unseen."""
    return random.Random(seed).randbytes(size)


def both_close(client: socket.socket, destination: socket.socket) -> None:
    """An orderly end, the client first."""
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(destination) == b""
    destination.close()
    assert read_to_end(client) == b""


def echo_once(client: socket.socket, destination: socket.socket) -> None:
    client.sendall(b"ping")
    assert read_exactly(destination, 4) == b"ping"
    destination.sendall(b"pong!")
    assert read_exactly(client, 5) == b"pong!"
    both_close(client, destination)


def client_closes_whole(client: socket.socket, destination: socket.socket) -> None:
    client.sendall(b"bye")
    client.close()
    assert read_to_end(destination) == b"bye"
    destination.close()


def destination_closes_whole(client: socket.socket, destination: socket.socket) -> None:
    destination.sendall(b"banner")
    destination.close()
    assert read_to_end(client) == b"banner"
    client.close()


def answer_after_client_half_close(client: socket.socket, destination: socket.socket) -> None:
    """``nc -N`` and HTTP/1.0 clients: the answer begins after the FIN."""
    client.sendall(b"request")
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(destination) == b"request"
    for piece in (b"first ", b"second ", b"third"):
        destination.sendall(piece)
    destination.close()
    assert read_to_end(client) == b"first second third"


def request_after_destination_half_close(client: socket.socket, destination: socket.socket) -> None:
    destination.sendall(b"done here")
    destination.shutdown(socket.SHUT_WR)
    assert read_to_end(client) == b"done here"
    client.sendall(b"still talking")
    client.close()
    assert read_to_end(destination) == b"still talking"


def client_resets(client: socket.socket, destination: socket.socket) -> None:
    client.sendall(b"x")
    assert read_exactly(destination, 1) == b"x"
    reset(client)
    assert is_reset(destination)


def destination_resets(client: socket.socket, destination: socket.socket) -> None:
    destination.sendall(b"x")
    assert read_exactly(client, 1) == b"x"
    reset(destination)
    assert is_reset(client)


def client_resets_after_half_close(client: socket.socket, destination: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(destination) == b""
    reset(client)
    # A FIN has come through already, so that only writing tells the destination.
    assert is_refused(destination)


def client_gone(client: socket.socket, destination: socket.socket) -> None:
    """A browser's stop button: the kernel answers what still comes with a reset."""
    client.close()
    assert is_refused(destination)


def client_gone_with_data_unread(client: socket.socket, destination: socket.socket) -> None:
    """The same while an answer is on its way: there is no FIN before the reset."""
    destination.sendall(bytes(100_000))
    assert read_exactly(client, 1) == b"\x00"
    client.close()
    assert is_refused(destination)


def is_refused(sock: socket.socket) -> bool:
    """Whether what is written comes to be refused, as it is once a reset has come."""
    for _ in range(10_000):
        try:
            sock.sendall(bytes(65_536))
        except (ConnectionResetError, BrokenPipeError):
            return True
    return False


@pytest.mark.parametrize(
    ("scenario", "how"),
    [
        (echo_once, {Cause.CLIENT}),
        (client_closes_whole, {Cause.CLIENT}),
        (destination_closes_whole, {Cause.DESTINATION}),
        (answer_after_client_half_close, {Cause.CLIENT}),
        (request_after_destination_half_close, {Cause.DESTINATION}),
        (client_resets, {Cause.CLIENT_RESET}),
        (destination_resets, {Cause.DESTINATION_RESET}),
        (client_resets_after_half_close, {Cause.CLIENT_RESET}),
        (client_gone, {Cause.CLIENT_RESET}),
        (client_gone_with_data_unread, {Cause.CLIENT_RESET}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
@pytest_twisted.inlineCallbacks
def test_ends(relay: Harness, scenario: Callable[..., None], how: set[Cause]) -> Playing:
    """Each way to end comes through to the other side, is told once, and by its name."""
    relay.start()
    yield relay.run(scenario)
    ended = yield relay.finished()
    assert ended.how in how
    assert relay.endings == 1


@pytest.mark.parametrize("upwards", [True, False], ids=["client first", "destination first"])
@pytest_twisted.inlineCallbacks
def test_half_closed(relay: Harness, upwards: bool) -> Playing:
    """It is told once, when the first direction has closed, and not of the second one."""
    first, second = other_way(relay, upwards)

    def one_direction(*_: socket.socket) -> None:
        first.sendall(b"all")
        first.shutdown(socket.SHUT_WR)
        assert read_to_end(second) == b"all"
        second.sendall(b"more")
        assert read_exactly(first, 4) == b"more"

    def the_other(*_: socket.socket) -> None:
        second.close()
        assert read_to_end(first) == b""

    relay.start()
    yield relay.run(one_direction)
    assert (relay.halved, relay.endings) == (1, 0)
    yield relay.run(the_other)
    yield relay.finished()
    assert relay.halved == 1


@pytest_twisted.inlineCallbacks
def test_half_closed_before_it_begins(relay: Harness) -> Playing:
    """Likewise where the client has sent its FIN before."""
    relay.client.shutdown(socket.SHUT_WR)
    relay.start()
    yield relay.run(lambda client, destination: read_to_end(destination))
    assert (relay.halved, relay.endings) == (1, 0)


@pytest_twisted.inlineCallbacks
def test_counts(relay: Harness) -> Playing:
    """The access record tells the bytes that were delivered, each way."""

    def scenario(client: socket.socket, destination: socket.socket) -> None:
        client.sendall(bytes(70_001))
        read_exactly(destination, 70_001)
        destination.sendall(bytes(130_002))
        read_exactly(client, 130_002)
        both_close(client, destination)

    relay.start()
    yield relay.run(scenario)
    ended = yield relay.finished()
    assert (ended.sent, ended.received) == (70_001, 130_002)


def pour(data: bytes, source: socket.socket, sink: socket.socket) -> str:
    """Send *data* and a FIN through; the hash of what arrives."""
    sender = threading.Thread(target=lambda: (source.sendall(data), source.shutdown(socket.SHUT_WR)))
    sender.start()
    arrived = hashlib.sha256(read_to_end(sink)).hexdigest()
    sender.join()
    return arrived


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 131_072, 1 << 20, (1 << 20) + 1, 5 << 20])
@pytest.mark.parametrize("upwards", [True, False], ids=["upload", "download"])
@pytest_twisted.inlineCallbacks
def test_sizes(relay: Harness, size: int, upwards: bool) -> Playing:
    """Whatever the size, up to and beyond the buffer and the pipe, every byte arrives in order."""
    data = pattern(size)

    def scenario(client: socket.socket, destination: socket.socket) -> str:
        source, sink = (client, destination) if upwards else (destination, client)
        arrived = pour(data, source, sink)
        sink.close()
        assert read_to_end(source) == b""
        return arrived

    relay.start()
    assert (yield relay.run(scenario)) == hashlib.sha256(data).hexdigest()
    ended = yield relay.finished()
    assert ended.how is (Cause.CLIENT if upwards else Cause.DESTINATION)
    assert (ended.sent, ended.received) == ((size, 0) if upwards else (0, size))


@pytest_twisted.inlineCallbacks
def test_both_directions_at_once(relay: Harness) -> Playing:
    """Full duplex: neither direction waits for the other, as it does where one thread copies both."""
    up, down = pattern(6 << 20, 1), pattern(9 << 20, 2)

    def scenario(client: socket.socket, destination: socket.socket) -> tuple[str, str]:
        arrived: list[str] = []
        other = threading.Thread(target=lambda: arrived.append(pour(down, destination, client)))
        other.start()
        upwards = pour(up, client, destination)
        other.join()
        return upwards, arrived[0]

    relay.start()
    result = yield relay.run(scenario)
    assert result == (hashlib.sha256(up).hexdigest(), hashlib.sha256(down).hexdigest())
    yield relay.finished()


@pytest_twisted.inlineCallbacks
def test_half_close_with_bytes_in_flight(relay: Harness) -> Playing:
    """The FIN comes after the last byte, though the reader is slow and everything is full."""
    data = pattern(8 << 20)

    def scenario(client: socket.socket, destination: socket.socket) -> str:
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sender.start()
        sha = hashlib.sha256()
        while chunk := destination.recv(7_001):
            sha.update(chunk)
        sender.join()
        destination.sendall(b"got it")
        destination.close()
        assert read_to_end(client) == b"got it"
        return sha.hexdigest()

    relay.start()
    assert (yield relay.run(scenario)) == hashlib.sha256(data).hexdigest()
    yield relay.finished()


@pytest_twisted.inlineCallbacks
def test_slow_reader_stops_the_sender(relay: Harness) -> Playing:
    """64 MB towards a reader that does not read stay with the sender: memory is bounded."""
    # Else the kernel's own buffers grow with their use, to tens of megabytes on some machines.
    kernel = relay.limit_buffers(1 << 17)

    def fill(client: socket.socket, destination: socket.socket) -> int:
        client.setblocking(False)
        taken, chunk = 0, bytes(1 << 16)
        while taken < 64 << 20 and select.select([], [client], [], 1.0)[1]:
            taken += client.send(chunk)
        client.settimeout(PATIENCE)
        return taken

    def drain(client: socket.socket, destination: socket.socket) -> int:
        # The wrapped one may have the rest of a message yet.
        closing = threading.Thread(target=client.shutdown, args=(socket.SHUT_WR,))
        closing.start()
        arrived = len(read_to_end(destination))
        closing.join()
        destination.close()
        return arrived

    relay.start()
    taken = yield relay.run(fill)
    # What the kernel holds, and as much again as it may be over; a pipe; the relay's buffers.
    assert taken <= 2 * kernel + (1 << 20) + (1 << 19)
    assert (yield relay.run(drain)) == taken
    yield relay.finished()


@pytest.mark.parametrize("size", [1, 300, 65_536])
@pytest_twisted.inlineCallbacks
def test_early_data_comes_first(relay: Harness, size: int) -> Playing:
    """What the client sent along with its request reaches the destination, before anything later."""
    early = pattern(size)

    def scenario(client: socket.socket, destination: socket.socket) -> bytes:
        client.sendall(b"later")
        client.shutdown(socket.SHUT_WR)
        arrived = read_to_end(destination)
        destination.close()
        return arrived

    relay.start(early=early)
    assert (yield relay.run(scenario)) == early + b"later"
    yield relay.finished()


@pytest_twisted.inlineCallbacks
def test_end_that_came_before_the_relay(relay: Harness) -> Playing:
    """A client that has sent and half-closed before the relay began still gets its answer."""

    def before(client: socket.socket, destination: socket.socket) -> None:
        client.sendall(b"all I have to say")
        client.shutdown(socket.SHUT_WR)

    def scenario(client: socket.socket, destination: socket.socket) -> bytes:
        assert read_to_end(destination) == b"early, all I have to say"
        destination.sendall(b"answer")
        destination.close()
        return read_to_end(client)

    yield relay.run(before)
    relay.start(early=b"early, ")
    assert (yield relay.run(scenario)) == b"answer"
    yield relay.finished()


@pytest_twisted.inlineCallbacks
def test_abort(relay: Harness) -> Playing:
    """A shutdown of the proxy resets both sides, once, and says so."""
    relay.start()
    yield relay.run(lambda client, destination: client.sendall(b"hello"))
    relay.relay.abort()
    relay.relay.abort()
    ended = yield relay.finished()
    assert ended.how is Cause.ABORTED
    assert relay.endings == 1
    assert (yield deferToThread(is_reset, relay.client))
    assert (yield deferToThread(is_reset, relay.destination))


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.inlineCallbacks
def test_idle_timeout(kind: str) -> Playing:
    """A session without a byte for its time ends, and one with a byte now and then does not."""
    clock = Clock()
    with an_engine(Timed(clock)) as engine:
        harness = Harness(kind, engine, clock)
        harness.start(idle=60)
        for _ in range(4):
            clock.advance(40)
            yield harness.run(
                lambda client, destination: (client.sendall(b"."), read_exactly(destination, 1))
            )
        clock.advance(40)
        assert harness.endings == 0
        clock.advance(60)
        ended = yield harness.finished()
        harness.close()
    assert ended.how is Cause.IDLE
    assert ended.sent == 4


def urgent(sock: socket.socket, *pieces: bytes) -> None:
    """Send *pieces*, the last byte of each but the last one as urgent data."""
    for piece in pieces[:-1]:
        sock.sendall(piece[:-1])
        sock.send(piece[-1:], socket.MSG_OOB)
    sock.sendall(pieces[-1])


def other_way(relay: Harness, upwards: bool) -> tuple[socket.socket, socket.socket]:
    """The sockets from which and to which bytes go."""
    return (relay.client, relay.destination) if upwards else (relay.destination, relay.client)


@pytest.mark.parametrize("upwards", [True, False], ids=["upload", "download"])
@pytest.mark.parametrize("ends", [True, False], ids=["with an end", "open"])
@pytest.mark.parametrize("waits", [True, False], ids=["at once", "later"])
@pytest.mark.parametrize("pieces", [(b"\xff\xf4\xff", b"\xf2ABOR\r\n"), (b"x", b""), (b"a!", b"b!", b"c")])
@pytest_twisted.inlineCallbacks
def test_urgent_data(
    relay: Harness, upwards: bool, ends: bool, waits: bool, pieces: tuple[bytes, ...]
) -> Playing:
    """Urgent data, as of FTP's ABOR and telnet's interrupt, stays in the stream; nothing waits behind it."""
    if relay.kind == "wrapped" and upwards:
        pytest.skip("what is encapsulated has no urgent data")
    source, sink = other_way(relay, upwards)

    def scenario(*_: socket.socket) -> None:
        if not waits:
            source.sendall(b"before")
            assert read_exactly(sink, 6) == b"before"
            urgent(source, *pieces)
        if ends:
            source.shutdown(socket.SHUT_WR)
        whole = b"".join(pieces)
        assert read_exactly(sink, len(whole)) == whole
        source.close()
        assert read_to_end(sink) == b""
        sink.close()

    if waits:
        urgent(source, *pieces)
        if ends:
            source.shutdown(socket.SHUT_WR)
    relay.start()
    yield relay.run(scenario)
    yield relay.finished()


@pytest.mark.parametrize("metered", [False, True], ids=["", "metered"])
@pytest.mark.parametrize("upwards", [True, False], ids=["upload", "download"])
@pytest_twisted.inlineCallbacks
def test_urgent_data_in_bulk(relay: Harness, upwards: bool, metered: bool) -> Playing:
    """Where data is spliced, the kernel calls the stream at its end before urgent data."""
    if relay.kind == "wrapped" and upwards:
        pytest.skip("what is encapsulated has no urgent data")
    source, sink = other_way(relay, upwards)
    pieces = [pattern(1_000_000 + seed, seed) for seed in range(8)]

    def send() -> None:
        urgent(source, *pieces)
        source.close()

    def scenario(*_: socket.socket) -> bytes:
        sender = threading.Thread(target=send)
        sender.start()
        arrived = read_to_end(sink)
        sender.join()
        sink.close()
        return arrived

    meters = Meters(*(Meter([Bucket(reactor, Rate(1e9))]) for _ in range(2))) if metered else None
    relay.start(meters=meters)
    arrived = yield relay.run(scenario)
    assert hashlib.sha256(arrived).digest() == hashlib.sha256(b"".join(pieces)).digest()
    ended = yield relay.finished()
    assert ended.sent + ended.received == sum(map(len, pieces))


@pytest.mark.parametrize("seed", range(6))
@pytest_twisted.inlineCallbacks
def test_any_order(relay: Harness, seed: int) -> Playing:
    """Random pieces both ways, read at random paces, with half-closes where they fall."""
    rng = random.Random(seed)
    up, down = pattern(rng.randrange(1, 3 << 20), seed), pattern(rng.randrange(1, 3 << 20), seed + 1)

    def sender(sock: socket.socket, data: bytes, rng: random.Random) -> None:
        position = 0
        while position < len(data):
            size = rng.choice([1, 100, 1_000, 40_000, 65_536, 200_000])
            sock.sendall(data[position : position + size])
            position += size
        sock.shutdown(socket.SHUT_WR)

    def receiver(sock: socket.socket, into: list[bytes], rng: random.Random) -> None:
        while chunk := sock.recv(rng.choice([1_000, 9_000, 1 << 17])):
            into.append(chunk)

    def scenario(client: socket.socket, destination: socket.socket) -> tuple[bytes, bytes]:
        at_destination: list[bytes] = []
        at_client: list[bytes] = []
        threads = [
            threading.Thread(target=sender, args=(client, up, random.Random(seed))),
            threading.Thread(target=sender, args=(destination, down, random.Random(seed + 1))),
            threading.Thread(target=receiver, args=(destination, at_destination, random.Random(seed + 2))),
            threading.Thread(target=receiver, args=(client, at_client, random.Random(seed + 3))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return b"".join(at_destination), b"".join(at_client)

    relay.start()
    assert (yield relay.run(scenario)) == (up, down)
    yield relay.finished()


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.inlineCallbacks
def test_no_descriptor_is_left(kind: str) -> Playing:
    """Sessions that end in every way leave nothing open."""
    # What the reactor's thread pool opens once is not ours.
    yield deferToThread(lambda: None)
    before = open_descriptors()
    with an_engine() as engine:
        for scenario in (echo_once, client_resets, destination_resets, answer_after_client_half_close):
            harness = Harness(kind, engine)
            harness.start()
            yield harness.run(scenario)
            yield harness.finished()
            harness.close()
    left = open_descriptors() - before
    assert not {entry for entry in left if "socket:" in entry or "pipe:" in entry or "eventpoll" in entry}
