"""Calls that wait for a datagram."""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from socksproxy.socksify.kernel import Notice
from socksproxy.socksify.waiting import LOOK, WaitingCall, has_signal


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
    waiting = WaitingCall(reactor, call, proceeded.append)  # type: ignore[arg-type]
    reactor.pump([LOOK] * 50)
    waiting.doRead()
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


def test_a_signal_that_waits() -> None:
    """One that is blocked or ignored is none."""
    own = threading.get_native_id()
    assert not has_signal(own)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        assert not has_signal(own)
        assert signal.sigtimedwait({signal.SIGUSR2}, 1) is not None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
    assert has_signal(0x7FFFFFFF)  # no such thread
