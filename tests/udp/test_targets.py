"""The destinations of an association: see :mod:`socksproxy.udp.targets`."""

from __future__ import annotations

import pytest

from socksproxy.udp import targets as module
from socksproxy.udp.targets import (
    LIFETIME,
    MAX_ASKED,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    NAME_LIFETIME,
)

from ..support.association import World


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
