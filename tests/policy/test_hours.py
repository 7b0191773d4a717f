"""Rules whose hours end sessions: when they are looked at, and which sessions end."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from socksproxy.policy import DefaultPolicy
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.hours import HoursWatch
from socksproxy.policy.rules import Rule
from socksproxy.wire.words import Reply
from tests.conftest import Serve
from tests.support.bind import begun, second
from tests.support.origin import Origin, echo
from tests.support.processes import PATIENCE, TWISTD, Program
from tests.support.proxy import Playing, Proxy, ask5, echoes, until
from tests.support.sessions import connected, ends, refused
from tests.support.udp import Client as Datagrams, Echo, serving
from tests.support.wall_clock import WallClock

ENDED = "outside the rule's hours"


def moment(text: str) -> float:
    """The seconds since the epoch of *text*, a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


class Wall:
    """
    A wall clock that can be set.

    :param clock: by what it goes on.
    :param text: what it shows now.
    """

    def __init__(self, clock: Any, text: str) -> None:
        self._clock = clock
        self.set(text)

    def set(self, text: str) -> None:
        self._ahead = moment(text) - self._clock.seconds()

    def __call__(self) -> float:
        return float(self._clock.seconds() + self._ahead)


# When they are looked at.


class Watched:
    """A watch of one rule, from *text* on, and how often it told of a change."""

    def __init__(self, text: str, hours: str, zone: str = "UTC", **more: Any) -> None:
        self.clock = Clock()
        self.wall = Wall(self.clock, text)
        self.changes: list[str] = []
        self.sessions = True
        rule = Rule(name="r", allow=True, hours=[hours], zone=zone, ends_sessions=True, **more)
        self.watch = HoursWatch(self.clock, self._changed, lambda: self.sessions)
        self.watch.follow(RulePolicy([rule, Rule(name="other", allow=True)], clock=self.wall))

    def _changed(self) -> None:
        told = datetime.fromtimestamp(self.wall(), timezone.utc)
        self.changes.append(f"{told:%H:%M:%S}{'+' if self.watch.awake else '-'}")

    def go_on(self, minutes: int) -> list[str]:
        """The changes of so many *minutes*."""
        for _ in range(60 * minutes):
            self.clock.advance(1)
            assert len(self.clock.getDelayedCalls()) <= 1
        changes, self.changes = self.changes, []
        return changes


def test_begin_and_end() -> None:
    """They are told in the second in which they happen, and the timer runs once a minute."""
    watched = Watched("2026-11-30T07:58:17", "08:00-08:03")
    assert watched.go_on(10) == ["08:00:00+", "08:03:00-"]


@pytest.mark.parametrize(
    ("begin", "hours", "zone", "minutes", "changes"),
    [
        # Berlin's clocks go from 03:00 back to 02:00, which is 01:00 UTC: the hour comes twice.
        ("2026-10-25T00:20:00", "00:00-02:30", "Europe/Berlin", 100, ["00:30:00-", "01:00:00+", "01:30:00-"]),
        # Berlin's clocks go from 02:00 to 03:00, which is 01:00 UTC: the hour does not come.
        ("2027-03-28T00:50:00", "02:15-03:15", "Europe/Berlin", 60, ["01:00:00+", "01:15:00-"]),
        ("2027-03-28T00:50:00", "00:00-02:30", "Europe/Berlin", 60, ["01:00:00-"]),
        # The day begins at midnight in Kathmandu, 5:45 hours before UTC's.
        ("2026-11-29T18:10:00", "00:00-24:00", "Asia/Kathmandu", 30, ["18:15:00+"]),
    ],
)
def test_summer_time(begin: str, hours: str, zone: str, minutes: int, changes: list[str]) -> None:
    """Hours are those that a clock on the wall shows."""
    days = ["mon"] if zone == "Asia/Kathmandu" else None
    assert Watched(begin, hours, zone, days=days).go_on(minutes) == changes


def test_clock_is_set() -> None:
    """A step is noticed within a minute, and one within the hours changes nothing."""
    watched = Watched("2026-11-30T09:00:10", "08:00-18:00")
    watched.wall.set("2026-11-30T18:30:05")
    assert watched.go_on(1) == ["18:30:55-"]
    watched.wall.set("2026-11-30T17:00:00")
    assert [change[-1] for change in watched.go_on(1)] == ["+"]
    watched.wall.set("2026-12-01T17:00:00")
    assert watched.go_on(5) == []


def test_nothing_to_look_at() -> None:
    """Without sessions, or without such rules, there is no timer."""
    watched = Watched("2026-11-30T09:00:10", "08:00-18:00")
    watched.sessions = False
    watched.go_on(1)
    assert watched.clock.getDelayedCalls() == []
    watched.sessions = True
    watched.watch.start()
    watched.watch.start()
    assert len(watched.clock.getDelayedCalls()) == 1
    timed = Rule(name="r", allow=True, hours=["08:00-18:00"])
    for policy in (
        RulePolicy([timed]),
        RulePolicy([Rule(name="r", allow=True, ends_sessions=True)]),
        DefaultPolicy(),
    ):
        watched.watch.follow(policy)
        assert watched.clock.getDelayedCalls() == []
        watched.watch.start()
        assert watched.clock.getDelayedCalls() == []


# Which sessions end.


@pytest.fixture
def origin() -> Iterator[Origin]:
    """What sends back what comes."""
    with Origin(echo) as server:
        yield server


def day(name: str, allow: bool = True, hours: str = "08:00-18:00", ends: bool = True, **more: Any) -> Rule:
    return Rule(name=name, allow=allow, hours=[hours], zone="UTC", ends_sessions=ends, **more)


class Served:
    """A proxy whose clock on the wall shows some seconds before six, and the time before that."""

    def __init__(self, *rules: Rule) -> None:
        self.wall = "2026-11-30T17:30:00"
        self.policy = RulePolicy(rules, clock=lambda: moment(self.wall))

    def at(self, proxy: Proxy, text: str) -> None:
        """The minute *text* begins."""
        self.wall = f"2026-11-30T{text}"
        proxy.factory.sessions.context.hours._look()


@pytest_twisted.inlineCallbacks
def test_hours_end(serve: Serve, origin: Origin) -> Playing:
    """What the rule has allowed ends with its hours, and nothing else does."""
    with Origin(echo) as later, Origin(echo) as always, Origin(echo) as once:
        served = Served(
            day("office", ports=[origin.port, later.port]),
            day("once", ends=False, ports=[once.port]),
            day("evening", hours="08:00-20:00", ports=[later.port]),
            Rule(name="always", allow=True, ports=[always.port]),
        )
        proxy: Proxy = yield serve(policy=served.policy)
        goes = yield proxy.play(connected, proxy, origin.port)
        stays = []
        for server in (later, always, once):
            stays.append((yield proxy.play(connected, proxy, server.port)))
        served.at(proxy, "17:59:00")
        assert len(proxy.records) == 0
        served.at(proxy, "18:00:00")
        assert (yield proxy.play(ends, goes))
        record = yield proxy.record()
        assert (record["ended"], record["rule"], record["reply"]) == (ENDED, "default", 0)
        for sock in stays:
            yield proxy.play(echoes, sock)
        assert (yield proxy.play(refused, proxy, once.port)) == Reply.NOT_ALLOWED
        # What the second rule has allowed since then ends with the hours of that one.
        served.at(proxy, "20:00:00")
        assert (yield proxy.play(ends, stays[0]))
        assert [each["ended"] for each in proxy.records].count(ENDED) == 2
        for sock in stays[1:]:
            yield proxy.play(echoes, sock)
        for sock in [goes, *stays]:
            sock.close()


@pytest_twisted.inlineCallbacks
def test_hours_of_a_denial_begin(serve: Serve, origin: Origin) -> Playing:
    """A rule that denies ends what is open when its hours begin; another rule that denies does not."""
    with Origin(echo) as other:
        served = Served(
            day("no-games", False, "18:00-19:00", ports=[origin.port]),
            day("no-more", False, "18:00-19:00", ends=False),
            Rule(name="always", allow=True),
        )
        proxy: Proxy = yield serve(policy=served.policy)
        goes = yield proxy.play(connected, proxy, origin.port)
        stays = yield proxy.play(connected, proxy, other.port)
        served.at(proxy, "18:00:00")
        assert (yield proxy.play(ends, goes))
        record = yield proxy.record()
        assert (record["ended"], record["rule"]) == (ENDED, "no-games")
        yield proxy.play(echoes, stays)
        goes.close()
        stays.close()


@pytest_twisted.inlineCallbacks
def test_name(serve: Serve, origin: Origin) -> Playing:
    """A session that a rule on names has allowed ends with it."""
    served = Served(
        day("office", names=["localhost"]), Rule(name="always", allow=True, networks=["192.0.2.1"])
    )
    proxy: Proxy = yield serve(policy=served.policy)
    sock = yield proxy.play(connected, proxy, origin.port, "localhost")
    served.at(proxy, "18:00:00")
    assert (yield proxy.play(ends, sock))
    assert (yield proxy.record())["ended"] == ENDED
    sock.close()


@pytest_twisted.inlineCallbacks
def test_bind_that_waits(serve: Serve) -> Playing:
    """It is refused."""
    served = Served(day("office"))
    proxy: Proxy = yield serve(policy=served.policy)
    control, _ = yield proxy.play(begun, proxy, "127.0.0.1")
    served.at(proxy, "18:00:00")
    assert (yield proxy.play(second, control, 5))[0] == Reply.NOT_ALLOWED
    control.close()  # else the proxy waits for that
    assert (yield proxy.record())["ended"] == f"refused: {ENDED}"


@pytest.mark.parametrize("asks", [True, False])
@pytest_twisted.ensureDeferred
async def test_association(asks: bool) -> None:
    """It ends when its client may have no destination any more, and goes on without those that are denied."""
    served = Served(
        day("office", clients=["127.0.0.1"]), Rule(name="always", allow=True, clients=["127.0.0.2"])
    )
    async with serving("engine", policy=served.policy) as proxy:
        with Echo() as echo:
            goes, stays = [await proxy.run(Datagrams, host) for host in ("127.0.0.1", "127.0.0.2")]
            if asks:
                for client in (goes, stays):
                    assert (await proxy.run(lambda _, client=client: client.ask(b"x", echo.address))) == b"x"
            served.at(proxy, "18:00:00")  # type: ignore[arg-type]
            await until(lambda: proxy.records)
            assert [record["ended"] for record in proxy.records] == [ENDED]
            assert (await proxy.run(lambda _: goes.closed())) is True
            assert (await proxy.run(lambda _: stays.ask(b"y", echo.address))) == b"y"
            goes.close()
            stays.close()


@pytest_twisted.inlineCallbacks
def test_many(serve: Serve, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """They are judged so many in a turn, as after a reload."""
    served = Served(day("office"))
    proxy: Proxy = yield serve(policy=served.policy)
    socks = []
    for _ in range(4):
        socks.append((yield proxy.play(connected, proxy, origin.port)))
    monkeypatch.setattr("socksproxy.session.registry._AT_ONCE", 1)
    served.at(proxy, "18:00:00")
    assert len(proxy.factory.sessions._changed) == 3
    for sock in socks:
        assert (yield proxy.play(ends, sock))
        sock.close()


# In processes.

CONFIG = """
[listeners]
port = 0
[workers]
workers = {workers}
[log]
log = "access.log"
log-format = "json"
[[rule]]
name = "office"
allow = true
hours = ["08:00-18:00"]
zone = "UTC"
ends-sessions = true
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_processes(workers: int, tmp_path: Path, start: Callable[..., Program]) -> None:
    """Each worker ends its sessions, though the wall clock is set meanwhile."""
    wall = WallClock(tmp_path)
    # Some seconds before a minute ends in which the hours hold.
    ahead = int(-time.time() % 86400) + 10 * 3600 + 50
    wall.step(ahead)
    (tmp_path / "proxy.toml").write_text(CONFIG.format(workers=workers))
    program = start([*TWISTD, "-n", "--pidfile=", "socks", "--config", "proxy.toml"], wall.environment)
    port = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
    with Origin(echo) as origin, ExitStack() as stack:
        socks = []
        for _ in range(8):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            assert ask5(sock, "127.0.0.1", origin.port)[0] == 0
            echoes(sock)
            socks.append(sock)
        wall.step(ahead + 8 * 3600)
        for sock in socks:
            sock.settimeout(2 * PATIENCE)
            assert ends(sock)
    program.stop()
    records = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    assert [record["ended"] for record in records] == [ENDED] * 8
