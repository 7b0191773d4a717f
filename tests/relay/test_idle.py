"""Relays that may not go on without data: see :mod:`socksproxy.relay.idle`."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from twisted.internet.task import Clock

from socksproxy.events import Cause
from socksproxy.relay.idle import MOMENT, SPARED, IdleRelays
from socksproxy.values.timeouts import NEVER


class Relay:
    """What is asked of a relay."""

    def __init__(self, idle: IdleRelays) -> None:
        self.idle = idle
        self.sent = self.received = 0
        self.how: Cause | None = None

    def abort(self, how: Cause) -> None:
        self.how = how
        self.idle.discard(self)


class Setting:
    """Half-closed relays and their time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.idle = IdleRelays(self.clock, Cause.HALF_CLOSED)

    def relay(self, seconds: float) -> Any:
        relay = Relay(self.idle)
        self.idle.add(relay, seconds)
        return relay

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)


@pytest.fixture
def setting() -> Setting:
    return Setting()


class TestTimeout:
    @pytest.mark.parametrize("seconds", [4, 60, 300])
    def test_without_data(self, setting: Setting, seconds: int) -> None:
        relay = setting.relay(seconds)
        setting.pass_time(seconds - 1)
        assert relay.how is None
        setting.pass_time(1 + seconds // 8 + 1)
        assert relay.how is Cause.HALF_CLOSED
        assert len(setting.idle) == 0

    @pytest.mark.parametrize("way", ["sent", "received"])
    def test_with_data_now_and_then(self, setting: Setting, way: str) -> None:
        relay = setting.relay(60)
        for _ in range(5):
            setting.pass_time(50)
            setattr(relay, way, getattr(relay, way) + 1)
        assert relay.how is None
        setting.pass_time(70)
        assert relay.how is Cause.HALF_CLOSED

    @pytest.mark.parametrize("seconds", [1, 60, NEVER])
    def test_in_a_moment(self, setting: Setting, seconds: float) -> None:
        """It is asked for its time only if it is still there; then it is as one that was added."""
        asked: list[Any] = []

        def ask(relay: Any) -> float:
            asked.append(relay)
            return seconds

        short, long = Relay(setting.idle), Relay(setting.idle)
        for relay in (short, long):
            setting.idle.add_in_a_moment(relay, partial(ask, relay))
        assert (len(setting.idle), len(setting.clock.getDelayedCalls())) == (2, 1)
        setting.idle.discard(short)
        setting.clock.advance(MOMENT)
        assert asked == [long]
        assert len(setting.idle) == 1
        setting.pass_time(70)
        assert short.how is None
        assert long.how is (None if seconds == NEVER else Cause.HALF_CLOSED)

    def test_closed_before_the_moment(self, setting: Setting) -> None:
        setting.idle.add_in_a_moment(Relay(setting.idle), lambda: 60.0)
        setting.idle.close()
        assert (len(setting.idle), setting.clock.getDelayedCalls()) == (0, [])

    def test_never(self, setting: Setting) -> None:
        relay = setting.relay(NEVER)
        assert setting.clock.getDelayedCalls() == []
        setting.pass_time(1000)
        assert relay.how is None

    def test_each_has_its_own(self, setting: Setting) -> None:
        """Rules give different times, and the shorter one may come later."""
        slow, never, quick = setting.relay(300), setting.relay(NEVER), setting.relay(4)
        setting.pass_time(6)
        assert (slow.how, never.how, quick.how) == (None, None, Cause.HALF_CLOSED)
        setting.pass_time(320)
        assert (slow.how, never.how) == (Cause.HALF_CLOSED, None)
        assert setting.clock.getDelayedCalls() == []

    def test_ended_by_itself(self, setting: Setting) -> None:
        relay = setting.relay(4)
        setting.idle.discard(relay)
        setting.idle.discard(relay)
        setting.pass_time(10)
        assert relay.how is None
        assert setting.clock.getDelayedCalls() == []

    def test_one_that_fails_to_end(self, setting: Setting) -> None:
        """It costs the others nothing, and is tried again."""
        broken, other = setting.relay(4), setting.relay(4)
        broken.abort = lambda how: 1 // 0
        setting.pass_time(6)
        assert other.how is Cause.HALF_CLOSED
        del broken.abort
        setting.pass_time(1)
        assert broken.how is Cause.HALF_CLOSED
        assert len(setting.idle) == 0

    def test_close(self, setting: Setting) -> None:
        relay = setting.relay(4)
        setting.idle.close()
        setting.idle.close()
        assert setting.clock.getDelayedCalls() == []
        assert relay.how is None


class TestShortage:
    def test_oldest_first(self, setting: Setting) -> None:
        relays = []
        for _ in range(5):
            relays.append(setting.relay(NEVER))
            setting.pass_time(2)
        assert setting.idle.end_longest(2) == 2
        assert [relay.how for relay in relays] == [Cause.SHORTAGE, Cause.SHORTAGE, None, None, None]
        assert setting.idle.end_longest(10) == 3
        assert setting.idle.end_longest(10) == 0

    def test_one_that_moves_data_is_not_the_oldest(self, setting: Setting) -> None:
        moving, still = setting.relay(NEVER), setting.relay(NEVER)
        setting.pass_time(10)
        moving.received += 1
        assert setting.idle.end_longest(2) == 1
        assert (moving.how, still.how) == (None, Cause.SHORTAGE)

    def test_just_closing(self, setting: Setting) -> None:
        """Every session is half-closed for a moment at its end."""
        relay = setting.relay(NEVER)
        setting.clock.advance(SPARED - 0.01)
        assert setting.idle.end_longest(1) == 0
        setting.clock.advance(0.01)
        assert setting.idle.end_longest(1) == 1
        assert relay.how is Cause.SHORTAGE
