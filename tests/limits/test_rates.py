"""Rates in a server, by real transfers: who shares what, how exactly, and what changes meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import blockingCallFromThread

from socksproxy import Rule, RulePolicy
from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.limits.account import Scope
from tests.conftest import Serve
from tests.support.busy import steady
from tests.support.origin import Origin, echo
from tests.support.proxy import Playing, Proxy, ask5, ask_as, echoes, reactor, until
from tests.support.udp import Client as Datagrams, serving, udp_socket, wait_for

from ..support.users import portal_of

#: They measure over seconds.
pytestmark = pytest.mark.slow

#: What carries a session, and so measures it: the engine, and Twisted's transports.
BOTH = ("accepted", "wrapped")
RATE = 400_000


def stream(sock: socket.socket) -> None:
    """Send without end."""
    with suppress(OSError):
        while True:
            sock.sendall(bytes(65536))


def stream_when_asked(sock: socket.socket) -> None:
    """Likewise, when the first byte has come."""
    sock.recv(1)
    stream(sock)


@pytest.fixture
def source() -> Iterator[Origin]:
    with Origin(stream_when_asked) as origin:
        yield origin


class Meter:
    """Has the source begin, reads from sockets as fast as it can, and counts."""

    def __init__(self, *socks: socket.socket) -> None:
        self.counts = [0] * len(socks)
        for number, sock in enumerate(socks):
            threading.Thread(target=self._read, args=(number, sock), daemon=True).start()

    def _read(self, number: int, sock: socket.socket) -> None:
        with suppress(OSError):
            sock.sendall(b"x")
            while data := sock.recv(1 << 18):
                self.counts[number] += len(data)

    def rates(self, seconds: float) -> list[float]:
        """Bytes a second of each socket, from when the burst is over, for so many *seconds*."""
        time.sleep(0.5)
        before, began = list(self.counts), time.monotonic()
        time.sleep(seconds)
        after, passed = list(self.counts), time.monotonic() - began
        return [(more - less) / passed for more, less in zip(after, before, strict=True)]

    def steady(self, seconds: float, fits: Callable[[list[float]], bool]) -> None:
        """The rates fit, sooner or later."""
        steady(lambda: self.rates(seconds), fits)


@pytest_twisted.inlineCallbacks
def test_exact_over_ten_seconds(serve_as: Serve, source: Origin) -> Playing:
    """The burst included."""
    proxy: Proxy = yield serve_as("accepted", limits=ServerLimits(session=Limits(download=Rate(RATE))))
    with proxy.connect() as sock:
        began = time.monotonic()
        assert (yield proxy.play(ask5, sock, "127.0.0.1", source.port))[0] == 0
        meter = Meter(sock)
        yield proxy.play(time.sleep, 10 - (time.monotonic() - began))
        most = RATE * (time.monotonic() - began)
        # A busy machine that stops the server for longer than the burst costs something.
        assert 0.8 * most < meter.counts[0] < 1.05 * most
        assert not proxy.records


@pytest.mark.parametrize("kind", BOTH)
@pytest_twisted.inlineCallbacks
def test_a_user_s_sessions_share(kind: str, serve_as: Serve, source: Origin) -> Playing:
    """Equal parts of one rate, and another user has a whole one."""
    portal = portal_of(bob=Limits(download=Rate(RATE)), ann=None)
    proxy: Proxy = yield serve_as(
        kind, portal=portal, limits=ServerLimits(user=Limits(download=Rate(2 * RATE)))
    )

    def fit(rates: list[float]) -> bool:
        *of_bob, of_ann = rates
        together = [sum(of_bob), of_ann] == pytest.approx([RATE, 2 * RATE], rel=0.1)
        return bool(together and of_bob == pytest.approx([RATE / 3] * 3, rel=0.2))

    with ExitStack() as stack:
        socks = [stack.enter_context(proxy.connect()) for _ in range(4)]
        for sock, user in zip(socks, (b"bob", b"bob", b"bob", b"ann"), strict=True):
            assert (yield proxy.play(ask_as, sock, user, source.port)) == 0
        yield proxy.play(Meter(*socks).steady, 1.5, fit)


@pytest.mark.parametrize("kind", BOTH)
@pytest_twisted.inlineCallbacks
def test_users_of_a_rule(kind: str, serve_as: Serve, source: Origin) -> Playing:
    """Each user has the rate under the rule, over all sessions."""
    rules = [Rule(name="all", allow=True, user_limits=Limits(download=Rate(RATE)))]
    proxy: Proxy = yield serve_as(kind, portal=portal_of(bob=None, ann=None), policy=RulePolicy(rules))
    with ExitStack() as stack:
        socks = [stack.enter_context(proxy.connect()) for _ in range(3)]
        for sock, user in zip(socks, (b"bob", b"bob", b"ann"), strict=True):
            assert (yield proxy.play(ask_as, sock, user, source.port)) == 0
        yield proxy.play(
            Meter(*socks).steady,
            1.0,
            lambda rates: [sum(rates[:2]), rates[2]] == pytest.approx([RATE, RATE], rel=0.15),
        )


@pytest.mark.parametrize("kind", BOTH)
@pytest_twisted.inlineCallbacks
def test_the_narrowest_counts(kind: str, serve_as: Serve, source: Origin) -> Playing:
    """What one session may not use is there for the other, which the server's limit holds as well."""
    rules = [Rule(name="all", allow=True, limits=Limits(download=Rate(10 * RATE)))]
    limits = ServerLimits(server=Limits(download=Rate(RATE)))
    portal = portal_of(bob=Limits(download=Rate(RATE / 4)), ann=Limits(download=Rate(5 * RATE)))
    proxy: Proxy = yield serve_as(kind, portal=portal, limits=limits, policy=RulePolicy(rules))
    with proxy.connect() as first, proxy.connect() as second:
        assert (yield proxy.play(ask_as, first, b"bob", source.port)) == 0
        assert (yield proxy.play(ask_as, second, b"ann", source.port)) == 0
        expected = pytest.approx([RATE / 4, 3 * RATE / 4], rel=0.15)
        yield proxy.play(Meter(first, second).steady, 1.5, lambda rates: rates == expected)


@pytest.mark.parametrize("kind", BOTH)
@pytest_twisted.inlineCallbacks
def test_upload_alone(kind: str, serve_as: Serve) -> Playing:
    """One direction is limited; the answers come as ever."""
    taken = [0]

    def sink(sock: socket.socket) -> None:
        while data := sock.recv(1 << 18):
            taken[0] += len(data)

    def rate() -> float:
        time.sleep(0.5)
        before, began = taken[0], time.monotonic()
        time.sleep(2)
        return (taken[0] - before) / (time.monotonic() - began)

    def upload(sock: socket.socket) -> None:
        threading.Thread(target=stream, args=(sock,), daemon=True).start()
        steady(rate, lambda found: found == pytest.approx(RATE, rel=0.1))

    proxy: Proxy = yield serve_as(kind, limits=ServerLimits(client=Limits(upload=Rate(RATE))))
    with Origin(sink) as origin, proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
        yield proxy.play(upload, sock)


@pytest.mark.parametrize("kind", BOTH)
@pytest_twisted.inlineCallbacks
def test_in_place(kind: str, serve_as: Serve, source: Origin) -> Playing:
    """A limit that comes, changes and goes while a session goes on."""
    proxy: Proxy = yield serve_as(kind)
    with Origin(echo) as origin, proxy.connect() as sock, proxy.connect() as other:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", source.port))[0] == 0
        assert (yield proxy.play(ask5, other, "127.0.0.1", origin.port))[0] == 0
        meter = Meter(sock)
        for rate in (RATE, RATE / 4):
            proxy.factory.reconfigure(limits=ServerLimits(session=Limits(download=Rate(rate))))
            # What is in the kernel's buffers has come already; the rest keeps to it.
            yield until(lambda: meter.counts[0])
            yield proxy.play(time.sleep, 0.5)
            expected = pytest.approx([rate], rel=0.1)
            yield proxy.play(meter.steady, 1, lambda rates, wanted=expected: rates == wanted)
        proxy.factory.reconfigure(limits=ServerLimits())
        before = meter.counts[0]
        yield until(lambda: meter.counts[0] - before > 20 * RATE)
        yield proxy.play(echoes, other)


def datagrams(proxy: Any) -> None:
    """A rule limits what goes to one destination and comes from it, and nothing else."""
    with udp_socket() as limited, udp_socket() as free, Datagrams(proxy) as client:
        few = Rule(
            name="few",
            allow=True,
            ports=[limited.getsockname()[1]],
            limits=Limits(upload=Rate(10, 3000), download=Rate(10, 2000)),
        )
        policy = RulePolicy([few, Rule(name="rest", allow=True)])
        blockingCallFromThread(reactor, proxy.factory.reconfigure, policy=policy)
        for there, sent, back in ((limited, 3, 2), (free, 10, 10)):
            for _ in range(10):
                client.send(bytes(1000), there.getsockname())
            came = received(there)
            assert len(came) == sent
            for _ in range(10):
                there.sendto(bytes(1000), came[0])
            assert len(received(client.udp)) == back
        client.close()
        assert proxy.record()["dropped"] == {"limited": 7 + 8}


def received(sock: socket.socket) -> list[Any]:
    """From whom datagrams have come, until there is silence for as long as a slow machine may take."""
    came: list[Any] = []
    sock.settimeout(1)
    with suppress(TimeoutError):
        while True:
            came.append(sock.recvfrom(65535)[1])
    return came


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.ensureDeferred
async def test_datagrams_under_a_rule(kind: str) -> None:
    async with serving(kind, policy=RulePolicy([Rule(name="rest", allow=True)])) as proxy:
        await proxy.run(datagrams)


def to_many(proxy: Any) -> None:
    """
    However many it sends to, an association has one place in the queue of their rule.

    Limits are changed for all of them at once.
    """
    ledger = proxy.factory.sessions.context.ledger
    with ExitStack() as stack:
        there = [stack.enter_context(udp_socket()) for _ in range(5)]
        client = stack.enter_context(Datagrams(proxy))
        for sock in there * 10:
            client.send(bytes(1000), sock.getsockname())
        wait_for(lambda: had_all(proxy, 50))
        bucket = next(account for account in ledger._accounts.values() if account.up).upload
        assert bucket.waiting == 1
        blockingCallFromThread(reactor, proxy.factory.reconfigure, limits=ServerLimits(server=few(0.001)))
        assert bucket.waiting == 0
        (session,) = proxy.factory.sessions.live
        (meters,) = {target.meters for target in session.service._association.targets}
        all_of_it = ledger._accounts[Scope.SERVER, ""].upload
        assert meters.up.budgets == (bucket, all_of_it)
        for sock in there * 2:
            client.send(bytes(1000), sock.getsockname())
        wait_for(lambda: had_all(proxy, 60))
        assert bucket.waiting == 1
        client.close()
        proxy.record()
        assert (bucket.waiting, all_of_it.waiting, len(ledger)) == (0, 0, 0)


def few(per_second: float) -> Limits:
    return Limits(upload=Rate(per_second, 3000))


def had_all(proxy: Any, datagrams: int) -> bool:
    """Whether so many datagrams have been passed on, or have not."""
    (session,) = proxy.factory.sessions.live
    association = session.service._association
    passed: int = association.datagrams_sent + sum(association.dropped.values())
    return passed == datagrams


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest.mark.parametrize("key", ["limits", "user_limits"])
@pytest_twisted.ensureDeferred
async def test_many_destinations_of_a_rule(kind: str, key: str) -> None:
    changes: dict[str, Any] = {key: few(1.0)}
    rule = Rule(name="few", allow=True, **changes)
    async with serving(kind, policy=RulePolicy([rule])) as proxy:
        await proxy.run(to_many)
