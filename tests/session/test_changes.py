"""Sessions follow what changes: :mod:`socksproxy.session.changes`, by ``SOCKSFactory.reconfigure``."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.checkers import ANONYMOUS, AllowAnonymousAccess, ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from socksproxy import BindSettings, Timeouts, UDPSettings
from socksproxy.auth.users import User, name_of
from socksproxy.identity import ISOCKSUser
from socksproxy.limits import Limits, ServerLimits
from socksproxy.limits.account import Scope
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.wire.password import Credentials, build_credentials
from socksproxy.wire.words import Address, Command, Reply

from ..conftest import Serve
from ..support.bind import begun, meet, second, turned_away
from ..support.hosts import Hosts
from ..support.limits import had
from ..support.logs import heard
from ..support.origin import Origin, echo
from ..support.policy import Policy
from ..support.proxy import Playing, Proxy, ask4, ask5, closed_port, echoes, greet, reply5, request5, until
from ..support.sessions import connected, ends, refused, the_session
from ..support.udp import Client as Datagrams, Echo, serving
from ..support.upstreams import upstream

ENDED = "no longer permitted"
NOBODY = RulePolicy([Rule(name="nobody", allow=False)])
ALL = Rule(name="all", allow=True, networks=["0.0.0.0/0", "::/0"])


@pytest.fixture
def origin() -> Iterator[Origin]:
    """What sends back what comes."""
    with Origin(echo) as server:
        yield server


# Running sessions under another policy.


@pytest_twisted.inlineCallbacks
def test_connect(serve: Serve, origin: Origin) -> Playing:
    """Exactly the session that the new rules deny ends, at once, and its record names the rule."""
    proxy: Proxy = yield serve()
    with Origin(echo) as other:
        stays = yield proxy.play(connected, proxy, origin.port)
        goes = yield proxy.play(connected, proxy, other.port)
        rules = [Rule(name="not-that", allow=False, ports=[other.port]), ALL]
        proxy.factory.reconfigure(policy=RulePolicy(rules))
        assert (yield proxy.play(ends, goes))
        record = yield proxy.record()
        assert (record["ended"], record["rule"], record["reply"]) == (ENDED, "not-that", 0)
        assert record["sent"] == record["received"] == 4
        yield proxy.play(echoes, stays)
        assert (yield proxy.play(refused, proxy, other.port)) == Reply.NOT_ALLOWED
        stays.close()
        record = yield proxy.record(2)
        assert (record["ended"], record["rule"]) == ("client", "all")
        goes.close()


@pytest_twisted.inlineCallbacks
def test_back_to_no_rules(serve: Serve, origin: Origin) -> Playing:
    """Rules may go as they may come; what was begun under them goes on."""
    proxy: Proxy = yield serve(policy=RulePolicy([ALL]))
    sock = yield proxy.play(connected, proxy, origin.port)
    proxy.factory.reconfigure(policy=None)
    yield proxy.play(echoes, sock)
    other = yield proxy.play(connected, proxy, origin.port)
    proxy.factory.reconfigure(policy=NOBODY)
    for each in (sock, other):
        assert (yield proxy.play(ends, each))
        each.close()


@pytest_twisted.inlineCallbacks
def test_only_what_is_given(serve: Serve, origin: Origin) -> Playing:
    """What is not given stays: the policy, though other things change."""
    proxy: Proxy = yield serve(policy=NOBODY)
    proxy.factory.reconfigure(timeouts=Timeouts(connect=7.0), outgoing=["127.0.0.3"])
    assert (yield proxy.play(refused, proxy, origin.port)) == Reply.NOT_ALLOWED
    proxy.factory.reconfigure(policy=None)
    sock = yield proxy.play(connected, proxy, origin.port)
    assert [host for host, _ in origin.peers] == ["127.0.0.3"]
    sock.close()


@pytest_twisted.inlineCallbacks
def test_by_name_and_address(serve: Serve, origin: Origin) -> Playing:
    """A session is judged again for the name that was asked for, and for the address that it has reached."""
    hosts = Hosts({"good.example": ["127.0.0.1"], "bad.example": ["127.0.0.1"]})
    proxy: Proxy = yield serve(resolver=hosts)
    rules = {
        "name": Rule(name="name", allow=False, names=["bad.example"]),
        "address": Rule(name="address", allow=False, networks=["127.0.0.1"]),
    }
    good = yield proxy.play(connected, proxy, origin.port, "good.example")
    bad = yield proxy.play(connected, proxy, origin.port, "bad.example")
    proxy.factory.reconfigure(policy=RulePolicy([rules["name"], ALL]))
    assert (yield proxy.play(ends, bad))
    assert (yield proxy.record())["rule"] == "name"
    yield proxy.play(echoes, good)
    proxy.factory.reconfigure(policy=RulePolicy([rules["address"], ALL]))
    assert (yield proxy.play(ends, good))
    assert (yield proxy.record(1))["rule"] == "address"
    for sock in (good, bad):
        sock.close()


@pytest_twisted.inlineCallbacks
def test_by_listener_and_version(serve: Serve, origin: Origin) -> Playing:
    """What only rules want to know of a client is found out when there are rules."""
    proxy: Proxy = yield serve()
    host, port = proxy.address
    sock = yield proxy.play(connected, proxy, origin.port)
    here = Rule(name="here", allow=True, listeners=[f"{host}:{port}"], versions=[5], networks=["127.0.0.0/8"])
    proxy.factory.reconfigure(policy=RulePolicy([here]))
    yield proxy.play(echoes, sock)
    there = Rule(name="there", allow=True, listeners=["192.0.2.1:1080"], networks=["127.0.0.0/8"])
    proxy.factory.reconfigure(policy=RulePolicy([there]))
    assert (yield proxy.play(ends, sock))
    sock.close()


@pytest_twisted.inlineCallbacks
def test_rules_begin_to_ask_for_listeners(serve: Serve, origin: Origin) -> Playing:
    """A session under rules that name no listener has not found its own out; other rules ask for it."""
    proxy: Proxy = yield serve(policy=RulePolicy([ALL]))
    host, port = proxy.address
    stays = yield proxy.play(connected, proxy, origin.port)
    assert the_session(proxy).client.listener is None
    here = Rule(name="here", allow=True, listeners=[f"{host}:{port}"], networks=["127.0.0.0/8"])
    proxy.factory.reconfigure(policy=RulePolicy([here]))
    yield proxy.play(echoes, stays)
    assert the_session(proxy).client.listener == f"{host}:{port}"
    stays.close()
    record = yield proxy.record()
    assert (record["ended"], record["rule"]) == ("client", "here")


@pytest_twisted.inlineCallbacks
def test_many(serve: Serve, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """More sessions than are judged in one turn; all are."""
    monkeypatch.setattr("socksproxy.session.registry._AT_ONCE", 2)
    proxy: Proxy = yield serve()
    socks = yield proxy.play(lambda: [connected(proxy, origin.port) for _ in range(7)])
    proxy.factory.reconfigure(policy=RulePolicy([ALL]))
    proxy.factory.reconfigure(policy=NOBODY)
    yield until(lambda: len(proxy.records) == 7)
    assert {record["ended"] for record in proxy.records} == {ENDED}
    for sock in socks:
        sock.close()


@pytest_twisted.inlineCallbacks
def test_limits_of_many(serve: Serve, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Likewise where limits change: one that has ended before its turn is not counted again."""
    monkeypatch.setattr("socksproxy.session.registry._AT_ONCE", 2)
    proxy: Proxy = yield serve()
    ledger = proxy.sessions.context.ledger
    socks = yield proxy.play(lambda: [connected(proxy, origin.port) for _ in range(7)])
    proxy.factory.reconfigure(limits=ServerLimits(server=Limits(sessions=9)))
    proxy.factory.reconfigure(policy=RulePolicy([ALL]))  # what they have not followed yet is not forgotten
    next(iter(proxy.sessions._changed)).abort()
    yield until(lambda: had(ledger, Scope.SERVER) == 6)
    yield until(lambda: not proxy.sessions._changed)
    assert had(ledger, Scope.SERVER) == 6
    for sock in socks:
        sock.close()
    yield until(lambda: not proxy.sessions.live)
    assert len(ledger) == 0


@pytest_twisted.inlineCallbacks
def test_embedders_policy(serve: Serve, origin: Origin) -> Playing:
    """A policy that takes its time is waited for, and the session goes on meanwhile; a failure denies."""
    proxy: Proxy = yield serve()
    first = yield proxy.play(connected, proxy, origin.port)
    answer: Deferred[bool] = Deferred()
    policy = Policy({"127.0.0.1": lambda: answer})
    proxy.factory.reconfigure(policy=policy)
    assert [(asked[1], asked[2].host) for asked in policy.asked] == [(Command.CONNECT, "127.0.0.1")]
    yield proxy.play(echoes, first)
    answer.callback(True)
    yield proxy.play(echoes, first)
    answer = Deferred()
    proxy.factory.reconfigure(policy=Policy({"127.0.0.1": lambda: answer}))
    yield proxy.play(echoes, first)
    with heard():
        answer.errback(ValueError("of the embedder"))
        assert (yield proxy.play(ends, first))
    assert (yield proxy.record())["ended"] == ENDED
    first.close()


@pytest_twisted.inlineCallbacks
def test_gone_while_the_policy_thinks(serve: Serve, origin: Origin) -> Playing:
    """Nobody waits for an answer about a session that is over, or that another policy is asked about."""
    proxy: Proxy = yield serve()
    sock = yield proxy.play(connected, proxy, origin.port)
    cancelled: list[str] = []

    def slow(name: str) -> Policy:
        return Policy({"127.0.0.1": lambda: Deferred(lambda _: cancelled.append(name))})

    proxy.factory.reconfigure(policy=slow("first"))
    proxy.factory.reconfigure(policy=slow("second"))
    assert cancelled == ["first"]
    yield proxy.play(echoes, sock)
    sock.close()
    assert (yield proxy.record())["ended"] == "client"
    assert cancelled == ["first", "second"]


@pytest_twisted.inlineCallbacks
def test_rules_hold_while_the_policy_thinks(serve: Serve, origin: Origin) -> Playing:
    """Until the answer of another policy is there, the rule that has allowed a relay holds for it."""
    proxy: Proxy = yield serve(policy=RulePolicy([ALL]))
    leaves = yield proxy.play(connected, proxy, origin.port)
    stays = yield proxy.play(connected, proxy, origin.port)
    answers: list[Deferred[bool]] = [Deferred(), Deferred()]
    left = iter(answers)
    proxy.factory.reconfigure(policy=Policy({"127.0.0.1": lambda: next(left)}))
    leaves.close()
    record = yield proxy.record()
    assert (record["ended"], record["rule"]) == ("client", "all")
    for answer in answers:
        if not answer.called:
            answer.callback(True)
    yield proxy.play(echoes, stays)
    stays.close()
    record = yield proxy.record(1)
    assert (record["ended"], record["rule"]) == ("client", None)


@pytest_twisted.inlineCallbacks
def test_while_dialing(serve: Serve, origin: Origin) -> Playing:
    """What is looked up or dialed under old rules is judged by the new ones when it is there."""
    for rules, code, ended in (
        ([Rule(name="no", allow=False, networks=["127.0.0.1"]), ALL], Reply.NOT_ALLOWED, f"refused: {ENDED}"),
        ([ALL], Reply.SUCCEEDED, "client"),
    ):
        hosts = Hosts({"slow.example": None})
        proxy: Proxy = yield serve(resolver=hosts)

        def ask(proxy: Proxy = proxy) -> int:
            with proxy.connect() as sock:
                return ask5(sock, "slow.example", origin.port)[0]

        asked = proxy.play(ask)
        yield until(lambda hosts=hosts: hosts.asked)  # type: ignore[misc]
        proxy.factory.reconfigure(policy=RulePolicy(rules))
        hosts.answer("slow.example", "127.0.0.1")
        assert (yield asked) == code
        record = yield proxy.record()
        assert (record["ended"], record["rule"]) == (ended, rules[0].name)


@pytest_twisted.inlineCallbacks
def test_while_negotiating(serve: Serve, origin: Origin) -> Playing:
    """A client that has not asked yet is served by the rules that hold when it does."""
    proxy: Proxy = yield serve()

    def half() -> socket.socket:
        sock = proxy.connect()
        greet(sock)
        return sock

    sock = yield proxy.play(half)
    proxy.factory.reconfigure(policy=NOBODY)

    def rest() -> int:
        sock.sendall(request5("127.0.0.1", origin.port))
        return reply5(sock)[0]

    assert (yield proxy.play(rest)) == Reply.NOT_ALLOWED
    sock.close()


# BIND.


@pytest_twisted.inlineCallbacks
def test_waiting_bind(serve: Serve) -> Playing:
    """A BIND whose peer has not come is judged for whom it waits for."""
    proxy: Proxy = yield serve()

    goes, _ = yield proxy.play(begun, proxy, "127.0.0.2")
    stays, address = yield proxy.play(begun, proxy, "127.0.0.1")
    rules = [Rule(name="not-two", allow=False, networks=["127.0.0.2"]), ALL]
    proxy.factory.reconfigure(policy=RulePolicy(rules))
    assert (yield proxy.play(second, goes, 5))[0] == Reply.NOT_ALLOWED
    goes.close()  # else the proxy waits for that
    record = yield proxy.record()
    assert (record["ended"], record["rule"]) == (f"refused: {ENDED}", "not-two")

    def come() -> socket.socket:
        peer = meet(address, "127.0.0.1")
        assert second(stays, 5)[0] == 0
        return peer

    peer = yield proxy.play(come)
    proxy.factory.reconfigure(policy=NOBODY)
    assert (yield proxy.play(ends, stays))
    record = yield proxy.record(1)
    assert (record["ended"], record["rule"]) == (ENDED, "nobody")
    for sock in (stays, peer):
        sock.close()


@pytest_twisted.inlineCallbacks
def test_peers_of_a_bind(serve: Serve) -> Playing:
    """Of the peers that a name stands for, those whom new rules deny are strangers; others may come."""
    proxy: Proxy = yield serve(resolver=Hosts({"peer.example": ["127.0.0.1", "127.0.0.2"]}))

    sock, address = yield proxy.play(begun, proxy, "peer.example")
    rules = [Rule(name="not-two", allow=False, networks=["127.0.0.2"]), ALL]
    proxy.factory.reconfigure(policy=RulePolicy(rules))

    def come() -> Address:
        with meet(address, "127.0.0.2") as denied:
            assert turned_away(denied)
        with meet(address, "127.0.0.1"):
            code, peer = second(sock, 5)
            assert code == 0
            return peer

    assert (yield proxy.play(come)).host == "127.0.0.1"
    sock.close()
    assert (yield proxy.record())["strangers"] == 1


@pytest_twisted.inlineCallbacks
def test_whoever_comes_to_a_bind(serve: Serve) -> Playing:
    """Where a client leaves open who comes, whoever does is judged by the rules that hold then."""
    proxy: Proxy = yield serve(bind=BindSettings(any_peer=True))

    sock, address = yield proxy.play(begun, proxy, "0.0.0.0")
    rules = [Rule(name="not-two", allow=False, networks=["127.0.0.2"]), ALL]
    proxy.factory.reconfigure(policy=RulePolicy(rules))

    def come() -> None:
        with meet(address, "127.0.0.2") as denied:
            assert turned_away(denied)
        with meet(address, "127.0.0.1"):
            assert second(sock, 5)[0] == 0

    yield proxy.play(come)
    sock.close()


@pytest_twisted.inlineCallbacks
@pytest.mark.parametrize("named", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("what", ["policy", "limits"])
def test_limits_of_a_bind(serve_as: Serve, origin: Origin, what: str, named: str) -> Playing:
    """A BIND that waits meanwhile is counted under its rule all the time, or once somebody comes."""
    rule = Rule(name="one", allow=True, networks=["127.0.0.0/8"], limits=Limits(sessions=1))
    proxy: Proxy = yield serve_as(policy=RulePolicy([rule]), bind=BindSettings(any_peer=True))

    sock, address = yield proxy.play(begun, proxy, named)
    others = ServerLimits(server=Limits(sessions=100))
    changes: dict[str, Any] = {"policy": RulePolicy([rule]), "limits": others}
    proxy.factory.reconfigure(**{what: changes[what]})
    if named != "0.0.0.0":
        assert (yield proxy.play(refused, proxy, origin.port)) == Reply.NOT_ALLOWED

    def come() -> socket.socket:
        peer = meet(address, "127.0.0.1")
        assert second(sock, 5)[0] == 0
        return peer

    peer = yield proxy.play(come)
    assert (yield proxy.play(refused, proxy, origin.port)) == Reply.NOT_ALLOWED
    sock.close()
    peer.close()


@pytest_twisted.inlineCallbacks
def test_limits_while_dialing(serve_as: Serve, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Who is about to connect stays counted under the rule, though other limits change."""
    rule = Rule(name="one", allow=True, networks=["127.0.0.0/8"], limits=Limits(sessions=1))
    proxy: Proxy = yield serve_as(policy=RulePolicy([rule]))
    dialed: list[Deferred[Any]] = []

    def dial(_: object) -> Deferred[Any]:
        dialed.append(Deferred())
        return dialed[-1]

    monkeypatch.setattr(type(proxy.sessions.context.route), "dial", lambda *_: dial(None))

    def ask() -> int:
        with proxy.connect() as sock:
            return ask5(sock, "127.0.0.1", origin.port)[0]

    asked = proxy.play(ask)
    yield until(lambda: dialed)
    proxy.factory.reconfigure(limits=ServerLimits(server=Limits(sessions=100)))
    assert (yield proxy.play(refused, proxy, origin.port)) == Reply.NOT_ALLOWED
    dialed[0].errback(OSError(errno.ECONNREFUSED, "no"))
    assert (yield asked) == Reply.CONNECTION_REFUSED


# UDP.


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ["engine", "transports"])
async def test_association(kind: str) -> None:
    """An association goes on; each of its destinations is judged anew with its next datagram."""
    async with serving(kind) as proxy:
        with Echo() as one, Echo() as two:

            def begin(proxy: Any) -> Datagrams:
                client = Datagrams(proxy)
                for destination in (one, two):
                    assert client.ask(b"before", destination.address) == b"before"
                return client

            client = await proxy.run(begin)
            rules = [Rule(name="not-one", allow=False, ports=[one.address[1]]), ALL]
            proxy.factory.reconfigure(policy=RulePolicy(rules))

            def go_on(proxy: Any) -> None:
                client.send(b"denied", one.address)
                assert client.ask(b"after", two.address) == b"after"
                client.close()

            await proxy.run(go_on)
            await until(lambda: proxy.records)
            (record,) = proxy.records
            assert record["dropped"] == {"denied": 1}
            assert record["rule"] == "not-one,all"
            assert record["ended"] == "client"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ["engine", "transports"])
async def test_settings_of_udp(kind: str) -> None:
    """An association goes on under new settings, and what begins from then on is as they say."""
    async with serving(kind) as proxy:
        with Echo() as destination:
            old = await proxy.run(Datagrams)
            proxy.factory.reconfigure(udp=UDPSettings(grace=60.0), advertise=["192.0.2.7"])
            assert await proxy.run(lambda _: old.ask(b"?", destination.address)) == b"?"
            old.tcp.close()
            assert await proxy.run(lambda _: old.ask(b"in the grace time", destination.address))
            old.udp.close()
            with await proxy.run(Datagrams) as new:
                assert new.bound.host == "192.0.2.7"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ["engine", "transports"])
async def test_another_shared_port(kind: str) -> None:
    """Associations keep the port that all of their time have, and those that begin later have the new one."""
    ports = []
    for _ in range(2):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    async with serving(kind, udp=UDPSettings(port=ports[0])) as proxy:
        with Echo() as destination:
            clients = []
            for port in ports:
                proxy.factory.reconfigure(udp=UDPSettings(port=port))
                clients.append(await proxy.run(Datagrams))
            assert [client.bound.port for client in clients] == ports
            for client in clients:
                with client:
                    assert await proxy.run(lambda _, client=client: client.ask(b"?", destination.address))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ["engine", "transports"])
async def test_reply_on_its_way(kind: str) -> None:
    """What a destination answers meanwhile is not lost, if the client may still send there."""
    async with serving(kind) as proxy:
        for rules, comes in (([ALL], True), ([Rule(name="nobody", allow=False)], False)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as destination:
                destination.bind(("127.0.0.1", 0))
                destination.settimeout(30)
                proxy.factory.reconfigure(policy=None)

                def ask(proxy: Any, destination: socket.socket = destination) -> tuple[Datagrams, Any]:
                    client = Datagrams(proxy)
                    client.send(b"?", destination.getsockname())
                    return client, destination.recvfrom(100)[1]

                client, source = await proxy.run(ask)
                proxy.factory.reconfigure(policy=RulePolicy(rules))
                destination.sendto(b"!", source)
                if comes:
                    assert (await proxy.run(lambda _, client=client: client.receive()))[1] == b"!"
                else:
                    assert await proxy.run(lambda _, client=client: client.is_silent())
                client.close()


# Users.


@implementer(ICredentialsChecker)
class Passwords:
    """The password of each of *users* is the name."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, *users: bytes) -> None:
        self.users = users

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:  # type: ignore[override]
        if credentials.username not in self.users or credentials.password != credentials.username:
            raise UnauthorizedLogin
        name: bytes = credentials.username
        return succeed(name)

    def knows(self, avatar_id: bytes) -> bool:
        return avatar_id in self.users


@implementer(ICredentialsChecker)
class Mute:
    """Likewise, but it cannot tell without a password."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, *users: bytes) -> None:
        self.requestAvatarId = Passwords(*users).requestAvatarId


@implementer(IRealm)
class Groups:
    """
    A realm of users with groups.

    :param groups: by user; who is not in it may not come in.
    :ivar gone: who has logged out, in order.
    """

    def __init__(self, **groups: list[str]) -> None:
        self.groups = groups
        self.gone: list[str] = []

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
        if avatarId is ANONYMOUS:
            return ISOCKSUser, User(None), lambda: None
        name = name_of(avatarId)
        if name not in self.groups:
            raise UnauthorizedLogin
        return ISOCKSUser, User(name, self.groups[name]), lambda: self.gone.append(name)


def logged_in(proxy: Proxy, name: bytes, port: int) -> socket.socket:
    """A user's connection through the proxy."""
    sock = proxy.connect()
    assert try_to_log_in(sock, name)
    sock.sendall(request5("127.0.0.1", port))
    assert reply5(sock)[0] == 0
    echoes(sock)
    return sock


def try_to_log_in(sock: socket.socket, name: bytes) -> bool:
    sock.sendall(b"\x05\x01\x02")
    if sock.recv(2) != b"\x05\x02":
        return False
    sock.sendall(build_credentials(Credentials(name, name)))
    return sock.recv(2) == b"\x01\x00"


@pytest_twisted.inlineCallbacks
@pytest.mark.parametrize("checkers", [(Passwords, Passwords), (Mute, Passwords)])
def test_user_gone(serve: Serve, origin: Origin, checkers: Any) -> Playing:
    """The session of a user whom nobody knows any more ends; others' go on. Nobody logs in anew."""
    before, after = checkers
    realm = Groups(bob=[], eve=[])
    proxy: Proxy = yield serve(portal=Portal(realm, [before(b"bob", b"eve")]))
    bob = yield proxy.play(logged_in, proxy, b"bob", origin.port)
    eve = yield proxy.play(logged_in, proxy, b"eve", origin.port)
    proxy.factory.reconfigure(portal=Portal(Groups(bob=[], eve=[]), [after(b"bob")]))
    assert (yield proxy.play(ends, eve))
    record = yield proxy.record()
    assert (record["user"], record["ended"]) == ("eve", ENDED)
    yield proxy.play(echoes, bob)
    assert sorted(realm.gone) == ["bob", "eve"]
    for sock in (bob, eve):
        sock.close()


@pytest_twisted.inlineCallbacks
def test_user_whom_nobody_can_tell(serve: Serve, origin: Origin) -> Playing:
    """A checker that cannot tell without a password sends nobody away; a realm may."""
    proxy: Proxy = yield serve(portal=Portal(Groups(bob=[]), [Mute(b"bob")]))
    bob = yield proxy.play(logged_in, proxy, b"bob", origin.port)
    proxy.factory.reconfigure(portal=Portal(Groups(bob=[]), [Mute()]))
    yield proxy.play(echoes, bob)
    proxy.factory.reconfigure(portal=Portal(Groups(), [Mute(b"bob")]))
    assert (yield proxy.play(ends, bob))
    bob.close()


@pytest_twisted.inlineCallbacks
def test_new_groups(serve: Serve, origin: Origin) -> Playing:
    """The rules are asked with the groups that the user has now."""
    staff = RulePolicy([Rule(name="staff", allow=True, groups=["staff"], networks=["127.0.0.0/8"])])
    checker = Passwords(b"bob", b"eve")
    proxy: Proxy = yield serve(policy=staff, portal=Portal(Groups(bob=["staff"], eve=["staff"]), [checker]))
    bob = yield proxy.play(logged_in, proxy, b"bob", origin.port)
    eve = yield proxy.play(logged_in, proxy, b"eve", origin.port)
    proxy.factory.reconfigure(portal=Portal(Groups(bob=["staff"], eve=["guests"]), [checker]))
    assert (yield proxy.play(ends, eve))
    assert (yield proxy.record())["rule"] == "default"
    yield proxy.play(echoes, bob)
    for sock in (bob, eve):
        sock.close()


@pytest_twisted.inlineCallbacks
def test_everybody_is_asked(serve: Serve, origin: Origin) -> Playing:
    """Whom nobody has asked may stay where anonymous clients may, and ends where they may not."""
    proxy: Proxy = yield serve()
    sock = yield proxy.play(connected, proxy, origin.port)
    half = yield proxy.play(proxy.connect)
    yield proxy.play(greet, half)
    realm = Groups(bob=[])
    proxy.factory.reconfigure(portal=Portal(realm, [Passwords(b"bob"), AllowAnonymousAccess()]))
    yield proxy.play(echoes, sock)
    proxy.factory.reconfigure(portal=Portal(realm, [Passwords(b"bob")]))
    assert (yield proxy.play(ends, sock))

    def rest() -> int:
        half.sendall(request5("127.0.0.1", origin.port))
        return reply5(half)[0]

    assert (yield proxy.play(rest)) == Reply.NOT_ALLOWED

    def four() -> int:
        with proxy.connect() as late:
            return ask4(late, "127.0.0.1", origin.port)[0]

    assert (yield proxy.play(four)) == 91
    proxy.factory.reconfigure(portal=None)
    other = yield proxy.play(connected, proxy, origin.port)
    for each in (sock, half, other):
        each.close()


@pytest_twisted.inlineCallbacks
def test_nobody_is_asked_any_more(serve_as: Callable[..., Any], origin: Origin) -> Playing:
    """Then nobody is a user: rules for users allow nothing, and what is for all goes on."""
    users = Rule(name="users", allow=True, authenticated=True, networks=["127.0.0.0/8"])
    realm = Groups(bob=["staff"])
    proxy: Proxy = yield serve_as(portal=Portal(realm, [Passwords(b"bob")]))
    bob = yield proxy.play(logged_in, proxy, b"bob", origin.port)
    proxy.factory.reconfigure(portal=None, policy=RulePolicy([ALL]))
    yield proxy.play(echoes, bob)
    assert realm.gone == ["bob"]
    proxy.factory.reconfigure(policy=RulePolicy([users]))
    assert (yield proxy.play(ends, bob))
    record = yield proxy.record()
    assert (record["ended"], record["rule"], record["method"]) == (ENDED, "default", "password")
    bob.close()


@pytest_twisted.inlineCallbacks
def test_asked_anew(serve_as: Callable[..., Any], origin: Origin) -> Playing:
    """What a client has shown does not count any more when a portal asks again, and no upstream gets it."""
    portal = Portal(Groups(bob=[]), [Passwords(b"bob")])
    ways = {"one": upstream("socks5", closed_port(), login="client")}
    proxy: Proxy = yield serve_as(portal=portal, upstreams=ways)
    bob = yield proxy.play(logged_in, proxy, b"bob", origin.port)
    session = the_session(proxy)
    assert session._shown_credentials() == Credentials(b"bob", b"bob")
    proxy.factory.reconfigure(portal=None)
    yield proxy.play(echoes, bob)
    assert session._shown_credentials() is None
    proxy.factory.reconfigure(portal=portal)
    assert (yield proxy.play(ends, bob))
    bob.close()


@pytest_twisted.inlineCallbacks
def test_twice_while_the_realm_thinks(serve_as: Callable[..., Any], origin: Origin) -> Playing:
    """Whoever has been asked about a client and answers late has nothing to say any more."""

    @implementer(IRealm)
    class Slow(Groups):
        def __init__(self) -> None:
            super().__init__(bob=["staff"])
            self.asked: list[Deferred[Any]] = []

        def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
            self.asked.append(Deferred())
            return self.asked[-1]

    staff = RulePolicy([Rule(name="staff", allow=True, groups=["staff"], networks=["127.0.0.0/8"])])
    proxy: Proxy = yield serve_as(policy=staff, portal=Portal(Groups(bob=["staff"]), [Passwords(b"bob")]))

    def begin() -> socket.socket:
        sock = proxy.connect()
        assert try_to_log_in(sock, b"bob")
        return sock

    sock = yield proxy.play(begin)
    slow = Slow()
    proxy.factory.reconfigure(portal=Portal(slow, [Passwords(b"bob")]))

    def rest() -> int:
        sock.sendall(request5("127.0.0.1", origin.port))
        return reply5(sock)[0]

    answer = proxy.play(rest)
    yield until(lambda: slow.asked)
    proxy.factory.reconfigure(portal=Portal(Groups(bob=["guests"]), [Passwords(b"bob")]))
    slow.asked[0].callback((ISOCKSUser, User("bob", ["staff"]), lambda: None))
    assert (yield answer) == Reply.NOT_ALLOWED
    sock.close()


@implementer(IRealm)
class Broken:
    """A realm that a fault keeps from answering."""

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
        raise ZeroDivisionError("of the embedder")


@pytest_twisted.inlineCallbacks
def test_realm_fails_at_the_request(serve: Serve, origin: Origin) -> Playing:
    """Why a client that has logged in is refused is in the log; a client that is not known is no fault."""
    proxy: Proxy = yield serve(portal=Portal(Groups(bob=[], eve=[]), [Passwords(b"bob", b"eve")]))

    def begin(name: bytes) -> socket.socket:
        sock = proxy.connect()
        assert try_to_log_in(sock, name)
        return sock

    def rest(sock: socket.socket) -> int:
        sock.sendall(request5("127.0.0.1", origin.port))
        return reply5(sock)[0]

    bob, eve = (yield proxy.play(begin, b"bob")), (yield proxy.play(begin, b"eve"))
    proxy.factory.reconfigure(portal=Portal(Broken(), [Passwords(b"bob")]))
    told = "whether it is still permitted cannot be found out"
    with heard() as lines:
        assert (yield proxy.play(rest, bob)) == Reply.NOT_ALLOWED
        assert any(told in line for line in lines), lines
        lines.clear()
        assert (yield proxy.play(rest, eve)) == Reply.NOT_ALLOWED
        assert not any(told in line for line in lines), lines
    for sock in (bob, eve):
        sock.close()


@pytest_twisted.inlineCallbacks
def test_while_logging_in(serve: Serve, origin: Origin) -> Playing:
    """A password that comes after the change is checked by those who know it now."""
    proxy: Proxy = yield serve(portal=Portal(Groups(bob=[]), [Passwords(b"bob")]))

    def half() -> socket.socket:
        sock = proxy.connect()
        sock.sendall(b"\x05\x01\x02")
        assert sock.recv(2) == b"\x05\x02"
        return sock

    sock = yield proxy.play(half)
    proxy.factory.reconfigure(portal=Portal(Groups(bob=[]), [Passwords()]))

    def rest() -> bytes:
        sock.sendall(build_credentials(Credentials(b"bob", b"bob")))
        return sock.recv(2)  # type: ignore[no-any-return]

    assert (yield proxy.play(rest))[1:] != b"\x00"
    sock.close()


@pytest_twisted.inlineCallbacks
def test_user_of_an_association(serve_as: Callable[..., Any]) -> Playing:
    """An association ends with its user."""
    proxy: Proxy = yield serve_as(portal=Portal(Groups(bob=[]), [Passwords(b"bob")]))

    def begin() -> socket.socket:
        sock = proxy.connect()
        assert try_to_log_in(sock, b"bob")
        sock.sendall(request5("0.0.0.0", 0, Command.UDP_ASSOCIATE))
        assert reply5(sock)[0] == 0
        return sock

    sock = yield proxy.play(begin)
    proxy.factory.reconfigure(portal=Portal(Groups(bob=[]), [Passwords(b"eve")]))
    assert (yield proxy.play(ends, sock))
    assert (yield proxy.record())["ended"] == ENDED
    sock.close()


@pytest_twisted.inlineCallbacks
def test_penalties_stay(serve_as: Callable[..., Any]) -> Playing:
    """Whoever is refused for guessing is so after a change, until nobody is refused any more."""
    from socksproxy.auth import AuthSettings

    def portal() -> Portal:
        return Portal(Groups(bob=[]), [Passwords(b"bob")])

    proxy: Proxy = yield serve_as(portal=portal(), auth=AuthSettings(failures=1))

    def log_in(name: bytes) -> bool:
        with proxy.connect() as sock:
            return try_to_log_in(sock, name)

    with heard() as lines:
        assert not (yield proxy.play(log_in, b"eve"))
        proxy.factory.reconfigure(portal=portal())
        assert not (yield proxy.play(log_in, b"bob"))
        assert any("refused unchecked" in line for line in lines)
    proxy.factory.reconfigure(auth=AuthSettings(failures=None))
    assert (yield proxy.play(log_in, b"bob"))


# What cannot be.


@pytest_twisted.inlineCallbacks
def test_nonsense_changes_nothing(serve_as: Callable[..., Any], origin: Origin) -> Playing:
    """A change that makes no sense is none at all."""
    proxy: Proxy = yield serve_as()
    for nonsense in (
        {"engine": not proxy.factory.settings.engine},
        {"outgoing": ["nowhere"]},
        {"advertise": ["nowhere"]},
        {"methods": [object()]},
    ):
        with pytest.raises(ValueError, match=r"."):
            proxy.factory.reconfigure(policy=NOBODY, **nonsense)
    sock = yield proxy.play(connected, proxy, origin.port)
    sock.close()


@pytest_twisted.inlineCallbacks
def test_timeouts(serve_as: Callable[..., Any]) -> Playing:
    """A wait that begins after the change is as long as it says."""
    proxy: Proxy = yield serve_as()
    proxy.factory.reconfigure(timeouts=Timeouts(handshake=0.05))
    sock = yield proxy.play(proxy.connect)
    assert (yield proxy.play(ends, sock))
    assert (yield proxy.record())["ended"] == "handshake timeout"
    sock.close()
