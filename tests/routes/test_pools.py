"""The pools of a server: checks over real sockets, and what several workers tell each other."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest_twisted
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock, deferLater

from socksproxy.routes.members import Health
from socksproxy.values.pools import PoolCheck
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.words import Address

from ..conftest import Serve
from ..support.hosts import Hosts
from ..support.origin import Origin, echo
from ..support.pools import pooled
from ..support.proxy import Playing, Proxy, ask5, closed_port, reactor, until
from ..support.scripted_proxy import SUCCESS5, ScriptedProxy, open5


class Told:
    """What another worker tells."""

    def __init__(self, leads: bool) -> None:
        self.leads = leads
        self.used: list[str] = []
        self.seconds = 1e9
        self.told: list[Collection[str]] = []
        self.finds: frozenset[str] | None = None

    def use(self, pool: str) -> None:
        self.used.append(pool)

    def unused(self, pool: str) -> float:
        return self.seconds

    def tell(self, pool: str, down: Collection[str]) -> None:
        self.told.append(down)

    def found_down(self, pool: str, members: Collection[str]) -> frozenset[str] | None:
        return self.finds


def asked(proxy: Proxy) -> int:
    with proxy.connect() as sock:
        return ask5(sock, "192.0.2.1", 80)[0]


@inlineCallbacks
def _pass(clock: Clock, condition: Callable[[], bool]) -> Playing:
    """The time goes on, with time for the sockets, until *condition* holds."""
    for _ in range(120):
        if condition():
            return
        clock.advance(0.5)
        yield deferLater(reactor, 0.005)
    raise AssertionError("a minute is not enough")


def _checked(*ports: int, **more: Any) -> dict[str, Any]:
    check = PoolCheck(every=10, connect=Address.of("www.example", 443))
    return pooled(*ports, check=check, down_after=1, **more)


@pytest_twisted.inlineCallbacks
def test_checks(serve_as: Serve) -> Playing:
    """A check goes through the member as a session does, and its connection is closed; off is the default."""
    clock, hosts = Clock(), Hosts({})
    there = yield ScriptedProxy(*open5(SUCCESS5, request=18)).start()
    dead = closed_port()
    proxy: Proxy = yield serve_as(clock=clock, resolver=hosts, **_checked(there.port, dead))
    pools = proxy.sessions.context.ways.pools
    clock.advance(100)
    assert there.ends == []  # no session has come yet
    there.steps = open5(SUCCESS5)
    assert (yield proxy.play(asked, proxy)) == 0
    there.steps = open5(SUCCESS5, request=18)
    one, two = pools["eu"]
    yield _pass(clock, lambda: len(there.ends) > 1 and two.health is not Health.UP)
    assert one.health is Health.UP
    assert there.ends[-1].received[3:] == b"\x05\x01\x00\x03\x0bwww.example\x01\xbb"
    yield until(lambda: one.sessions == 0)
    assert hosts.asked == []
    pools.stop()
    yield there.stop()


@pytest_twisted.inlineCallbacks
def test_name_for_members_without_names(serve_as: Serve) -> Playing:
    """The destination of checks is looked up where a member has no names; here it is this machine."""
    clock, hosts = Clock(), Hosts({"www.example": ["127.0.0.1"]})
    with Origin(echo) as origin:
        check = PoolCheck(every=5, connect=Address.of("www.example", origin.port))
        ways = {"here": Upstream(type="direct")}
        proxy: Proxy = yield serve_as(
            clock=clock, resolver=hosts, **pooled(upstreams=ways, members=("here",), check=check)
        )
        assert (yield proxy.play(lambda: ask5(proxy.connect(), "127.0.0.1", origin.port)))[0] == 0
        clock.advance(5)
        clock.advance(5)
        clock.advance(5)
        yield until(lambda: len(origin.peers) >= 2)
        assert hosts.asked == ["www.example"]


@pytest_twisted.inlineCallbacks
def test_name_that_is_not_found_in_time(serve_as: Serve) -> Playing:
    """A look-up that hangs tells nothing of the member: one that is down does not come back."""
    clock, hosts = Clock(), Hosts({"www.example": None})
    check = PoolCheck(every=5, connect=Address.of("www.example", 80))
    ways = {"here": Upstream(type="direct")}
    proxy: Proxy = yield serve_as(
        clock=clock,
        resolver=hosts,
        **pooled(upstreams=ways, members=("here",), check=check, down_after=1, retry_after=300),
    )
    members = proxy.sessions.context.ways.pools["eu"]
    (here,) = members
    with Origin(echo) as origin:
        assert (yield proxy.play(lambda: ask5(proxy.connect(), "127.0.0.1", origin.port)))[0] == 0
    members.failed(here, "the test says so")
    clock.pump([1] * 60)
    assert hosts.asked
    assert (here.health, here.counters.checks) == (Health.DOWN, 0)
    assert "down" in repr(here)


@pytest_twisted.inlineCallbacks
def test_leading_worker(serve_as: Serve) -> Playing:
    """One worker checks for all, also for the sessions of the others."""
    clock = Clock()
    there = yield ScriptedProxy(*open5(SUCCESS5, request=18)).start()
    proxy: Proxy = yield serve_as(clock=clock, **_checked(there.port, closed_port()))
    pools = proxy.sessions.context.ways.pools
    shared = Told(True)
    clock.advance(5000)
    pools.share(shared)
    clock.advance(100)
    assert there.ends == []
    shared.seconds = 0
    members = pools["eu"]
    yield _pass(clock, lambda: len(there.ends) > 0 and not list(members)[1].up)
    clock.advance(1)
    assert list(shared.told[-1]) == ["m1"]
    pools.stop()
    yield there.stop()


@pytest_twisted.inlineCallbacks
def test_other_worker(serve_as: Serve) -> Playing:
    """A worker that does not lead checks nothing, tells that it uses a pool, and takes what it is told."""
    clock = Clock()
    there = yield ScriptedProxy(*open5(SUCCESS5)).start()
    proxy: Proxy = yield serve_as(clock=clock, **_checked(there.port, there.port))
    pools, shared = proxy.sessions.context.ways.pools, Told(False)
    clock.advance(100)
    pools.share(shared)
    assert shared.used == []
    assert (yield proxy.play(asked, proxy)) == 0
    clock.advance(1)
    assert shared.used == ["eu"]
    one, two = pools["eu"]
    for finds, health in ((frozenset(["m0"]), Health.DOWN), (None, Health.DOWN), (frozenset(), Health.UP)):
        shared.finds = finds
        clock.advance(1)
        assert (one.health, two.health) == (health, Health.UP)
    pools["eu"].failed(two, "a session of this worker")
    shared.finds = frozenset(["m0"])
    clock.advance(1)
    assert (one.health, two.health) == (Health.DOWN, Health.DOWN)
    clock.pump([1] * 60)
    assert len(there.ends) == 1
    assert shared.told == []
    pools.stop()
    yield there.stop()
