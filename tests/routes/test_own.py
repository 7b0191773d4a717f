"""Ways out of an embedder's own, and the example of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import fail
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksproxy import Address, SOCKSError, SOCKSFactory
from socksproxy.errors import NotAllowed
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.routes import ICommandsRoute, IRoute, Pool, UpstreamRoute
from socksproxy.routes.direct import DirectUpstream
from socksproxy.settings import ServerSettings
from socksproxy.values.errors import ConfigError
from socksproxy.values.pools import UpstreamPool
from socksproxy.wire.words import Command

from ..conftest import Serve
from ..support.hosts import Both, Hosts
from ..support.logs import heard
from ..support.modules import module_at
from ..support.origin import Origin, echo
from ..support.pools import pooled
from ..support.proxy import Playing, Proxy, ask5, closed_port, reactor, until
from ..support.scripted_proxy import SUCCESS5, ScriptedProxy, open5
from ..support.upstreams import upstream

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as there:
        yield there


@implementer(IRoute)
class Scripted:
    """A way out that does what *answer* says. :ivar asked: the destinations, and who has asked."""

    via = None

    def __init__(self, answer: Any, resolves: bool = True) -> None:
        self.resolves = resolves
        self.answer = answer
        self.asked: list[Any] = []

    def dial(self, address: Address, engine: bool, trail: Any = None) -> Any:
        self.asked.append((str(address), trail.asker().client))
        return self.answer(address, engine, trail)


def asked(proxy: Proxy, host: str, port: int, command: int = Command.CONNECT) -> int:
    with proxy.connect() as sock:
        return ask5(sock, host, port, command)[0]


@pytest_twisted.inlineCallbacks
def test_example(serve_as: Serve, origin: Origin) -> Playing:
    """``docs/examples/own_route.py``: directly, by the pool, and not at all; for other commands, too."""
    there = yield ScriptedProxy(*open5(SUCCESS5)).start()
    module = module_at(EXAMPLES / "own_route.py")
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    made = module.make_factory(reactor, [f"127.0.0.1:{there.port}"], resolver=hosts)
    proxy: Proxy = yield serve_as(
        resolver=hosts,
        upstreams=made.settings.upstreams,
        pools=made.settings.pools,
        routes=made.settings.routes,
        via=made.settings.via,
    )
    made.settings.routes["country"].factory = proxy.factory
    hosts_and_replies = (("127.0.0.1", 0), ("www.example", 0), ("192.0.2.1", 0), ("127.0.0.3", 1))
    for number, (host, reply) in enumerate(hosts_and_replies):
        assert (yield proxy.play(asked, proxy, host, origin.port)) == reply
        yield proxy.record(number)
    assert len(origin.peers) == 2
    assert len(there.ends) == 1
    assert [record["via"] for record in proxy.records] == ["by country", "by country", "exit0", "by country"]
    assert "no connection leaves for this country" in proxy.records[3]["ended"]
    assert (yield proxy.play(others, proxy)) == [0, 0, 0, 7]
    assert len(there.ends) == 2
    assert (yield proxy.play(asked, proxy, "127.0.0.3", 0, Command.BIND)) == 1
    assert (yield proxy.play(asked, proxy, "192.0.2.1", 0, Command.BIND)) == 7
    yield there.stop()


@pytest.mark.parametrize("kind", ["accepted", "transports"])
@pytest_twisted.inlineCallbacks
def test_by_rule(serve_as: Serve, origin: Origin, kind: str) -> Playing:
    """A rule names it; names come as names; it knows who asks, and can lead on by any other way."""
    hosts = Hosts({})
    there = yield ScriptedProxy(*open5(SUCCESS5, request=18)).start()
    route = Scripted(lambda *question: proxy.factory.way("m0").dial(*question))
    rules = RulePolicy([Rule(name="all", allow=True, via="mine")])
    options = {**pooled(there.port), "via": None}
    proxy: Proxy = yield serve_as(kind, routes={"mine": route}, policy=rules, resolver=hosts, **options)
    assert (yield proxy.play(asked, proxy, "www.example", 80)) == 0
    assert route.asked == [("www.example:80", "127.0.0.1")]
    assert hosts.asked == []
    record = yield proxy.record()
    assert (record["via"], record["tries"], record["upstream_reply"]) == ("mine", 1, 0)
    yield until(lambda: not any(each.sessions for each in proxy.factory.context.ways.counters.values()))
    yield there.stop()


@pytest_twisted.inlineCallbacks
def test_failures(serve_as: Serve, origin: Origin) -> Playing:
    """e 19: whatever it does wrong, the connection fails; its own errors have their replies."""

    def broken(*question: Any) -> Any:
        raise ValueError("hunter2")

    def refuses(*question: Any) -> Any:
        raise SOCKSError("not today")

    for answer, reply, lines in (
        (broken, 1, True),
        (refuses, 1, False),
        (lambda *question: fail(NotAllowed("no")), 2, False),
        (lambda *question: fail(ConnectionRefusedError(111, "refused")), 5, False),
    ):
        proxy: Proxy = yield serve_as(routes={"mine": Scripted(answer)}, via="mine")
        with heard() as told:
            assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == reply
        assert any("Traceback" in line for line in told) is lines
    for command in (Command.BIND, Command.UDP_ASSOCIATE, Command.RESOLVE):
        assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port, command)) == 7
    assert origin.peers == []


@pytest.mark.parametrize("command", [Command.BIND, Command.UDP_ASSOCIATE, Command.RESOLVE])
@pytest_twisted.inlineCallbacks
def test_other_commands(serve_as: Serve, command: Command) -> Playing:
    """They get reply 7 with a reason, and are never served from here."""
    own = Scripted(lambda *_: fail(NotAllowed("not asked")))
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    proxy: Proxy = yield serve_as(routes={"own": own}, via="own", resolver=hosts)
    assert (yield proxy.play(asked, proxy, "www.example", 80, command)) == 7
    record = yield proxy.record()
    assert record["ended"] == f"refused: own does not carry {command.name}"
    assert (own.asked, hosts.asked) == ([], [])


@implementer(ICommandsRoute)
class Leading(Scripted):
    """A way out that leads all commands on by another one."""

    def __init__(self, name: str, commands: frozenset[Command] = frozenset(Command)) -> None:
        super().__init__(lambda *question: self.way.dial(*question))
        self.name = name
        self.commands = commands
        self.factory: Any = None

    @property
    def way(self) -> Any:
        return self.factory.way(self.name)

    def carries(self, command: Command) -> bool:
        return command in self.commands

    def associate(self, trail: Any) -> Any:
        self.asked.append(("UDP_ASSOCIATE", trail.asker().client))
        return self.way.associate(trail)

    def bind(self, peer: Address, engine: bool, trail: Any, listen: Any) -> Any:
        self.asked.append((f"BIND {peer.host}", trail.asker().client))
        return self.way.bind(peer, engine, trail, listen)

    def resolve(self, command: Command, destination: Address, trail: Any) -> Any:
        self.asked.append((f"{command.name} {destination.host}", trail.asker().client))
        return self.way.resolve(command, destination, trail)


OTHERS = (
    (Command.BIND, "127.0.0.1"),
    (Command.UDP_ASSOCIATE, "0.0.0.0"),
    (Command.RESOLVE, "www.example"),
    (Command.RESOLVE_PTR, "192.0.2.77"),
)


def others(proxy: Proxy) -> list[int]:
    """The replies to all other commands."""
    return [asked(proxy, host, 0, command) for command, host in OTHERS]


@pytest.mark.parametrize(("name", "replies"), [("m0", [0, 0, 0, 0]), ("eu", [7, 0, 7, 7]), ("lost", 4 * [1])])
@pytest_twisted.inlineCallbacks
def test_leads_all_commands_on(serve_as: Serve, name: str, replies: list[int]) -> Playing:
    """It is asked for each command, and leads on by the ways that carry the command."""
    there = Both({"www.example": ["198.51.100.7"]}, {"192.0.2.77": "back.example"})
    exit_: Proxy = yield serve_as(resolver=there)
    here, own = Hosts({}), Leading(name)
    port = exit_.address[1]
    ways = {"m0": upstream("socks5", port, bind=True, resolve_commands=True), "m1": upstream("socks5", port)}
    pools = {"eu": UpstreamPool(members=["m1"])}
    options = {"upstreams": ways, "pools": pools, "routes": {"own": own}, "via": "own", "resolver": here}
    proxy: Proxy = yield serve_as(**options)
    own.factory = proxy.factory
    told = yield proxy.play(others, proxy)
    assert told == replies
    questions = ["BIND 127.0.0.1", "UDP_ASSOCIATE", "RESOLVE www.example", "RESOLVE_PTR 192.0.2.77"]
    assert own.asked == [(question, "127.0.0.1") for question in questions]
    assert here.asked == []


@pytest_twisted.inlineCallbacks
def test_carries_some(serve_as: Serve, origin: Origin) -> Playing:
    """What it does not carry gets reply 7, also a BIND after a connection by an upstream that carries it."""
    exit_: Proxy = yield serve_as()
    own = Leading("m0", frozenset({Command.UDP_ASSOCIATE}))
    ways = {"m0": upstream("socks5", exit_.address[1], bind=True)}
    proxy: Proxy = yield serve_as(upstreams=ways, routes={"own": own}, via="own", resolver=Hosts({}))
    own.factory = proxy.factory
    assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == 0
    assert (yield proxy.play(others, proxy)) == [7, 0, 7, 7]


@pytest_twisted.inlineCallbacks
def test_commands_of_a_broken_route(serve_as: Serve) -> Playing:
    """e 19: errors of its own are failures, with a traceback in the log."""
    own = Leading("m0")  # without a factory
    proxy: Proxy = yield serve_as(routes={"own": own}, via="own", resolver=Hosts({}))
    with heard() as lines:
        told = yield proxy.play(others, proxy)
    assert told == 4 * [1]
    assert sum("Traceback" in line for line in lines) == 4
    own.commands = None  # type: ignore[assignment]
    with heard() as lines:
        assert (yield proxy.play(asked, proxy, "127.0.0.1", 0, Command.BIND)) == 7
    assert sum("Traceback" in line for line in lines) >= 1


@pytest_twisted.inlineCallbacks
def test_datagrams_of_the_direct_way(serve_as: Serve) -> Playing:
    """The direct way carries all commands for a route of an embedder's own."""
    hosts = Both({"www.example": ["127.0.0.1"]}, {"192.0.2.77": "back.example"})
    own = Leading("direct")
    own.resolves = False
    proxy: Proxy = yield serve_as(routes={"own": own}, via="own", resolver=hosts)
    own.factory = proxy.factory
    assert (yield proxy.play(others, proxy)) == [0, 0, 0, 0]


def test_mistakes() -> None:
    """Its name is no other way's, and it provides the interface."""
    route = Scripted(None)
    one = {"one": upstream("socks5", 1)}
    with pytest.raises(ConfigError, match="an upstream or a pool has the name one, too"):
        ServerSettings(upstreams=one, routes={"one": route})
    with pytest.raises(ConfigError, match="another name"):
        ServerSettings(routes={"direct": route})
    with pytest.raises(ConfigError, match="does not provide IRoute"):
        ServerSettings(routes={"mine": object()})
    assert ServerSettings(routes={"mine": route}, via="mine").via == "mine"


def test_ready_made() -> None:
    """The server's own ways provide the interface."""
    factory = SOCKSFactory(reactor, **pooled(closed_port()))
    ways = [factory.way(name) for name in ("direct", "m0", "eu", "lost")]
    assert [type(way) for way in ways[:3]] == [DirectUpstream, UpstreamRoute, Pool]
    for way in [*ways, Leading("m0"), module_at(EXAMPLES / "own_route.py").ByCountry()]:
        assert verifyObject(ICommandsRoute, way)
    assert verifyObject(IRoute, Scripted(None))
