"""The rules of an association, without sockets and with a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from socksproxy.events import Cause
from socksproxy.net.sockets import NewSocket
from socksproxy.udp.association import Association, Outlet
from socksproxy.udp.reassembly import TIME
from socksproxy.udp.targets import DatagramRoute
from socksproxy.values import Filtering
from socksproxy.values.outgoing import Outgoing
from socksproxy.values.timeouts import NEVER

from ..support.association import CLIENT, DATAGRAM, World

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


class Ports(Outlet):
    """Opens ports that only tell whether they are closed."""

    def __init__(self, association: Association) -> None:
        super().__init__(association, None, Outgoing())
        self.opened: list[Port] = []

    def open(self, host: str, new_socket: NewSocket | None = None) -> Port:
        self.opened.append(Port(host))
        return self.opened[-1]

    @property
    def left(self) -> list[str]:
        """The addresses of the open ports."""
        return [port.host for port in self.opened if not port.closed]


class Port:
    """A port at *host*."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.closed = False
        self.sent: list[Any] = []

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        assert not self.closed
        self.sent.append(to)

    def close(self) -> None:
        assert not self.closed
        self.closed = True


def test_a_port_closes_after_its_last_destination() -> None:
    """An association whose destinations come and go has no more ports at exits than destinations."""
    world = World(destinations=8)
    association = world.association
    outlet = association.outlet = Ports(association)
    association.route = lambda address, name: DatagramRoute(f"192.0.2.{address.port}")
    for port in range(1, 200):
        world.send("198.51.100.1", port=port)
        world.send("198.51.100.2", port=port)
        assert f"192.0.2.{port}" in outlet.left
        assert len(outlet.left) <= 8
    assert sum(len(port.sent) for port in outlet.opened) == 2 * 199
    association.route = lambda address, name: DatagramRoute()
    association.reconsider(CLIENT, association.check)
    assert outlet.left == []
    world.send("198.51.100.1")
    assert outlet.left == ["0.0.0.0"], "the port of all datagrams without an exit"


def test_idle() -> None:
    """Its time begins anew with each datagram that passes, and with no other."""
    world = World(idle=100.0)
    assert not world.association.is_idle(99.0)
    world.clock.advance(50.0)
    world.send("198.51.100.1")
    world.clock.advance(50.0)
    world.policy.denied = {"198.51.100.2"}
    world.send("198.51.100.2")
    assert not world.association.is_idle(149.0)
    assert world.association.is_idle(150.0)
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
