"""What takes the messages of logs: see :mod:`socksproxy.logs.sinks`."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksproxy.logs.sinks import (
    AGAIN,
    CLOSE_WITHIN,
    FIRST_DELAY,
    LONGEST_DELAY,
    MOST_WAITING,
    WARN_EVERY,
    DatagramSink,
    FileSink,
    Losses,
    StreamSink,
    _Link,
    sink_for,
)
from socksproxy.values.logs import log_place

from ..support.busy import processor_seconds
from ..support.logs import heard

#: The loop may wait so long for a log: seconds of operations.md, pitfall 24.
MOST = 0.005


@pytest.fixture
def lines() -> Iterator[list[str]]:
    with heard() as found:
        yield found


def longest(act: Callable[[], object], times: int) -> float:
    """The longest time that *act* takes, in seconds of the processor: others use this machine, too."""
    most = 0.0
    gc.disable()  # a collection is as long as there are objects of other tests
    try:
        for _ in range(times):
            began = time.thread_time()
            act()
            most = max(most, time.thread_time() - began)
    finally:
        gc.enable()
    return most


# Losses.


def test_losses_are_told_once_a_minute(lines: list[str]) -> None:
    now = [0.0]
    losses = Losses("place", lambda: now[0])
    for _ in range(1000):
        losses.add("no room")
    assert lines == ["place cannot be written, 1 lines are lost: no room"]
    now[0] = WARN_EVERY
    losses.add("no room")
    assert lines[1:] == ["place cannot be written, 1001 lines are lost: no room"]
    losses.end()
    assert lines[2:] == ["place is written again, 1001 lines are lost"]
    assert losses.count == 0


def test_a_full_disk(tmp_path: Path, lines: list[str]) -> None:
    """A limit of the file's size does as a full disk does: a part of a line, then none."""
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sink = FileSink(str(tmp_path / "log"), time.monotonic)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        for _ in range(30):
            sink.write(b"a line of 16 ch\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    sink.write(b"the last line\n")
    sink.close()
    assert (tmp_path / "log").read_bytes() == b"a line of 16 ch\n" * 6 + b"a li\nthe last line\n"
    assert len(lines) == 2
    assert lines[1].endswith("is written again, 24 lines are lost")


# A Unix socket.


class Reader:
    """A socket such as ``/dev/log``."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def read(self) -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(1 << 20))
        return found


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path / "socket")
    yield made
    made.socket.close()


def test_datagrams(tmp_path: Path, reader: Reader) -> None:
    clock = Clock()
    sink = DatagramSink(str(tmp_path / "socket"), "place", clock)
    sink.write(b"one")
    sink.write(b"two")
    assert reader.read() == [b"one", b"two"]
    assert clock.getDelayedCalls() == []
    assert sink.fileno() == -1
    sink.close()


def test_a_full_socket(tmp_path: Path, reader: Reader, lines: list[str]) -> None:
    """Messages wait, in their order; the rest is lost and counted; nothing waits for the reader."""
    clock = Clock()
    sink = DatagramSink(str(tmp_path / "socket"), "place", clock)
    numbers = iter(range(100_000))
    size = 10_000

    def write() -> None:
        sink.write(b"%06d" % next(numbers) + b"x" * (size - 6))

    count = MOST_WAITING // size + 200
    assert longest(write, count) < processor_seconds(MOST)
    found = reader.read()
    waits = MOST_WAITING // size
    lost = count - waits - len(found)
    assert lost > 0
    assert lines == ["place cannot be written, 1 lines are lost: resource temporarily unavailable"]
    while len(found) < count - lost:
        clock.advance(AGAIN)
        found += reader.read()
    assert [int(each[:6]) for each in found] == list(range(count - lost))
    assert lines[1:] == [f"place is written again, {lost} lines are lost"]
    assert clock.getDelayedCalls() == []
    sink.close()


def test_a_reader_that_comes_back(tmp_path: Path, reader: Reader, lines: list[str]) -> None:
    """rsyslog is restarted: what is logged meanwhile is there afterwards."""
    clock = Clock()
    path = tmp_path / "socket"
    sink = DatagramSink(str(path), "place", clock)
    sink.write(b"before")
    reader.read()
    reader.socket.close()
    sink.write(b"refused")
    path.unlink()
    clock.advance(AGAIN)
    sink.write(b"gone")
    again = Reader(path)
    clock.advance(AGAIN)
    sink.write(b"after")
    assert again.read() == [b"refused", b"gone", b"after"]
    assert lines == []
    again.socket.close()
    sink.close()


def test_close_of_a_socket(tmp_path: Path, reader: Reader) -> None:
    clock = Clock()
    sink = DatagramSink(str(tmp_path / "none"), "place", clock)
    sink.write(b"one")
    assert sink.close().called
    assert clock.getDelayedCalls() == []
    sink.write(b"two")
    assert clock.getDelayedCalls() == []


def test_a_long_message_is_cut(tmp_path: Path, reader: Reader) -> None:
    sink = DatagramSink(str(tmp_path / "socket"), "place", Clock())
    sink.write(b"x" * 1_000_000)
    sink.write(b"next")
    assert [len(each) for each in reader.read()] == [1 << 16, 4]
    sink.close()


# A server.


class Endpoint:
    """Connects when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Deferred[Any]]] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((factory, answer))
        return answer

    def accept(self) -> tuple[_Link, StringTransport]:
        factory, answer = self.asked[-1]
        link, transport = factory.buildProtocol(None), StringTransport()
        transport.setTcpKeepAlive = lambda on: None  # type: ignore[attr-defined]
        link.makeConnection(transport)
        answer.callback(link)
        return link, transport


@pytest.fixture
def parts() -> tuple[StreamSink, Endpoint, Clock]:
    clock, endpoint = Clock(), Endpoint()
    return StreamSink(endpoint, "place", clock), endpoint, clock  # type: ignore[arg-type]


def test_octet_counting(parts: tuple[StreamSink, Endpoint, Clock]) -> None:
    """RFC 6587, section 3.4.1; the first message connects."""
    sink, endpoint, _ = parts
    assert endpoint.asked == []
    sink.write(b"a message")
    sink.write(b"two\nlines")
    link, transport = endpoint.accept()
    assert verifyObject(IPushProducer, link)
    assert transport.producer is link
    sink.write(b"x" * 100)
    assert transport.value() == b"9 a message9 two\nlines100 " + b"x" * 100


def test_a_server_that_does_not_read(parts: tuple[StreamSink, Endpoint, Clock], lines: list[str]) -> None:
    sink, endpoint, _ = parts
    sink.write(b"first")
    link, transport = endpoint.accept()
    transport.clear()
    link.pauseProducing()
    message = b"x" * 9995
    for _ in range(MOST_WAITING // 10_000 + 10):
        sink.write(message)
    assert transport.value() == b""
    assert lines == ["place cannot be written, 1 lines are lost: the server does not read"]
    link.resumeProducing()
    assert len(transport.value()) == MOST_WAITING // 10_000 * 10_000
    assert lines[1:] == ["place is written again, 10 lines are lost"]


def test_a_server_that_is_away(parts: tuple[StreamSink, Endpoint, Clock], lines: list[str]) -> None:
    """It is tried again, less and less often; messages wait."""
    sink, endpoint, clock = parts
    sink.write(b"one")
    delays = []
    for _ in range(9):
        endpoint.asked[-1][1].errback(Failure(ConnectionRefusedError(111, "Connection refused")))
        (timer,) = clock.getDelayedCalls()
        delays.append(timer.getTime() - clock.seconds())
        clock.advance(delays[-1])
    assert delays[:3] == [FIRST_DELAY, FIRST_DELAY * 2, FIRST_DELAY * 4]
    assert delays[-1] == LONGEST_DELAY
    sink.write(b"two")
    link, transport = endpoint.accept()
    assert transport.value() == b"3 one3 two"
    link.connectionLost(Failure(ConnectionDone()))
    sink.write(b"three")
    clock.advance(FIRST_DELAY)
    assert endpoint.accept()[1].value() == b"5 three"
    assert lines == []


def test_close_sends_what_is_left(parts: tuple[StreamSink, Endpoint, Clock]) -> None:
    sink, endpoint, clock = parts
    sink.write(b"one")
    closed = sink.close()
    assert not closed.called
    link, transport = endpoint.accept()
    assert transport.value() == b"3 one"
    assert transport.disconnecting
    sink.write(b"too late")
    link.connectionLost(Failure(ConnectionDone()))
    assert closed.called
    assert clock.getDelayedCalls() == []
    assert sink.close() is closed


def test_close_waits_a_little(parts: tuple[StreamSink, Endpoint, Clock]) -> None:
    """The end of the process does not wait for a server of logs."""
    sink, endpoint, clock = parts
    sink.write(b"one")
    _, transport = endpoint.accept()
    closed = sink.close()
    clock.advance(CLOSE_WITHIN)
    assert closed.called
    assert transport.disconnected
    assert clock.getDelayedCalls() == []


def test_close_without_a_message(parts: tuple[StreamSink, Endpoint, Clock]) -> None:
    sink, endpoint, clock = parts
    assert sink.close().called
    assert endpoint.asked == []
    assert clock.getDelayedCalls() == []


@pytest_twisted.inlineCallbacks
def test_over_loopback() -> Generator[Any, Any, None]:
    """A server that reads nothing costs the loop nothing; when it reads, all that waits is there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sink = sink_for(log_place(f"syslog:tcp:127.0.0.1:{listening.getsockname()[1]}"), reactor)
        sink.write(b"0")
        listening.setblocking(False)
        while True:
            try:
                client, _ = listening.accept()
                break
            except BlockingIOError:
                yield deferLater(reactor, 0.01)
        assert longest(lambda: sink.write(b"x" * 1000), 3000) < processor_seconds(MOST)
        wanted = 3 + 3000 * 1005
        got = 0
        client.setblocking(False)
        while got < wanted:
            try:
                got += len(client.recv(1 << 20))
            except BlockingIOError:
                yield deferLater(reactor, 0.001)
        assert got == wanted
        client.close()
        yield sink.close()


def test_file_of_a_place(tmp_path: Path) -> None:
    sink = sink_for(log_place(str(tmp_path / "log")), None)
    sink.write(b"line\n")
    assert os.path.samestat(os.fstat(sink.fileno()), (tmp_path / "log").stat())
    sink.close()
    assert sink.fileno() == -1
