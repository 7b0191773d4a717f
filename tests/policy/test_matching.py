"""What rules say before a destination is known."""

from __future__ import annotations

from typing import Any

import pytest

from socksproxy.identity import Client
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.policy.sets import NameTable, NetworkTable, Sets
from socksproxy.wire.words import Command

OUTSIDER = Client("192.0.2.7", 5000, listener="front", version=5)
BOB = OUTSIDER._replace(user="bob", groups=frozenset({"staff"}))
#: A Monday at noon.
NOON = 1_700_481_600.0
SETS = Sets(
    {"world": ["0.0.0.0/1", "128.0.0.0/1", "::/0"], "table": NetworkTable([(0, (1 << 32) - 1)], [])},
    {"lots": NameTable([".a.example"])},
)
NOBODY = {"allow": False}
ALL = {"allow": True}


@pytest.mark.parametrize(
    ("rules", "client", "rule"),
    [
        # Nothing is possible for the client.
        ([NOBODY], OUTSIDER, "-r0"),
        ([{"allow": False, "commands": ["associate"]}, ALL], OUTSIDER, "-r0"),
        ([{"allow": True, "commands": ["connect", "bind"]}], OUTSIDER, "-default"),
        ([{"allow": True, "authenticated": True}], OUTSIDER, "-default"),
        ([{"allow": True, "users": ["bob"]}, NOBODY], OUTSIDER, "-r1"),
        ([{"allow": True, "groups": ["staff"]}], OUTSIDER, "-default"),
        ([{"allow": True, "clients": ["10.0.0.0/8"]}], OUTSIDER, "-default"),
        ([{"allow": True, "listeners": ["inside"]}], OUTSIDER, "-default"),
        ([{"allow": True, "versions": [4]}], OUTSIDER, "-default"),
        ([{"allow": True, "hours": ["18:00-06:00"], "zone": "UTC"}], OUTSIDER, "-default"),
        ([{"allow": False, "hours": ["08:00-18:00"], "zone": "UTC"}, ALL], OUTSIDER, "-r0"),
        # A denial that has every destination, in whatever words.
        ([{"allow": False, "ports": ["1-65535"]}, ALL], OUTSIDER, "-r0"),
        ([{"allow": False, "ports": [0, "30000-65535", "1-40000"]}, ALL], OUTSIDER, "-r0"),
        ([{"allow": False, "networks": ["0.0.0.0/0", "::/0"]}, ALL], OUTSIDER, "-r0"),
        ([{"allow": False, "networks": ["world"]}, ALL], OUTSIDER, "-r0"),
        ([{"allow": False, "networks": ["world"], "names": ["a.example"]}, ALL], OUTSIDER, "-r0"),
        # Something is possible.
        ([], OUTSIDER, "+default"),
        ([ALL], OUTSIDER, "+r0"),
        ([{"allow": True, "ports": [53]}, NOBODY], OUTSIDER, "+r0"),
        ([{"allow": True, "names": ["a.example"]}, NOBODY], OUTSIDER, "+r0"),
        ([{"allow": True, "names": ["@lots"]}, NOBODY], OUTSIDER, "+r0"),
        ([{"allow": True, "networks": ["198.51.100.1"]}, NOBODY], OUTSIDER, "+r0"),
        ([{"allow": True, "networks": ["table"]}, NOBODY], OUTSIDER, "+r0"),
        ([{"allow": False, "ports": ["1-52", "54-65535"]}, ALL], OUTSIDER, "+r1"),
        ([{"allow": False, "networks": ["0.0.0.0/0"]}, ALL], OUTSIDER, "+r1"),
        ([{"allow": False, "networks": ["0.0.0.0/0", "::/1"]}, ALL], OUTSIDER, "+r1"),
        ([{"allow": False, "names": ["*"]}, ALL], OUTSIDER, "+r1"),
        ([{"allow": True, "users": ["bob"]}, NOBODY], BOB, "+r0"),
        ([{"allow": True, "groups": ["staff"], "ports": [53]}], BOB, "+r0"),
        ([{"allow": True, "authenticated": True}], BOB, "+r0"),
        ([{"allow": True, "hours": ["08:00-18:00"], "zone": "UTC"}], OUTSIDER, "+r0"),
        ([{"allow": True, "commands": ["associate"], "clients": ["192.0.2.0/24"]}], OUTSIDER, "+r0"),
    ],
)
def test_whether_there_is_any_destination(rules: list[dict[str, Any]], client: Client, rule: str) -> None:
    named = [Rule(name=f"r{number}", **fields) for number, fields in enumerate(rules)]
    policy = RulePolicy(named, SETS, clock=lambda: NOON)
    decision = policy.permits_command(client, Command.UDP_ASSOCIATE)
    assert f"{'+' if decision else '-'}{decision.rule}" == rule
