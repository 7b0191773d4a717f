"""What a session's record is told of its rules."""

from __future__ import annotations

import pytest

from socksproxy.identity import Client
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.session.permission import Permission
from socksproxy.wire.words import Address, Command

CLIENT = Client("192.0.2.7", 5000)
POLICY = RulePolicy(
    [
        Rule(name="no", allow=False, networks=["203.0.113.0/28"], log=False),
        Rule(name="some", allow=True, networks=["203.0.113.0/24"]),
        Rule(name="named", allow=True, names=["a.example"]),
    ]
)


@pytest.mark.parametrize(
    ("addresses", "reached", "told"),
    [
        ([], None, ("named", True)),
        (["203.0.113.1"], None, ("no", False)),
        (["203.0.113.1", "203.0.113.99"], None, ("some", True)),
        (["203.0.113.99", "203.0.113.1"], None, ("some", True)),
        (["203.0.113.99", "198.51.100.1"], None, ("named", True)),
        (["203.0.113.99", "198.51.100.1"], "203.0.113.99", ("some", True)),
        (["203.0.113.99", "198.51.100.1"], "198.51.100.1", ("named", True)),
        (["203.0.113.1"], "192.0.2.9", ("no", False)),
    ],
)
def test_told(addresses: list[str], reached: str | None, told: tuple[str, bool]) -> None:
    """The rule for the address that is reached; before that, one that allows; last, the one that denies."""
    judge = Permission(POLICY)
    judge.permits(CLIENT, Command.CONNECT, Address.of("a.example", 80))
    for host in addresses:
        judge.permits_address(CLIENT, Command.CONNECT, Address.of(host, 80), "a.example")
    assert judge.rule_named(None if reached is None else Address.of(reached, 80)) == told


def test_nothing_asked() -> None:
    judge = Permission(POLICY)
    assert judge.rule_named(None) == (None, True)
    assert judge.rules_named() == (None, True)
    assert judge.effect(Address.of("192.0.2.1", 80)) is None


def test_many_destinations() -> None:
    """An association may have thousands: what is kept of them has an end."""
    judge = Permission(
        RulePolicy([Rule(name=f"r{n}", allow=True, ports=[n], log=False) for n in range(1, 100)])
    )
    for number in range(1, 100):
        judge.permits(CLIENT, Command.UDP_ASSOCIATE, Address.of(f"203.0.113.{number}", number))
    assert judge.rules_named() == ("r1,r2,r3,r4,r5,r6,r7,r8", False)
    assert judge.effect(Address.of("203.0.113.99", 99)).name == "r99"  # type: ignore[union-attr]
    for number in range(1, 100):
        judge.permits(CLIENT, Command.UDP_ASSOCIATE, Address.of(f"203.0.114.{number}", number))
    assert judge.effect(Address.of("203.0.114.99", 99)).name == "r99"  # type: ignore[union-attr]
    assert judge.effect(Address.of("203.0.113.1", 1)) is None
    assert len(judge._by_host) <= 128
    judge = Permission(POLICY)
    judge.permits(CLIENT, Command.UDP_ASSOCIATE, Address.of("203.0.113.1", 53))
    assert judge.rules_named() == ("no", False)
    judge.permits(CLIENT, Command.UDP_ASSOCIATE, Address.of("203.0.113.99", 53))
    assert judge.rules_named() == ("no,some", True)


def test_many_rules_without_a_record() -> None:
    """A rule that has a record counts, however many rules without one come before it."""
    rules = [Rule(name=f"r{n}", allow=True, ports=[n], log=n == 20) for n in range(1, 21)]
    judge = Permission(RulePolicy(rules))
    for number in range(1, 21):
        judge.permits(CLIENT, Command.UDP_ASSOCIATE, Address.of("203.0.113.1", number))
    assert judge.rules_named() == ("r1,r2,r3,r4,r5,r6,r7,r8", True)


def test_asked_apart() -> None:
    """Nothing is noted of what is asked again."""
    judge = Permission(POLICY)
    rule = judge.rule_for(CLIENT, Command.UDP_ASSOCIATE, Address.of("198.51.100.1", 53), "a.example")
    assert rule is POLICY.rules[2]
    assert judge.rule_for(CLIENT, Command.UDP_ASSOCIATE, Address.of("198.51.100.1", 53), None) is None
    assert judge.rules_named() == (None, True)
