"""Pausing before descriptors run out, and going on."""

from __future__ import annotations

import errno
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from socksproxy.net import descriptors
from socksproxy.net.descriptors import RETRY, DescriptorGate, current_limit, reserve
from tests.support.logs import log_publisher

LIMIT = 1024
#: The number of a descriptor from which on accepting pauses, while nobody is dialing.
MOST = LIMIT - 32


class FakePort:
    """A port that knows whether it reads, and how often it was told so."""

    def __init__(self) -> None:
        self.reading = True
        self.started = 0
        self.connected = True

    def startReading(self) -> None:
        self.reading = True
        self.started += 1

    def stopReading(self) -> None:
        self.reading = False


class Setting:
    """A gate and what belongs to it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.dialing = 0
        self.port, self.other = FakePort(), FakePort()
        self.needed = 0
        #: Sessions that can be spared.
        self.spare = 0
        self.asked: list[int] = []
        self.gate = DescriptorGate(self.clock, lambda: self.dialing, lambda: self.needed, self.make_room)

    def make_room(self, most: int) -> int:
        self.asked.append(most)
        ended = min(most, self.spare)
        self.spare -= ended
        for _ in range(ended):
            self.gate.freed()
        return ended


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(descriptors, "current_limit", lambda: LIMIT)
    return Setting()


@pytest.fixture
def warnings() -> Iterator[list[LogEvent]]:
    """What is logged during the test."""
    events: list[LogEvent] = []
    log_publisher.addObserver(events.append)
    yield events
    log_publisher.removeObserver(events.append)


@pytest.mark.parametrize(("limit", "kept"), [(64, 16), (256, 16), (512, 16), (1024, 32), (65536, 2048)])
def test_reserve(limit: int, kept: int) -> None:
    assert reserve(limit) == kept


class TestPausing:
    """A client in the listen queue waits; one that was accepted and cannot dial fails."""

    def test_plenty(self, setting: Setting) -> None:
        setting.gate.accepted(setting.port, 10)
        setting.gate.accepted(setting.port, MOST - 1)
        assert setting.port.reading
        assert not setting.gate.paused
        assert setting.clock.getDelayedCalls() == []

    def test_short(self, setting: Setting) -> None:
        setting.gate.accepted(setting.port, MOST)
        assert not setting.port.reading
        assert setting.gate.paused

    def test_those_that_will_dial_count(self, setting: Setting) -> None:
        """Each has yet to open its second descriptor."""
        setting.dialing, setting.needed = 100, 2 * 100
        setting.gate.accepted(setting.port, MOST - 101)
        assert setting.port.reading
        setting.gate.accepted(setting.port, MOST - 100)
        assert not setting.port.reading

    def test_low_numbers_deceive(self, setting: Setting) -> None:
        """Sessions that have ended leave free numbers below those in use: the sessions count, too."""
        setting.needed = MOST - 1
        setting.gate.accepted(setting.port, 10)
        assert setting.port.reading
        setting.needed = MOST
        setting.gate.accepted(setting.port, 11)
        assert not setting.port.reading

    def test_exhausted(self, setting: Setting) -> None:
        """Something else in the process took them: the number of the last one told nothing."""
        setting.gate.exhausted(setting.port)
        assert not setting.port.reading
        assert setting.gate.paused

    def test_fault(self, setting: Setting, warnings: list[LogEvent]) -> None:
        """Whatever exception accepting ends with: the port goes on a moment later."""
        try:
            raise MemoryError
        except MemoryError:
            setting.gate.failed(setting.port)
        assert not setting.port.reading
        setting.clock.advance(RETRY)
        assert setting.port.reading

    def test_fault_while_pausing(self, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is raised even then, and the port is tried again."""
        monkeypatch.setattr(setting.port, "stopReading", lambda: 1 // 0)
        setting.gate.failed(setting.port)
        setting.clock.advance(RETRY)
        assert setting.port.started == 1

    def test_fault_while_trying(self, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
        """The next try comes all the same."""
        setting.gate.exhausted(setting.port)
        with monkeypatch.context() as patch:
            patch.setattr(descriptors, "_next_descriptor", lambda: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                setting.clock.advance(RETRY)
        assert not setting.port.reading
        setting.clock.advance(RETRY)
        assert setting.port.reading

    def test_limit_raised_since(self, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(descriptors, "current_limit", lambda: 2 * LIMIT)
        setting.gate.accepted(setting.port, MOST)
        assert setting.port.reading
        setting.gate.accepted(setting.port, 2 * LIMIT - 64)
        assert not setting.port.reading

    def test_only_the_port_that_accepted(self, setting: Setting) -> None:
        setting.gate.accepted(setting.port, MOST)
        assert setting.other.reading


class TestMakingRoom:
    """Sessions that can be spared end before a client has to wait."""

    @pytest.mark.parametrize("spare", [1, 5, 100])
    def test_at_once(self, setting: Setting, spare: int) -> None:
        setting.spare = spare
        setting.gate.accepted(setting.port, MOST)
        assert setting.port.reading
        assert not setting.gate.paused
        assert setting.asked == [16]

    def test_at_the_limit(self, setting: Setting) -> None:
        setting.spare = 100
        setting.gate.exhausted(setting.port)
        assert setting.port.reading

    def test_a_moment_later(self, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
        """What cannot be spared yet may be so when it is tried again."""
        monkeypatch.setattr(descriptors, "_next_descriptor", lambda: MOST)
        setting.gate.accepted(setting.port, MOST)
        assert not setting.port.reading
        setting.spare = 1
        setting.clock.advance(RETRY)
        assert setting.port.reading
        assert setting.clock.getDelayedCalls() == []

    def test_not_while_there_are_plenty(self, setting: Setting) -> None:
        setting.gate.accepted(setting.port, MOST - 1)
        setting.gate.freed()
        assert setting.asked == []

    @pytest.mark.parametrize(("spare", "then"), [(0, "Accepting pauses"), (1, "Half-closed sessions")])
    def test_told(self, setting: Setting, warnings: list[LogEvent], spare: int, then: str) -> None:
        setting.spare = spare
        setting.gate.accepted(setting.port, MOST)
        (event,) = warnings
        assert event["then"].startswith(then)


class TestGoingOn:
    """A pause ends with a session, or after a while, whoever freed the descriptors."""

    def test_when_a_session_ends(self, setting: Setting) -> None:
        setting.gate.accepted(setting.port, MOST)
        setting.gate.exhausted(setting.other)
        setting.gate.freed()
        assert setting.port.reading
        assert setting.other.reading
        assert not setting.gate.paused

    def test_nothing_is_started_that_was_not_paused(self, setting: Setting) -> None:
        """A port that somebody else has stopped stays so."""
        setting.gate.freed()
        setting.gate.accepted(setting.port, MOST)
        setting.gate.freed()
        setting.gate.freed()
        assert setting.port.started == 1
        assert setting.other.started == 0

    def test_after_a_while(self, setting: Setting) -> None:
        setting.gate.exhausted(setting.port)
        setting.clock.advance(RETRY - 0.01)
        assert not setting.port.reading
        setting.clock.advance(0.01)
        assert setting.port.reading

    def test_again_and_again(self, setting: Setting) -> None:
        """Once in a second, and no more: it does not spin."""
        for _ in range(10):
            setting.gate.exhausted(setting.port)
            setting.gate.exhausted(setting.port)
            assert len(setting.clock.getDelayedCalls()) == 1
            setting.clock.advance(RETRY)
        assert setting.port.started == 10
        assert setting.clock.getDelayedCalls() == []

    @pytest.mark.parametrize("free", [None, MOST, MOST - 5])
    def test_not_while_they_are_short(
        self, setting: Setting, free: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To accept one in every pause would use up what is kept for those who are here."""
        numbers = [free, free, MOST - 6]
        monkeypatch.setattr(descriptors, "_next_descriptor", lambda: numbers.pop(0))
        setting.dialing, setting.needed = 5, 2 * 5
        setting.gate.exhausted(setting.port)
        for _ in range(2):
            setting.clock.advance(RETRY)
            assert not setting.port.reading
            assert len(setting.clock.getDelayedCalls()) == 1
        setting.clock.advance(RETRY)
        assert setting.port.reading
        assert setting.clock.getDelayedCalls() == []

    def test_nothing_is_tried_when_all_goes_on(
        self, setting: Setting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A session has ended before: the timer finds nothing to do and is not set again."""
        monkeypatch.setattr(descriptors, "_next_descriptor", lambda: 1 // 0)
        setting.gate.exhausted(setting.port)
        setting.gate.freed()
        setting.clock.advance(RETRY)
        assert setting.clock.getDelayedCalls() == []

    def test_a_port_closed_meanwhile(self, setting: Setting) -> None:
        """Its descriptor is gone: to read from it would fail, and hold up those behind it."""
        ports = [FakePort() for _ in range(5)]
        for port in ports:
            setting.gate.exhausted(port)
        ports[2].connected = False
        setting.gate.freed()
        assert [port.reading for port in ports] == [True, True, False, True, True]

    def test_a_closed_port_stays_closed(self, setting: Setting) -> None:
        setting.gate.exhausted(setting.port)
        setting.gate.exhausted(setting.other)
        setting.gate.forget(setting.port)
        setting.gate.forget(FakePort())
        setting.clock.advance(RETRY)
        assert not setting.port.reading
        assert setting.other.reading

    def test_close(self, setting: Setting) -> None:
        setting.gate.exhausted(setting.port)
        setting.gate.close()
        setting.gate.close()
        assert setting.clock.getDelayedCalls() == []
        assert not setting.gate.paused
        setting.gate.freed()
        assert not setting.port.reading


class TestWarning:
    """An operator is told, in one line a minute, with what helps."""

    def test_once_a_minute(self, setting: Setting, warnings: list[LogEvent]) -> None:
        for _ in range(90):
            setting.gate.exhausted(setting.port)
            setting.clock.advance(RETRY)
        assert len(warnings) == 2

    def test_numbers(self, setting: Setting, warnings: list[LogEvent]) -> None:
        setting.gate.accepted(setting.port, MOST + 3)
        (event,) = warnings
        assert (event["used"], event["limit"]) == (MOST + 3, LIMIT)

    def test_limit_raised_since(
        self, setting: Setting, warnings: list[LogEvent], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The factory is made before the service raises the limit."""
        monkeypatch.setattr(descriptors, "current_limit", lambda: 4096)
        setting.gate.exhausted(setting.port)
        (event,) = warnings
        assert (event["used"], event["limit"]) == (4096, 4096)


class TestNextDescriptor:
    """The system gives out the lowest free number."""

    def test_free(self) -> None:
        number = descriptors._next_descriptor()
        with socket.socket() as next_one:
            assert next_one.fileno() == number

    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_more() -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(socket, "socket", no_more)
        assert descriptors._next_descriptor() is None


class TestLimit:
    """The limit is the process's, so other processes try it."""

    @staticmethod
    def run(soft: int, hard: int, statements: str) -> str:
        script = (
            "import resource\n"
            f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
            "from socksproxy.net.descriptors import current_limit, raise_limit\n" + statements
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()

    def test_raised(self) -> None:
        statements = "print(current_limit(), raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))"
        assert self.run(64, 256, statements) == "64 256 (256, 256)"

    def test_nothing_to_raise(self) -> None:
        assert self.run(256, 256, "print(raise_limit(), current_limit())") == "256 256"

    def test_real(self) -> None:
        assert current_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def test_no_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Elsewhere than on Linux there may be none: it is a number that nothing reaches."""
        monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert current_limit() == sys.maxsize
