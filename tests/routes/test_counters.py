"""The numbers of each upstream: who has failed, and whether there is room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from socksproxy.errors import UpstreamFull
from socksproxy.events import ServerEvents
from socksproxy.limits.counting import Counter
from socksproxy.routes.counters import UpstreamCounters, enter
from socksproxy.values.upstreams import Upstream

from ..conftest import Serve
from ..support.origin import Origin, echo
from ..support.proxy import Playing, Proxy, ask5, closed_port, echoes, request5, until
from ..support.scripted_proxy import (
    SUCCESS5,
    ScriptedProxy,
    Step,
    close,
    open5,
)
from ..support.upstreams import through, upstream


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


class Told(ServerEvents):
    """The events of upstreams."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def upstream_entered(self, upstream: str) -> None:
        self.heard.append(("entered", upstream))

    def upstream_left(self, upstream: str) -> None:
        self.heard.append(("left", upstream))

    def upstream_failed(self, upstream: str, own: bool) -> None:
        self.heard.append(("own" if own else "destination", upstream))

    def upstream_checked(self, upstream: str, alive: bool) -> None:
        self.heard.append((alive, upstream))


def asked(proxy: Proxy, host: str = "192.0.2.1", port: int = 80) -> int:
    """The reply's code."""
    with proxy.connect() as sock:
        return ask5(sock, host, port)[0]


def numbers(proxy: Proxy, name: str) -> tuple[int, int, int, int]:
    """Sessions now and so far, own failures and those of destinations."""
    counters = proxy.sessions.context.ways.counters[name]
    return counters.sessions, counters.total, counters.own_failures, counters.destination_failures


def test_room() -> None:
    """All upstreams of a way have room, or none is occupied."""
    one, two = UpstreamCounters("one"), UpstreamCounters("two")
    two.most = 1
    enter((one, two))
    with pytest.raises(UpstreamFull, match="two: it has 1 sessions already") as caught:
        enter((one, two))
    assert caught.value.upstream == "two"
    assert (one.sessions, two.sessions) == (1, 1)
    two.leave()
    enter((two,))
    assert (two.sessions, two.total) == (1, 2)


def test_room_in_all_workers() -> None:
    """A limit holds for all workers together; a reload sets and lifts it while there are sessions."""
    shared: dict[str, Counter] = {}
    one, two = (
        UpstreamCounters("one", counter=lambda name: shared.setdefault(name, Counter())) for _ in range(2)
    )
    enter((one,))
    for each in (one, two):
        each.most = 2
    enter((one,))
    assert (one.full, two.full) == (True, True)
    with pytest.raises(UpstreamFull):
        enter((two,))
    one.leave()
    enter((two,))
    (counter,) = shared.values()
    assert (counter.value, one.sessions, two.sessions) == (2, 1, 1)
    for each in (one, two):
        each.most = None
    enter((one,))
    enter((two,))
    for each in (one, two):
        each.leave()
        each.leave()
    assert (counter.value, one.sessions, two.sessions) == (0, 0, 0)


def test_events() -> None:
    """Each number has its event."""
    told: list[Any] = []
    counters = UpstreamCounters("one", lambda *event: told.append(event), 7.0)
    enter((counters,))
    counters.failed(own=True)
    counters.failed(own=False)
    counters.checked(alive=True)
    counters.leave()
    assert told == [
        ("upstream_entered", "one"),
        ("upstream_failed", "one", True),
        ("upstream_failed", "one", False),
        ("upstream_checked", "one", True),
        ("upstream_left", "one"),
    ]
    assert (counters.sessions, counters.total, counters.checks, counters.since) == (0, 1, 1, 7.0)
    assert (counters.own_failures, counters.destination_failures) == (1, 1)


@pytest_twisted.inlineCallbacks
def test_full(serve: Serve, scripted: Any) -> Playing:
    """A session too many is refused at once, and is no failure; there is room again when one ends."""
    there = yield scripted(*open5(SUCCESS5))
    proxy: Proxy = yield serve(**through("socks5", there.port, max_sessions=1))
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "192.0.2.1", 80))[0] == 0
        assert (yield proxy.play(asked, proxy)) == 1
        yield proxy.play(echoes, sock)
        assert numbers(proxy, "one") == (1, 1, 0, 0)
    record = yield proxy.record()
    assert (record["end"], record["tries"]) == ("limit", 0)
    assert "one: it has 1 sessions already" in record["ended"]
    yield until(lambda: numbers(proxy, "one")[0] == 0)
    assert (yield proxy.play(asked, proxy)) == 0
    assert len(there.ends) == 2


@pytest.mark.parametrize(
    ("steps", "own", "destination"),
    [
        *((open5(b"\x05" + bytes([reply]) + SUCCESS5[2:]), 0, 1) for reply in (*range(2, 9), 0xF0)),
        (open5(b"\x05\x01" + SUCCESS5[2:]), 0, 0),
        (open5(close), 0, 0),
        ([3, b"\x05\xff"], 1, 0),
        ([3, close], 1, 0),
        ([3, b"HTTP"], 1, 0),
        (open5(b"\x04\x00"), 1, 0),
    ],
)
@pytest_twisted.inlineCallbacks
def test_blame(serve_as: Serve, scripted: Any, steps: Any, own: int, destination: int) -> Playing:
    """e 27: the destination's failure is not the upstream's; an answer that says nothing is neither's."""
    there = yield scripted(*steps)
    proxy: Proxy = yield serve_as(**through("socks5", there.port))
    yield proxy.play(asked, proxy)
    assert numbers(proxy, "one") == (0, 1, own, destination)


@pytest.mark.parametrize(
    ("status", "own", "destination"),
    [
        *((status, 1, 0) for status in (400, 405, 407, 426)),
        *((status, 0, 1) for status in (403, 404, 502, 503, 504)),
        (500, 0, 0),
    ],
)
@pytest_twisted.inlineCallbacks
def test_blame_by_http(serve_as: Serve, scripted: Any, status: int, own: int, destination: int) -> Playing:
    """The same by the status of HTTP."""
    there = yield scripted(59, f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
    proxy: Proxy = yield serve_as(**through("http", there.port))
    yield proxy.play(asked, proxy, "192.0.2.77", 8080)
    assert numbers(proxy, "one") == (0, 1, own, destination)


@pytest_twisted.inlineCallbacks
def test_hundred_refused(serve_as: Serve) -> Playing:
    """e 27: 100 destinations that refuse leave the upstream without blame; a dead one is to blame itself."""
    exit_: Proxy = yield serve_as()
    proxy: Proxy = yield serve_as(**through("socks5", exit_.address[1]))
    events = Told()
    proxy.sessions.context.events.subscribe(events)
    port = closed_port()

    def scenario() -> set[int]:
        return {asked(proxy, "127.0.0.1", port) for _ in range(100)}

    assert (yield proxy.play(scenario)) == {5}
    assert numbers(proxy, "one") == (0, 100, 0, 100)
    assert events.heard == [("entered", "one"), ("destination", "one"), ("left", "one")] * 100
    proxy.factory.reconfigure(**through("socks5", closed_port()))
    assert (yield proxy.play(asked, proxy)) == 1
    assert numbers(proxy, "one") == (0, 101, 1, 100)


@pytest.mark.parametrize(
    ("answer", "first", "last"),
    [
        (b"\x05\x05\x00" + SUCCESS5[3:], (0, 1), (1, 0)),
        (b"\x05\x01\x00" + SUCCESS5[3:], (0, 0), (1, 0)),
        (close, (0, 0), (1, 0)),
        (b"\x04", (1, 0), (0, 0)),
    ],
)
@pytest_twisted.inlineCallbacks
def test_blame_in_a_chain(serve_as: Serve, scripted: Any, answer: Step, first: Any, last: Any) -> Playing:
    """A first proxy that does not reach the second one tells of the second; each has its own blame."""
    there = yield scripted(*open5(answer))
    ways = {
        "first": upstream("socks5", there.port),
        "last": upstream("socks5", 9, via="first"),
    }
    proxy: Proxy = yield serve_as(upstreams=ways, via="last")
    assert (yield proxy.play(asked, proxy)) == 1
    assert numbers(proxy, "first") == (0, 1, *first)
    assert numbers(proxy, "last") == (0, 1, *last)


@pytest_twisted.inlineCallbacks
def test_dead_first_of_a_chain(serve_as: Serve) -> Playing:
    """e 27: the death of the first hop does not mark the second one."""
    ways = {
        "first": upstream("socks5", closed_port()),
        "last": upstream("socks5", 9, via="first"),
    }
    proxy: Proxy = yield serve_as(upstreams=ways, via="last")
    assert (yield proxy.play(asked, proxy)) == 1
    assert numbers(proxy, "first") == (0, 1, 1, 0)
    assert numbers(proxy, "last") == (0, 1, 0, 0)


@pytest_twisted.inlineCallbacks
def test_numbers_stay(serve: Serve, scripted: Any) -> Playing:
    """A reload keeps the numbers of an upstream that stays; running sessions still count, and end once."""
    there = yield scripted(*open5(SUCCESS5))
    proxy: Proxy = yield serve(**through("socks5", there.port))
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "192.0.2.1", 80))[0] == 0
        proxy.factory.reconfigure(**through("socks5", there.port, max_sessions=1))
        assert (yield proxy.play(asked, proxy)) == 1
        proxy.factory.reconfigure(**through("socks5", there.port))
        assert (yield proxy.play(asked, proxy)) == 0
        yield until(lambda: numbers(proxy, "one")[0] == 1)
    yield until(lambda: numbers(proxy, "one")[0] == 0)
    assert numbers(proxy, "one") == (0, 2, 0, 0)


@pytest_twisted.inlineCallbacks
def test_client_leaves(serve: Serve, scripted: Any) -> Playing:
    """A client that goes while its upstream is silent occupies it no more, and blames nothing."""
    there = yield scripted(3)
    proxy: Proxy = yield serve(**through("socks5", there.port))
    sock = proxy.connect()
    sock.sendall(b"\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50")
    yield until(lambda: there.ends and there.ends[0].received)
    assert numbers(proxy, "one")[0] == 1
    sock.close()
    yield until(lambda: numbers(proxy, "one")[0] == 0)
    assert numbers(proxy, "one") == (0, 1, 0, 0)


@pytest_twisted.inlineCallbacks
def test_removed_while_it_hangs(serve_as: Serve, scripted: Any) -> Playing:
    """e 47: a handshake in an upstream that a reload removes ends by try-timeout, and the count is zero."""
    there = yield scripted(3)
    clock = Clock()
    proxy: Proxy = yield serve_as(clock=clock, **through("socks5", there.port))
    counters = proxy.sessions.context.ways.counters["one"]
    with proxy.connect() as sock:
        sock.sendall(b"\x05\x01\x00" + request5("192.0.2.1", 80))
        yield until(lambda: there.ends and there.ends[0].received)
        proxy.factory.reconfigure(upstreams={}, via=None)
        assert counters.sessions == 1
        clock.advance(5.1)
        yield until(lambda: counters.sessions == 0)
    assert (counters.own_failures, proxy.sessions.context.ways.counters) == (1, {})


@pytest_twisted.inlineCallbacks
def test_loop(serve_as: Serve) -> Playing:
    """e 46: two servers that lead to each other end by max-sessions, with a failure and nothing left."""
    one: Proxy = yield serve_as()
    two: Proxy = yield serve_as()
    one.factory.reconfigure(**through("socks5", two.address[1], max_sessions=5))
    two.factory.reconfigure(**through("socks5", one.address[1], max_sessions=5))
    assert (yield one.play(asked, one)) == 1
    yield until(lambda: numbers(one, "one")[0] == numbers(two, "one")[0] == 0)
    assert (numbers(one, "one"), numbers(two, "one")) == ((0, 5, 0, 0), (0, 5, 0, 0))


@pytest_twisted.inlineCallbacks
def test_direct(serve: Serve) -> Playing:
    """An upstream of type direct counts, too, and can be full."""
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(upstreams={"home": Upstream(type="direct", max_sessions=1)}, via="home")
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == 1
            assert numbers(proxy, "home") == (1, 1, 0, 0)
        yield until(lambda: numbers(proxy, "home")[0] == 0)
        assert (yield proxy.play(asked, proxy, "127.0.0.1", closed_port())) == 5
        assert numbers(proxy, "home") == (0, 2, 0, 1)
