"""Which members of a pool live, and which is the next one. "e 27" is the number of a known fault."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
import pytest
from twisted.internet.task import Clock

from socksproxy.routes.counters import UpstreamCounters, enter
from socksproxy.routes.members import Health, Member, Members
from socksproxy.values.pools import Choose, UpstreamPool
from socksproxy.values.upstreams import Upstream

from ..support.logs import heard
from ..support.upstreams import upstream

UPSTREAMS = {name: upstream("socks5", 1000 + number) for number, name in enumerate("abcdef")}


class Table:
    """A file of members."""

    path = "/etc/members"

    def __init__(self, **table: Upstream) -> None:
        self.table = table


def pool(clock: Clock, members: str = "abc", backup: str = "", **more: Any) -> Members:
    settings = UpstreamPool(members=members, backup=backup, **more)
    return Members(clock, "eu", settings, UPSTREAMS, counters_of, Random(1))


def counters_of(name: str, upstream: Upstream) -> UpstreamCounters:
    counters = UpstreamCounters(name)
    counters.most = upstream.max_sessions
    return counters


def taken(members: Members, *tried: Member) -> Member:
    member = members.next(tried, b"")
    assert member is not None
    members.take(member)
    return member


def down(members: Members, *names: str) -> None:
    for name in names:
        member = members.get(name)
        assert member is not None
        for _ in range(members.settings.down_after):
            members.failed(member, "dead")
        assert member.health is Health.DOWN


def test_down_after() -> None:
    """e 27: three failures in a row, and not two with an answer between."""
    members = pool(Clock())
    first = taken(members)
    for _ in range(2):
        members.failed(first, "dead")
    members.answered(first)
    for _ in range(2):
        members.failed(first, "dead")
    assert first.health is Health.UP
    with heard() as lines:
        members.failed(first, "dead")
        members.failed(first, "one that had begun before")
    assert taken(members).name == "b"
    assert len(lines) == 1


def test_one_trial() -> None:
    """When its time is over, one session tries it; other sessions do not until that has told."""
    clock = Clock()
    members = pool(clock, retry_after=10.0)
    down(members, "a")
    clock.advance(7.4)
    assert taken(members).name == "b"
    clock.advance(2.7)
    first = taken(members)
    assert first.name == "a"
    assert [taken(members).name for _ in range(3)] == ["b", "b", "b"]
    members.answered(first)
    assert taken(members).name == "a"


def test_trial_that_tells_nothing() -> None:
    """A trial whose client goes away is followed by another one."""
    clock = Clock()
    members = pool(clock)
    down(members, "a")
    clock.advance(10)
    first = taken(members)
    members.undecided(first)
    assert taken(members) is first


def test_time_doubles() -> None:
    """10, 20, 40 ... 300 seconds, of each up to a quarter less by chance; from the start after an answer."""
    clock = Clock()
    members = pool(clock)
    down(members, "a")
    member = members.get("a")
    assert member is not None
    found = []
    for _ in range(7):
        found.append(member.until - clock.seconds())
        clock.advance(found[-1])
        assert taken(members) is member
        members.failed(member, "dead")
    for seconds, most in zip(found, (10, 20, 40, 80, 160, 300, 300), strict=True):
        assert 0.75 * most <= seconds <= most
    assert len({seconds / most for seconds, most in zip(found[5:], (300, 300), strict=True)}) == 2
    members.answered(member)
    down(members, "a")
    assert member.until - clock.seconds() <= 10


def test_backup() -> None:
    """The backup is asked when no member is left."""
    members = pool(Clock(), "ab", "cd")
    down(members, "a")
    assert taken(members).name == "b"
    down(members, "b")
    assert taken(members).name == "c"
    members.answered(next(iter(members)))
    assert taken(members).name == "a"


def test_none_living() -> None:
    """Where none lives, the dead ones are tried: the one that is unharmed for the longest time first."""
    clock = Clock()
    members = pool(clock, "ab", "c")
    for name in "bca":
        clock.advance(1)
        down(members, name)
    order: list[Member] = []
    while (member := members.next(order, b"")) is not None:
        members.take(member)
        order.append(member)
    assert [member.name for member in order] == ["b", "c", "a"]
    # Such a try is no trial: an outage with many sessions does not keep members away for minutes.
    for _ in range(20):
        members.failed(order[0], "dead")
    assert order[0].until - clock.seconds() <= 10
    members.answered(order[2])
    assert taken(members).name == "a"


def test_full() -> None:
    """A full member is passed by, and is not down."""
    ways = {**UPSTREAMS, "a": attrs.evolve(UPSTREAMS["a"], max_sessions=1)}
    members = Members(Clock(), "eu", UpstreamPool(members="ab"), ways, counters_of)
    first = taken(members)
    enter((first.counters,))
    assert taken(members).name == "b"
    down(members, "b")
    assert taken(members).name == "b"
    first.counters.leave()
    assert taken(members) is first
    assert first.health is Health.UP


def test_least_sessions_hears_of_sessions() -> None:
    """The numbers are those of the upstream, whichever pool or rule its sessions come from."""
    members = pool(Clock(), choose=Choose.LEAST_SESSIONS)
    for _ in range(30):
        enter((taken(members).counters,))
    assert [member.sessions for member in members] == [10, 10, 10]
    last = list(members)[2]
    for _ in range(5):
        last.counters.leave()
    assert taken(members) is last
    members.close()
    assert last.counters.watchers == ()


def test_reload() -> None:
    """What is known of a member that stays goes on; a member with another address begins anew."""
    clock = Clock()
    members = pool(clock, "abc")
    down(members, "a", "b")
    kept = members.get("a")
    ways = {**UPSTREAMS, "a": attrs.evolve(UPSTREAMS["a"], weight=3), "b": upstream("socks5", 7)}
    members.configure(UpstreamPool(members="adb"), ways, counters_of)
    assert members.get("a") is kept
    assert kept is not None
    assert (kept.up, kept.weight) == (False, 3)
    assert members.get("c") is None
    fresh = members.get("b")
    assert fresh is not None
    assert fresh.health is Health.UP
    assert taken(members).name == "d"
    clock.advance(10)
    assert taken(members) is kept


def test_file() -> None:
    """A file that is replaced while the server runs; members that stay keep what is known."""
    clock = Clock()
    file = Table(one=upstream("socks5", 1), two=upstream("socks5", 2))
    members = Members(clock, "eu", UpstreamPool(members="a", members_file=file), UPSTREAMS, counters_of)
    assert [member.name for member in members] == ["a", "one", "two"]
    down(members, "a", "one")
    assert not members.refresh()
    file.table = {"one": upstream("socks5", 1), "three": upstream("socks4", 3)}
    assert members.refresh()
    assert [member.name for member in members] == ["a", "one", "three"]
    assert taken(members).name == "three"
    assert not members.takes_names
    file.table = {}
    members.refresh()
    assert [member.name for member in members] == ["a"]


def test_empty() -> None:
    members = Members(Clock(), "eu", UpstreamPool(members_file=Table()), {}, counters_of)
    assert members.next((), b"") is None
    assert len(members) == 0


@pytest.mark.parametrize("choose", Choose)
def test_wake(choose: Choose) -> None:
    """The first session after a pause is told of, once."""
    members = pool(Clock(), choose=choose)
    woken: list[int] = []
    members.wake = lambda: woken.append(1)
    taken(members)
    taken(members)
    assert woken == [1]


def test_another_worker_tells() -> None:
    members = pool(Clock())
    first = taken(members)
    members.told_down(first, True)
    assert not first.up
    members.told_down(first, False)
    assert first.up
