"""How late the event loop is: see :mod:`socksproxy.runtime.lag`."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from socksproxy.runtime.lag import EVERY, LOOKS, Lag


def test_lag() -> None:
    """The latest of the last looks counts; a lag is forgotten."""
    clock = Clock()
    lag = Lag(clock)
    assert lag.seconds() == 0
    clock.advance(EVERY)
    clock.advance(EVERY + 0.3)
    assert lag.seconds() == pytest.approx(0.3)
    for _ in range(LOOKS):
        clock.advance(EVERY)
    assert lag.seconds() == pytest.approx(0)


def test_unasked() -> None:
    """Nothing looks where nothing asks."""
    clock = Clock()
    lag = Lag(clock)
    assert not clock.getDelayedCalls()
    lag.seconds()
    clock.pump([EVERY] * 200)
    assert not clock.getDelayedCalls()
    assert lag.seconds() < EVERY
    assert clock.getDelayedCalls()
