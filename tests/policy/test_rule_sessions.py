"""Rules in a server: what they are told, what they bring about, and what is recorded of them."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.task import Clock
from zope.interface import implementer

from socksproxy import BindSettings
from socksproxy.auth.users import User
from socksproxy.errors import NotAllowed
from socksproxy.identity import Client, ISOCKSUser
from socksproxy.net.resolve import NameLookups
from socksproxy.policy.asking import DestinationCheck, ask, permitted_addresses
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.session.permission import Permission
from socksproxy.session.session import Session
from socksproxy.wire.words import Address, Command, Reply
from tests.conftest import Serve
from tests.support.hosts import Hosts
from tests.support.origin import Origin, echo
from tests.support.proxy import PATIENCE, Playing, Proxy, ask4, ask5, ask_as, echoes, reply5, until
from tests.support.udp import Client as Datagrams, Echo, serving

NAME = "host.example"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


def outcome(proxy: Proxy, host: str, port: int, version: int = 5) -> int:
    """The reply's code; a connection is of use."""
    with proxy.connect() as sock:
        code, _ = ask4(sock, host, port) if version == 4 else ask5(sock, host, port)
        if code in (0, 90):
            echoes(sock)
        return code


@pytest_twisted.inlineCallbacks
def test_connect(serve: Serve, origin: Origin) -> Playing:
    """However the bytes are carried, the first rule that matches decides, and the record names it."""
    rules = [
        Rule(name="not-there", allow=False, networks=["127.0.0.2"]),
        Rule(name="echo", allow=True, ports=[origin.port]),
    ]
    proxy: Proxy = yield serve(policy=RulePolicy(rules))
    for number, (host, port, version, code, rule) in enumerate(
        [
            ("127.0.0.1", origin.port, 5, 0, "echo"),
            ("127.0.0.1", origin.port, 4, 90, "echo"),
            ("127.0.0.2", origin.port, 5, Reply.NOT_ALLOWED, "not-there"),
            ("127.0.0.1", origin.port ^ 1, 5, Reply.NOT_ALLOWED, "default"),
            ("127.0.0.1", origin.port ^ 1, 4, 91, "default"),
        ]
    ):
        assert (yield proxy.play(outcome, proxy, host, port, version)) == code
        record = yield proxy.record(number)
        assert record["rule"] == rule


@pytest_twisted.inlineCallbacks
def test_name(serve: Serve, origin: Origin) -> Playing:
    """Of a name's addresses those that are denied are left out; a name that is denied is not looked up."""
    hosts = Hosts({NAME: ["127.0.0.2", "127.0.0.1"], "bad.example": ["127.0.0.1"]})
    rules = [
        Rule(name="bad", allow=False, names=["bad.example"]),
        Rule(name="not-two", allow=False, networks=["127.0.0.2"]),
        Rule(name="named", allow=True, names=["*.example"]),
    ]
    proxy: Proxy = yield serve(policy=RulePolicy(rules), resolver=hosts)
    assert (yield proxy.play(outcome, proxy, NAME, origin.port)) == 0
    record = yield proxy.record()
    assert (record["rule"], record["reached"]) == ("named", f"127.0.0.1:{origin.port}")
    assert (yield proxy.play(outcome, proxy, "BAD.example.", origin.port)) == Reply.NOT_ALLOWED
    assert (yield proxy.record(1))["rule"] == "bad"
    assert (yield proxy.play(outcome, proxy, "127.0.0.1", origin.port)) == Reply.NOT_ALLOWED
    assert (yield proxy.record(2))["rule"] == "default"
    assert hosts.asked == [NAME]


@pytest_twisted.inlineCallbacks
def test_rebinding(serve: Serve, origin: Origin) -> Playing:
    """A name whose answer changes to what is denied is denied from then on, and nothing is dialed there."""
    clock = Clock()
    hosts = Hosts({NAME: ["127.0.0.1"]})
    rules = [
        Rule(name="not-two", allow=False, networks=["127.0.0.2"]),
        Rule(name="named", allow=True, names=[NAME]),
    ]
    proxy: Proxy = yield serve(policy=RulePolicy(rules), resolver=hosts, clock=clock)
    assert (yield proxy.play(outcome, proxy, NAME, origin.port)) == 0
    assert (yield proxy.record())["rule"] == "named"
    hosts.hosts[NAME] = ["127.0.0.2"]
    clock.advance(10)
    assert (yield proxy.play(outcome, proxy, NAME, origin.port)) == Reply.NOT_ALLOWED
    assert (yield proxy.record(1))["rule"] == "not-two"
    hosts.hosts[NAME] = ["127.0.0.2", "127.0.0.1"]
    clock.advance(10)
    assert (yield proxy.play(outcome, proxy, NAME, origin.port)) == 0
    assert len(origin.peers) == 2


class Rebinding(Hosts):
    """A resolver that tells something else each time."""

    def __init__(self, name: str, answers: list[list[str]]) -> None:
        super().__init__({})
        self._name = name
        self._answers = answers

    def resolveHostName(self, *arguments: Any, **named: Any) -> Any:
        """See :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`."""
        self.hosts[self._name] = list(self._answers[len(self.asked) % len(self._answers)])
        return super().resolveHostName(*arguments, **named)


@pytest.mark.parametrize(
    "evil",
    [
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1:a00:0:100::",
        "2002:a00:1::1",
        "2001:0:c000:207::f5ff:fffe",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "0.0.0.0",
    ],
)
@pytest.mark.parametrize("command", [Command.CONNECT, Command.BIND, Command.UDP_ASSOCIATE, Command.RESOLVE])
def test_what_is_dialed_is_what_was_judged(evil: str, command: Command) -> None:
    """The name is looked up once for each session, and what the rules see is all that comes out."""
    policy = RulePolicy(
        [Rule(name="private", allow=False, networks=["private"]), Rule(name="ok", allow=True, names=[NAME])]
    )
    clock, client = Clock(), Client("192.0.2.7", 5000)
    hosts = Rebinding(NAME, [["203.0.113.1"], [evil], [evil, "203.0.113.1"]])
    names = NameLookups(hosts, clock)
    found: list[Any] = []
    for _ in range(6):
        judge = Permission(policy)
        means, destination = DestinationCheck(judge, names, clock), Address.of(NAME, 80)
        answer = ask(judge, client, command, destination)
        pending: Any = permitted_addresses(means, client, command, destination, answer, lambda: None)
        pending.addErrback(lambda failure: failure.trap(NotAllowed)).addBoth(found.append)
        clock.advance(10)
    good = [Address.of("203.0.113.1", 80)]
    assert found == 2 * [good, NotAllowed, good]
    assert len(hosts.asked) == 6


@implementer(IRealm)
class Groups:
    """bob is of the staff, ann is not."""

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        name = avatarId.decode()
        return ISOCKSUser, User(name, ["staff"] if name == "bob" else []), lambda: None


def log_in(proxy: Proxy, user: bytes, port: int) -> int:
    with proxy.connect() as sock:
        return ask_as(sock, user, port)


@pytest_twisted.inlineCallbacks
def test_groups(serve: Serve, origin: Origin) -> Playing:
    """The avatar's groups are what rules see."""
    checker = InMemoryUsernamePasswordDatabaseDontUse(bob=b"secret", ann=b"secret")
    portal = Portal(Groups(), [checker])
    policy = RulePolicy([Rule(name="staff", allow=True, groups=["staff"])])
    proxy: Proxy = yield serve(policy=policy, portal=portal)
    assert (yield proxy.play(log_in, proxy, b"bob", origin.port)) == 0
    record = yield proxy.record()
    assert (record["user"], record["rule"]) == ("bob", "staff")
    assert (yield proxy.play(log_in, proxy, b"ann", origin.port)) == Reply.NOT_ALLOWED
    record = yield proxy.record(1)
    assert (record["user"], record["rule"]) == ("ann", "default")


@pytest_twisted.inlineCallbacks
def test_listener_and_version(serve: Serve, origin: Origin) -> Playing:
    """A listener goes by its name, and by its address where it has none."""
    policy = RulePolicy(
        [
            Rule(name="old", allow=False, versions=[4]),
            Rule(name="front", allow=True, listeners=["front"]),
        ]
    )
    proxy: Proxy = yield serve(policy=policy)
    assert (yield proxy.play(outcome, proxy, "127.0.0.1", origin.port)) == Reply.NOT_ALLOWED
    assert (yield proxy.record())["rule"] == "default"
    proxy.sessions.context.listeners.call(proxy.address, "front")
    assert (yield proxy.play(outcome, proxy, "127.0.0.1", origin.port)) == 0
    assert (yield proxy.record(1))["rule"] == "front"
    assert (yield proxy.play(outcome, proxy, "127.0.0.1", origin.port, 4)) == 91
    assert (yield proxy.record(2))["rule"] == "old"


@pytest_twisted.inlineCallbacks
def test_not_recorded(serve: Serve, origin: Origin) -> Playing:
    rules = [
        Rule(name="quiet", allow=True, ports=[origin.port], log=False),
        Rule(name="quiet-too", allow=False, networks=["127.0.0.3"], log=False),
    ]
    proxy: Proxy = yield serve(policy=RulePolicy(rules))
    assert (yield proxy.play(outcome, proxy, "127.0.0.1", origin.port)) == 0
    assert (yield proxy.play(outcome, proxy, "127.0.0.3", 9)) == Reply.NOT_ALLOWED
    assert (yield proxy.play(outcome, proxy, "127.0.0.1", 9)) == Reply.NOT_ALLOWED
    record = yield proxy.record()
    assert record["rule"] == "default"
    assert len(proxy.records) == 1


def anybody(proxy: Proxy, port: int = 0) -> int:
    """A BIND for whoever comes; strangers come first."""
    with proxy.connect() as sock:
        code, place = ask5(sock, "0.0.0.0", port, Command.BIND)
        if code:
            return code
        for source in ("127.0.0.3", "127.0.0.2"):
            peer = socket.create_connection((place.host, place.port), PATIENCE, source_address=(source, 0))
            with peer:
                if source == "127.0.0.3":
                    with suppress(ConnectionResetError):
                        assert peer.recv(1) == b""
                    continue
                second, told = reply5(sock)
                assert told.host == source
                return second
        raise AssertionError


@pytest_twisted.inlineCallbacks
def test_bind_for_anybody(serve: Serve) -> Playing:
    """Who may come is judged when somebody comes, and who may not is a stranger."""
    rules = [Rule(name="two", allow=True, commands=["bind"], networks=["127.0.0.2"], ports=[0])]
    settings = BindSettings(addresses=("127.0.0.1",), any_peer=True)
    proxy: Proxy = yield serve(policy=RulePolicy(rules), bind=settings)
    assert (yield proxy.play(anybody, proxy)) == 0
    record = yield proxy.record()
    assert (record["rule"], record["strangers"], record["reply"]) == ("two", 1, 0)
    assert (yield proxy.play(anybody, proxy, 21)) == Reply.NOT_ALLOWED
    assert (yield proxy.record(1))["rule"] == "default"


def datagrams(proxy: Any) -> None:
    with Echo() as good, Echo() as bad, Datagrams(proxy) as client:
        proxy.factory.sessions.context.policy.decide_by(good.address[1])
        client.send(b"no", bad.address)
        assert client.ask(b"yes", good.address) == b"yes"
        assert bad.seen == []
        client.close()
        record = proxy.record()
        assert record["rule"] == "default,good"
        assert record["dropped"] == {"denied": 1}


class Late(RulePolicy):
    """Its rules come when the ports are known."""

    def __init__(self) -> None:
        super().__init__([])

    def decide_by(self, port: int) -> None:
        """Datagrams to *port* alone are allowed."""
        super().__init__([Rule(name="good", allow=True, commands=["associate"], ports=[port])])


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.ensureDeferred
async def test_datagrams(kind: str) -> None:
    """Each destination of an association goes through the rules, and the record names those that decided."""
    async with serving(kind, policy=Late()) as proxy:
        await proxy.run(datagrams)


def sessions_there() -> int:
    """How many sessions this process has, over or not."""
    return sum(type(each) is Session for each in gc.get_objects())


@pytest.mark.slow
@pytest_twisted.inlineCallbacks
def test_nothing_is_left(serve: Serve, origin: Origin) -> Playing:
    """A session that is over is freed at once; garbage to collect costs a tenth of the connection rate."""
    policy = RulePolicy([Rule(name="echo", allow=True, ports=[origin.port])])
    proxy: Proxy = yield serve(policy=policy)
    gc.collect()
    before = sessions_there()  # whatever other tests have left
    gc.disable()
    try:
        for number, port in enumerate([origin.port, origin.port, 9]):
            yield proxy.play(outcome, proxy, "127.0.0.1", port)
            yield proxy.record(number)
        yield until(lambda: sessions_there() <= before)
    finally:
        gc.enable()
