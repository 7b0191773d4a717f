"""What systemd is told: see :mod:`socksproxy.service.notify`."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from socksproxy.service.notify import BEAT, Notifier

from ..support.processes import PATIENCE
from ..support.service_manager import ServiceManager


class Told:
    """A notifier whose service the test plays."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.clock = Clock()
        self.sessions = 0
        self.lives = True
        self.notifier = Notifier(
            self.clock, lambda: f"{self.sessions} sessions", lambda: self.lives, environment
        )


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    made = ServiceManager(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_nothing_is_said_without_a_manager(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the variable there is no socket and no timer."""
    told = Told({**environment, "WATCHDOG_USEC": "1000000"})
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket is made"))
    for act in (told.notifier.ready, told.notifier.reloading, lambda: told.notifier.stopping(1)):
        act()
    assert told.clock.getDelayedCalls() == []
    assert told.notifier.watchdog is None
    told.notifier.stopped()


@pytest.mark.parametrize("abstract", [False, True])
def test_a_life(tmp_path: Path, abstract: bool) -> None:
    """READY, RELOADING with its time and READY, STOPPING with the time that it takes."""
    name = f"@socksproxy-{os.getpid()}-{time.monotonic_ns()}"
    manager = ServiceManager(tmp_path, name if abstract else None)
    told = Told(manager.environment())
    notifier = told.notifier
    notifier.ready()
    assert manager.listen() == ["READY=1", "STATUS=0 sessions"]
    told.clock.advance(BEAT)
    assert len(manager.listen()) == 2  # nothing has changed
    told.sessions = 7
    told.clock.advance(BEAT)
    assert manager.listen()[2:] == ["STATUS=7 sessions"]
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    notifier.ready()
    word, when, again = manager.listen()[3:]
    assert (word, again) == ("RELOADING=1", "READY=1")
    assert before <= int(when.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.stopping(30)
    assert manager.listen()[6:] == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=40000000"]
    notifier.ready()
    notifier.reloading()
    assert len(manager.listen()) == 8  # a reload that comes too late does not take the end back
    told.clock.advance(BEAT)
    assert manager.listen()[8:] == ["STATUS=Stopping: 7 sessions"]
    notifier.stopped()
    assert told.clock.getDelayedCalls() == []
    manager.close()


def test_watchdog(manager: ServiceManager) -> None:
    """The watchdog hears of a service that lives, often enough, and of no other."""
    told = Told(manager.environment(watchdog=6.0))
    told.notifier.ready()
    for _ in range(6):
        told.clock.advance(told.notifier.beat)
    assert told.clock.seconds() == pytest.approx(6.0)
    assert manager.listen().count("WATCHDOG=1") == 7
    told.lives = False
    told.clock.advance(6.0)
    assert manager.listen().count("WATCHDOG=1") == 7
    told.lives = True
    told.clock.advance(1.0)
    assert manager.listen().count("WATCHDOG=1") == 8
    told.notifier.stopped()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_whose_watchdog(changes: dict[str, str], expected: float | None, manager: ServiceManager) -> None:
    assert Told({**manager.environment(watchdog=2.0), **changes}).notifier.watchdog == expected


def test_a_full_socket(manager: ServiceManager) -> None:
    """A manager that does not read stops nothing; what matters is said when it reads again."""
    told = Told(manager.environment(watchdog=6.0))
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filler.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filler.sendto(b"other", manager.address)
            count += 1
    began = time.monotonic()
    told.notifier.ready()
    for _ in range(3):
        told.clock.advance(1.0)
    assert time.monotonic() - began < PATIENCE
    assert manager.listen() == ["other"] * count
    told.clock.advance(1.0)
    assert manager.listen()[count] == "READY=1"
    told.notifier.stopped()
    filler.close()


def test_a_manager_that_is_gone(manager: ServiceManager) -> None:
    told = Told(manager.environment())
    manager.close()
    told.notifier.ready()
    os.unlink(manager.address)
    told.notifier.reloading()
    told.clock.advance(BEAT)
    told.notifier.stopped()
