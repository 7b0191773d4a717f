"""Calls that wait for a datagram."""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from socksproxy.socksify import waiting
from socksproxy.socksify.kernel import Notice
from socksproxy.socksify.waiting import LOOK, RESTART, WaitingCall, WaitingSignals, signals_for


class Reactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)


class Waiter:
    """A call, and its listener."""

    def __init__(self, link: socket.socket) -> None:
        self.socket = link
        self.notice = Notice(7, threading.get_native_id(), 45, (0,) * 6)
        self.listener = self
        self.valid = True
        self.answers: list[int] = []
        self.closed = False

    def is_valid(self, id: int) -> bool:
        return self.valid and id == 7

    def answer(self, result: int) -> None:
        self.answers.append(result)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def link() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


def test_it_proceeds_when_there_is_something(link: socket.socket) -> None:
    reactor, call = Reactor(), Waiter(link)
    proceeded: list[Any] = []
    made = WaitingCall(reactor, call, proceeded.append)  # type: ignore[arg-type]
    reactor.pump([LOOK] * 50)
    made.doRead()
    assert proceeded == [call]
    assert (reactor.readers, reactor.getDelayedCalls(), call.answers) == ([], [], [])


def test_its_time_is_that_of_the_socket(link: socket.socket) -> None:
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, (2).to_bytes(8, "little") + bytes(8))
    reactor, call = Reactor(), Waiter(link)
    WaitingCall(reactor, call, print)  # type: ignore[arg-type]
    reactor.pump([LOOK] * 18)
    assert call.answers == []
    reactor.pump([LOOK] * 3)
    assert call.answers == [-errno.EAGAIN]
    assert call.closed
    assert (reactor.readers, reactor.getDelayedCalls()) == ([], [])


def test_a_caller_that_has_ended(link: socket.socket) -> None:
    reactor, call = Reactor(), Waiter(link)
    WaitingCall(reactor, call, print)  # type: ignore[arg-type]
    call.valid = False
    reactor.advance(LOOK)
    assert call.closed
    assert reactor.getDelayedCalls() == []


STATUS = "Tgid:\t{}\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\n"
INT, ALRM, USR1, WINCH = (
    1 << number - 1 for number in (signal.SIGINT, signal.SIGALRM, signal.SIGUSR1, signal.SIGWINCH)
)


@pytest.mark.parametrize(
    ("process", "own", "shared", "blocked", "ignored", "signals", "stops"),
    [
        (9, 0, 0, 0, 0, WaitingSignals(0, 0), False),
        (9, INT, 0, 0, 0, WaitingSignals(INT, 0), True),
        (9, INT | USR1, 0, INT, 0, WaitingSignals(USR1, 0), False),
        (9, INT, 0, 0, INT, WaitingSignals(0, 0), False),
        (9, 0, INT, 0, 0, WaitingSignals(0, INT), False),
        (7, 0, ALRM | WINCH, 0, 0, WaitingSignals(ALRM | WINCH, 0), True),
        (7, 0, ALRM | WINCH, ALRM, 0, WaitingSignals(WINCH, 0), False),
    ],
)
def test_signals_that_wait(
    fs_status: Callable[[str], None],
    process: int,
    own: int,
    shared: int,
    blocked: int,
    ignored: int,
    signals: WaitingSignals,
    stops: bool,
) -> None:
    """One that is blocked or ignored is none; one of the process goes to its first thread."""
    fs_status(STATUS.format(process, own, shared, blocked, ignored))
    assert signals_for(7) == signals
    assert signals.stops is stops


@pytest.fixture
def fs_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the status of thread 7."""

    def write(text: str) -> None:
        path = tmp_path / "status"
        path.write_text(text)
        opened = {"/proc/7/status": path}
        monkeypatch.setattr(
            "builtins.open", lambda name, *rest, _open=open: _open(opened.get(name, name), *rest)
        )

    return write


def test_a_thread_that_has_ended() -> None:
    assert signals_for(0x7FFFFFFF) == WaitingSignals(0, 0)


@pytest.mark.parametrize(
    ("signals", "timeout", "result"),
    [
        (WaitingSignals(WINCH, 0), 0, -RESTART),
        (WaitingSignals(WINCH, 0), 5, -errno.EINTR),
        (WaitingSignals(0, WINCH), 0, -errno.EINTR),
    ],
)
def test_a_signal_ends_a_call(
    link: socket.socket, monkeypatch: pytest.MonkeyPatch, signals: WaitingSignals, timeout: int, result: int
) -> None:
    """The kernel decides whether it begins again, as it does for a call without a timeout."""
    monkeypatch.setattr(waiting, "signals_for", lambda thread: signals)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout.to_bytes(8, "little") + bytes(8))
    reactor, call = Reactor(), Waiter(link)
    WaitingCall(reactor, call, print)  # type: ignore[arg-type]
    reactor.advance(LOOK)
    assert (call.answers, call.closed, reactor.getDelayedCalls()) == ([result], True, [])
