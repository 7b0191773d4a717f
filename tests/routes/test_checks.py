"""Active checks of a pool's members. Numbers such as "e 28" are those of known faults of other servers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from socksproxy.errors import UpstreamFailed, UpstreamRefused
from socksproxy.routes.checks import IDLE, PoolChecks
from socksproxy.routes.counters import UpstreamCounters
from socksproxy.routes.members import Health, Member, Members
from socksproxy.values.pools import PoolCheck, UpstreamPool
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.words import Address, Reply

from ..support.logs import heard
from ..support.upstreams import upstream

DESTINATION = Address.of("www.example.org", 443)


class Checked:
    """
    A pool of *count* members under checks by a clock.

    :ivar moments: when each check began, and of which member.
    :ivar pending: the checks that run.
    """

    def __init__(self, count: int, every: float = 60, at_once: int = 8, down_after: int = 1) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        ways = {f"m{number}": upstream("socks5", 1000 + number) for number in range(count)}
        settings = UpstreamPool(
            members=list(ways),
            down_after=down_after,
            check=PoolCheck(every=every, connect=DESTINATION, at_once=at_once),
        )
        self.members = Members(self.clock, "eu", settings, ways, lambda name, _: UpstreamCounters(name))
        self.members.used = 0.0  # by a session
        self.moments: list[tuple[float, str]] = []
        self.pending: list[tuple[Member, Deferred[None]]] = []
        self.answer: Callable[[Member], Any] = lambda _: succeed(None)
        self.elsewhere = False
        self.most_open = 0
        self.checks = PoolChecks(
            self.clock, self.members, self._connect, lambda since: self.elsewhere, Random(3)
        )
        self.checks.start()

    def _connect(self, members: Members, member: Member, address: Address) -> Deferred[None]:
        assert address == DESTINATION
        self.moments.append((self.clock.seconds() - 1000, member.name))
        answer: Deferred[None] = self.answer(member)
        self.most_open = max(self.most_open, self.checks.open + 1)
        return answer

    def wait(self, seconds: float) -> None:
        """The time goes on, while sessions use the pool."""
        for _ in range(round(seconds * 10)):
            self.members.used = self.clock.seconds()
            self.clock.advance(0.1)

    def health(self, name: str) -> Health:
        member = self.members.get(name)
        assert member is not None
        return member.health


def dead(member: Member) -> Deferred[None]:
    return fail(UpstreamFailed("it is dead", member.name))


def test_no_burst() -> None:
    """e 28: 200 members in 60 seconds, each once, spread, and never more than 8 at once."""
    checked = Checked(200)

    def answer(member: Member) -> Deferred[None]:
        later: Deferred[None] = Deferred()
        checked.clock.callLater(0.5, later.callback, None)
        return later

    checked.answer = answer
    checked.wait(60)
    assert len({name for _, name in checked.moments}) == 200
    assert checked.most_open <= 8
    in_a_second = [sum(int(moment) == second for moment, _ in checked.moments) for second in range(60)]
    assert max(in_a_second) <= 16
    assert min(in_a_second) >= 0
    first, second = sum(in_a_second[:30]), sum(in_a_second[30:])
    assert abs(first - second) < 60
    order = [name for _, name in checked.moments[:200]]
    assert order != sorted(order)
    checked.wait(60)
    assert 380 <= len(checked.moments) <= 400


def test_slow_checks() -> None:
    """Checks that take long are not begun in greater numbers; the round takes longer instead."""
    checked = Checked(30, every=10, at_once=2)

    def answer(member: Member) -> Deferred[None]:
        later: Deferred[None] = Deferred()
        checked.clock.callLater(3, later.callback, None)
        return later

    checked.answer = answer
    checked.wait(50)
    assert checked.most_open == 2
    assert len({name for _, name in checked.moments}) == 30


def test_down_and_up() -> None:
    """One that fails is down, and is up again with the first check that works."""
    checked = Checked(3, down_after=2)
    checked.answer = lambda member: dead(member) if member.name == "m1" else succeed(None)
    checked.wait(61)
    assert checked.health("m1") is Health.UP
    checked.wait(60)
    assert checked.health("m1") is Health.DOWN
    assert checked.health("m0") is Health.UP
    member = checked.members.get("m1")
    assert member is not None
    assert member.counters.checks == 2
    checked.answer = lambda member: succeed(None)
    checked.wait(60)
    assert checked.health("m1") is Health.UP


def test_destination_is_not_the_member() -> None:
    """e 27: a member that answers works, whatever it says; one that is silent afterwards is not blamed."""
    checked = Checked(3)
    checked.answer = lambda member: fail(UpstreamRefused("refused", Reply.CONNECTION_REFUSED))
    checked.wait(61)
    checked.answer = lambda member: Deferred()
    checked.wait(100)
    checked.answer = lambda member: fail(UpstreamFailed("hop 1", "another"))
    checked.wait(100)
    assert {checked.health(f"m{number}") for number in range(3)} == {Health.UP}


def test_direct_members() -> None:
    """A destination that refuses is reached; one that is silent is not, where others reach theirs."""
    checked = Checked(3)
    for member in checked.members:
        member.upstream = Upstream(type="direct")
    silent: list[str] = ["m1"]

    def answer(member: Member) -> Deferred[None]:
        return Deferred() if member.name in silent else fail(ConnectionRefusedError())

    checked.answer = answer
    checked.wait(80)
    assert [member.health for member in checked.members] == [Health.UP, Health.DOWN, Health.UP]
    silent.clear()
    checked.wait(60)
    assert {member.health for member in checked.members} == {Health.UP}


def test_local_outage() -> None:
    """e 30: when everything fails, no member is blamed; the recovery is immediate."""
    checked = Checked(10)
    checked.answer = dead
    with heard() as lines:
        checked.wait(61)
    assert {member.health for member in checked.members} == {Health.UP}
    assert len(lines) == 1
    assert "no member is blamed" in lines[0]
    checked.answer = lambda member: dead(member) if member.name == "m3" else succeed(None)
    checked.wait(60)
    down = [member.name for member in checked.members if member.health is not Health.UP]
    assert down == ["m3"]


def test_control() -> None:
    """e 30: another pool that works shows that the fault is the members'."""
    checked = Checked(4)
    checked.answer = dead
    checked.elsewhere = True
    checked.wait(61)
    assert {member.health for member in checked.members} == {Health.DOWN}


def test_session_as_control() -> None:
    """Members that fail first are blamed when another one works later in the round."""
    checked = Checked(4)
    checked.answer = dead
    checked.wait(59)
    assert {member.health for member in checked.members} == {Health.UP}
    first = next(iter(checked.members))
    checked.members.answered(first)
    checked.wait(2)
    assert [member.health for member in checked.members][1:] == [Health.DOWN] * 3


def test_none_while_idle() -> None:
    """e 28: no checks 30 minutes after the last session; the next session brings them back."""
    checked = Checked(5)
    for _ in range(int(IDLE) + 61):
        checked.clock.advance(1)
    count = len(checked.moments)
    assert count > 5
    checked.clock.pump([60] * 10)
    assert len(checked.moments) == count
    assert checked.clock.getDelayedCalls() == []
    checked.members.next((), b"")
    checked.wait(61)
    assert len(checked.moments) >= count + 5


def test_none_where_sessions_tell() -> None:
    """A member of which a session has just told is not checked."""
    checked = Checked(2)
    busy = checked.members.get("m0")
    assert busy is not None
    for _ in range(120):
        checked.members.answered(busy)
        checked.wait(1)
    assert {name for _, name in checked.moments} == {"m1"}


def test_stop() -> None:
    """Running checks are cancelled, and nothing is left."""
    checked = Checked(5)
    cancelled: list[int] = []
    checked.answer = lambda member: Deferred(lambda _: cancelled.append(1))
    checked.wait(59)
    assert checked.checks.open
    running = checked.checks.open
    checked.checks.stop()
    assert len(cancelled) >= running
    assert checked.clock.getDelayedCalls() == []
