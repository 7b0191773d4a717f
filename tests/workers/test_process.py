"""What supervisor and workers say to each other: :mod:`socksproxy.workers.process` and ``worker``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from socksproxy import Client
from socksproxy.service.reload import CannotReload
from socksproxy.workers.counts import SharedCounting
from socksproxy.workers.descriptor_passing import file_of
from socksproxy.workers.process import LONGEST_LINE, Inbox, Lines, WorkerProcess, pass_on
from socksproxy.workers.shared_table import new_table
from socksproxy.workers.states import Ending
from socksproxy.workers.worker import Reporter, follow_commands, make_worker_service, read_orders
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


@pytest.mark.parametrize("size", [1, 1000, 10**6])
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


@pytest.mark.parametrize("version", [None, 0, 2])
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
        f"the supervisor gives orders of version {version or 0}, and this worker knows version 1: "
        "the program has changed since the supervisor started, so restart it\n"
    )


# The worker's log.


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def reported(pipe: tuple[int, int], log: Any, namespace: str = "socksproxy") -> list[Any]:
    reporter = Reporter(pipe[1])
    log(Logger(namespace=namespace, observer=reporter))
    os.write(pipe[1], b"\n")
    return [json.loads(line) for line in os.read(pipe[0], 65536).splitlines() if line]


def test_reports(pipe: tuple[int, int]) -> None:
    """An event is a line, whatever is in it."""
    said = reported(pipe, lambda log: log.warn("two\nlines of {what}", what="ü"))
    assert said == [["warn", "two\nlines of ü"]]


def test_reports_traceback(pipe: tuple[int, int]) -> None:
    """A fault is reported in full."""

    def fault(log: Logger) -> None:
        try:
            raise ValueError("broken")
        except ValueError:
            log.failure("it failed")

    (level, text) = reported(pipe, fault)[0]
    assert level == "critical"
    assert text.startswith("it failed\nTraceback")
    assert "ValueError: broken" in text


@pytest.mark.parametrize("character", ["x", "\n", '"', "\x01"])
def test_reports_long(character: str, pipe: tuple[int, int]) -> None:
    """What is too long keeps its beginning and its end, and fits into a line."""
    text = "begin" + character * 100_000 + "end"
    reporter = Reporter(pipe[1])
    Logger(namespace="socksproxy", observer=reporter).error("{text}", text=text)
    line = os.read(pipe[0], 100_000)
    assert len(line) <= LONGEST_LINE + 1
    _, said = json.loads(line)
    assert said.startswith("begin")
    assert said.endswith("end")


def test_reports_what_matters(pipe: tuple[int, int]) -> None:
    """Of Twisted's own lines those that warn are passed on."""
    assert reported(pipe, lambda log: log.info("starting"), "log_legacy") == []
    assert reported(pipe, lambda log: log.error("broken"), "log_legacy") == [["error", "broken"]]
    assert reported(pipe, lambda log: log.debug("detail")) == []


def test_reports_to_nobody() -> None:
    """Without a supervisor a worker goes on until it knows."""
    read, write = os.pipe()
    os.close(read)
    Logger(namespace="socksproxy", observer=Reporter(write)).error("is anybody there?")
    os.close(write)


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


@pytest_twisted.ensureDeferred
async def test_follows(tmp_path: Path) -> None:
    """
    A worker goes over to what it is told, or stays as it is when it cannot; what was passed is closed.
    """
    given = orders(
        arguments=["-p", "0", "--max-sessions", "3"], listeners=[[]], files={}, log=None, counts=None
    )
    service = make_worker_service(given, reactor)
    service._listening = True
    log = tmp_path / "access.log"
    for arguments, sessions in (
        (["-p", "0", "--max-sessions", "4", "-l", str(log)], 4),
        (["-p", "0", "--max-sessions", "five"], 4),
        (["-p", "0", "--max-sessions", "5", "-p", "-1"], 4),
        (["-p", "0", "--max-sessions", "6", "--listen", "tcp:0", "--listen", "tcp:0"], 4),
        (["-p", "0", "--max-sessions", "7", "-l", str(log)], 7),
    ):
        before = len(os.listdir("/proc/self/fd"))
        had_log = service.plan.access_log is not None
        with socket.create_server(("127.0.0.1", 0)) as listening:
            passed = [os.dup(listening.fileno()), file_of(b""), os.open(log, os.O_WRONLY | os.O_CREAT)]
        changed = given._replace(arguments=arguments, listeners=[[0]], files={"x": 1}, log=(2, str(log)))
        if sessions == 4 and arguments[-1] != str(log):
            with pytest.raises((UsageError, CannotReload)):
                await service.follow(changed, passed)
        else:
            await service.follow(changed, passed)
        assert service.factory.sessions.context.ledger.limits.server.sessions == sessions
        if had_log:
            # Nothing of what was passed is left.
            assert len(os.listdir("/proc/self/fd")) == before
    await service.close_ports()
    assert service.plan.access_log is not None
    service.plan.access_log.close()


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
        (ProcessTerminated(signal=signal.SIGKILL), Ending("signal SIGKILL")),
        (ProcessTerminated(signal=99), Ending("signal 99")),
    ],
)
def test_ending(reason: Exception, ending: Ending, process: WorkerProcess, told: Told) -> None:
    """An operator reads what ended a worker, with its last words where it had some."""
    process.childDataReceived(2, b"no such key\n")
    process.processEnded(Failure(reason))
    assert told.told == [ending]


# The worker's end.


@pytest_twisted.ensureDeferred
async def test_commands() -> None:
    """Commands are followed in their order; unknown ones are those of a later version."""
    read, write = os.pipe()
    followed: list[str] = []
    ended: Deferred[None] = Deferred()
    follow_commands(
        reactor,
        read,
        {b"drain": lambda: followed.append("drain"), b"end": lambda: followed.append("end")},
        lambda: ended.callback(None),
    )
    os.write(write, b"drain\nsing\nen")
    os.write(write, b"d\n")
    os.close(write)
    await ended
    assert followed == ["drain", "end"]
    os.close(read)


def test_counts_with_the_others() -> None:
    """What is limited is counted in its own column; what is not costs nothing."""
    given = orders(
        number=2,
        arguments=["--max-sessions", "3"],
        listeners=[[]],
        files={},
        log=None,
        counts=(new_table(2), 2, "00" * 16),
    )
    ledger = make_worker_service(given, reactor).factory.sessions.context.ledger
    counting = ledger.counting
    assert isinstance(counting, SharedCounting)
    assert ledger.limits.server.sessions == 3
    assert not any(counting.table.cells)
    claims = ledger.arrive(Client(None))
    assert claims is not None
    columns = counting.table.columns
    cells = counting.table.cells
    assert [sum(cells[column::columns]) for column in range(columns)] == [0, 1]
    claims.close()
    assert not any(cells)


def test_option_wrong_in_the_worker() -> None:
    """What the supervisor could parse and the worker cannot is told as ever."""
    with pytest.raises(UsageError, match="not an address of this machine"):
        make_worker_service(
            orders(arguments=["--outgoing", "192.0.2.1"], listeners=[[]], files={}, log=None, counts=None),
            reactor,
        )


def test_without_a_supervisor(tmp_path: Path) -> None:
    """A worker that is started by itself, or whose supervisor dies at once, ends."""
    read, write = os.pipe()
    os.close(write)
    program = "from socksproxy.workers.worker import main; main()"
    command = [sys.executable, "-c", program, str(read)]
    done = subprocess.run(command, pass_fds=[read], cwd=tmp_path, capture_output=True, timeout=60)
    os.close(read)
    assert done.returncode == 1
    assert done.stderr == b"the supervisor is gone\n"
