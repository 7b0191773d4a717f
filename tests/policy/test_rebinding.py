"""
Names whose addresses change between look-ups: what is reached is what was judged, in every session anew.

Each command goes by the same rules: here by those on the addresses that come out of a name, and on who comes.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, strategies as st
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from socksproxy import Address, BindSettings, Client, Command, Reply, RulePolicy, UDPSettings
from socksproxy.commands.connect import connect
from socksproxy.errors import ConnectFailed, NotAllowed
from socksproxy.net.resolve import NameLookups
from socksproxy.net.reverse import IReverseResolver
from socksproxy.policy.asking import DestinationCheck
from socksproxy.policy.rules import Rule
from socksproxy.session.permission import Permission
from socksproxy.udp import targets as targets_module
from socksproxy.values import Filtering
from tests.conftest import Serve
from tests.support.hosts import Hosts
from tests.support.origin import Origin, echo
from tests.support.proxy import PATIENCE, Playing, Proxy, ask4, ask5, echoes, reply5
from tests.support.udp import Client as Datagrams, Echo, is_silent, kinds, serving, udp_socket, wait_for

NAME = "host.example"
GOOD, BAD, OTHER = "127.0.0.1", "127.0.0.2", "127.0.0.3"
#: What the name's owner answers, one after the other, and what is left of it.
ANSWERS = [
    ([GOOD], GOOD),
    ([BAD], None),
    ([BAD, GOOD], GOOD),
    ([GOOD, BAD], GOOD),
    ([BAD, BAD], None),
    ([GOOD], GOOD),
]


@implementer(IReverseResolver)
class Rebinding(Hosts):
    """A resolver that gives the next answer each time."""

    def __init__(self, answers: list[list[str]]) -> None:
        super().__init__({})
        self._answers = answers
        self.reversed: list[str] = []

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, *more: Any, **named: Any) -> Any:
        """See :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`."""
        self.hosts[hostName] = list(self._answers[len(self.asked)])
        return super().resolveHostName(resolutionReceiver, hostName, *more, **named)

    def resolveAddress(self, host: str) -> Deferred[str]:
        """See :meth:`socksproxy.net.reverse.IReverseResolver.resolveAddress`."""
        self.reversed.append(host)
        return succeed(NAME)


def rebinding() -> Rebinding:
    return Rebinding([answer for answer, _ in ANSWERS])


def policy(*commands: str) -> RulePolicy:
    return RulePolicy(
        [
            Rule(name="bad", allow=False, networks=[BAD]),
            Rule(name="good", allow=True, names=[NAME], commands=commands or None),
        ]
    )


class Everywhere(Origin):
    """
    Listens on all addresses.

    :ivar reached: those that were connected to, in order.
    """

    def __init__(self) -> None:
        self.reached: list[str] = []
        super().__init__(self._echo, "0.0.0.0")

    def _echo(self, sock: socket.socket) -> None:
        self.reached.append(sock.getsockname()[0])
        echo(sock)


@pytest.fixture
def origin() -> Iterator[Everywhere]:
    origin = Everywhere()
    with origin:
        yield origin


@pytest.mark.parametrize("version", [4, 5])
@pytest_twisted.inlineCallbacks
def test_connect(serve: Serve, origin: Everywhere, version: int) -> Playing:
    """One look-up for each session, and nothing of it that is denied is dialed."""
    clock, hosts = Clock(), rebinding()
    proxy: Proxy = yield serve(policy=policy(), resolver=hosts, clock=clock)

    def outcome() -> int:
        with proxy.connect() as sock:
            code, _ = (ask4 if version == 4 else ask5)(sock, NAME, origin.port)
            if code in (0, 90):
                echoes(sock)
            return code

    yes, no = (90, 91) if version == 4 else (0, Reply.NOT_ALLOWED)
    for number, (_, left) in enumerate(ANSWERS):
        assert (yield proxy.play(outcome)) == (no if left is None else yes)
        record = yield proxy.record(number)
        assert record["rule"] == ("bad" if left is None else "good")
        assert len(hosts.asked) == number + 1
        clock.advance(10)
    assert origin.reached == [left for _, left in ANSWERS if left is not None]


@pytest_twisted.inlineCallbacks
def test_while_it_is_dialed(serve: Serve) -> Playing:
    """When an address refuses, the next one of the same answer is tried, and no other answer is asked for."""
    with socket.socket() as nobody:
        nobody.bind((OTHER, 0))
        port = nobody.getsockname()[1]
        hosts = Rebinding([[OTHER, BAD, "127.0.0.4", "::1"], [BAD], [BAD]])
        proxy: Proxy = yield serve(policy=policy(), resolver=hosts)
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, NAME, port))[0] == Reply.CONNECTION_REFUSED
    assert len(hosts.asked) == 1
    assert (yield proxy.record())["rule"] == "good"


@given(
    st.lists(
        st.sampled_from([GOOD, BAD, OTHER, "::1", "64:ff9b::7f00:2", "::ffff:127.0.0.2", "0.0.0.0"]),
        max_size=7,
    ),
    st.lists(st.sampled_from([GOOD, BAD, OTHER, "::1"]), min_size=1, max_size=3, unique=True),
)
def test_whatever_is_dialed_is_permitted(answer: list[str], denied: list[str]) -> None:
    """Every attempt is to an address that the policy permits, and none of those is left out."""
    clock, client = Clock(), Client("127.0.0.1", 5000)
    rules = RulePolicy(
        [Rule(name="no", allow=False, networks=denied), Rule(name="yes", allow=True, names=[NAME])]
    )
    hosts = Rebinding([answer] + [["127.0.0.9"]] * 9)
    judge = Permission(rules, lambda rule: None)
    dialed: list[Address] = []

    def attempt(address: Address) -> Deferred[Any]:
        dialed.append(address)
        return fail(ConnectFailed("no", Reply.CONNECTION_REFUSED))

    means = DestinationCheck(judge, NameLookups(hosts, clock), clock)
    result: Any = maybeDeferred(connect, means, client, Address.of(NAME, 80), attempt, lambda: None)
    results: list[Any] = []
    result.addErrback(lambda failure: results.append(failure.type))
    clock.pump([1] * 10)
    found = {host.removeprefix("::ffff:") for host in answer}
    permitted = {
        host for host in found if rules.decide(client, Command.CONNECT, Address.of(host, 80), NAME).allowed
    }
    assert {address.host for address in dialed} == permitted
    assert len(hosts.asked) == 1
    if found and not permitted:
        assert results == [NotAllowed]


# BIND.


def meet(place: Address, source: str) -> socket.socket:
    return socket.create_connection((place.host, place.port), PATIENCE, source_address=(source, 0))


def turned_away(place: Address, source: str) -> bool:
    with meet(place, source) as stranger, suppress(ConnectionError):
        return stranger.recv(1) == b""
    return True


@pytest_twisted.inlineCallbacks
def test_bind(serve: Serve) -> Playing:
    """The peer comes from where its name led when it was asked for, and not from where it leads by then."""
    clock, hosts = Clock(), Rebinding([[GOOD], [BAD], [BAD, OTHER], [OTHER]])
    proxy: Proxy = yield serve(policy=policy("bind"), resolver=hosts, clock=clock)

    def come(first: str, peer: str) -> None:
        with proxy.connect() as sock:
            code, place = ask5(sock, NAME, 0, Command.BIND)
            assert code == 0
            asked = len(hosts.asked)
            for stranger in (first, BAD):
                assert turned_away(place, stranger)
            with meet(place, peer):
                code, told = reply5(sock)
                assert (code, told.host) == (0, peer)
            assert len(hosts.asked) == asked

    yield proxy.play(come, OTHER, GOOD)
    clock.advance(10)
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, NAME, 0, Command.BIND))[0] == Reply.NOT_ALLOWED
    clock.advance(10)
    yield proxy.play(come, GOOD, OTHER)
    yield proxy.record(2)
    assert [(record["rule"], record["strangers"]) for record in proxy.records] == [
        ("good", 2),
        ("bad", 0),
        ("good", 2),
    ]


@pytest.mark.parametrize("version", [4, 5])
@pytest_twisted.inlineCallbacks
def test_bind_by_address(serve_as: Serve, version: int) -> Playing:
    """A peer that is named by its address is under the rules for addresses."""
    rules = [Rule(name="other", allow=True, commands=["bind"], networks=[OTHER])]
    proxy: Proxy = yield serve_as(policy=RulePolicy(rules), bind=BindSettings(any_peer=True))
    ask = ask4 if version == 4 else ask5
    yes, no = (90, 91) if version == 4 else (0, Reply.NOT_ALLOWED)
    for number, (host, command, code) in enumerate(
        [(OTHER, Command.BIND, yes), (GOOD, Command.BIND, no), (OTHER, Command.CONNECT, no)]
    ):
        with proxy.connect() as sock:
            assert (yield proxy.play(ask, sock, host, 9, command))[0] == code
        record = yield proxy.record(number)
        assert record["rule"] == ("other" if code == yes else "default")


# UDP.


def datagrams(proxy: Any, hosts: Rebinding) -> None:
    """The trap has the port of the destination, on the address that is denied."""
    with Echo(GOOD) as good, Datagrams(proxy) as client, udp_socket(BAD, good.address[1]) as trap:
        for number, (_, left) in enumerate(ANSWERS):
            payload = b"%d" % number
            client.send(payload, (NAME, good.address[1]))
            wait_for(lambda number=number: len(hosts.asked) == number + 1)  # type: ignore[misc]
            if left is not None:
                assert client.receive()[1] == payload
        assert is_silent(trap)
        assert [data for data, _ in good.seen] == [
            b"%d" % number for number, (_, left) in enumerate(ANSWERS) if left is not None
        ]
        client.close()
        record = proxy.record()
        assert record["dropped"] == {"denied": sum(left is None for _, left in ANSWERS)}
        assert record["rule"] == "good,bad"


@kinds
@pytest_twisted.ensureDeferred
async def test_datagrams(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up again every few seconds, here for each datagram; each answer is judged."""
    monkeypatch.setattr(targets_module, "NAME_LIFETIME", 0.0)
    hosts = rebinding()
    async with serving(kind, policy=policy("associate"), resolver=hosts) as proxy:
        proxy.factory.sessions.context.names._keep = 0
        await proxy.run(datagrams, hosts)


def strangers(proxy: Any) -> None:
    """Who has not been sent to may send all the same, if the rules allow it."""
    with Echo(GOOD) as good, Datagrams(proxy) as client:
        assert client.ask(b"x", good.address) == b"x"
        ours = good.seen[0][1]
        for host, comes in ((OTHER, True), (BAD, False)):
            with udp_socket(host) as stranger:
                stranger.sendto(host.encode(), ours)
                if comes:
                    address, payload = client.receive()
                    assert (address.host, payload) == (host, host.encode())
                else:
                    assert client.is_silent()
        client.close()
        assert proxy.record()["dropped"] == {"filtered": 1}


@kinds
@pytest_twisted.ensureDeferred
async def test_who_may_send(kind: str) -> None:
    rules = RulePolicy([Rule(name="bad", allow=False, networks=[BAD]), Rule(name="rest", allow=True)])
    async with serving(
        kind, policy=rules, udp=UDPSettings(filtering=Filtering.ENDPOINT_INDEPENDENT)
    ) as proxy:
        await proxy.run(strangers)


# RESOLVE and RESOLVE_PTR.


@pytest.mark.parametrize("version", [4, 5])
@pytest_twisted.inlineCallbacks
def test_resolve(serve: Serve, version: int) -> Playing:
    """Only what is permitted is told."""
    clock, hosts = Clock(), rebinding()
    proxy: Proxy = yield serve(policy=policy("resolve"), resolver=hosts, clock=clock)

    def told() -> tuple[int, str]:
        with proxy.connect() as sock:
            code, address = (ask4 if version == 4 else ask5)(sock, NAME, 0, Command.RESOLVE)
            return code, address.host

    yes, no = (90, 91) if version == 4 else (0, Reply.NOT_ALLOWED)
    for number, (_, left) in enumerate(ANSWERS):
        code, host = yield proxy.play(told)
        assert (code, host) == (no, "0.0.0.0") if left is None else (yes, left)
        record = yield proxy.record(number)
        assert (record["command"], record["rule"]) == ("RESOLVE", "bad" if left is None else "good")
        assert record["announced"] == left
        clock.advance(10)


@pytest_twisted.inlineCallbacks
def test_resolve_pointer(serve: Serve) -> Playing:
    """The address is under the rules, and is not looked up where they deny it; its name is not judged."""
    hosts = Rebinding([])
    rules = [
        Rule(name="bad", allow=False, networks=[BAD]),
        Rule(name="good", allow=True, networks=["127.0.0.0/8"], commands=["resolve"]),
        Rule(name="no-name", allow=False, names=[NAME]),
    ]
    proxy: Proxy = yield serve(policy=RulePolicy(rules), resolver=hosts)
    for number, (host, code, rule) in enumerate(
        [(GOOD, 0, "good"), (BAD, Reply.NOT_ALLOWED, "bad"), ("192.0.2.1", Reply.NOT_ALLOWED, "default")]
    ):
        with proxy.connect() as sock:
            reply, told = yield proxy.play(ask5, sock, host, 0, Command.RESOLVE_PTR)
            assert reply == code
            assert code or told.host == NAME
        record = yield proxy.record(number)
        assert (record["command"], record["rule"]) == ("RESOLVE_PTR", rule)
    assert hosts.reversed == [GOOD]
