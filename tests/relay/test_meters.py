"""How the engine and the transports relay keep to meters."""

from __future__ import annotations

import gc
import hashlib
import random
import socket
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock, deferLater

from socksproxy.events import Cause
from socksproxy.limits import Rate
from socksproxy.limits.buckets import Bucket, Meter, Meters
from socksproxy.relay.pump import BUFFER_SIZE
from tests.support.limits import Purse
from tests.support.proxy import until

from ..support.relay import KINDS, Harness, an_engine, is_reset, reactor, read_exactly, read_to_end, reset

Playing = Generator[Any, Any, None]

kinds = pytest.mark.parametrize("kind", KINDS)
engine_only = pytest.mark.skipif("engine" not in KINDS, reason="there is no engine here")
ways = pytest.mark.parametrize("upwards", [True, False], ids=["upload", "download"])


@contextmanager
def harness_of(kind: str) -> Iterator[Harness]:
    """A harness that is closed in the end."""
    with an_engine() as engine:
        harness = Harness(kind, engine)
        yield harness
        harness.close()


def bucket(per_second: float, burst: float | None = None) -> Bucket:
    return Bucket(reactor, Rate(per_second, burst))


def up(*buckets: Any) -> Meters:
    return Meters(Meter(buckets), None)


def down(*buckets: Any) -> Meters:
    return Meters(None, Meter(buckets))


def feed(sock: Any) -> None:
    """Send without end, in a thread, until the connection is closed."""

    def send() -> None:
        with suppress(OSError):
            while True:
                sock.sendall(bytes(1 << 16))

    threading.Thread(target=send, daemon=True).start()


def drain(sock: Any) -> None:
    """Read what comes, in a thread, until the connection is closed."""

    def read() -> None:
        with suppress(OSError):
            while sock.recv(1 << 18):
                pass

    threading.Thread(target=read, daemon=True).start()


def rate_of(sock: Any, after: int, expected: float) -> float:
    """
    Bytes a second that come in a second, when *after* bytes have come.

    A machine that is busy may stop the reader for a part of that second: then the next one is measured.
    """
    read_exactly(sock, after)
    for _ in range(5):
        began, size = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < 1:
            size += len(sock.recv(1 << 18))
        if size / elapsed == pytest.approx(expected, rel=0.05):
            break
    return size / elapsed


# Rates.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "upwards", "rate"),
    [
        *((kind, upwards, rate) for kind in KINDS for upwards, rate in ((True, 1e6), (False, 200e3))),
        # The others need the whole machine for that, this test's own threads not counted.
        *(("engine", upwards, 30e6) for upwards in (True, False) if "engine" in KINDS),
    ],
)
@pytest_twisted.inlineCallbacks
def test_rate(kind: str, upwards: bool, rate: float) -> Playing:
    """Exact to 5 % over a second."""
    with harness_of(kind) as harness:
        harness.start(meters=(up if upwards else down)(bucket(rate)))

        def scenario(client: Any, destination: Any) -> float:
            source, sink = (client, destination) if upwards else (destination, client)
            feed(source)
            return rate_of(sink, int(rate * 0.3), rate)

        measured = yield harness.run(scenario)
        harness.relay.abort()
        yield harness.finished()
    assert measured == pytest.approx(rate, rel=0.05)


@engine_only
@pytest_twisted.inlineCallbacks
def test_splices_what_may_be_moved(monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A fast limit leaves bulk to the pipes, and none of them is kept while the session waits."""
    moved: list[int] = []
    from socksproxy.relay import pump

    splice = pump._SPLICE

    def counted(*arguments: Any, **options: Any) -> int:
        size = splice(*arguments, **options)
        moved.append(size)
        return size

    monkeypatch.setattr(pump, "_SPLICE", counted)
    with harness_of("engine") as harness:
        assert harness.engine is not None
        pipes = harness.engine.pipes
        harness.start(meters=up(bucket(10e6)))

        def scenario(client: Any, destination: Any) -> None:
            feed(client)
            read_exactly(destination, 6_000_000)
            drain(destination)  # lest the session waits for it

        yield harness.run(scenario)
        # Most of it went both into a pipe and out of one.
        assert sum(moved) > 6_000_000
        assert max(moved) > BUFFER_SIZE
        meter = harness.relay.client.meter
        yield until(lambda: meter.waiting and not pipes.lent)
        harness.relay.abort()
        yield harness.finished()


@kinds
@pytest_twisted.inlineCallbacks
def test_directions_apart(kind: str) -> Playing:
    """While one waits, the other does not."""
    with harness_of(kind) as harness:
        slow = bucket(1.0, 20_000)
        harness.start(meters=up(slow))

        def scenario(client: Any, destination: Any) -> str:
            feed(client)
            read_exactly(destination, 10_000)
            data = random.Random(1).randbytes(4 << 20)
            sender = threading.Thread(target=destination.sendall, args=(data,))
            sender.start()
            arrived = read_exactly(client, len(data))
            sender.join()
            return "whole" if arrived == data else "broken"

        assert (yield harness.run(scenario)) == "whole"
        assert slow.waiting == 1
        assert harness.relay.sent <= 20_000 + 65_536  # a message of the wrapped one is passed on as a whole
        harness.relay.abort()
        yield harness.finished()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "mixed"])
@pytest_twisted.inlineCallbacks
def test_fairness(kind: str) -> Playing:
    """Five sessions under one bucket get equal parts, also if they are relayed in different ways."""
    shared = bucket(2e6)
    with an_engine() as engine:
        harnesses = [Harness(KINDS[n % len(KINDS)] if kind == "mixed" else kind, engine) for n in range(5)]
        for harness in harnesses:
            harness.start(meters=up(shared))

            feed(harness.client)
            drain(harness.destination)
        while min(harness.relay.sent for harness in harnesses) < 100_000:
            yield deferLater(reactor, 0.05, lambda: None)
        for _ in range(4):
            before, began = [harness.relay.sent for harness in harnesses], time.monotonic()
            yield deferLater(reactor, 4, lambda: None)
            elapsed = time.monotonic() - began
            rates = [
                (harness.relay.sent - sent) / elapsed for harness, sent in zip(harnesses, before, strict=True)
            ]
            # A busy machine may stop this process for a part of that time.
            if sum(rates) == pytest.approx(2e6, rel=0.05) and rates == pytest.approx([400e3] * 5, rel=0.1):
                break
        for harness in harnesses:
            harness.relay.abort()
            yield harness.finished()
            harness.close()
    assert sum(rates) == pytest.approx(2e6, rel=0.05)
    assert rates == pytest.approx([400e3] * 5, rel=0.1)
    assert shared.waiting == 0


# In place.


@kinds
@ways
@pytest_twisted.inlineCallbacks
def test_change_of_rate_in_place(kind: str, upwards: bool) -> Playing:
    """Who waits by the old rate goes on by the new one."""
    shared = bucket(1.0, 30_000)
    with harness_of(kind) as harness:
        harness.start(meters=(up if upwards else down)(shared))

        def first(client: Any, destination: Any) -> None:
            source, sink = (client, destination) if upwards else (destination, client)
            feed(source)
            read_exactly(sink, 20_000)

        def then(client: Any, destination: Any) -> float:
            return rate_of(destination if upwards else client, 400_000, 1e6)

        yield harness.run(first)
        shared.rate = Rate(1e6)
        measured = yield harness.run(then)
        harness.relay.abort()
        yield harness.finished()
    assert measured == pytest.approx(1e6, rel=0.05)


@kinds
@ways
@pytest_twisted.inlineCallbacks
def test_no_limit_any_more(kind: str, upwards: bool) -> Playing:
    """A session that waits goes on at once, and has left the bucket."""
    shared = bucket(1.0, 30_000)
    data = random.Random(2).randbytes(3 << 20)
    with harness_of(kind) as harness:
        harness.start(meters=(up if upwards else down)(shared))
        harness.run(
            lambda client, destination: (client if upwards else destination).sendall(data)
        ).addErrback(lambda failure: None)
        first = yield harness.run(
            lambda client, destination: read_exactly(destination if upwards else client, 20_000)
        )
        while not shared.waiting:
            yield deferLater(reactor, 0.01, lambda: None)
        harness.relay.meter(None)
        assert shared.waiting == 0
        rest = yield harness.run(
            lambda client, destination: read_exactly(
                destination if upwards else client, len(data) - len(first)
            )
        )
        harness.relay.abort()
        yield harness.finished()
    assert first + rest == data


@kinds
@ways
@pytest_twisted.inlineCallbacks
def test_a_limit_for_one_that_runs(kind: str, upwards: bool) -> Playing:
    """From no limit to one, and to another one."""
    with harness_of(kind) as harness:
        harness.start()
        of = up if upwards else down

        def first(client: Any, destination: Any) -> None:
            feed(client if upwards else destination)
            read_exactly(destination if upwards else client, 1 << 20)

        def then(client: Any, destination: Any) -> float:
            # What is in the kernel's buffers is on its way already.
            return rate_of(destination if upwards else client, 8_000_000, 8e6)

        yield harness.run(first)
        before = bucket(30e6)
        harness.relay.meter(of(before))
        yield harness.run(lambda client, destination: read_exactly(destination if upwards else client, 1))
        harness.relay.meter(of(bucket(8e6)))
        assert before.waiting == 0
        measured = yield harness.run(then)
        harness.relay.abort()
        yield harness.finished()
    assert measured == pytest.approx(8e6, rel=0.05)


@kinds
@pytest.mark.parametrize("seed", range(3))
@pytest_twisted.inlineCallbacks
def test_every_byte_arrives_whatever_the_limits(kind: str, seed: int) -> Playing:
    """Random pieces both ways, and limits that come, change and go."""
    rng = random.Random(seed)
    upwards, downwards = rng.randbytes(2 << 20), rng.randbytes(3 << 20)
    server = bucket(6e6)

    def pour(data: bytes, source: Any, sink: Any, arrived: dict[str, str], name: str) -> None:
        def send() -> None:
            own, at = random.Random(seed), 0
            while at < len(data):
                size = own.choice([1, 500, 9_000, 65_536, 300_000])
                source.sendall(data[at : at + size])
                at += size
            source.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        arrived[name] = hashlib.sha256(read_to_end(sink)).hexdigest()
        sender.join()

    def scenario(client: Any, destination: Any) -> dict[str, str]:
        arrived: dict[str, str] = {}
        other = threading.Thread(target=pour, args=(downwards, destination, client, arrived, "down"))
        other.start()
        pour(upwards, client, destination, arrived, "up")
        other.join()
        return arrived

    with harness_of(kind) as harness:
        harness.start(meters=Meters(Meter([server]), Meter([server])))
        playing = harness.run(scenario)
        while not harness.endings:
            yield deferLater(reactor, 0.05, lambda: None)
            some = [Meter([bucket(rng.choice([5e5, 3e6, 50e6])), server]), None]
            harness.relay.meter(rng.choice([None, Meters(*some), Meters(*reversed(some))]))
            server.rate = Rate(rng.choice([2e6, 6e6, 100e6]))
        arrived = yield playing
        ended = yield harness.finished()
    assert arrived == {
        "up": hashlib.sha256(upwards).hexdigest(),
        "down": hashlib.sha256(downwards).hexdigest(),
    }
    assert (ended.sent, ended.received) == (len(upwards), len(downwards))
    assert server.waiting == 0


# Ends.


@kinds
@pytest_twisted.inlineCallbacks
def test_half_close_behind_what_waits(kind: str) -> Playing:
    """The FIN comes after the last byte that was waited for; then comes an answer."""
    data = random.Random(3).randbytes(150_000)

    def scenario(client: Any, destination: Any) -> tuple[bytes, bytes]:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        arrived = read_to_end(destination)
        destination.sendall(b"got it")
        destination.close()
        return arrived, read_to_end(client)

    with harness_of(kind) as harness:
        harness.start(meters=up(bucket(100e3, 20_000)))
        assert (yield harness.run(scenario)) == (data, b"got it")
        ended = yield harness.finished()
    assert ended.how is Cause.CLIENT


@kinds
@pytest_twisted.inlineCallbacks
def test_reset_by_the_destination_while_the_client_waits(kind: str) -> Playing:
    shared = bucket(1.0, 20_000)
    with harness_of(kind) as harness:
        harness.start(meters=up(shared))

        def scenario(client: Any, destination: Any) -> bool:
            client.sendall(bytes(60_000))
            read_exactly(destination, 5_000)
            reset(destination)
            return is_reset(client)

        assert (yield harness.run(scenario))
        ended = yield harness.finished()
    assert ended.how is Cause.DESTINATION_RESET
    assert shared.waiting == 0


@engine_only
@ways
@pytest_twisted.inlineCallbacks
def test_reset_by_who_waits(upwards: bool) -> Playing:
    """The engine sees it though it does not read. (A transport that does not read sees nothing.)"""
    shared = bucket(1.0, 20_000)
    with harness_of("engine") as harness:
        harness.start(meters=(up if upwards else down)(shared))

        def scenario(client: Any, destination: Any) -> bool:
            source, sink = (client, destination) if upwards else (destination, client)
            source.sendall(bytes(60_000))
            read_exactly(sink, 5_000)
            reset(source)
            return is_reset(sink)

        assert (yield harness.run(scenario))
        ended = yield harness.finished()
    assert ended.how is (Cause.CLIENT_RESET if upwards else Cause.DESTINATION_RESET)
    assert shared.waiting == 0


@kinds
@pytest_twisted.inlineCallbacks
def test_abort_while_it_waits(kind: str) -> Playing:
    shared = bucket(1.0, 20_000)
    with harness_of(kind) as harness:
        harness.start(meters=up(shared))
        yield harness.run(
            lambda client, destination: (client.sendall(bytes(60_000)), read_exactly(destination, 5_000))
        )
        harness.relay.abort()
        ended = yield harness.finished()
        harness.relay.meter(up(shared))
    assert ended.how is Cause.ABORTED
    assert shared.waiting == 0


@kinds
@pytest.mark.parametrize("eof", [False, True])
@pytest_twisted.inlineCallbacks
def test_early_data_counts(kind: str, eof: bool) -> Playing:
    """What came along with the request is under the limit as all else is, and comes first."""
    early, later = random.Random(4).randbytes(50_000), b"" if eof else b"and then this"
    shared = bucket(1.0, 2_000)
    with harness_of(kind) as harness:
        if eof:
            harness.client.shutdown(socket.SHUT_WR)
        harness.start(early=early, client_eof=eof, meters=up(shared))
        if not eof:
            yield harness.run(
                lambda client, destination: (client.sendall(later), client.shutdown(socket.SHUT_WR))
            )
        first = yield harness.run(lambda client, destination: read_exactly(destination, 2_000))
        assert harness.relay.sent == 2_000
        assert shared.waiting == 1
        shared.rate = Rate(1e6)
        rest = yield harness.run(lambda client, destination: read_to_end(destination))
        harness.destination.close()
        ended = yield harness.finished()
    assert first + rest == early + later
    assert ended.sent == len(early + later)


@kinds
@pytest_twisted.inlineCallbacks
def test_no_limit_any_more_for_early_data(kind: str) -> Playing:
    early = random.Random(5).randbytes(50_000)
    with harness_of(kind) as harness:
        harness.start(early=early, meters=up(bucket(1.0, 2_000)))
        first = yield harness.run(lambda client, destination: read_exactly(destination, 2_000))
        harness.relay.meter(None)
        rest = yield harness.run(lambda client, destination: read_exactly(destination, 48_000))
        harness.relay.abort()
        yield harness.finished()
    assert first + rest == early


@kinds
@ways
@pytest_twisted.inlineCallbacks
def test_quota(kind: str, upwards: bool) -> Playing:
    """A session whose bytes are used up ends, and says so."""
    purse, shared = Purse(200_000), bucket(1e6)
    with harness_of(kind) as harness:
        harness.start(meters=(up if upwards else down)(purse, shared))

        def scenario(client: Any, destination: Any) -> bool:
            feed(client if upwards else destination)
            return is_reset(destination if upwards else client)

        was_reset = yield harness.run(scenario)
        ended = yield harness.finished()
    assert ended.how is Cause.QUOTA
    # What Twisted's transports have taken is sent before they are closed.
    assert was_reset == (kind == "engine")
    # A message of the wrapped one is passed on as a whole.
    over = 65_536 if kind == "wrapped" else 0
    assert 200_000 <= max(ended.sent, ended.received) <= 200_000 + over
    assert shared.waiting == 0


@kinds
@ways
@pytest_twisted.inlineCallbacks
def test_what_passed_a_quota_arrives(kind: str, upwards: bool) -> Playing:
    """A session ends with the last byte of a quota, and that one is delivered, too."""
    purse = Purse(2000)
    with harness_of(kind) as harness:
        harness.start(meters=Meters(Meter([purse]), Meter([purse])))

        def scenario(client: Any, destination: Any) -> bytes:
            first, second = (client, destination) if upwards else (destination, client)
            first.sendall(b"x" * 1000)
            second.sendall(read_exactly(second, 1000).swapcase())
            return read_exactly(first, 1000)

        assert (yield harness.run(scenario)) == b"X" * 1000
        ended = yield harness.finished()
    assert (ended.how, ended.sent, ended.received) == (Cause.QUOTA, 1000, 1000)


@pytest.mark.parametrize("kind", ["transports", "wrapped"])
@pytest_twisted.inlineCallbacks
def test_who_does_not_take_what_passed(kind: str) -> Playing:
    """The session does not last for a peer that takes nothing."""
    purse, clock = Purse(30_000_000), Clock()
    harness = Harness(kind, clock=clock)
    harness.limit_buffers(4096)
    harness.start(meters=up(purse))
    feeding = harness.run(lambda client, destination: feed(client))
    while purse.left > 29_900_000:
        yield deferLater(reactor, 0.01, lambda: None)
    purse.left = 0
    harness.relay.client.resume()
    yield deferLater(reactor, 0.05, lambda: None)
    assert harness.endings == 0
    assert harness.relay.how is Cause.QUOTA
    clock.advance(10)
    ended = yield harness.finished()
    assert ended.how is Cause.QUOTA
    assert not clock.getDelayedCalls()
    harness.close()
    yield feeding


@kinds
@pytest_twisted.inlineCallbacks
def test_half_closed(kind: str) -> Playing:
    """Who has sent all does not keep what it was given for more, however long its session goes on."""
    shared = bucket(1e6, 4096)
    with harness_of(kind) as harness:
        harness.start(meters=up(shared))
        meter = harness.relay.client.meter

        def scenario(client: Any, destination: Any) -> None:
            client.sendall(bytes(6000))
            client.shutdown(socket.SHUT_WR)
            assert read_to_end(destination) == bytes(6000)

        yield harness.run(scenario)
        assert harness.endings == 0
        assert not any(meter._held)
        harness.destination.close()
        yield harness.finished()


@kinds
@pytest_twisted.inlineCallbacks
def test_nothing_is_left_in_a_bucket(kind: str) -> Playing:
    """Sessions that ended while they waited can be forgotten, though the bucket lives on."""
    shared = bucket(1000.0, 20_000)
    others = Meter([shared])
    while others.take():
        others.spend(500)
    with an_engine() as engine:
        for number in range(6):
            harness = Harness(kind, engine)
            harness.start(meters=up(shared))
            yield harness.run(lambda client, destination: client.sendall(bytes(50_000)))
            while shared.waiting < 2:
                yield deferLater(reactor, 0.01, lambda: None)
            (reset if number % 2 else socket.socket.close)(harness.destination)
            harness.relay.abort()
            yield harness.finished()
            harness.close()
        assert shared.waiting == 1
        relay = harness.relay
        del harness
    gc.collect()
    others.leave()
    assert shared.waiting == 0
    assert not shared._left
    assert relay.how is not None


@engine_only
@pytest_twisted.inlineCallbacks
def test_a_fault_costs_one_session(monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A pump that fails in its turn ends, and the others under the bucket go on."""
    from socksproxy.relay.pump import Half

    shared = bucket(500e3, 20_000)
    with an_engine() as engine:
        failing, other = Harness("engine", engine), Harness("engine", engine)
        for harness in (failing, other):
            harness.start(meters=up(shared))
            yield harness.run(lambda client, destination: feed(client))
        pump = Half.pump
        monkeypatch.setattr(Half, "pump", lambda half: 1 / 0 if half is failing.relay.client else pump(half))
        ended = yield failing.finished()
        monkeypatch.undo()
        assert ended.how is Cause.ABORTED
        yield other.run(lambda client, destination: read_exactly(destination, 300_000))
        other.relay.abort()
        yield other.finished()
        failing.close()
        other.close()
    assert shared.waiting == 0


@engine_only
def test_without_meters_it_costs_one_look() -> None:
    """A session has one more word for each direction, and nothing else."""
    from socksproxy.relay.pump import Half

    assert "meter" in Half.__slots__
    assert len(Half.__slots__) <= 17
