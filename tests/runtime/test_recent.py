"""A table of values that hold for some seconds: see :mod:`socksproxy.runtime.recent`."""

from __future__ import annotations

from twisted.internet.task import Clock

from socksproxy.runtime.recent import Recent


def test_a_value_holds_for_its_time() -> None:
    clock = Clock()
    recent: Recent[str, int] = Recent(clock, 10)
    recent.put("one", 1, 5.0)
    clock.advance(4.9)
    assert recent.get("one") == 1
    clock.advance(0.1)
    assert recent.get("one") is None
    assert recent.get("two") is None


def test_a_new_value_begins_anew() -> None:
    clock = Clock()
    recent: Recent[str, int] = Recent(clock, 10)
    recent.put("one", 1, 5.0)
    clock.advance(4.0)
    recent.put("one", 2, 5.0)
    clock.advance(4.0)
    assert recent.get("one") == 2
    assert len(recent) == 1


def test_the_oldest_makes_room() -> None:
    """A value that is put again is the newest."""
    recent: Recent[str, int] = Recent(Clock(), 2)
    for key in ("one", "two", "one", "three"):
        recent.put(key, 1, 5.0)
    assert [recent.get(key) for key in ("one", "two", "three")] == [1, None, 1]
    assert len(recent) == 2


def test_discard() -> None:
    recent: Recent[str, int] = Recent(Clock(), 2)
    recent.put("one", 1, 5.0)
    recent.discard("one")
    recent.discard("two")
    assert recent.get("one") is None
    assert not len(recent)
