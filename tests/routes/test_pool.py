"""
Connections that leave through a pool, over real loopback sockets.

Numbers such as "e 19" are those of known faults of other servers.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.routes.counters import UpstreamCounters
from socksproxy.routes.interfaces import Trail
from socksproxy.routes.member_files import MembersFile
from socksproxy.routes.members import Health, Member, Members
from socksproxy.routes.pool import PoolRoute
from socksproxy.settings import ServerSettings
from socksproxy.values.errors import ConfigError
from socksproxy.values.pools import Choose, UpstreamPool
from socksproxy.values.timeouts import Timeouts
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.words import Command

from ..conftest import Serve
from ..support.hosts import Hosts
from ..support.logs import heard
from ..support.origin import Origin, echo
from ..support.pools import pooled
from ..support.proxy import Playing, Proxy, ask5, closed_port, echoes, greet, reply5, request5, until
from ..support.scripted_proxy import SUCCESS5, ScriptedProxy, Step, close, forward_to, open5, reset
from ..support.upstreams import upstream


@pytest.fixture
def origin() -> Iterator[Origin]:
    """A destination; it counts who comes."""
    with Origin(echo) as there:
        yield there


@pytest.fixture
def scripted() -> Iterator[Any]:
    """``yield scripted(step, ...)``: a proxy that does what the steps say."""
    proxies: list[ScriptedProxy] = []

    def started(*steps: Step, **more: Any) -> Any:
        proxy = ScriptedProxy(*steps, **more)
        proxies.append(proxy)
        return proxy.start()

    yield started
    for proxy in proxies:
        pytest_twisted.blockon(proxy.stop())


def replied(code: int) -> list[Step]:
    return open5(b"\x05" + bytes([code]) + SUCCESS5[2:])


def asked(proxy: Proxy, host: str = "192.0.2.1", port: int = 80, command: int = Command.CONNECT) -> int:
    """The reply's code."""
    with proxy.connect() as sock:
        return ask5(sock, host, port, command)[0]


def health(proxy: Proxy, name: str) -> Health:
    member = proxy.sessions.context.ways.pools["eu"].get(name)
    assert member is not None
    return member.health


@pytest_twisted.inlineCallbacks
def test_through_a_member(serve: Serve, serve_as: Serve, origin: Origin) -> Playing:
    """Bytes both ways; the record names the member, and the destination sees the upstream alone."""
    exit_: Proxy = yield serve_as()
    proxy: Proxy = yield serve(**pooled(exit_.address[1]))

    def scenario() -> None:
        with proxy.connect() as sock:
            assert ask5(sock, "127.0.0.1", origin.port)[0] == 0
            echoes(sock)

    yield proxy.play(scenario)
    record = yield proxy.record()
    assert (record["via"], record["tries"], record["upstream_reply"]) == ("m0", 1, 0)
    out = yield exit_.record()
    assert out["client"] == record["outgoing"]


# Never directly.

ALL_DEAD = {
    "closed ports": None,
    "close at once": [close],
    "no method": [3, b"\x05\xff"],
    "another protocol": [3, b"HTTP/1.1 400 Bad Request\r\n\r\n"],
}


@pytest.mark.parametrize("how", ALL_DEAD)
@pytest_twisted.inlineCallbacks
def test_never_directly(serve: Serve, scripted: Any, origin: Origin, how: str) -> Playing:
    """e 19: no member works, for long; neither the destination nor the resolver hears of the client."""
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    steps, ports = ALL_DEAD[how], [closed_port(), closed_port()]
    if steps is not None:
        there = yield scripted(*steps)
        ports = [there.port, there.port]
    proxy: Proxy = yield serve(**pooled(*ports, backup=(closed_port(),)), resolver=hosts)
    for host in ("127.0.0.1", "www.example") * 4:
        assert (yield proxy.play(asked, proxy, host, origin.port)) == 1
    assert {health(proxy, name) for name in ("m0", "m1", "b0")} == {Health.DOWN}
    for command in (Command.BIND, Command.UDP_ASSOCIATE, Command.RESOLVE):
        assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port, command)) != 0
    assert (origin.peers, hosts.asked) == ([], [])
    record = yield proxy.record()
    assert (record["end"], record["tries"]) == ("upstream", 3)
    assert record["ended"].startswith("refused: eu: no member works: ")


@pytest_twisted.inlineCallbacks
def test_empty_and_gone(serve_as: Serve, scripted: Any, origin: Origin, tmp_path: Path) -> Playing:
    """e 19: a file that loses all members, a pool that a reload removes, and a rule that still names it."""
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    there = yield scripted(*open5(SUCCESS5))
    listed = tmp_path / "members"
    listed.write_text(f"127.0.0.1:{there.port}\n")
    file = MembersFile(str(listed))
    file.load()
    options = {"pools": {"eu": UpstreamPool(members_file=file)}, "via": "eu", "resolver": hosts}
    proxy: Proxy = yield serve_as(**options)
    assert (yield proxy.play(asked, proxy)) == 0
    listed.write_text("# none\n")
    file.load()
    for host in ("127.0.0.1", "www.example"):
        assert (yield proxy.play(asked, proxy, host, origin.port)) == 1
    yield until(lambda: len(proxy.records) == 3)
    assert proxy.records[1]["ended"] == "refused: eu: the pool has no member"
    rules = RulePolicy([Rule(name="all", allow=True, via="eu")])
    proxy.factory.reconfigure(pools={}, via=None, policy=rules)
    for host in ("127.0.0.1", "www.example"):
        assert (yield proxy.play(asked, proxy, host, origin.port)) == 1
    assert (origin.peers, hosts.asked) == ([], [])


@pytest_twisted.inlineCallbacks
def test_otherwise_direct(serve_as: Serve, origin: Origin) -> Playing:
    """Directly where that is written, and only when no member is left."""
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    proxy: Proxy = yield serve_as(**pooled(closed_port(), otherwise="direct"), resolver=hosts)
    for host in ("127.0.0.1", "www.example"):
        assert (yield proxy.play(asked, proxy, host, origin.port)) == 0
    record = yield proxy.record()
    assert (record["via"], record["tries"]) == ("direct", 2)
    # The rules have to see the addresses to which it may leave directly.
    assert hosts.asked == ["www.example"]


@pytest_twisted.inlineCallbacks
def test_otherwise_by_name(serve_as: Serve, origin: Origin) -> Playing:
    """An upstream of type direct is one, too; each try counts once."""
    more = {"m0": upstream("socks5", closed_port()), "here": Upstream(type="direct")}
    pools = {"eu": UpstreamPool(members=["m0"], otherwise="here")}
    proxy: Proxy = yield serve_as(upstreams=more, pools=pools, via="eu")
    assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == 0
    record = yield proxy.record()
    assert (record["via"], record["tries"]) == ("here", 2)


@pytest_twisted.inlineCallbacks
def test_otherwise_is_not_for_answers(serve_as: Serve, scripted: Any, origin: Origin) -> Playing:
    """What a member says of the destination is the answer, whatever stands in otherwise."""
    for code in (1, 3, 5):
        there = yield scripted(*replied(code))
        proxy: Proxy = yield serve_as(**pooled(there.port, otherwise="direct"))
        assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == code
    assert origin.peers == []


@pytest_twisted.inlineCallbacks
def test_otherwise_another(serve_as: Serve, scripted: Any) -> Playing:
    """Another pool, and in the end an upstream."""
    there = yield scripted(*open5(SUCCESS5))
    ways = {"one": upstream("socks5", closed_port()), "last": upstream("socks5", there.port)}
    pools = {
        "eu": UpstreamPool(members=["one"], otherwise="us"),
        "us": UpstreamPool(members=["one"], otherwise="last"),
    }
    proxy: Proxy = yield serve_as(upstreams=ways, pools=pools, via="eu")
    assert (yield proxy.play(asked, proxy)) == 0
    record = yield proxy.record()
    assert (record["via"], record["tries"]) == ("last", 3)


@pytest_twisted.inlineCallbacks
def test_direct_member(serve_as: Serve, scripted: Any, origin: Origin) -> Playing:
    """A member of type direct is written, too; in turn with a proxy."""
    there = yield scripted(*open5(SUCCESS5))
    ways = {"here": Upstream(type="direct"), "one": upstream("socks5", there.port)}
    pool = UpstreamPool(members=["one", "here"], choose="round-robin")
    proxy: Proxy = yield serve_as(upstreams=ways, pools={"eu": pool}, via="eu")
    for _ in range(4):
        assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == 0
    yield until(lambda: len(origin.peers) == 2 and len(proxy.records) == 4)
    assert len(there.ends) == 2
    assert Counter(each["via"] for each in proxy.records) == {"one": 2, "here": 2}


class Way:
    """The way through a member. Those that an association has asked are in *asked*."""

    via = "a member"

    def __init__(self, member: Member, asked: list[str]) -> None:
        self._name = member.name
        self._asked = asked

    def associate(self, trail: Trail) -> Deferred[Any]:
        self._asked.append(self._name)
        return Deferred()


@pytest.mark.parametrize("choose", Choose)
def test_few_carry_the_command(choose: Choose) -> None:
    """Where one of many members carries UDP, the choice looks at each member a few times at most."""
    ways = {f"m{number}": upstream("http", 1000 + number) for number in range(500)}
    ways["last"] = upstream("socks5", 9)
    settings = UpstreamPool(members=list(ways), choose=choose)
    members = Members(Clock(), "eu", settings, ways, lambda name, _: UpstreamCounters(name))
    looked: list[str] = []

    class Counting(frozenset[Command]):
        def __contains__(self, command: object) -> bool:
            looked.append("at one")
            return super().__contains__(command)

    for member in members:
        member.commands = Counting(member.commands)
    asked: list[str] = []
    way: Any = lambda member: Way(member, asked)  # noqa: E731
    PoolRoute(Clock(), members, way, None).associate(Trail(None))
    assert asked == ["last"]
    assert len(looked) <= 3 * len(ways)


@pytest_twisted.inlineCallbacks
def test_reset_of_the_destination(serve: Serve, scripted: Any) -> Playing:
    """What happens to a connection after the member's positive reply tells nothing of the member."""
    one = yield scripted(*open5(SUCCESS5, 1, reset))
    proxy: Proxy = yield serve(**pooled(one.port, down_after=1))

    def scenario() -> None:
        for _ in range(3):
            with proxy.connect() as sock:
                assert ask5(sock, "192.0.2.1", 80)[0] == 0
                sock.sendall(b"x")
                with suppress(ConnectionError):
                    assert sock.recv(1) == b""

    yield proxy.play(scenario)
    yield until(lambda: len(proxy.records) == 3)
    assert health(proxy, "m0") is Health.UP
    assert proxy.sessions.context.ways.counters["m0"].own_failures == 0


@pytest_twisted.inlineCallbacks
def test_direct_member_that_cannot_leave(serve: Serve, origin: Origin) -> Playing:
    """A member whose interface is gone fails itself: the next one is tried, and it is down at last."""
    ways = {"gone": Upstream(type="direct", interface="lost0"), "here": Upstream(type="direct")}
    pool = UpstreamPool(members=list(ways), down_after=1)
    proxy: Proxy = yield serve(upstreams=ways, pools={"eu": pool}, via="eu")
    assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == 0
    assert health(proxy, "gone") is Health.DOWN
    counters = proxy.sessions.context.ways.counters
    assert (counters["gone"].own_failures, counters["here"].own_failures) == (1, 0)


# Which failure leads to the next member.


@pytest.mark.parametrize("first", [[close], [3, b"\x05\xff"], replied(3), replied(8)])
@pytest_twisted.inlineCallbacks
def test_next_member(serve: Serve, scripted: Any, first: Any) -> Playing:
    """Own failures, and replies that another member may not give."""
    one = yield scripted(*first)
    two = yield scripted(*open5(SUCCESS5))
    proxy: Proxy = yield serve(**pooled(one.port, two.port))

    def scenario() -> None:
        with proxy.connect() as sock:
            assert ask5(sock, "192.0.2.1", 80)[0] == 0
            echoes(sock)

    yield proxy.play(scenario)
    record = yield proxy.record()
    assert (record["via"], record["tries"], record["upstream_reply"]) == ("m1", 2, 0)


@pytest.mark.parametrize("code", [1, 2, 4, 5, 6, 7, "close"])
@pytest_twisted.inlineCallbacks
def test_no_next_member(serve_as: Serve, scripted: Any, code: Any) -> Playing:
    """e 27: what is said of the destination is the answer; 100 times of it do not mark the member down."""
    one = yield scripted(*(open5(close) if code == "close" else replied(code)))
    two = yield scripted(*open5(SUCCESS5))
    proxy: Proxy = yield serve_as(**pooled(one.port, two.port))

    def scenario(times: int) -> set[int]:
        return {asked(proxy) for _ in range(times)}

    times = 100 if code == 5 else 4
    assert (yield proxy.play(scenario, times)) == {1 if code == "close" else code}
    assert (len(one.ends), two.ends) == (times, [])
    assert health(proxy, "m0") is Health.UP


@pytest_twisted.inlineCallbacks
def test_most_truthful(serve_as: Serve, scripted: Any) -> Playing:
    """One member does not reach the destination, and the other is dead: the first one's reply counts."""
    one = yield scripted(*replied(3))
    proxy: Proxy = yield serve_as(**pooled(one.port, closed_port()))
    assert (yield proxy.play(asked, proxy)) == 3


@pytest_twisted.inlineCallbacks
def test_down_and_back(serve_as: Serve, scripted: Any) -> Playing:
    """e 29: after three dead TCPs the next connection goes elsewhere at once; one session finds it back."""
    clock = Clock()
    two = yield scripted(*open5(SUCCESS5))
    dead = yield scripted(close)
    proxy: Proxy = yield serve_as(clock=clock, **pooled(dead.port, two.port))
    for number in range(5):
        assert (yield proxy.play(asked, proxy)) == 0
        record = yield proxy.record(number)
        assert record["tries"] == (2 if number < 3 else 1)
    dead.steps = open5(SUCCESS5)
    clock.advance(10.1)
    assert (yield proxy.play(asked, proxy)) == 0
    assert health(proxy, "m0") is Health.UP
    record = yield proxy.record(5)
    assert (record["via"], record["tries"]) == ("m0", 1)


@pytest_twisted.inlineCallbacks
def test_blame_in_a_chain(serve_as: Serve, scripted: Any, origin: Origin) -> Playing:
    """e 27: the death of hop 1 does not mark hop 2; that hop 1 does not reach hop 2 does."""
    first = yield scripted(close)
    ways = {
        "first": upstream("socks5", first.port),
        "far": upstream("socks5", 9, via="first"),
    }
    proxy: Proxy = yield serve_as(upstreams=ways, pools={"eu": UpstreamPool(members=["far"])}, via="eu")
    for _ in range(4):
        assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == 1
    assert health(proxy, "far") is Health.UP
    first.steps = replied(5)
    for _ in range(3):
        assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == 1
    assert health(proxy, "far") is Health.DOWN
    assert origin.peers == []


@pytest_twisted.inlineCallbacks
def test_tries(serve_as: Serve, scripted: Any) -> Playing:
    """So many different members, and no more."""
    last = yield scripted(*open5(SUCCESS5))
    dead = [closed_port() for _ in range(4)]
    for tries, reply in ((4, 1), (5, 0)):
        proxy: Proxy = yield serve_as(**pooled(*dead, last.port, tries=tries))
        assert (yield proxy.play(asked, proxy)) == reply
        record = yield proxy.record()
        assert record["tries"] == tries


@pytest_twisted.inlineCallbacks
def test_full_members(serve_as: Serve, scripted: Any) -> Playing:
    """Full members are passed by without a try; when all are full, the connection is refused with 1."""
    there = yield scripted(*open5(SUCCESS5))
    ways = {f"m{number}": upstream("socks5", there.port, max_sessions=1) for number in range(5)}
    pool = UpstreamPool(members=list(ways), tries=1)
    proxy: Proxy = yield serve_as(upstreams=ways, pools={"eu": pool}, via="eu")
    socks = []
    for _ in range(5):
        socks.append(proxy.connect())
        assert (yield proxy.play(ask5, socks[-1], "192.0.2.1", 80))[0] == 0
    assert (yield proxy.play(asked, proxy)) == 1
    record = yield proxy.record()
    assert record["ended"] == "refused: eu: all members are full"
    assert {health(proxy, name) for name in ways} == {Health.UP}
    socks.pop().close()
    yield until(lambda: len(proxy.records) == 2)
    assert (yield proxy.play(asked, proxy)) == 0
    for sock in socks:
        sock.close()


# Silence.


def greeted(proxy: ScriptedProxy, count: int) -> bool:
    """Whether *proxy* has the greetings of so many connections."""
    return len(proxy.ends) == count and len(proxy.ends[-1].received) == 3


@pytest_twisted.inlineCallbacks
def test_silent_members(serve_as: Serve, scripted: Any, origin: Origin) -> Playing:
    """e 29: two members that say nothing cost less than 8 seconds together."""
    clock = Clock()
    silent = yield scripted(3)
    last = yield scripted(*open5(forward_to(origin.port), SUCCESS5))
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    options = pooled(silent.port, silent.port, last.port)
    proxy: Proxy = yield serve_as(clock=clock, resolver=hosts, **options)
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("127.0.0.1", origin.port))
        for number in (1, 2):
            yield until(partial(greeted, silent, number))
            clock.advance(2.6)
        assert (yield proxy.play(reply5, sock))[0] == 0
        assert clock.seconds() < 8
        yield proxy.play(echoes, sock)
    assert all(end.ended is not None for end in silent.ends)
    assert hosts.asked == []
    assert len(origin.peers) == 1


@pytest_twisted.inlineCallbacks
def test_all_silent(serve_as: Serve, scripted: Any) -> Playing:
    """However many silent members there are, the client has its refusal in less than 8 seconds."""
    clock = Clock()
    silent = yield scripted(3)
    proxy: Proxy = yield serve_as(clock=clock, **pooled(*[silent.port] * 6, tries=6))
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("192.0.2.1", 80))
        for number in (1, 2, 3):
            yield until(partial(greeted, silent, number))
            clock.advance(2.51)
        assert (yield proxy.play(reply5, sock))[0] == 1
        assert clock.seconds() < 8


@pytest_twisted.inlineCallbacks
def test_within_the_connect_timeout(serve_as: Serve, scripted: Any) -> Playing:
    """A short connect-timeout leaves time for the next member, too."""
    clock = Clock()
    silent = yield scripted(3)
    last = yield scripted(*open5(SUCCESS5))
    options = pooled(silent.port, last.port, tries=2)
    proxy: Proxy = yield serve_as(clock=clock, timeouts=Timeouts(connect=2), **options)
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("192.0.2.1", 80))
        yield until(lambda: silent.ends and silent.ends[0].received)
        clock.advance(0.8)
        assert (yield proxy.play(reply5, sock))[0] == 0


@pytest_twisted.inlineCallbacks
def test_black_hole(serve_as: Serve, scripted: Any) -> Playing:
    """e 29: a first member whose SYNs are dropped: its backlog is full. In real time."""
    last = yield scripted(*open5(SUCCESS5))
    with socket.socket() as hole, socket.socket() as filler, socket.socket() as other:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for each in (filler, other):
            each.setblocking(False)
            each.connect_ex(hole.getsockname())
        proxy: Proxy = yield serve_as(
            **pooled(hole.getsockname()[1], last.port, tries=2), timeouts=Timeouts(connect=2)
        )
        assert (yield proxy.play(asked, proxy)) == 0
        record = yield proxy.record()
        assert (record["via"], record["tries"]) == ("m1", 2)
        assert record["connect_seconds"] < 2


@pytest_twisted.inlineCallbacks
def test_silence_after_the_request(serve_as: Serve, scripted: Any) -> Playing:
    """e 21: nothing is tried, and nothing said, while a member that has the request may yet answer."""
    clock = Clock()
    silent, last = (yield scripted(*open5())), (yield scripted(*open5(SUCCESS5)))
    proxy: Proxy = yield serve_as(clock=clock, **pooled(silent.port, last.port))
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("192.0.2.1", 80))
        yield until(lambda: silent.ends and len(silent.ends[0].received) == 13)
        clock.advance(29)
        assert last.ends == []
        clock.advance(2)
        assert (yield proxy.play(reply5, sock))[0] == 6


@pytest_twisted.inlineCallbacks
def test_client_goes(serve_as: Serve, scripted: Any) -> Playing:
    """A client that leaves takes its try along, and no other one begins."""
    silent, last = (yield scripted(3)), (yield scripted(*open5(SUCCESS5)))
    proxy: Proxy = yield serve_as(**pooled(silent.port, last.port))
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("192.0.2.1", 80))
        yield until(lambda: silent.ends and silent.ends[0].received)
    yield until(lambda: silent.ends[0].ended is not None and not proxy.sessions.live)
    assert last.ends == []
    assert health(proxy, "m0") is Health.UP


@pytest_twisted.inlineCallbacks
def test_removed_while_it_hangs(serve_as: Serve, scripted: Any, origin: Origin) -> Playing:
    """e 47: a handshake in a pool that is removed ends in time, and not directly; the numbers go to zero."""
    silent = yield scripted(3)
    clock = Clock()
    proxy: Proxy = yield serve_as(clock=clock, **pooled(silent.port, choose="least-sessions"))
    members = proxy.sessions.context.ways.pools["eu"]
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("127.0.0.1", origin.port))
        yield until(partial(greeted, silent, 1))
        assert [member.sessions for member in members] == [1]
        proxy.factory.reconfigure(upstreams={}, pools={}, via=None)
        clock.advance(5.1)
        assert (yield proxy.play(reply5, sock))[0] == 1
    assert [member.sessions for member in members] == [0]
    assert origin.peers == []


# The choice.


@pytest.mark.parametrize("choose", ["hash-client", "hash-user", "hash-destination"])
@pytest_twisted.inlineCallbacks
def test_hash(serve_as: Serve, scripted: Any, choose: str) -> Playing:
    """A client keeps its member; a destination has its own."""
    ports = []
    for _ in range(4):
        there = yield scripted(*open5(SUCCESS5))
        ports.append(there.port)
    proxy: Proxy = yield serve_as(**pooled(*ports, choose=choose))

    def scenario() -> None:
        for number in (1, 2, 3, 4, 5, 6, 7, 1, 2, 3):
            assert asked(proxy, f"192.0.2.{number}") == 0

    yield proxy.play(scenario)
    yield until(lambda: len(proxy.records) == 10)
    found = [each["via"] for each in proxy.records]
    assert found[:3] == found[7:]
    assert (len(set(found)) > 1) is (choose == "hash-destination")


@pytest_twisted.inlineCallbacks
def test_least_sessions(serve_as: Serve, scripted: Any) -> Playing:
    """Sessions are counted until they end."""
    there = yield scripted(*open5(SUCCESS5))
    proxy: Proxy = yield serve_as(**pooled(*[there.port] * 3, choose="least-sessions"))
    socks = []
    for _ in range(6):
        socks.append(proxy.connect())
        assert (yield proxy.play(ask5, socks[-1], "192.0.2.1", 80))[0] == 0
    members = proxy.sessions.context.ways.pools["eu"]
    assert [member.sessions for member in members] == [2, 2, 2]
    for sock in socks:
        sock.close()
    yield until(lambda: not any(member.sessions for member in members))


@pytest_twisted.inlineCallbacks
def test_reload(serve_as: Serve, scripted: Any) -> Playing:
    """e 32: what is known of members stays; a hash keeps its member when others come."""
    there = yield scripted(*open5(SUCCESS5))
    options = pooled(closed_port(), *[there.port] * 4)
    proxy: Proxy = yield serve_as(**options)
    for _ in range(3):
        assert (yield proxy.play(asked, proxy)) == 0
    assert health(proxy, "m0") is Health.DOWN
    pool = attrs.evolve(options["pools"]["eu"], tries=2, choose="hash-client")
    proxy.factory.reconfigure(pools={"eu": pool})
    assert health(proxy, "m0") is Health.DOWN
    assert (yield proxy.play(asked, proxy)) == 0
    more = {**options["upstreams"], "new": upstream("socks5", there.port)}
    proxy.factory.reconfigure(pools={"eu": pool}, upstreams=more)
    assert (yield proxy.play(asked, proxy)) == 0
    yield until(lambda: len(proxy.records) == 5)
    assert proxy.records[3]["via"] == proxy.records[4]["via"] != "m0"


@pytest_twisted.inlineCallbacks
def test_rule_and_names(serve_as: Serve, scripted: Any) -> Playing:
    """Names go as names, unless a member has no names: then they are looked up here, for all members."""
    hosts = Hosts({"www.example": ["192.0.2.7"]})
    there = yield scripted(*open5(SUCCESS5, request=18))
    rules = RulePolicy([Rule(name="all", allow=True, via="eu")])
    options = {**pooled(there.port), "via": None}
    proxy: Proxy = yield serve_as(**options, resolver=hosts, policy=rules)
    assert (yield proxy.play(asked, proxy, "www.example")) == 0
    assert hosts.asked == []
    there.steps = open5(SUCCESS5)
    options = pooled(there.port, upstreams={"old": upstream("socks4", closed_port())}, members=("m0", "old"))
    proxy = yield serve_as(**options, resolver=hosts)
    assert (yield proxy.play(asked, proxy, "www.example")) == 0
    assert hosts.asked == ["www.example"]


@pytest_twisted.inlineCallbacks
def test_secrets(serve_as: Serve, scripted: Any, tmp_path: Path) -> Playing:
    """The password of a member's line is in no log line and in no record."""
    there = yield scripted(4, b"\x05\x02", 15, b"\x01\x01")
    listed = tmp_path / "members"
    listed.write_text(f"socks5://alice:hunter2@127.0.0.1:{there.port}\n")
    file = MembersFile(str(listed))
    file.load()
    with heard() as lines:
        proxy: Proxy = yield serve_as(pools={"eu": UpstreamPool(members_file=file)}, via="eu")
        for _ in range(4):
            assert (yield proxy.play(asked, proxy)) == 1
        record = yield proxy.record()
    assert b"\x05alice\x07hunter2" in there.ends[0].received
    assert record["via"] == f"alice@127.0.0.1:{there.port}"
    assert "is down" in "".join(lines)
    pools = proxy.sessions.context.ways.pools["eu"]
    assert "hunter2" not in repr((lines, record, file.table, list(pools), proxy.factory.settings.pools))


ONE = {"one": upstream("socks5", 1)}


@pytest.mark.parametrize(
    ("pools", "told"),
    [
        ({"one": UpstreamPool(members=["one"])}, "an upstream has this name, too"),
        ({"eu": UpstreamPool(members=["two"])}, "no such upstream"),
        ({"eu": UpstreamPool(members=["direct"])}, "of type direct"),
        ({"eu": UpstreamPool(members=["one"], otherwise="two")}, "not refuse, direct"),
        ({"eu": UpstreamPool(members=["one"], otherwise="eu")}, "a loop: eu > eu"),
    ],
)
def test_mistakes_in_python(pools: Any, told: str) -> None:
    """e 46."""
    with pytest.raises(ConfigError, match=told):
        ServerSettings(upstreams=ONE, pools=pools)
    with pytest.raises(ConfigError, match="there is no member"):
        UpstreamPool()
    with pytest.raises(ConfigError, match="there is no such upstream"):
        ServerSettings(upstreams=ONE, via="eu")
