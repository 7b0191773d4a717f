"""Time zones by their names: see :mod:`socksproxy.runtime.zones`."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import timedelta

import pytest

from socksproxy import Rule, RulePolicy
from socksproxy.policy.matching import Schedule
from socksproxy.runtime import zones
from socksproxy.runtime.zones import zone_called


@pytest.fixture
def no_tzdata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the system nor a package has the tz database."""
    monkeypatch.setattr(zoneinfo._common, "load_tzdata", _not_found)
    monkeypatch.setattr(zones, "available_timezones", set)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(())
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(before)
    zoneinfo.ZoneInfo.clear_cache()


def _not_found(key: str) -> None:
    raise zoneinfo.ZoneInfoNotFoundError(key)


def _rule(zone: object) -> Rule:
    return Rule(name="night", allow=False, hours=["22:00-06:00"], zone=zone)  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_tzdata")
@pytest.mark.parametrize("name", ["Europe/Berlin", "Nowhere/Land", "CET"])
def test_missing(name: str) -> None:
    """The error says what is missing, not that the name is wrong."""
    with pytest.raises(ValueError, match=r"tzdata is missing.*install"):
        _rule(name)


@pytest.mark.usefixtures("no_tzdata")
@pytest.mark.parametrize("name", ["UTC", "Etc/UTC", "GMT", "Etc/GMT"])
def test_utc(name: str) -> None:
    """UTC is known without a database, in the rule and in what decides by it."""
    rule = _rule(name)
    assert zone_called(name).utcoffset(None) == timedelta(0)
    assert Schedule(rule).holds(0)
    assert not Schedule(rule).holds(12 * 3600)
    RulePolicy([rule])


@pytest.mark.parametrize("name", ["Nowhere/Land", "../etc/passwd", "", 7, ["UTC"]])
def test_wrong(name: object) -> None:
    """Where there is a database, the name is what is wrong."""
    with pytest.raises(ValueError, match="must be a time zone that this machine knows"):
        _rule(name)
