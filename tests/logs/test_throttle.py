"""Log lines on what happens often: see :mod:`socksproxy.logs.throttle`."""

from __future__ import annotations

from twisted.internet.task import Clock

from socksproxy.logs.throttle import EVERY, LogThrottle


def test_one_a_while() -> None:
    """The first is told at once; of the rest each line says how many it stands for."""
    clock = Clock()
    seldom = LogThrottle(clock)
    assert seldom.due() == 1
    assert [seldom.due() for _ in range(3)] == [0, 0, 0]
    clock.advance(EVERY - 1)
    assert seldom.due() == 0
    clock.advance(1)
    assert seldom.due() == 5
    assert seldom.due() == 0
    clock.advance(10 * EVERY)
    assert seldom.due() == 2
