"""What a rule brings about beside its decision: where connections and datagrams leave from, and timeouts."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import IRealm, Portal
from twisted.internet.task import Clock
from zope.interface import implementer

from socksproxy import BindSettings, RulePolicy, Timeouts, UDPSettings
from socksproxy.auth.users import User
from socksproxy.identity import ISOCKSUser
from socksproxy.policy.rules import Rule, RuleTimeouts
from socksproxy.session.parts import Phase
from socksproxy.values.timeouts import NEVER
from socksproxy.wire.words import Command, Reply
from tests.conftest import Serve
from tests.support.hosts import Hosts
from tests.support.origin import Origin, echo
from tests.support.proxy import (
    PATIENCE,
    Playing,
    Proxy,
    ask5,
    echoes,
    greet,
    open_descriptors,
    reply5,
    request5,
    until,
)
from tests.support.relay import is_reset
from tests.support.sessions import Stuck, in_phase, the_session
from tests.support.udp import Client as Datagrams, Echo, kinds, serving

NAME, OTHER = "host.example", "other.example"


@implementer(IRealm)
class Abroad:
    """Everybody is a user whose connections leave from *outgoing*."""

    def __init__(self, *outgoing: str) -> None:
        self._outgoing = outgoing

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        user: Any = Traveller("bob")
        user.outgoing = self._outgoing
        return ISOCKSUser, user, lambda: None


class Traveller(User):
    """A user who may have an address of its own."""


def abroad(*outgoing: str) -> Portal:
    return Portal(Abroad(*outgoing), [AllowAnonymousAccess()])


def rules(*outgoing: str) -> RulePolicy:
    """A policy that allows everything, from *outgoing*."""
    return RulePolicy([Rule(name="out", allow=True, outgoing=outgoing or None)])


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


def options(of_rule: str | None, of_user: str | None) -> dict[str, Any]:
    """What the rule, the user and the server say; empty: nothing; None: there is no rule, no user."""
    said: dict[str, Any] = {"outgoing": ["127.0.0.7"]}
    if of_rule is not None:
        said["policy"] = rules(*of_rule.split())
    if of_user is not None:
        said["portal"] = abroad(*of_user.split())
    return said


# Who says where it leaves from: the rule, or else the user, or else the server.
WORDS = [
    ("127.0.0.9", "127.0.0.8", "127.0.0.9"),
    ("127.0.0.9", None, "127.0.0.9"),
    ("", "127.0.0.8", "127.0.0.8"),
    (None, "127.0.0.8", "127.0.0.8"),
    ("::1", "127.0.0.8", "127.0.0.8"),
    ("::1 fallback", "::1", "127.0.0.7"),
    ("::1", "::1 fallback", "127.0.0.7"),
    ("", "", "127.0.0.7"),
]
words = pytest.mark.parametrize(("of_rule", "of_user", "source"), WORDS)


@words
@pytest_twisted.inlineCallbacks
def test_connect(
    serve: Serve, origin: Origin, of_rule: str | None, of_user: str | None, source: str
) -> Playing:
    proxy: Proxy = yield serve(**options(of_rule, of_user))
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
        yield proxy.play(echoes, sock)
    assert [host for host, _ in origin.peers] == [source]
    assert (yield proxy.record())["outgoing"].startswith(f"{source}:")


def meet(host: str, port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), PATIENCE, source_address=(source, 0))


@words
@pytest.mark.parametrize("bind", [BindSettings(), BindSettings(addresses=("127.0.0.6",))])
@pytest_twisted.inlineCallbacks
def test_bind(
    serve_as: Serve, bind: BindSettings, of_rule: str | None, of_user: str | None, source: str
) -> Playing:
    """BIND listens there, and tells the client so. Of the server's addresses, that for BIND comes first."""
    if any(bind.addresses) and source == "127.0.0.7":
        source = "127.0.0.6"
    proxy: Proxy = yield serve_as(bind=bind, **options(of_rule, of_user))

    def scenario(sock: socket.socket) -> None:
        code, place = ask5(sock, "127.0.0.1", 0, Command.BIND)
        assert (code, place.host) == (0, source)
        with meet(place.host, place.port):
            assert reply5(sock)[0] == 0

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
    record = yield proxy.record()
    assert record["outgoing"] == record["announced"]
    assert record["announced"].startswith(f"{source}:")


@pytest_twisted.inlineCallbacks
def test_bind_elsewhere_than_told(serve_as: Serve) -> Playing:
    """Behind NAT the client is told what the operator says, wherever the rule has it listen."""
    proxy: Proxy = yield serve_as(policy=rules("127.0.0.9"), advertise=["203.0.113.5"])

    def scenario(sock: socket.socket) -> None:
        code, place = ask5(sock, "127.0.0.1", 0, Command.BIND)
        assert (code, place.host) == (0, "203.0.113.5")
        with pytest.raises(ConnectionRefusedError):
            meet("127.0.0.1", place.port)
        with meet("127.0.0.9", place.port):
            assert reply5(sock)[0] == 0

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@pytest_twisted.inlineCallbacks
def test_bind_of_a_name(serve_as: Serve) -> Playing:
    """The rule is that of the address by which the listener's place is chosen."""
    two_rules = [
        Rule(name="two", allow=True, networks=["127.0.0.2"], outgoing=["127.0.0.8"]),
        Rule(name="three", allow=True, names=[NAME], outgoing=["127.0.0.9"]),
    ]
    hosts = Hosts({NAME: ["127.0.0.3", "127.0.0.2"]})
    proxy: Proxy = yield serve_as(policy=RulePolicy(two_rules), resolver=hosts)

    def scenario(sock: socket.socket) -> None:
        code, place = ask5(sock, NAME, 0, Command.BIND)
        assert (code, place.host) == (0, "127.0.0.9")
        with meet(place.host, place.port, "127.0.0.2"):
            assert reply5(sock)[0] == 0

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
    assert (yield proxy.record())["rule"] == "two"


@pytest_twisted.inlineCallbacks
def test_bind_after_many_strangers(serve_as: Serve) -> Playing:
    """However many have come before: the rule of the one who is let in counts."""
    policy = RulePolicy([Rule(name="two", allow=True, networks=["127.0.0.2"])])
    settings = BindSettings(addresses=("127.0.0.1",), any_peer=True)
    proxy: Proxy = yield serve_as(policy=policy, bind=settings)

    def scenario(sock: socket.socket) -> None:
        _, place = ask5(sock, "0.0.0.0", 0, Command.BIND)
        for number in range(140):
            with meet(place.host, place.port, f"127.0.1.{number + 1}") as stranger, suppress(ConnectionError):
                assert stranger.recv(1) == b""
        with meet(place.host, place.port, "127.0.0.2"):
            assert reply5(sock)[0] == 0

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
    record = yield proxy.record()
    assert (record["rule"], record["strangers"]) == ("two", 140)


# UDP: an association may have many destinations, each under a rule of its own.


def sources(proxy: Any) -> None:
    with Echo() as one, Echo("127.0.0.2") as two, Echo("127.0.0.3") as three, Datagrams(proxy) as client:
        for _ in range(3):
            for destination in (one, two, three):
                assert client.ask(b"x", destination.address) == b"x"
        assert {host for _, (host, _) in one.seen} == {"127.0.0.7"}
        assert {host for _, (host, _) in two.seen} == {"127.0.0.8"}
        assert {host for _, (host, _) in three.seen} == {"127.0.0.9"}
        assert all(len({port for _, (_, port) in each.seen}) == 1 for each in (one, two, three))


@kinds
@pytest_twisted.ensureDeferred
async def test_datagrams(kind: str) -> None:
    policy = RulePolicy(
        [
            Rule(name="two", allow=True, networks=["127.0.0.2"], outgoing=["127.0.0.8"]),
            Rule(name="three", allow=True, networks=["127.0.0.3"], outgoing=["127.0.0.9", "::1"]),
            Rule(name="rest", allow=True),
        ]
    )
    before = open_descriptors()
    async with serving(kind, policy=policy, outgoing=["127.0.0.7"]) as proxy:
        await proxy.run(sources)
        await until(lambda: not proxy.factory.sessions.context.associations.live)
    await until(lambda: open_descriptors() <= before)


def by_name(proxy: Any) -> None:
    """A name, its address, and another name of that address are three destinations."""
    with Echo() as echo, Datagrams(proxy) as client:
        for host in (NAME, OTHER, "127.0.0.1"):
            assert client.ask(host.encode(), (host, echo.address[1])) == host.encode()
        assert [(data.decode(), source) for data, (source, _) in echo.seen] == [
            (NAME, "127.0.0.8"),
            (OTHER, "127.0.0.9"),
            ("127.0.0.1", "127.0.0.1"),
        ]


@kinds
@pytest_twisted.ensureDeferred
async def test_datagrams_by_name(kind: str) -> None:
    policy = RulePolicy(
        [
            Rule(name="one", allow=True, names=[NAME], outgoing=["127.0.0.8"]),
            Rule(name="two", allow=True, names=[OTHER], outgoing=["127.0.0.9"]),
            Rule(name="rest", allow=True),
        ]
    )
    hosts = Hosts({NAME: ["127.0.0.1"], OTHER: ["127.0.0.1"]})
    async with serving(kind, policy=policy, resolver=hosts) as proxy:
        await proxy.run(by_name)


def from_one(proxy: Any, source: str) -> None:
    with Echo() as echo, Datagrams(proxy) as client:
        assert client.ask(b"x", echo.address) == b"x"
        assert echo.seen[0][1][0] == source


@words
@kinds
@pytest_twisted.ensureDeferred
async def test_who_says_it_of_datagrams(
    kind: str, of_rule: str | None, of_user: str | None, source: str
) -> None:
    async with serving(kind, **options(of_rule, of_user)) as proxy:
        await proxy.run(from_one, source)


def from_nowhere(proxy: Any) -> None:
    with Echo() as echo, Datagrams(proxy) as client:
        client.send(b"x", echo.address)
        assert client.is_silent()
        assert echo.seen == []
        client.close()
        assert proxy.record()["dropped"] == {"unreachable": 1}


@kinds
@pytest_twisted.ensureDeferred
async def test_an_address_that_is_not_ours(kind: str) -> None:
    """It has gone since the rules were made: then nothing leaves, least of all from another address."""
    async with serving(kind, policy=rules("192.0.2.99")) as proxy:
        await proxy.run(from_nowhere)


@pytest_twisted.inlineCallbacks
def test_a_connection_from_an_address_that_is_not_ours(serve: Serve, origin: Origin) -> Playing:
    proxy: Proxy = yield serve(policy=rules("192.0.2.99"))
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] != 0
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", 0, Command.BIND))[0] != 0
    assert origin.peers == []


# Time.


def timed(**seconds: float) -> RulePolicy:
    return RulePolicy(
        [
            Rule(name="timed", allow=True, networks=["127.0.0.1"], timeouts=RuleTimeouts(**seconds)),
            Rule(name="rest", allow=True),
        ]
    )


SLOW = "slow.example"


@pytest.mark.parametrize(
    ("ours", "servers", "lasts"),
    [
        ({"connect": 5}, 30, 5),
        ({"connect": 60}, 30, 60),
        ({"idle": 5}, 30, 30),
        ({"connect": NEVER}, 30, None),
    ],
)
@pytest_twisted.inlineCallbacks
def test_connect_timeout(
    serve: Serve, ours: dict[str, float], servers: float, lasts: float | None
) -> Playing:
    """
    Looking up a name is the server's time.

    The rule's begins when the address is known, whatever has passed of the server's.
    """
    clock, hosts = Clock(), Hosts({SLOW: None})
    with Stuck() as stuck:
        proxy: Proxy = yield serve(
            clock=clock, resolver=hosts, policy=timed(**ours), timeouts=Timeouts(connect=servers)
        )
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5(SLOW, stuck.port))
            yield until(in_phase(proxy, Phase.SERVING))
            spent = 20 if ours.get("connect") is not None else 0
            clock.advance(spent)
            hosts.answer(SLOW, "127.0.0.1")
            assert proxy.sessions.underway() == 1
            clock.advance((lasts or 1000) - 0.1)
            assert the_session(proxy).phase is Phase.SERVING
            assert proxy.sessions.underway() == 1
            if lasts is None:
                return
            clock.advance(0.1)
            assert (yield proxy.play(reply5, sock))[0] == Reply.TTL_EXPIRED
            assert proxy.sessions.underway() == 0
        assert (yield proxy.record())["ended"] == "refused: connect timeout"


@pytest_twisted.inlineCallbacks
def test_in_time(serve: Serve, origin: Origin) -> Playing:
    """Nothing ends what is connected, and no timer is left of it."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock, policy=timed(connect=5))
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
        assert proxy.sessions.underway() == 0
        for _ in range(10):
            clock.advance(1)
        yield proxy.play(echoes, sock)
    assert (yield proxy.record())["ended"] == "client"


@pytest_twisted.inlineCallbacks
def test_ended_by_the_client(serve: Serve) -> Playing:
    clock = Clock()
    with Stuck() as stuck:
        proxy: Proxy = yield serve(clock=clock, policy=timed(connect=5))
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", stuck.port))
            yield until(lambda: proxy.sessions.underway() == 1 and in_phase(proxy, Phase.SERVING)())
        yield until(lambda: not proxy.sessions.live)
    assert proxy.sessions.underway() == 0
    clock.advance(10)
    assert (yield proxy.record())["ended"] == "client"


@pytest.mark.parametrize(
    ("seconds", "servers", "ends"),
    [({"idle": 60}, 6000, True), ({"idle": NEVER}, 60, False), ({"connect": 5}, 60, True)],
)
@pytest_twisted.inlineCallbacks
def test_idle(serve: Serve, origin: Origin, seconds: dict[str, float], servers: float, ends: bool) -> Playing:
    """A rule's word counts in place of the server's; one that says nothing of it leaves that as it is."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock, policy=timed(**seconds), timeouts=Timeouts(idle=servers))
    with proxy.connect() as sock:
        yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
        yield proxy.play(echoes, sock)
        for _ in range(12):
            clock.advance(10)
        if ends:
            assert (yield proxy.play(is_reset, sock))
        else:
            yield proxy.play(echoes, sock)
    assert (yield proxy.record())["ended"] == ("idle timeout" if ends else "client")


@pytest.mark.parametrize(
    ("seconds", "servers", "ends"),
    [
        ({"half_closed": 60}, 6000, True),
        ({"half_closed": NEVER}, 60, False),
        ({"idle": 6000}, 60, True),
        ({"half_closed": 6000}, NEVER, False),
    ],
)
@pytest_twisted.inlineCallbacks
def test_half_closed(serve: Serve, seconds: dict[str, float], servers: float, ends: bool) -> Playing:
    """Likewise for a session of which one direction is closed."""
    clock, over = Clock(), threading.Event()
    with Origin(lambda sock: (over.wait(PATIENCE), None)[1]) as origin:
        proxy: Proxy = yield serve(
            clock=clock, policy=timed(**seconds), timeouts=Timeouts(half_closed=servers)
        )
        with proxy.connect() as sock:
            yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            sock.shutdown(socket.SHUT_WR)
            yield until(lambda: len(proxy.sessions.context.half_closed) == 1)
            for _ in range(12):
                clock.advance(10)
            if ends:
                assert (yield proxy.play(is_reset, sock))
            over.set()
        assert (yield proxy.record())["ended"] == ("half-closed timeout" if ends else "client")


@pytest.mark.parametrize("peer", ["127.0.0.1", "0.0.0.0"])
@pytest_twisted.inlineCallbacks
def test_idle_after_bind(serve: Serve, peer: str) -> Playing:
    """The rule is that of the peer who has come; how long it may take to come is no affair of it."""
    clock = Clock()
    proxy: Proxy = yield serve(
        clock=clock,
        policy=timed(idle=60, connect=5),
        timeouts=Timeouts(idle=6000),
        bind=BindSettings(addresses=("127.0.0.1",), any_peer=True),
    )
    with proxy.connect() as sock:
        _, place = yield proxy.play(ask5, sock, peer, 0, Command.BIND)
        clock.advance(100)
        with meet(place.host, place.port) as other:
            yield proxy.play(reply5, sock)
            for _ in range(12):
                clock.advance(10)
            assert (yield proxy.play(is_reset, sock))
            assert (yield proxy.play(is_reset, other))
    record = yield proxy.record()
    assert (record["rule"], record["ended"]) == ("timed", "idle timeout")


def silence(proxy: Any, destinations: list[str], ended: Callable[[Any], bool]) -> None:
    with Echo() as echo, Echo("127.0.0.2") as other, Datagrams(proxy) as client:
        known = {"timed": echo.address, "rest": other.address}
        for destination in destinations:
            assert client.ask(b"x", known[destination]) == b"x"
        assert ended(client)


@pytest.mark.parametrize(
    ("destinations", "seconds", "servers", "ends"),
    [
        (["timed"], {"idle": 0.2}, 6000, True),
        (["rest"], {"idle": 6000}, 0.2, True),
        (["timed", "rest"], {"idle": 0.2}, 6000, False),
        (["rest", "timed"], {"idle": 0.2}, 6000, False),
        (["rest", "timed"], {"idle": NEVER}, 0.2, False),
        (["timed"], {"connect": 5}, 0.2, True),
        ([], {"idle": 6000}, 0.2, True),
    ],
)
@kinds
@pytest_twisted.ensureDeferred
async def test_idle_association(
    kind: str, destinations: list[str], seconds: dict[str, float], servers: float, ends: bool
) -> None:
    """It may be silent for as long as any of its destinations allows."""

    def ended(client: Datagrams) -> bool:
        return client.closed() if ends else client.is_silent() and proxy.records == []

    async with serving(kind, policy=timed(**seconds), udp=UDPSettings(idle=servers)) as proxy:
        await proxy.run(silence, destinations, ended)
        if ends:
            assert proxy.record()["ended"] == "idle timeout"
