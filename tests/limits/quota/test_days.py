"""Days and months by the wall clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from socksproxy.limits.quota.days import day_at

HOUR = 3600.0
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("zone", "moment", "name", "hours"),
    [
        ("Europe/Berlin", "2026-11-24T12:00", "2026-11-24", 24),
        ("Europe/Berlin", "2026-03-29T12:00", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25T01:00", "2026-10-25", 25),
        ("Europe/Berlin", "2026-12-31T23:59:59.999", "2026-12-31", 24),
        ("Europe/Berlin", "2028-02-29T00:00", "2028-02-29", 24),
        # Its clocks went from midnight to one o'clock,
        ("America/Sao_Paulo", "2018-11-04T01:00", "2018-11-04", 23),
        ("America/Sao_Paulo", "2018-11-03T23:59", "2018-11-03", 24),
        # from midnight back to eleven,
        ("America/Sao_Paulo", "2018-02-17T23:30", "2018-02-17", 25),
        # and from one o'clock back to midnight.
        ("America/Havana", "2026-11-01T00:30", "2026-11-01", 25),
        # This day was left out: the one before it lasts until the one after.
        ("Pacific/Apia", "2011-12-29T12:00", "2011-12-29", 24),
    ],
)
def test_day(zone: str, moment: str, name: str, hours: float) -> None:
    """From midnight to midnight, whatever the clocks do meanwhile."""
    there = ZoneInfo(zone)
    day = day_at(at(moment, there), there)
    assert (day.name, day.ends - day.begins) == (name, hours * HOUR)
    assert day.begins <= at(moment, there) < day.ends
    assert day.month == name[:7]


def test_second_hour() -> None:
    """The hour that comes twice is of the same day both times."""
    havana = ZoneInfo("America/Havana")
    first, second = (day_at(at("2026-11-01T00:30", havana, fold), havana) for fold in (0, 1))
    assert first == second


@given(
    st.floats(0, 4e9),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Havana", "Pacific/Chatham", "Asia/Kathmandu"]),
)
def test_days_meet(now: float, zone: str) -> None:
    """Every moment is in its day, and the next day begins where it ends."""
    there = ZoneInfo(zone)
    day = day_at(now, there)
    assert day.begins <= now < day.ends
    following = day_at(day.ends, there)
    assert following.begins == day.ends
    assert following.name > day.name
    assert following.before(1) == day.name


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine stands in Berlin."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize("moment", ["2026-03-29T12:00", "2026-10-25T12:00", "2026-12-31T23:30"])
def test_own_zone(moment: str) -> None:
    """Where no zone is named the machine's own counts, its summer time too."""
    assert day_at(at(moment)) == day_at(at(moment), BERLIN)
