"""The server's own log at a place of its own: see :mod:`socksproxy.logs.server_log`."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksproxy.logs.server_log import ServerLog, Switch, chosen, switch

from ..support.journal import fields_of
from ..support.logs import log_publisher


class Reactor(Clock):
    """Calls what other threads ask for when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def callFromThread(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.asked.append((call, arguments))


def log_to(log: ServerLog, act: Callable[[Logger], object]) -> None:
    log_publisher.addObserver(log)
    try:
        act(Logger(namespace="socksproxy"))
    finally:
        log_publisher.removeObserver(log)


def fail(log: Logger) -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        log.failure("it failed", Failure())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@pytest.fixture
def datagrams(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "socket"))
        made.settimeout(10)
        yield made


def test_text(path: Path) -> None:
    """As the program's own log."""
    log = ServerLog(str(path), "text", Reactor())
    assert verifyObject(ILogObserver, log)
    log_to(log, lambda logger: logger.warn("{who} came", who="möglich"))
    log.close()
    assert re.fullmatch(r"\S+ \[socksproxy#warn\] möglich came\n", path.read_text())


def test_json(path: Path) -> None:
    """Each event is one line, with all of its text."""
    log = ServerLog(str(path), "json", Reactor())
    log_to(log, lambda logger: logger.info("two\nlines of {who}", who="möglich"))
    log_to(log, lambda logger: logger.error("worker {number}: {text}", number=2, text="it said so"))
    log_to(log, fail)
    log.close()
    first, second, third = map(json.loads, path.read_text().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", first.pop("time"))
    assert first == {"level": "info", "logger": "socksproxy", "text": "two\nlines of möglich"}
    assert (second["level"], second["worker"], second["text"]) == ("error", 2, "it said so")
    assert third["level"] == "critical"
    assert third["text"].startswith("it failed\nTraceback")
    assert third["text"].rstrip().endswith("ValueError: wrong")


@pytest.mark.parametrize("format", ["text", "json"])
def test_syslog(format: str, tmp_path: Path, datagrams: socket.socket) -> None:
    log = ServerLog(f"syslog:{tmp_path}/socket", format, Reactor())
    log_to(log, lambda logger: logger.warn("{who} came", who="bob"))
    said = datagrams.recv(65536).decode()
    found = re.fullmatch(r"<28>1 \d{4}-\S+ \S+ socksproxy \d+ server - (.*)", said)
    assert found is not None
    assert (json.loads(found[1])["text"] if format == "json" else found[1]) == "bob came"
    log.close()


def test_journal(tmp_path: Path, datagrams: socket.socket) -> None:
    log = ServerLog(f"journald:{tmp_path}/socket", "text", Reactor())
    log_to(log, lambda logger: logger.error("worker 3: two\nlines"))
    assert fields_of(datagrams.recv(65536)) == {
        "MESSAGE": "worker 3: two\nlines",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "socksproxy",
        "SOCKS_LOGGER": "socksproxy",
        "SOCKS_WORKER": "3",
    }
    log.close()


@pytest.mark.parametrize("format", ["text", "json"])
def test_events_without_a_text(format: str, path: Path) -> None:
    log = ServerLog(str(path), format, Reactor())
    log({"log_level": LogLevel.info, "log_format": ""})
    log({})
    log.close()
    assert path.read_text() == ""


def test_other_threads(path: Path) -> None:
    """Only the reactor's thread writes."""
    reactor = Reactor()
    log = ServerLog(str(path), "text", reactor)
    thread = threading.Thread(target=log_to, args=(log, lambda logger: logger.info("from a thread")))
    thread.start()
    thread.join()
    assert path.read_text() == ""
    for call, arguments in reactor.asked:
        call(*arguments)
    assert "from a thread" in path.read_text()
    log.close()


def test_moved_away(path: Path, tmp_path: Path) -> None:
    log = ServerLog(str(path), "text", Reactor())
    log_to(log, lambda logger: logger.info("before"))
    path.rename(tmp_path / "old")
    log.reopen()
    log_to(log, lambda logger: logger.info("after"))
    log.close()
    assert "before" in (tmp_path / "old").read_text()
    assert "after" in path.read_text()


def test_a_log_that_cannot_be_written_does_not_go_round(tmp_path: Path) -> None:
    """Its own warning is lost, too, and that is all."""
    log = ServerLog(f"syslog:{tmp_path}/none", "text", Reactor())

    def flood(logger: Logger) -> None:
        for _ in range(100):
            logger.info("x" * 60_000)

    log_to(log, flood)
    log.close()


def test_switch(path: Path) -> None:
    made = Switch()
    made({"log_format": "lost", "log_level": LogLevel.info})
    made.log = ServerLog(str(path), "text", Reactor())
    made({"log_format": "written", "log_level": LogLevel.info, "log_time": 1.0, "log_namespace": "a"})
    made.log.close()
    assert path.read_text().endswith("written\n")
    assert chosen() is switch
    assert switch.chosen
    switch.chosen = False
