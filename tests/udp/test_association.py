"""The rules of an association, without sockets and with a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from socksproxy import Address
from socksproxy.events import Cause
from socksproxy.limits.buckets import Meters
from socksproxy.udp.reassembly import TIME
from socksproxy.udp.targets import (
    DatagramRoute,
)
from socksproxy.values import Filtering
from socksproxy.values.timeouts import NEVER
from socksproxy.wire.datagram import build_header

from ..support.association import DATAGRAM, World

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
