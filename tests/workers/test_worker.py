"""The worker's end of what it and the supervisor say to each other: :mod:`socksproxy.workers.worker`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.usage import UsageError

from socksproxy import Client
from socksproxy.service.reload import CannotReload
from socksproxy.workers.counts import SharedCounting
from socksproxy.workers.descriptor_passing import file_of
from socksproxy.workers.process import LONGEST_LINE
from socksproxy.workers.shared_table import new_table
from socksproxy.workers.worker import Reporter, follow_commands, make_worker_service
from tests.support.workers import orders


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
    assert reported(pipe, lambda log: log.debug("detail"), "socksproxy.names") == [["debug", "detail"]]


def test_reports_to_nobody() -> None:
    """Without a supervisor a worker goes on until it knows."""
    read, write = os.pipe()
    os.close(read)
    Logger(namespace="socksproxy", observer=Reporter(write)).error("is anybody there?")
    os.close(write)


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
