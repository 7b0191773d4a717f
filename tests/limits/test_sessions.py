"""Limits in a server: who is refused, what the client is told, and what is left when sessions end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.threads import blockingCallFromThread

from socksproxy import BindSettings, Reply, Rule, RulePolicy
from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.limits.account import ASSOCIATIONS, BINDS, Scope
from socksproxy.values.limits import UNLIMITED
from socksproxy.wire.words import Command
from tests.conftest import Serve
from tests.support.bind import begun, bind, meet, second, turned_away
from tests.support.limits import had
from tests.support.logs import heard
from tests.support.origin import Origin, echo
from tests.support.proxy import (
    Playing,
    Proxy,
    ask4,
    ask5,
    ask_as,
    echoes,
    greet,
    reactor,
    reply5,
    request5,
    until,
)
from tests.support.sessions import Stuck
from tests.support.udp import Client as Datagrams, Echo, Refused, serving, wait_for
from tests.support.users import portal_of

ALL = Rule(name="all", allow=True, networks=["0.0.0.0/0", "::/0"])


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


@pytest_twisted.inlineCallbacks
def test_user(serve: Serve, origin: Origin) -> Playing:
    """Of one user, wherever they are; the reply is truthful, and the log has one line however often it is."""
    portal = portal_of(bob=Limits(sessions=1), ann=None)
    proxy: Proxy = yield serve(portal=portal, limits=ServerLimits(user=Limits(sessions=2)))
    with heard() as lines, proxy.connect() as first, proxy.connect() as second, proxy.connect() as third:
        assert (yield proxy.play(ask_as, first, b"bob", origin.port)) == 0
        for number in range(3):
            with proxy.connect() as refused:
                assert (yield proxy.play(ask_as, refused, b"bob", origin.port)) == Reply.NOT_ALLOWED
            record = yield proxy.record(number)
            assert record["ended"] == "refused: too many sessions of user bob"
        for other in (second, third):
            assert (yield proxy.play(ask_as, other, b"ann", origin.port)) == 0
        with proxy.connect() as refused:
            assert (yield proxy.play(ask_as, refused, b"ann", origin.port)) == Reply.NOT_ALLOWED
        assert had(proxy.sessions.context.ledger, Scope.USER, "bob") == 1
        assert had(proxy.sessions.context.ledger, Scope.USER, "ann") == 2
    yield until(lambda: not proxy.sessions.live)
    assert [line for line in lines if "too many" in line] == [
        "too many sessions of user bob: 1 refused since the last such line",
        "too many sessions of user ann: 1 refused since the last such line",
    ]
    with proxy.connect() as again:
        assert (yield proxy.play(ask_as, again, b"bob", origin.port)) == 0


@pytest.mark.parametrize(("ask", "served", "refused"), [(ask5, 0, 2), (ask4, 90, 91)])
@pytest_twisted.inlineCallbacks
def test_rule(serve: Serve, origin: Origin, ask: Any, served: int, refused: int) -> Playing:
    """Of all sessions under a rule; those under another are not concerned."""
    with Origin(echo) as other:
        rules = [
            Rule(name="few", allow=True, ports=[origin.port], limits=Limits(sessions=1)),
            Rule(name="many", allow=True),
        ]
        proxy: Proxy = yield serve(policy=RulePolicy(rules))
        with proxy.connect() as first, proxy.connect() as second:
            assert (yield proxy.play(ask, first, "127.0.0.1", origin.port))[0] == served
            assert (yield proxy.play(ask, second, "127.0.0.1", origin.port))[0] == refused
            second.close()
            record = yield proxy.record()
            assert (record["rule"], record["ended"]) == ("few", "refused: too many sessions of rule few")
            with proxy.connect() as third:
                assert (yield proxy.play(ask, third, "127.0.0.1", other.port))[0] == served
            yield proxy.play(echoes, first)
        yield until(lambda: not proxy.sessions.live)
        assert len(proxy.sessions.context.ledger) == 0
        with proxy.connect() as again:
            assert (yield proxy.play(ask, again, "127.0.0.1", origin.port))[0] == served


@pytest_twisted.inlineCallbacks
def test_users_of_a_rule(serve: Serve, origin: Origin) -> Playing:
    """Each user has the limit under the rule; a client without a name counts by its address."""
    with Origin(echo) as other:
        few = Rule(name="few", allow=True, ports=[origin.port], user_limits=Limits(sessions=1))
        rules = [attrs.evolve(few, limits=Limits(sessions=3)), Rule(name="many", allow=True)]
        portal = portal_of(bob=None, ann=None, **{"bob 2": None})
        proxy: Proxy = yield serve(policy=RulePolicy(rules), portal=portal)
        ledger = proxy.sessions.context.ledger
        with ExitStack() as stack:
            socks = [stack.enter_context(proxy.connect()) for _ in range(5)]
            for sock, user, port, reply in (
                (socks[0], b"bob", origin.port, 0),
                (socks[1], b"ann", origin.port, 0),
                (socks[2], b"bob", origin.port, Reply.NOT_ALLOWED),
                (socks[3], b"bob", other.port, 0),
                (socks[4], b"bob 2", origin.port, 0),
            ):
                assert (yield proxy.play(ask_as, sock, user, port)) == reply
            socks[2].close()
            record = yield proxy.record()
            assert record["ended"] == "refused: too many sessions of rule few user bob"
            assert had(ledger, Scope.RULE_USER, "few user bob") == 1
            proxy.factory.reconfigure(limits=ServerLimits(server=Limits(sessions=9)))
            assert had(ledger, Scope.RULE_USER, "few user bob") == 1
            new = RulePolicy([attrs.evolve(few, name="new", user_limits=Limits(sessions=1)), rules[1]])
            proxy.factory.reconfigure(policy=new)
            assert had(ledger, Scope.RULE_USER, "new user bob") == 1
            assert had(ledger, Scope.RULE_USER, "few user bob") == 0
        yield until(lambda: not proxy.sessions.live)
        assert len(ledger) == 0


@pytest_twisted.inlineCallbacks
def test_devices(serve_as: Serve, origin: Origin) -> Playing:
    """As many addresses at once as a user may have, with any number of sessions each."""
    portal = portal_of(bob=Limits(devices=2), ann=Limits(devices=UNLIMITED))
    proxy: Proxy = yield serve_as(portal=portal, limits=ServerLimits(user=Limits(devices=1)))
    with ExitStack() as stack:

        def come(user: bytes, host: str) -> int:
            sock = socket.create_connection(proxy.address, source_address=(host, 0))
            return ask_as(stack.enter_context(sock), user, origin.port)

        for _ in range(2):
            assert (yield proxy.play(come, b"bob", "127.0.0.2")) == 0
        for user, host, reply in (
            (b"bob", "127.0.0.3", 0),
            (b"bob", "127.0.0.4", Reply.NOT_ALLOWED),
            (b"bob", "127.0.0.2", 0),
            (b"ann", "127.0.0.4", 0),
            (b"ann", "127.0.0.5", 0),
        ):
            assert (yield proxy.play(come, user, host)) == reply
            if reply:
                record = yield proxy.record()
                assert record["ended"] == "refused: too many client addresses of user bob"
        proxy.factory.reconfigure(limits=ServerLimits(server=Limits(sessions=90)))
        assert (yield proxy.play(come, b"bob", "127.0.0.4")) == Reply.NOT_ALLOWED
    yield until(lambda: not proxy.sessions.live)
    assert len(proxy.sessions.context.ledger) == 0
    with socket.create_connection(proxy.address, source_address=("127.0.0.4", 0)) as again:
        assert (yield proxy.play(ask_as, again, b"bob", origin.port)) == 0


@pytest_twisted.inlineCallbacks
def test_clients_of_a_rule(serve: Serve, origin: Origin) -> Playing:
    """A client without a name counts by its address."""
    rule = Rule(name="few", allow=True, user_limits=Limits(sessions=1))
    proxy: Proxy = yield serve(policy=RulePolicy([rule]))
    with proxy.connect() as first, proxy.connect() as second:
        assert (yield proxy.play(ask5, first, "127.0.0.1", origin.port))[0] == 0
        assert had(proxy.sessions.context.ledger, Scope.RULE_USER, "few client 127.0.0.1") == 1
        assert (yield proxy.play(ask5, second, "127.0.0.1", origin.port))[0] == Reply.NOT_ALLOWED


@pytest_twisted.inlineCallbacks
def test_new_sessions(serve: Serve, origin: Origin) -> Playing:
    """What begins too soon is told so."""
    limits = ServerLimits(network=Limits(new_sessions=Rate(0.001, 2)))
    proxy: Proxy = yield serve(limits=limits)
    codes = []
    # The first client of a port may have come before.
    for _ in range(3):
        with proxy.connect() as sock:
            code, _ = yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            codes.append(code)
    assert codes[-1] == Reply.NOT_ALLOWED
    assert codes == sorted(codes)
    assert 0 in codes
    yield until(lambda: not proxy.sessions.live)
    assert proxy.sessions.context.ledger.refusing == 0


@pytest_twisted.inlineCallbacks
def test_new_sessions_of_all(serve: Serve, origin: Origin) -> Playing:
    """A client whose address is known later, from a balancer, has begun only once."""
    proxy: Proxy = yield serve(limits=ServerLimits(server=Limits(new_sessions=Rate(0.001, 4))))
    codes = []
    for _ in range(5):
        with proxy.connect() as sock:
            code, _ = yield proxy.play(ask5, sock, "127.0.0.1", origin.port)
            codes.append(code)
    assert codes == sorted(codes)
    # The first client of a port may have come before.
    assert codes.count(0) in (3, 4)


@pytest_twisted.inlineCallbacks
def test_binds_at_once(serve: Serve) -> Playing:
    """A BIND counts as long as it waits; then its session is one like any other."""
    proxy: Proxy = yield serve(limits=ServerLimits(client=Limits(binds=1)))

    def bound(sock: socket.socket) -> tuple[int, Any]:
        return ask5(sock, "127.0.0.1", 0, Command.BIND)

    with proxy.connect() as first, proxy.connect() as second, proxy.connect() as third:
        code, place = yield proxy.play(bound, first)
        assert code == 0
        code, _ = yield proxy.play(bound, second)
        assert code == Reply.NOT_ALLOWED
        second.close()
        record = yield proxy.record()
        assert record["ended"] == "refused: too many BINDs of client 127.0.0.1"
        assert had(proxy.sessions.context.ledger, Scope.CLIENT, "127.0.0.1", BINDS) == 1
        with socket.create_connection((place.host, place.port)):
            assert (yield proxy.play(reply5, first))[0] == 0
            assert had(proxy.sessions.context.ledger, Scope.CLIENT, "127.0.0.1", BINDS) == 0
            code, _ = yield proxy.play(bound, third)
            assert code == 0


def associations(proxy: Any) -> None:
    ledger = proxy.factory.sessions.context.ledger
    with Echo() as destination, Datagrams(proxy) as client:
        assert client.ask(b"x", destination.address) == b"x"
        assert had(ledger, Scope.NETWORK, "127.0.0.0/24", ASSOCIATIONS) == 1
        with pytest.raises(Refused) as caught:
            Datagrams(proxy)
        assert caught.value.args == (Reply.NOT_ALLOWED,)
        client.close()
        wait_for(lambda: len(proxy.records) == 2)
        assert proxy.records[0]["ended"] == "refused: too many associations of network 127.0.0.0/24"
        assert had(ledger, Scope.NETWORK, "127.0.0.0/24", ASSOCIATIONS) == 0


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.ensureDeferred
async def test_associations_at_once(kind: str) -> None:
    limits = ServerLimits(network=Limits(associations=1))
    async with serving(kind, limits=limits) as proxy:
        await proxy.run(associations)


@pytest_twisted.inlineCallbacks
def test_rule_of_a_name(serve: Serve, origin: Origin) -> Playing:
    """What a name's addresses have in common is the name's rule, and it counts the session once."""
    from tests.support.hosts import Hosts

    hosts = Hosts({"host.example": ["127.0.0.1", "127.0.0.2"]})
    rules = [Rule(name="named", allow=True, names=["host.example"], limits=Limits(sessions=1))]
    proxy: Proxy = yield serve(policy=RulePolicy(rules), resolver=hosts)
    with proxy.connect() as first, proxy.connect() as second:
        assert (yield proxy.play(ask5, first, "host.example", origin.port))[0] == 0
        assert had(proxy.sessions.context.ledger, Scope.RULE, "named") == 1
        assert (yield proxy.play(ask5, second, "host.example", origin.port))[0] == Reply.NOT_ALLOWED


def goes_on_under_its_rule(proxy: Any) -> None:
    ledger = proxy.factory.sessions.context.ledger
    with Echo() as destination, Datagrams(proxy) as client:
        assert client.ask(b"x", destination.address) == b"x"
        assert had(ledger, Scope.RULE, "few") == 1
        for limits in (ServerLimits(server=Limits(sessions=9)), ServerLimits()):
            blockingCallFromThread(reactor, proxy.factory.reconfigure, limits=limits)
            assert had(ledger, Scope.RULE, "few") == 1
        assert client.ask(b"y", destination.address) == b"y"
        proxy.factory.reconfigure(
            policy=RulePolicy([Rule(name="new", allow=True, limits=Limits(sessions=1))])
        )
        assert client.ask(b"z", destination.address) == b"z"
        assert (had(ledger, Scope.RULE, "few"), had(ledger, Scope.RULE, "new")) == (0, 1)
        client.close()
        proxy.record()
        assert len(ledger) == 0


@pytest.mark.parametrize("kind", ["engine", "transports"])
@pytest_twisted.ensureDeferred
async def test_association_when_limits_change(kind: str) -> None:
    """It counts under its rules for as long as these hold, and then under those that hold now."""
    policy = RulePolicy([Rule(name="few", allow=True, limits=Limits(sessions=1))])
    async with serving(kind, policy=policy) as proxy:
        await proxy.run(goes_on_under_its_rule)


FEW = Rule(name="few", allow=True, limits=Limits(sessions=5, download=Rate(1e6)))


@pytest_twisted.inlineCallbacks
def test_bind_when_limits_change(serve: Serve) -> Playing:
    """Who waits for a peer is under its rule, and is when the peer has come; a new policy's rule as well."""
    proxy: Proxy = yield serve(policy=RulePolicy([FEW]))

    def begin() -> tuple[socket.socket, Any]:
        sock = proxy.connect()
        code, address = bind(sock, 5, "127.0.0.1")
        assert code == 0
        return sock, address

    def come(sock: socket.socket, address: Any) -> socket.socket:
        peer = meet(address)
        assert second(sock, 5)[0] == 0
        return peer

    other = RulePolicy([attrs.evolve(FEW, name="other")])
    ledger = proxy.sessions.context.ledger
    for rule, changes in (("few", {"limits": ServerLimits()}), ("other", {"policy": other})):
        sock, address = yield proxy.play(begin)
        proxy.factory.reconfigure(**changes)
        assert had(ledger, Scope.RULE, rule) == 1
        peer = yield proxy.play(come, sock, address)
        assert had(ledger, Scope.RULE, rule) == 1
        (session,) = proxy.sessions.live
        service: Any = session.service
        assert service._relay.destination.meter is not None
        sock.close()
        peer.close()
        yield until(lambda: not proxy.sessions.live)
        assert len(ledger) == 0


@pytest_twisted.inlineCallbacks
def test_whoever_comes_is_counted(serve: Serve) -> Playing:
    """Who comes to a BIND that is open to all is counted under a rule that was not there when it began."""
    proxy: Proxy = yield serve(policy=RulePolicy([ALL]), bind=BindSettings(any_peer=True))

    sock, address = yield proxy.play(begun, proxy, "0.0.0.0")
    none = attrs.evolve(FEW, networks=["127.0.0.1"], limits=Limits(sessions=0))
    proxy.factory.reconfigure(policy=RulePolicy([none, attrs.evolve(FEW, name="other"), ALL]))

    def come() -> socket.socket:
        with meet(address, "127.0.0.1") as denied:
            assert turned_away(denied)
        peer = meet(address, "127.0.0.2")
        assert second(sock, 5)[0] == 0
        return peer

    peer = yield proxy.play(come)
    assert had(proxy.sessions.context.ledger, Scope.RULE, "other") == 1
    sock.close()
    peer.close()


@pytest_twisted.inlineCallbacks
def test_limits_change_while_dialing(serve: Serve) -> Playing:
    """A connection that is being made stays under its rule."""
    with Stuck() as stuck:
        proxy: Proxy = yield serve(policy=RulePolicy([FEW]))
        ledger = proxy.sessions.context.ledger
        with proxy.connect() as sock:
            yield proxy.play(greet, sock)
            sock.sendall(request5("127.0.0.1", stuck.port))
            yield until(lambda: had(ledger, Scope.RULE, "few") == 1)
            proxy.factory.reconfigure(limits=ServerLimits(server=Limits(sessions=9)))
            assert had(ledger, Scope.RULE, "few") == 1
    yield until(lambda: not proxy.sessions.live)
    assert len(ledger) == 0
