"""What is left of a day and of a month."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from socksproxy.limits.quota.quota import Quota
from socksproxy.limits.quota.usage import WRITE_AFTER, UsageFile
from tests.support.usage import Desk, stop, used, written

BERLIN = ZoneInfo("Europe/Berlin")


class Wall:
    """A clock on the wall, in Berlin."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def wall() -> Wall:
    return Wall("2026-11-24T12:00")


@pytest.fixture
def usage(desk: Desk, wall: Wall, tmp_path: Path) -> UsageFile:
    """A file that is not open: what is spent counts all the same."""
    return UsageFile(desk, str(tmp_path / "usage"), wall=wall, zone=BERLIN)


@pytest.mark.parametrize(
    ("daily", "monthly", "left"), [(1000, None, 900), (None, 500, 400), (1000, 500, 400), (500, 1000, 400)]
)
def test_smaller(usage: UsageFile, daily: int | None, monthly: int | None, left: int) -> None:
    """The one of which less is left decides."""
    quota = Quota(usage, "user bob", daily, monthly)
    quota.spend(100)
    assert quota.available() == left
    assert not quota.exhausted


@pytest.mark.parametrize("amount", [1000, 1001, 10**15])
def test_exhausted(usage: UsageFile, amount: int) -> None:
    """More may have been spent than there was, but nothing more is allowed."""
    quota = Quota(usage, "user bob", 1000)
    quota.spend(999)
    assert (quota.available(), quota.exhausted) == (1, False)
    quota.spend(amount - 999)
    assert (quota.available(), quota.exhausted) == (0, True)


def test_given_back(usage: UsageFile) -> None:
    """What was held and not used is there again."""
    quota = Quota(usage, "user bob", 1000, 2000)
    quota.spend(1000)
    quota.spend(-400)
    assert quota.available() == 400
    quota.change(None, 2000)
    assert quota.available() == 1400


def test_none_at_all(usage: UsageFile) -> None:
    """A quota of nothing is one."""
    assert Quota(usage, "user bob", 0).exhausted
    assert not Quota(usage, "user bob").exhausted


def test_changed(usage: UsageFile) -> None:
    """What has been spent still counts when the quota is another."""
    quota = Quota(usage, "user bob", 1000)
    quota.spend(1000)
    quota.change(3000, None)
    assert quota.available() == 2000
    quota.change(3000, 1500)
    assert quota.available() == 500
    quota.change(None, None)
    assert quota.available() > 10**15
    assert not quota.exhausted


def test_same_holder(usage: UsageFile) -> None:
    """Who comes back finds what it had spent, the file written or not; another one does not."""
    Quota(usage, "user bob", 1000).spend(300)
    assert Quota(usage, "user bob", 1000).available() == 700
    assert Quota(usage, "user eve", 1000).available() == 1000


@pytest.mark.parametrize(
    ("before", "after", "new_month"),
    [
        ("2026-11-24T23:59:59", "2026-11-25T00:00:00", False),
        ("2026-11-30T23:59:59", "2026-12-01T00:00:00", True),
        ("2026-12-31T23:59:59", "2027-01-01T00:00:00", True),
        ("2026-03-29T00:00:00", "2026-03-30T00:00:00", False),  # 23 hours
        ("2026-10-25T00:00:00", "2026-10-26T00:00:00", False),  # 25 hours
        ("2026-10-25T23:59:59", "2026-10-26T00:00:00", False),
        ("2026-11-24T12:00:00", "2027-11-24T12:00:00", True),
    ],
)
@pytest.mark.parametrize("look", [True, False])
def test_midnight(usage: UsageFile, wall: Wall, before: str, after: str, new_month: bool, look: bool) -> None:
    """A new day begins at local midnight, a new month on the first, seen by asking and by spending."""
    wall.set(before)
    quota = Quota(usage, "user bob", 1000, 5000)
    quota.spend(1000)
    assert quota.exhausted
    wall.set(after)
    if look:
        assert not quota.exhausted
    quota.spend(10)
    assert quota.available() == 990
    quota.change(None, 5000)
    assert quota.available() == 5000 - 10 - (0 if new_month else 1000)


@pytest.mark.parametrize("hours", [22, 24])
def test_day_of_summer_time(usage: UsageFile, wall: Wall, hours: int) -> None:
    """The day on which summer time ends has 25 hours."""
    wall.set("2026-10-25T00:00")
    quota = Quota(usage, "user bob", 1000)
    quota.spend(1000)
    wall.now += hours * 3600
    assert quota.exhausted
    wall.now += 3600 * (25 - hours)
    assert not quota.exhausted


def test_clock_set_back(usage: UsageFile, wall: Wall) -> None:
    """A clock that was wrong when the machine was started takes nobody's quota for years."""
    wall.set("2038-01-19T00:00")
    quota = Quota(usage, "user bob", 1000, 1000)
    quota.spend(1000)
    wall.set("2026-11-24T12:00")
    assert quota.available() == 1000


def test_used_up_is_written_at_once(desk: Desk, tmp_path: Path) -> None:
    """Other processes and nodes have to know soon."""
    with used(desk, tmp_path / "usage") as opened:
        quota = Quota(opened, "user bob", daily=1000)
        desk.pass_by(0)
        quota.spend(1000)
        assert not quota.available()
        desk.pass_by(0)
        assert not opened.unwritten
        # What is written need not be written again.
        quota.spend(1)
        desk.pass_by(WRITE_AFTER)
        assert not quota.available()
        assert not desk.getDelayedCalls()


def test_nothing_under_way(usage: UsageFile, desk: Desk, tmp_path: Path) -> None:
    """A quota of which nothing is spent has no timer, once its file has been read."""
    with used(desk, tmp_path / "usage") as opened:
        quota = Quota(opened, "user bob", 1000)
        desk.pass_by(0)
        assert desk.getDelayedCalls() == []
        quota.spend(1)
        assert len(desk.getDelayedCalls()) == 1
        desk.pass_by(WRITE_AFTER)
        assert quota.available() == 999
        assert desk.getDelayedCalls() == []


NAMES = st.sampled_from(
    ["user bob", "user eve", "server", "network 2001:db8::/64", "rule \udcff", "user ü'\0"]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(NAMES, st.integers(-(10**5), 10**12)),
        st.tuples(st.just("seconds"), st.floats(0, 3)),
        st.tuples(st.just("midnights"), st.integers(1, 40)),
        st.tuples(st.just("again"), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=60)
def test_adds_up(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float]]) -> None:
    """Whatever is spent when, and whenever it is written: file and quotas say what was spent."""
    path = tmp_path_factory.mktemp("usage") / "usage"
    desk, wall = Desk(), Wall("2026-11-24T23:00")
    usage = _opened(desk, path, wall)
    quotas: dict[str, Quota] = {}
    spent: dict[tuple[str, str], int] = {}
    for name, amount in steps:
        if name == "seconds":
            desk.advance(amount)
            desk.hear_all()
        elif name == "midnights":
            # At noon, so that days of 23 and 25 hours do not matter.
            wall.now += amount * 86400
        elif name == "again":
            stop(desk, usage)
            usage, quotas = _opened(desk, path, wall), {}
        else:
            quota = quotas.setdefault(name, Quota(usage, name, 10**15, 10**15))
            quota.spend(int(amount))
            today = str(datetime.fromtimestamp(wall.now, BERLIN).date())
            for period in (today, today[:7]):
                spent[name, period] = spent.get((name, period), 0) + int(amount)
            assert quota.available() == 10**15 - max(spent[name, today], spent[name, today[:7]])
    stop(desk, usage)
    kept = {place: count for place, count in written(path).items() if count}
    shown = {(_shown(name), period): count for (name, period), count in spent.items() if count}
    recent = {place: count for place, count in shown.items() if not _old(place[1], wall)}
    # What is too old may be there still, or not; all else is, and nothing besides.
    assert recent.items() <= kept.items() <= shown.items()


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _opened(desk: Desk, path: Path, wall: Wall) -> UsageFile:
    usage = UsageFile(desk, str(path), wall=wall, zone=BERLIN)
    usage.start()
    desk.hear()
    return usage


def _old(period: str, wall: Wall) -> bool:
    today = datetime.fromtimestamp(wall.now, BERLIN).date()
    if len(period) == 10:
        return (today - datetime.fromisoformat(period).date()).days > 8
    months = today.year * 12 + today.month - (int(period[:4]) * 12 + int(period[5:]))
    return months > 1
