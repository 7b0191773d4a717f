"""Why something is decided as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from socksproxy.identity import Client
from socksproxy.limits import Limits, Rate
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.explain import explain
from socksproxy.policy.rules import Rule
from socksproxy.wire.words import Address, Command

from ..support.questions import MOMENTS, QUESTIONS, RULES, SETS, own

POLICY = RulePolicy(
    [
        Rule(name="eve", allow=False, users=["eve"], groups=["guests", "temps"]),
        Rule(name="night", allow=False, hours=["22:00-06:00"], days=["mon"], zone="UTC"),
        Rule(name="mail", allow=False, ports=[25, "465-587"], commands=["connect"]),
        Rule(name="private", allow=False, networks=["private"]),
        Rule(
            name="web",
            allow=True,
            names=["*.example"],
            networks=["203.0.113.0/24"],
            outgoing=["192.0.2.9"],
            limits=Limits(sessions=20, download=Rate(1_000_000, 4e6)),
            log=False,
        ),
        Rule(name="dns", allow=True, commands=["associate"], ports=[53]),
    ],
    clock=lambda: 1_700_481_600.0,  # a Monday at noon
)
BOB = Client("192.0.2.7", 5000, "bob", None, frozenset({"staff"}), "front", 5)


def test_text() -> None:
    """Of a name, what was asked for and then each address."""
    told = explain(POLICY, BOB, Command.CONNECT, Address.of("A.Example", 443), ["10.0.0.1", "198.51.100.1"])
    assert [str(one) for one in told] == [
        """\
a.example:443: allowed (by rule web)
  1. eve (deny): users or groups eve, guests, temps, not bob of staff
  2. night (deny): days or hours or zone mon, 22:00-06:00, UTC, not mon 12:00
  3. mail (deny): ports 25, 465-587, not 443
  4. private (deny): depends on the address
  5. web (allow): matches
  from 192.0.2.9
  outgoing: IPv6 destinations are refused
  limits of rule web: sessions 20, download 1 MB/s (burst 4 MB)
  without an access record""",
        """\
10.0.0.1:443: denied (by rule private)
  1. eve (deny): users or groups eve, guests, temps, not bob of staff
  2. night (deny): days or hours or zone mon, 22:00-06:00, UTC, not mon 12:00
  3. mail (deny): ports 25, 465-587, not 443
  4. private (deny): matches""",
        """\
198.51.100.1:443: allowed (by rule web)
  1. eve (deny): users or groups eve, guests, temps, not bob of staff
  2. night (deny): days or hours or zone mon, 22:00-06:00, UTC, not mon 12:00
  3. mail (deny): ports 25, 465-587, not 443
  4. private (deny): networks private, not 198.51.100.1
  5. web (allow): matches
  from 192.0.2.9
  outgoing: IPv6 destinations are refused
  limits of rule web: sessions 20, download 1 MB/s (burst 4 MB)
  without an access record""",
    ]


@pytest.mark.parametrize(
    ("rules", "host", "first"),
    [
        ([], "203.0.113.1", "203.0.113.1:80: allowed (default: there are no rules)"),
        ([{"allow": True, "ports": [1]}], "203.0.113.1", "203.0.113.1:80: denied (default: no rule matches)"),
        ([{"allow": True}], "127.0.0.1", "127.0.0.1:80: denied (special: "),
        ([{"allow": True}], "10.9.9.9", "10.9.9.9:80: denied (own-listener: it is a listener"),
    ],
)
def test_without_a_rule(rules: list[dict[str, Any]], host: str, first: str) -> None:
    listeners = own()
    listeners.add("10.9.9.9", 80)
    policy = RulePolicy([Rule(name="r", **fields) for fields in rules], listeners=listeners)
    (told,) = explain(policy, BOB, Command.CONNECT, Address.of(host, 80))
    assert str(told).startswith(first)


@pytest.mark.parametrize(
    ("rules", "allowed", "text"),
    [
        ([], True, "a UDP association: allowed (default: there are no rules)"),
        (
            [{"allow": True, "users": ["eve"]}, {"allow": False}],
            False,
            (
                "a UDP association: denied (by rule r1)\n"
                "  1. r0 (allow): users eve, not bob of staff\n  2. r1 (deny): matches"
            ),
        ),
        (
            [{"allow": False, "ports": [25]}, {"allow": True, "ports": [53], "limits": Limits(sessions=1)}],
            True,
            (
                "a UDP association: allowed (by rule r1)\n"
                "  1. r0 (deny): matches some destinations\n  2. r1 (allow): matches some destinations"
            ),
        ),
    ],
)
def test_an_association(rules: list[dict[str, Any]], allowed: bool, text: str) -> None:
    """Without a destination: whether there may be any."""
    policy = RulePolicy([Rule(name=f"r{number}", **fields) for number, fields in enumerate(rules)])
    (told,) = explain(policy, BOB, Command.UDP_ASSOCIATE, None)
    assert (told.allowed, str(told)) == (allowed, text)
    assert json.dumps(told.data())


def test_data() -> None:
    """For JSON, with the same in it."""
    (told,) = explain(POLICY, Client(None), Command.RESOLVE, Address.of("203.0.113.1", 0))
    assert json.loads(json.dumps(told.data())) == {
        "destination": "203.0.113.1:0",
        "allowed": True,
        "rule": "web",
        "steps": [
            {
                "rule": "eve",
                "allow": False,
                "verdict": "no",
                "fields": ["users", "groups"],
                "wanted": ["eve", "guests", "temps"],
                "found": "an anonymous client",
            },
            {
                "rule": "night",
                "allow": False,
                "verdict": "no",
                "fields": ["days", "hours", "zone"],
                "wanted": ["mon", "22:00-06:00", "UTC"],
                "found": "mon 12:00",
            },
            {
                "rule": "mail",
                "allow": False,
                "verdict": "no",
                "fields": ["commands"],
                "wanted": ["connect"],
                "found": "resolve",
            },
            {
                "rule": "private",
                "allow": False,
                "verdict": "no",
                "fields": ["networks"],
                "wanted": ["private"],
                "found": "203.0.113.1",
            },
            {"rule": "web", "allow": True, "verdict": "yes", "fields": [], "wanted": [], "found": ""},
        ],
        "outgoing": ["192.0.2.9"],
        "chosen": "IPv6 destinations are refused",
        "way": None,
        "refusal": "",
        "helper": "",
        "limits": {"rule web": {"sessions": 20, "download": {"per_second": 1_000_000, "burst": 4e6}}},
        "log": False,
        "quota": True,
    }


@pytest.mark.slow
@given(RULES, QUESTIONS)
def test_says_what_is_decided(conditions: list[dict[str, Any]], question: Any) -> None:
    """Whatever the rules, the explanation's last step is what decides, and it can be spelled."""
    rules = []
    for number, fields in enumerate(conditions):
        zone = "UTC" if fields["days"] or fields["hours"] else None
        rules.append(Rule(name=f"r{number}", zone=zone, **fields))
    policy = RulePolicy(rules, SETS, own(), clock=lambda: MOMENTS[0])
    client, command, host, port, name = question
    destination = Address.of(host or name or "0.0.0.0", port)
    for told in explain(policy, client, command, destination):
        assert told.allowed is policy.permits(client, command, Address.of(destination.host, port))
        assert str(told)
        assert json.dumps(told.data())
        assert all(step.found for step in told.steps if step.verdict == "no")
