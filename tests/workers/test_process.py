"""What supervisor and workers say to each other: see :mod:`socksproxy.workers.process`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from socksproxy.workers.descriptor_passing import file_of
from socksproxy.workers.process import LONGEST_LINE, ORDERS_VERSION, Inbox, Lines, WorkerProcess, pass_on
from socksproxy.workers.questions import Questions
from socksproxy.workers.states import Ending
from socksproxy.workers.worker import read_orders
from tests.support.logs import log_publisher
from tests.support.workers import orders


@given(pieces=st.lists(st.binary(max_size=5).map(lambda data: data.replace(b"\x00", b"\n"))))
def test_lines(pieces: list[bytes]) -> None:
    """However it is cut, what was said is the same lines."""
    said: list[bytes] = []
    lines = Lines(said.append)
    for piece in pieces:
        lines.feed(piece)
    lines.end()
    whole = b"".join(pieces).split(b"\n")
    assert said == (whole if whole[-1] else whole[:-1])


@pytest.mark.parametrize("size", [17, 1000, 10**6])
def test_endless_line(size: int) -> None:
    """A line without end takes no memory without end; the next line is whole again."""
    said: list[bytes] = []
    lines = Lines(said.append)
    data = b"x" * 100_000 + b"\nnext\n"
    for start in range(0, len(data), size):
        lines.feed(data[start : start + size])
        assert len(lines._rest) <= LONGEST_LINE
    assert said == [b"x" * LONGEST_LINE, b"next"]


def test_orders() -> None:
    """A worker is told all that it was to be told, and what comes behind that is left for later."""
    read, write = os.pipe()
    os.write(write, orders().line() + b"drain\n")
    received = read_orders(read)
    assert json.loads(received.line()) == json.loads(orders().line())
    assert received.files == {"/a:b": 11}
    assert os.read(read, 100) == b"drain\n"
    os.write(write, b'{"numb')
    os.close(write)
    with pytest.raises(EOFError):
        read_orders(read)
    os.close(read)


@pytest.mark.parametrize("version", [None, 0, ORDERS_VERSION - 1, ORDERS_VERSION + 1])
def test_orders_of_another_version(version: int | None) -> None:
    """A worker whose program has changed since its supervisor started ends, and says what is to be done."""
    fields = {**json.loads(orders().line()), "new": 1}
    del fields["version"]
    if version is not None:
        fields["version"] = version
    read, write = os.pipe()
    os.write(write, json.dumps(fields).encode() + b"\n")
    os.close(write)
    code = "from socksproxy.workers.worker import main; main()"
    command = [sys.executable, "-c", code, str(read)]
    done = subprocess.run(command, pass_fds=[read], capture_output=True, text=True, timeout=60)
    os.close(read)
    assert done.returncode == 1
    assert done.stderr == (
        f"the supervisor gives orders of version {version or 0}, and this worker knows version "
        f"{ORDERS_VERSION}: the program has changed since the supervisor started, so restart it\n"
    )


# The supervisor's end.


class Told:
    """Stands for a worker's machine."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.passed = 0

    def ready(self) -> None:
        self.told.append("ready")

    def reloaded(self) -> None:
        self.told.append("reloaded")

    def not_reloaded(self) -> None:
        self.told.append("not reloaded")

    def ended(self, ending: Ending) -> None:
        self.told.append(ending)


@pytest.fixture
def logged() -> Iterator[list[tuple[LogLevel, str]]]:
    seen: list[Any] = []

    def observe(event: Any) -> None:
        if event.get("log_namespace") == "socksproxy":
            seen.append((event["log_level"], event["log_format"].format(**event)))

    log_publisher.addObserver(observe)
    yield seen
    log_publisher.removeObserver(observe)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def process(told: Told) -> Iterator[WorkerProcess]:
    machine: Any = told
    process = WorkerProcess(
        3,
        machine,
        4,
        5,
        lambda process: pass_on(process.channel, orders(), [told.passed] if told.passed else []),
        Questions(Clock()),
    )
    yield process
    process.close_channel()


def test_says_ready(process: WorkerProcess, told: Told) -> None:
    """A worker is ready when it says so, in however many pieces, and not when it says something else."""
    process.childDataReceived(5, b"steady\nre")
    assert told.told == []
    process.childDataReceived(5, b"ady\n")
    assert told.told == ["ready"]
    process.childDataReceived(5, b"not reloaded\nreloaded\n")
    assert told.told == ["ready", "not reloaded", "reloaded"]


# Orders that come later.


@pytest.mark.parametrize("count", [0, 1, 64, 65, 200])
def test_pass_on(count: int) -> None:
    """Orders come with all their descriptors, in their order, however many messages that takes."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    files = [file_of(str(number).encode()) for number in range(count)]
    with here, there:
        inbox = Inbox(there)
        for _ in range(2):
            pass_on(here, orders(), files)
            while (taken := inbox.take()) is None:
                pass
            received, descriptors = taken
            assert received.line() == orders().line()
            assert [os.pread(descriptor, 9, 0) for descriptor in descriptors] == [
                str(number).encode() for number in range(count)
            ]
            assert not any(map(os.get_inheritable, descriptors))
            for descriptor in descriptors:
                os.close(descriptor)
        with pytest.raises(BlockingIOError):
            inbox.take()
    for file in files:
        os.close(file)


def test_cannot_be_told(process: WorkerProcess, logged: list[Any]) -> None:
    """A worker that does not read what it is told, or is gone, is no fault of the supervisor's."""
    assert process.reload()
    while process.reload():
        pass
    assert [text for _, text in logged] == [
        "worker 3 does not get the configuration: Resource temporarily unavailable"
    ]
    process.close_channel()
    assert not process.reload()


def test_cannot_be_told_at_once(process: WorkerProcess, told: Told, logged: list[Any]) -> None:
    """Nor is a descriptor that cannot be passed on."""
    told.passed = 10_000_000
    assert not process.reload()
    assert [text for _, text in logged] == ["worker 3 does not get the configuration: Bad file descriptor"]


def test_logs(process: WorkerProcess, logged: list[Any]) -> None:
    """What a worker logs keeps its level, and gets its number."""
    process.childDataReceived(1, b'["error","a fault"]\nprinted\n["nonsense","x"]\n')
    process.childDataReceived(2, b"Traceback\n\nlast words")
    process.childConnectionLost(2)
    assert logged == [
        (LogLevel.error, "worker 3: a fault"),
        (LogLevel.info, "worker 3: printed"),
        (LogLevel.info, 'worker 3: ["nonsense","x"]'),
        (LogLevel.warn, "worker 3: Traceback"),
        (LogLevel.warn, "worker 3: last words"),
    ]


@pytest.mark.parametrize(
    ("reason", "ending"),
    [
        (ProcessDone(0), Ending("exit status 0", orderly=True)),
        (ProcessTerminated(1), Ending("exit status 1 (no such key)")),
        (ProcessTerminated(signal=signal.SIGKILL), Ending("signal SIGKILL", killed=True)),
        (ProcessTerminated(signal=99), Ending("signal 99", killed=True)),
    ],
)
def test_ending(reason: Exception, ending: Ending, process: WorkerProcess, told: Told) -> None:
    """An operator reads what ended a worker, with its last words where it had some."""
    process.childDataReceived(2, b"no such key\n")
    process.processEnded(Failure(reason))
    assert told.told == [ending]
