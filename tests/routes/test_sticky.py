"""Sticky sessions: :mod:`socksproxy.routes.sticky`."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from socksproxy.routes.sticky import Pin, Pins, hash_of
from socksproxy.values.rendezvous import order_of
from socksproxy.values.sticky import StickySettings

from ..support.logs import heard

MEMBERS = [f"member{number}" for number in range(20)]


class Wall:
    """A clock that the test sets."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def order(pins: Pins, user: str = "bob", word: str = "abc", seconds: float | None = None) -> list[str]:
    """The members of the pool eu in the order of a session; the one that it has moved to first."""
    return order_in(pins.pin(user, word, seconds), "eu", MEMBERS)


def order_in(pin: Pin, pool: str, members: list[str]) -> list[str]:
    moved = pin.moved(pool)
    return sorted(order_of(pin.key, members), key=lambda member: not moved or hash_of(member) != moved)


def test_login(tmp_path: Path) -> None:
    """What an upstream sees is no hash that it can compute, and lasts as long as the session does."""
    for file in (None, str(tmp_path / "sticky")):
        settings = StickySettings(file=file)
        pins = Pins(settings, Clock(), Wall())
        pin = pins.pin("bob", "abc")
        assert pin.login == pins.pin("bob", "abc").login
        assert pin.login not in (
            pins.pin("bob", "abd").login,
            Pins(StickySettings(), Clock()).sealed(pin.key),
        )
        assert pin.login == Pins(settings, Clock(), Wall(), pins).pin("bob", "abc").login
        pins.close()


def test_choice() -> None:
    """The user and the word decide, for the time of the session."""
    wall = Wall()
    pins = Pins(StickySettings(seconds=600), Clock(), wall)
    first = order(pins)
    assert sorted(first) == sorted(MEMBERS)
    assert order(pins) == first
    others = [order(pins, "eve"), order(pins, word="abd"), order(pins, "bobabc", "")]
    assert first not in others
    wall.now += 599
    assert order(pins) == first
    wall.now += 1
    assert order(pins) != first
    wall.now += 120
    assert order(pins, word="short", seconds=60) == order(pins, word="short")
    assert pins.pin_client("192.0.2.1").key != pins.pin("192.0.2.1", "").key


def test_moves() -> None:
    """e 31: a session that has moved stays, also when its first member is back. Each pool is apart."""
    wall = Wall()
    pins = Pins(StickySettings(seconds=600), Clock(), wall)
    pin = pins.pin("bob", "abc")
    first = order_in(pin, "eu", MEMBERS)
    pin.move("eu", first[3])
    assert order(pins) == [first[3], *first[:3], *first[4:]]
    assert order_in(pins.pin("bob", "abc"), "us", MEMBERS) == first
    # A member that is not there any more is no member.
    rest = [member for member in MEMBERS if member != first[3]]
    assert order_in(pin, "eu", rest) == [member for member in first if member != first[3]]
    wall.now += 600
    assert order(pins) != first


def test_reload(tmp_path: Path) -> None:
    """e 32: the choice is the same after a reload, and after a restart where there is a file."""
    wall, file = Wall(), str(tmp_path / "sticky")
    before = Pins(StickySettings(), Clock(), wall)
    pin = before.pin("bob", "abc")
    pin.move("eu", "member7")
    wall.now += 1
    after = Pins(StickySettings(), Clock(), wall, before)
    assert order(after) == order_in(pin, "eu", MEMBERS)
    kept = Pins(StickySettings(file=file), Clock(), wall)
    first = order(kept)
    kept.pin("bob", "abc").move("eu", first[1])
    kept.close()
    wall.now += 1
    restarted = Pins(StickySettings(file=file, strict=True), Clock(), wall)
    assert order(restarted) == [first[1], first[0], *first[2:]]
    assert restarted.pin("bob", "abc").strict
    restarted.close()


def test_no_file(tmp_path: Path) -> None:
    """A file that cannot be used costs a line in the log, and the sessions are kept in memory."""
    clock = Clock()
    pins = Pins(StickySettings(file=str(tmp_path)), clock)
    with heard() as lines:
        first = order(pins)
        assert order(pins) == first
    (line,) = lines
    assert "kept in memory" in line
    assert f"{tmp_path}: is a directory" in line
    pins.pin("bob", "abc").move("eu", first[2])
    assert order(pins)[0] == first[2]


@pytest.mark.parametrize("file", [None, "sticky"])
def test_close(tmp_path: Path, file: str | None) -> None:
    """What was closed is opened again for a session that goes on."""
    pins = Pins(StickySettings(file=None if file is None else str(tmp_path / file)), Clock())
    pin = pins.pin("bob", "abc")
    pins.close()
    pin.move("eu", "member7")
    pins.close()
    assert order_in(pin, "eu", MEMBERS)[0] == "member7"
    pins.close()
