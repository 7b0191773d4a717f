"""The rules of an association, without sockets and with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.task import Clock
from zope.interface import implementer

from socksproxy import Address, Client, Command, UDPSettings
from socksproxy.events import Cause
from socksproxy.limits.buckets import Meters
from socksproxy.net.resolve import NameLookups
from socksproxy.policy.asking import DestinationCheck
from socksproxy.runtime.deadlines import Deadlines
from socksproxy.udp import targets as module
from socksproxy.udp.association import Association, AssociationContext, Outlet
from socksproxy.udp.reassembly import TIME, Reassembly
from socksproxy.udp.targets import (
    LIFETIME,
    MAX_ASKED,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    NAME_LIFETIME,
    DatagramRoute,
    Target,
)
from socksproxy.values import Filtering
from socksproxy.values.outgoing import Outgoing
from socksproxy.values.timeouts import NEVER
from socksproxy.wire.datagram import build_header

CLIENT = Client("192.0.2.1", 1000)


class Remembering(Outlet):
    """Remembers what it was given."""

    def __init__(self, association: Association) -> None:
        super().__init__(association, None, Outgoing())
        self.sent: list[tuple[tuple[str, int] | None, bytes]] = []
        self.closed = 0

    def send(self, target: Target, payload: bytes | memoryview) -> None:
        self.sent.append((target.sockaddr, bytes(payload)))
        self.association.datagrams_sent += 1

    def close(self) -> None:
        self.closed += 1


class Policy:
    """Permits what is not in *denied*; what is in *late* is answered by hand."""

    def __init__(self) -> None:
        self.denied: set[str] = set()
        self.late: dict[str, list[Deferred[bool]]] = {}
        self.asked: list[Address] = []
        self.canceller: Callable[[Any], None] | None = None

    def permits(self, client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
        assert (client, command) == (CLIENT, Command.UDP_ASSOCIATE)
        self.asked.append(destination)
        if destination.host in self.late:
            answer: Deferred[bool] = Deferred(self.canceller)
            self.late[destination.host].append(answer)
            return answer
        return destination.host not in self.denied


@implementer(IHostnameResolver)
class Resolver:
    """Answers by hand."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Any]] = {}

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, *_: Any, **__: Any) -> Any:
        self.waiting.setdefault(hostName, []).append(resolutionReceiver)

    def answer(self, name: str, *hosts: str) -> None:
        from twisted.internet.address import IPv4Address, IPv6Address

        for receiver in self.waiting.pop(name):
            for host in hosts:
                receiver.addressResolved((IPv6Address if ":" in host else IPv4Address)("TCP", host, 0))
            receiver.resolutionComplete()


def _nobody(association: Association) -> None:
    """Whom it tells, too."""


class World:
    """An association and everything around it."""

    def __init__(self, port: int | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.policy = Policy()
        self.resolver = Resolver()
        names = NameLookups(self.resolver, self.clock)
        reassemblies = Deadlines(self.clock, TIME, Reassembly.clear)
        self.ended: list[Association] = []
        check = DestinationCheck(self.policy, names, self.clock)  # type: ignore[arg-type]
        context = AssociationContext(check, UDPSettings(**settings), reassemblies, _nobody)
        self.association = Association(context, CLIENT, "192.0.2.1", port, self.ended.append)
        self.outlet = self.association.outlet = Remembering(self.association)

    def send(self, host: str, payload: bytes = b"x", port: int = 53, fragment: int = 0) -> None:
        self.association.from_client(build_header(Address.of(host, port), fragment) + payload)

    @property
    def sent(self) -> list[tuple[tuple[str, int] | None, bytes]]:
        sent, self.outlet.sent = self.outlet.sent, []
        return sent

    @property
    def dropped(self) -> dict[str, int]:
        return {reason.value: count for reason, count in self.association.dropped.items()}

    def passes(self, host: str, port: int) -> bool:
        return self.association.header_for((host, port), host, port) is not None


# Headers.


@given(
    st.binary(min_size=3, max_size=40)
    | st.sampled_from([1, 3, 4]).map(lambda t: bytes([0, 0, 0, t]) + bytes(30))
)
def test_any_bytes(data: bytes) -> None:
    """No datagram raises; each is sent, waits, or is counted."""
    world = World()
    world.association.from_client(data)
    fragments = world.association._fragments
    waiting = world.association.targets.waiting + (fragments.pending if fragments else 0)
    assert len(world.outlet.sent) + sum(world.dropped.values()) + waiting == 1


# The latch.


DATAGRAM = build_header(Address.of("198.51.100.1", 53)) + b"x"


@pytest.mark.parametrize("relatch", [False, True])
def test_latch(relatch: bool) -> None:
    world = World(relatch=relatch)
    association = world.association
    assert not association.latch("192.0.2.2", 7, DATAGRAM)
    assert not association.latch("192.0.2.1", 7, b"rubbish")
    assert association.port is None
    assert association.latch("192.0.2.1", 7, DATAGRAM)
    assert association.port == 7
    assert association.latch("192.0.2.1", 7, DATAGRAM)
    assert association.latch("192.0.2.1", 8, DATAGRAM) is relatch
    assert not association.latch("192.0.2.2", 8, DATAGRAM)
    assert association.port == (8 if relatch else 7)


# Destinations.


def test_a_decision_holds_for_a_while() -> None:
    """The policy is asked once, and again when it may have changed its mind."""
    world = World()
    for _ in range(3):
        world.send("198.51.100.1")
    assert len(world.policy.asked) == 1
    assert len(world.sent) == 3
    world.policy.denied.add("198.51.100.1")
    world.clock.advance(LIFETIME - 0.1)
    world.send("198.51.100.1")
    assert len(world.sent) == 1
    world.clock.advance(0.2)
    world.send("198.51.100.1")
    assert world.sent == []
    assert world.dropped == {"denied": 1}
    # What may not be sent there may not come from there either.
    assert not world.passes("198.51.100.1", 53)
    world.policy.denied.clear()
    world.clock.advance(LIFETIME)
    world.send("198.51.100.1")
    assert len(world.sent) == 1
    assert world.passes("198.51.100.1", 53)


def test_a_name_keeps_its_order_and_its_address() -> None:
    world = World()
    for number in range(3):
        world.send("game.test", b"%d" % number)
    world.send("198.51.100.9", b"other")
    assert world.sent == [(("198.51.100.9", 53), b"other")]
    world.resolver.answer("game.test", "198.51.100.1", "198.51.100.2")
    assert world.sent == [(("198.51.100.1", 53), b"%d" % number) for number in range(3)]
    # Looked up again, and the order of the answer changes: a session does not jump.
    world.clock.advance(NAME_LIFETIME)
    world.send("game.test", b"on")
    assert world.sent == [(("198.51.100.1", 53), b"on")], "nothing waits for what is known already"
    world.resolver.answer("game.test", "198.51.100.2", "198.51.100.1")
    world.send("game.test", b"on")
    assert world.sent == [(("198.51.100.1", 53), b"on")]
    # Its address is gone: the new one it is.
    world.clock.advance(NAME_LIFETIME)
    world.send("game.test", b"on")
    world.resolver.answer("game.test", "198.51.100.3")
    assert world.sent == [(("198.51.100.1", 53), b"on")]
    assert not world.passes("198.51.100.1", 53)
    world.send("game.test", b"on")
    assert world.sent == [(("198.51.100.3", 53), b"on")]


def test_every_address_of_a_name_is_checked() -> None:
    """Else a name that leads inside (DNS rebinding) goes where an address may not."""
    world = World()
    world.policy.denied = {"10.0.0.1"}
    world.send("rebind.test", b"1")
    world.resolver.answer("rebind.test", "10.0.0.1")
    world.send("half.test", b"2")
    world.resolver.answer("half.test", "10.0.0.1", "255.255.255.255", "198.51.100.1")
    assert world.sent == [(("198.51.100.1", 53), b"2")]
    assert world.dropped == {"denied": 1}
    world.clock.advance(NAME_LIFETIME)
    world.send("half.test", b"3")
    world.resolver.answer("half.test", "10.0.0.1")
    world.send("half.test", b"4")
    assert world.sent == [(("198.51.100.1", 53), b"3")]


def test_a_name_that_is_not_found() -> None:
    world = World()
    world.send("no.test")
    world.send("no.test")
    world.resolver.answer("no.test")
    world.send("no.test")
    assert world.dropped == {"unresolvable": 3}
    assert world.association.targets.waiting == world.association.targets.asked == 0


def test_a_route_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without IPv6, and a name with both."""
    monkeypatch.setattr(module, "has_route", lambda host, port: ":" not in host)
    world = World()
    world.send("dual.test")
    world.resolver.answer("dual.test", "2001:db8::1", "198.51.100.1")
    assert world.sent == [(("198.51.100.1", 53), b"x")]
    world.send("six.test")
    world.resolver.answer("six.test", "2001:db8::1", "2001:db8::2")
    assert world.sent == [(("2001:db8::1", 53), b"x")]


def test_what_waits_is_bounded() -> None:
    world = World()
    for _ in range(MAX_WAITING + 10):
        world.send("slow.test")
    assert world.dropped == {"overflow": 10}
    world.resolver.answer("slow.test", "198.51.100.1")
    assert len(world.sent) == MAX_WAITING
    for _ in range(10):
        world.send("slow2.test", bytes(MAX_WAITING_BYTES // 4))
    assert world.dropped == {"overflow": 16}
    world.resolver.answer("slow2.test", "198.51.100.1")
    assert (world.association.targets.waiting, world.association.targets.waiting_bytes) == (0, 0)
    for number in range(MAX_ASKED + 5):
        world.send(f"{number}.test", b"")
    assert len(world.resolver.waiting) == MAX_ASKED
    assert world.dropped == {"overflow": 21}


def test_an_answer_that_never_comes() -> None:
    """Else a name that a server is silent about blocks its datagrams for ever."""
    world = World()
    world.send("slow.test", b"1")
    world.clock.advance(LIFETIME)
    world.send("slow.test", b"2")
    assert world.dropped == {"overflow": 1}
    assert world.association.targets.asked == 1
    world.resolver.answer("slow.test", "198.51.100.1")
    assert world.sent == [(("198.51.100.1", 53), b"2")]


def test_a_policy_that_is_late_or_fails() -> None:
    world = World()
    world.policy.late = {"198.51.100.1": [], "198.51.100.2": []}
    world.send("198.51.100.1", b"1")
    world.send("198.51.100.2", b"2")
    world.policy.late["198.51.100.1"][0].callback(True)
    world.policy.late["198.51.100.2"][0].errback(ValueError())
    assert world.sent == [(("198.51.100.1", 53), b"1")]
    assert world.dropped == {"denied": 1}
    # Asked again: what held goes on until it is known better.
    world.clock.advance(LIFETIME)
    world.send("198.51.100.1", b"3")
    assert world.sent == [(("198.51.100.1", 53), b"3")]
    world.policy.late["198.51.100.1"][1].callback(False)
    world.send("198.51.100.1", b"4")
    assert world.sent == []


def test_destinations_are_bounded() -> None:
    """The ones in use stay."""
    world = World(destinations=16)
    for number in range(100):
        world.send("198.51.100.1")
        world.send(f"203.0.113.{number}")
        assert len(world.association.targets.by_header) <= 16
        assert world.passes("198.51.100.1", 53)
    assert len(world.policy.asked) == 101, "the one in use was forgotten"
    assert not world.passes("203.0.113.0", 53)
    assert world.passes("203.0.113.99", 53)


def test_sources_are_bounded() -> None:
    world = World(destinations=16)
    world.send("198.51.100.1")
    for port in range(1, 1000):
        assert world.passes("198.51.100.1", port)
        assert len(world.association.sources) <= 16


# Replies.


@pytest.mark.parametrize("filtering", Filtering)
def test_replies_of_a_rule(filtering: Filtering) -> None:
    """Those from another port of a host that a rule limits are under its limits, too, if they pass at all."""
    world = World(filtering=filtering)
    association = world.association
    given: list[tuple[str, Meters]] = []

    def meters_under(rule: str) -> Meters:
        given.append((rule, Meters()))
        return given[-1][1]

    association.route = lambda address, name: DatagramRoute(
        None, None, None if address.port == 80 else "few", meters_under
    )
    for port in (80, 53, 54):
        world.send("198.51.100.1", port=port)
    world.send("198.51.100.2", port=80)
    assert [rule for rule, _ in given] == ["few"]
    limited = {
        (host, port): association.metering is not None
        and association.metering._of_replies.get(header) is given[0][1]
        for host, port in (
            ("198.51.100.1", 53),
            ("198.51.100.1", 80),
            ("198.51.100.1", 99),
            ("198.51.100.2", 99),
        )
        if (header := association.header_for((host, port), host, port)) is not None
    }
    assert limited.pop(("198.51.100.1", 53))
    assert limited.pop(("198.51.100.1", 99), True)
    assert not any(limited.values())


@pytest.mark.parametrize(
    ("filtering", "port", "host"),
    [
        (Filtering.ENDPOINT_INDEPENDENT, True, True),
        (Filtering.ADDRESS_DEPENDENT, True, False),
        (Filtering.ADDRESS_AND_PORT_DEPENDENT, False, False),
    ],
)
def test_filtering(filtering: Filtering, port: bool, host: bool) -> None:
    world = World(filtering=filtering)
    assert world.passes("198.51.100.1", 53) is (filtering is Filtering.ENDPOINT_INDEPENDENT)
    world.send("198.51.100.1")
    assert world.passes("198.51.100.1", 53)
    assert world.passes("198.51.100.1", 54) is port
    assert world.passes("198.51.100.2", 53) is host
    world.policy.denied = {"198.51.100.3"}
    assert not world.passes("198.51.100.3", 53), "whom one may not send to"
    world.policy.late = {"198.51.100.4": []}
    assert not world.passes("198.51.100.4", 53)
    assert world.passes("198.51.100.1", 53)


def test_headers_of_replies() -> None:
    """ATYP 1 or 4, never 3, and no FRAG."""
    world = World()
    for host in ("198.51.100.1", "2001:db8::1"):
        world.send(host)
        assert world.association.header_for("key", host, 99) == build_header(Address.of(host, 99))
    assert set(world.association.sources) == {"key"}
    world.association.forget_sources()
    assert world.association.sources == {}


# Fragments.


def test_fragments_have_their_time() -> None:
    world = World()
    world.send("198.51.100.1", b"1", fragment=1)
    world.clock.advance(TIME - 0.1)
    world.send("198.51.100.1", b"2", fragment=0x82)
    assert world.sent == [(("198.51.100.1", 53), b"12")]
    world.send("198.51.100.1", b"1", fragment=1)
    world.clock.advance(TIME)
    assert world.dropped == {"fragment": 1}
    assert world.association._fragments is not None
    assert world.association._fragments.pending == 0
    world.send("198.51.100.1", b"2", fragment=0x82)
    assert world.dropped == {"fragment": 2}
    # The time is that of the set, not of its last fragment, and a new set has its own.
    world.send("198.51.100.1", b"1", fragment=1)
    world.clock.advance(TIME - 1)
    world.send("198.51.100.1", b"1", fragment=1)
    world.clock.advance(TIME - 1)
    world.send("198.51.100.1", b"2", fragment=2)
    world.send("198.51.100.1", b"3", fragment=0x83)
    assert world.sent == [(("198.51.100.1", 53), b"123")]


# Life.


def test_idle() -> None:
    world = World(idle=100.0)
    assert not world.association.is_idle(99.0)
    world.send("198.51.100.1")
    assert not world.association.is_idle(150.0)
    assert not world.association.is_idle(249.0)
    world.association.datagrams_received += 1
    assert not world.association.is_idle(260.0)
    assert world.association.is_idle(360.0)
    assert not World(idle=NEVER).association.is_idle(1e9)


def test_the_end() -> None:
    """Everything that waits is let go, and nothing comes of it later."""
    world = World()
    association = world.association
    world.send("slow.test")
    world.send("198.51.100.1", b"1", fragment=1)
    association.abort(Cause.IDLE)
    association.abort()
    assert world.ended == [association]
    assert association.how is Cause.IDLE
    assert world.outlet.closed == 1
    assert world.dropped == {"fragment": 1, "overflow": 1}
    world.resolver.answer("slow.test", "198.51.100.1")
    assert world.sent == []
    world.clock.advance(1000)
    assert not world.clock.getDelayedCalls()


def _cannot(_: object) -> None:
    raise ZeroDivisionError("a fault in a canceller")


def test_the_end_with_a_policy_that_cannot_be_cancelled() -> None:
    """A policy's own fault keeps no socket open, and what it says later is nobody's."""
    world = World()
    world.policy.late = {"198.51.100.1": [], "198.51.100.2": []}
    world.policy.canceller = _cannot
    world.send("198.51.100.1", b"1")
    world.send("198.51.100.2", b"2")
    world.association.abort()
    assert world.ended == [world.association]
    assert world.outlet.closed == 1
    for (answer,) in world.policy.late.values():
        answer.callback(True)
    assert world.association.targets._contacts == {}
    assert world.sent == []


def test_filtering_by_a_policy_that_cannot_be_cancelled() -> None:
    """A stranger's datagram is dropped, and costs nothing else."""
    world = World(filtering=Filtering.ENDPOINT_INDEPENDENT)
    world.policy.late = {"198.51.100.1": []}
    world.policy.canceller = _cannot
    assert not world.passes("198.51.100.1", 53)
    assert world.dropped == {"filtered": 1}
