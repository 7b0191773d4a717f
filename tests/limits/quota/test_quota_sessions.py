"""Quotas in a server: sessions end when they are used up, and what was used is known to the next server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import timezone
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread

from socksproxy import Reply, Rule, RulePolicy
from socksproxy.limits import Limits, ServerLimits
from socksproxy.limits.quota.usage import UsageFile
from socksproxy.wire.words import Reply4
from tests.conftest import Serve
from tests.support.logs import heard
from tests.support.origin import Origin, blocks, echo
from tests.support.proxy import Playing, Proxy, ask4, ask5, ask_as, echoes, until
from tests.support.udp import Client as Datagrams, Echo, Refused, serving, wait_for
from tests.support.usage import written

from ...support.users import portal_of

reactor: Any = _reactor

NOON, DAY = 1_795_348_800.0, 86400.0
TODAY, MONTH = "2026-11-22", "2026-11"
QUOTA = 300_000


class Wall:
    """A clock on the wall."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.sqlite"


def kept(path: Path, wall: Callable[[], float]) -> UsageFile:
    return UsageFile(reactor, str(path), wall=wall, zone=timezone.utc)


def limit(proxy: Any, usage: UsageFile, limits: ServerLimits) -> None:
    """From now on *limits* hold, and *usage* knows what is used of them."""
    proxy.factory.reconfigure(limits=limits, usage=usage)


def flood(sock: socket.socket) -> None:
    """Send far more than any quota here."""
    for block in blocks(100 * QUOTA):
        sock.sendall(block)


def drain(sock: socket.socket) -> int:
    """Read to the end, which may be a reset."""
    size = 0
    try:
        while data := sock.recv(65536):
            size += len(data)
    except ConnectionResetError:
        pass
    return size


def pour(sock: socket.socket) -> None:
    """Send far more, when a byte has come: nothing stands behind the proxy's reply."""
    sock.recv(1)
    flood(sock)


def pull(sock: socket.socket) -> int:
    """Ask for all that there is; how much came."""
    sock.sendall(b"x")
    return drain(sock)


def swallow(sock: socket.socket) -> None:
    """Read to the end."""
    drain(sock)


def push(sock: socket.socket) -> None:
    """Send until there is nobody any more."""
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        flood(sock)


@pytest_twisted.inlineCallbacks
def test_download(serve: Serve, path: Path, wall: Wall) -> Playing:
    """What is left is passed on, to the byte; then the session ends, and others are refused for the day."""
    usage = kept(path, wall)
    yield usage.start()
    with Origin(pour) as origin, heard() as lines:
        proxy: Proxy = yield serve()
        limit(proxy, usage, ServerLimits(server=Limits(daily=QUOTA)))
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            received = yield proxy.play(pull, sock)
        record = yield proxy.record()
        assert record["ended"] == "quota used up"
        assert received <= record["received"] == QUOTA - 1
        for ask, reply in ((ask5, Reply.NOT_ALLOWED), (ask4, Reply4.REJECTED)):
            with proxy.connect() as sock:
                assert (yield proxy.play(ask, sock, "127.0.0.1", origin.port))[0] == reply
        record = yield proxy.record(2)
        assert record["ended"] == "refused: the quota is used up"
        wall.now += DAY
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
    yield until(lambda: not proxy.sessions.live)
    yield usage.stop()
    assert written(path)["server", TODAY] == QUOTA
    assert sum("the quota is used up" in line for line in lines) == 1


@pytest_twisted.inlineCallbacks
def test_to_the_last_byte(serve: Serve, path: Path, wall: Wall) -> Playing:
    """What uses a quota up arrives whole, and then the session ends."""
    usage = kept(path, wall)
    yield usage.start()
    with Origin(echo) as origin:
        proxy: Proxy = yield serve()
        limit(proxy, usage, ServerLimits(server=Limits(daily=2000)))
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(echoes, sock, b"x" * 1000)
            assert (yield proxy.play(drain, sock)) == 0
        record = yield proxy.record()
    assert (record["ended"], record["sent"], record["received"]) == ("quota used up", 1000, 1000)
    yield usage.stop()
    assert written(path)["server", TODAY] == 2000


@pytest_twisted.inlineCallbacks
def test_upload(serve: Serve, path: Path, wall: Wall) -> Playing:
    """Both directions count; a rule's quota is of the sessions under that rule only."""
    usage = kept(path, wall)
    yield usage.start()
    with Origin(swallow) as origin, Origin(echo) as other:
        few = Limits(monthly=QUOTA)
        rules = [
            Rule(name="few", allow=True, ports=[origin.port], limits=few),
            Rule(name="many", allow=True),
        ]
        proxy: Proxy = yield serve(policy=RulePolicy(rules))
        limit(proxy, usage, ServerLimits())
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(push, sock)
        record = yield proxy.record()
        assert (record["ended"], record["sent"]) == ("quota used up", QUOTA)
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == Reply.NOT_ALLOWED
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", other.port))[0] == 0
            yield proxy.play(echoes, sock)
        record = yield proxy.record(1)
        assert record["ended"] == "refused: the quota of rule few is used up"
    yield until(lambda: not proxy.sessions.live)
    yield usage.stop()
    assert written(path) == {("rule few", TODAY): QUOTA, ("rule few", MONTH): QUOTA}


@pytest_twisted.inlineCallbacks
def test_together(serve: Serve, path: Path, wall: Wall) -> Playing:
    """What one session of a network uses is not there for another one, which ends with its next byte."""
    usage = kept(path, wall)
    yield usage.start()
    with Origin(echo) as origin, Origin(pour) as source:
        proxy: Proxy = yield serve()
        limit(proxy, usage, ServerLimits(network=Limits(monthly=QUOTA)))
        with proxy.connect() as first, proxy.connect() as second:
            assert (yield proxy.play(ask5, first, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(echoes, first, b"x" * 1000)
            assert (yield proxy.play(ask5, second, "127.0.0.1", source.port))[0] == 0
            yield proxy.play(pull, second)
            record = yield proxy.record()
            assert (record["ended"], record["received"]) == ("quota used up", QUOTA - 2001)
            first.sendall(b"x")
            assert (yield proxy.play(drain, first)) == 0
            record = yield proxy.record(1)
            # Twisted's transports had read it before it could be known.
            assert (record["ended"], record["sent"]) in {("quota used up", 1000), ("quota used up", 1001)}
    yield usage.stop()
    assert written(path)["network 127.0.0.0/24", MONTH] in (QUOTA, QUOTA + 1)


@pytest_twisted.inlineCallbacks
def test_raised(serve: Serve, path: Path, wall: Wall) -> Playing:
    """A session goes on under a quota that was changed meanwhile, and what it used before counts."""
    usage = kept(path, wall)
    yield usage.start()
    with Origin(echo) as origin:
        proxy: Proxy = yield serve()
        limit(proxy, usage, ServerLimits(server=Limits(daily=2000)))
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(echoes, sock, b"x" * 900)
            proxy.factory.reconfigure(limits=ServerLimits(server=Limits(daily=4000)))
            yield proxy.play(echoes, sock, b"x" * 900)
            proxy.factory.reconfigure(limits=ServerLimits(server=Limits(daily=3000)))
            sock.sendall(b"x")
            yield proxy.play(drain, sock)
        record = yield proxy.record()
        assert (record["ended"], record["sent"], record["received"]) == ("quota used up", 1800, 1800)
    yield usage.stop()
    assert written(path)["server", TODAY] == 3600


@pytest.mark.parametrize(("counts", "used"), [("upload", 1000), ("download", 700)])
@pytest_twisted.inlineCallbacks
def test_one_direction(serve: Serve, path: Path, wall: Wall, counts: Any, used: int) -> Playing:
    """A quota that counts one direction lets the other one pass."""
    usage = kept(path, wall)
    yield usage.start()

    def shorter(sock: socket.socket) -> None:
        while data := sock.recv(1000, socket.MSG_WAITALL):
            sock.sendall(data[:700])

    def scenario(sock: socket.socket) -> None:
        sock.sendall(b"x" * 1000)
        assert len(sock.recv(700, socket.MSG_WAITALL)) == 700

    with Origin(shorter) as origin:
        proxy: Proxy = yield serve()
        limit(proxy, usage, ServerLimits(server=Limits(daily=1500, counts=counts)))
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(scenario, sock)
    yield until(lambda: not proxy.sessions.live)
    yield usage.stop()
    assert written(path)["server", TODAY] == used


@pytest_twisted.inlineCallbacks
def test_exempt(serve: Serve, path: Path, wall: Wall) -> Playing:
    """What a rule exempts counts for no quota but the rule's own, and goes on when others are used up."""
    usage = kept(path, wall)
    yield usage.start()
    with Origin(echo) as free, Origin(echo) as paid:
        rules = [
            Rule(name="free", allow=True, ports=[free.port], quota=False, limits=Limits(daily=9000)),
            Rule(name="paid", allow=True),
        ]
        limits = ServerLimits(server=Limits(daily=2400), client=Limits(daily=2400))
        portal = portal_of(bob=Limits(daily=2400))
        proxy: Proxy = yield serve(policy=RulePolicy(rules), portal=portal)
        limit(proxy, usage, limits)
        assert (yield _bob(proxy, free.port, echoes, b"x" * 1000)) == 0
        assert (yield _bob(proxy, paid.port, echoes, b"x" * 1200)) == 0
        assert (yield _bob(proxy, paid.port, echoes)) == Reply.NOT_ALLOWED
        assert proxy.records[-1]["ended"].endswith("is used up")
        assert (yield _bob(proxy, free.port, echoes, b"x" * 1000)) == 0
        assert (yield _bob(proxy, free.port, drained)) == 0
        assert proxy.records[-1]["ended"] == "quota used up"
        assert (yield _bob(proxy, free.port, echoes)) == Reply.NOT_ALLOWED
        assert proxy.records[-1]["ended"] == "refused: the quota of rule free is used up"
    yield usage.stop()
    of_today = {holder: used for (holder, day), used in written(path).items() if day == TODAY}
    # Twisted's transports had read some more before it could be known.
    assert of_today.pop("rule free") >= 9000
    assert of_today == {"server": 2400, "client 127.0.0.1": 2400, "user bob": 2400}


def drained(sock: socket.socket) -> None:
    """Have what there is of a quota come back."""
    sock.sendall(b"x" * 4000)
    drain(sock)


@inlineCallbacks
def _bob(proxy: Proxy, port: int, scenario: Callable[..., Any], *arguments: Any) -> Any:
    """The reply to bob, who then plays *scenario* if he may."""
    with proxy.connect() as sock:
        code = yield proxy.play(ask_as, sock, b"bob", port)
        if code == 0:
            yield proxy.play(scenario, sock, *arguments)
    yield until(lambda: not proxy.sessions.live)
    return code


@pytest_twisted.inlineCallbacks
def test_restarted(serve: Serve, path: Path, wall: Wall) -> Playing:
    """A user has no more after a restart than before, and is refused with the first request."""
    portal = portal_of(bob=Limits(daily=QUOTA), ann=None)
    with Origin(echo) as origin, Origin(pour) as source:
        for number in range(3):
            usage = kept(path, wall)
            yield usage.start()
            proxy: Proxy = yield serve(portal=portal)
            limit(proxy, usage, ServerLimits())
            if number == 0:
                assert (yield _bob(proxy, origin.port, echoes, b"x" * 1000)) == 0
            elif number == 1:
                assert (yield _bob(proxy, source.port, pull)) == 0
                assert proxy.records[0]["received"] == QUOTA - 2001
            else:
                assert (yield _bob(proxy, origin.port, echoes)) == Reply.NOT_ALLOWED
                assert proxy.records[0]["ended"] == "refused: the quota of user bob is used up"
            yield usage.stop()
    assert written(path) == {("user bob", TODAY): QUOTA, ("user bob", MONTH): QUOTA}


@pytest_twisted.inlineCallbacks
def test_two_servers(serve_as: Serve, path: Path, wall: Wall) -> Playing:
    """Two that share the file, as workers do: what one passes on is not there for the other."""
    portal = portal_of(bob=Limits(daily=2400))
    proxies, usages = [], []
    with Origin(echo) as origin:
        for _ in range(2):
            usage = kept(path, wall)
            yield usage.start()
            proxy: Proxy = yield serve_as(portal=portal)
            limit(proxy, usage, ServerLimits())
            proxies.append(proxy)
            usages.append(usage)
        for proxy in proxies:
            assert (yield _bob(proxy, origin.port, echoes, b"x" * 600)) == 0
        yield until(lambda: path.exists() and written(path).get(("user bob", TODAY)) == 2400)
        for proxy in proxies:
            yield _refused_soon(proxy, origin.port)
    for usage in usages:
        yield usage.stop()
    assert written(path)["user bob", TODAY] == 2400


@inlineCallbacks
def _refused_soon(proxy: Proxy, port: int) -> Playing:
    for _ in range(100):
        if (yield _bob(proxy, port, echoes, b"")) == Reply.NOT_ALLOWED:
            return
        # Nothing is moved: that somebody came is what has the file read.
        yield deferLater(reactor, 0.1)
    raise AssertionError("bob is never refused")


def datagrams(proxy: Any) -> None:
    with Echo() as destination, Datagrams(proxy) as client:
        assert client.ask(b"x" * 1000, destination.address) == b"x" * 1000
        client.send(b"x" * 1000, destination.address)
        assert client.closed()
    wait_for(lambda: bool(proxy.records))
    assert proxy.records[0]["ended"] == "quota used up"
    with pytest.raises(Refused) as caught:
        Datagrams(proxy)
    assert caught.value.args == (Reply.NOT_ALLOWED,)


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.ensureDeferred
async def test_datagrams(kind: str, path: Path, wall: Wall) -> None:
    """An association ends when its quota is used up: what does not fit is not passed on."""
    usage = kept(path, wall)
    await usage.start()
    async with serving(kind) as proxy:
        limit(proxy, usage, ServerLimits(network=Limits(daily=2000)))
        await proxy.run(datagrams)
    await usage.stop()
    assert written(path)["network 127.0.0.0/24", TODAY] == 2000


def free_datagrams(proxy: Any) -> None:
    with Echo() as paid, Echo() as free, Datagrams(proxy) as client:
        rules = [
            Rule(name="free", allow=True, ports=[free.address[1]], quota=False),
            Rule(name="paid", allow=True),
        ]
        blockingCallFromThread(reactor, proxy.factory.reconfigure, policy=RulePolicy(rules))
        for _ in range(5):
            assert client.ask(b"x" * 1000, free.address) == b"x" * 1000
        assert client.ask(b"x" * 1000, paid.address) == b"x" * 1000
        assert client.ask(b"x" * 1000, free.address) == b"x" * 1000
    wait_for(lambda: bool(proxy.records))
    with Echo() as free, Datagrams(proxy) as client:
        rules = [Rule(name="free", allow=True, quota=False)]
        blockingCallFromThread(reactor, proxy.factory.reconfigure, policy=RulePolicy(rules))
        assert client.ask(b"x" * 1000, free.address) == b"x" * 1000


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.ensureDeferred
async def test_exempt_datagrams(kind: str, path: Path, wall: Wall) -> None:
    """Datagrams to where a rule exempts them count for nothing, and pass when the quota is used up."""
    usage = kept(path, wall)
    await usage.start()
    async with serving(kind, policy=RulePolicy([Rule(name="all", allow=True, quota=False)])) as proxy:
        limit(proxy, usage, ServerLimits(network=Limits(daily=2000)))
        await proxy.run(free_datagrams)
    await usage.stop()
    assert written(path)["network 127.0.0.0/24", TODAY] == 2000
