"""
What is decided, by which rule, and which addresses are dialed.

A line of ``decisions.txt`` has rules, a client (``user/group,group@address#listener!version``), a command, a
destination as the client sends it, the addresses of its name, the rule, and what is dialed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from socksproxy.errors import NameNotFound, NotAllowed
from socksproxy.identity import Client
from socksproxy.net.names import canonical
from socksproxy.net.own_listeners import OwnListeners
from socksproxy.net.resolve import NameLookups
from socksproxy.policy.asking import DestinationCheck, ask, permitted_addresses
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import COMMANDS, Rule
from socksproxy.policy.sets import NameTable, Sets
from socksproxy.session.permission import Permission
from socksproxy.wire.words import Address, AddressType
from tests.support.hosts import Hosts

SETS = Sets(
    {"servers": ["198.51.100.0/28", "2001:db8:5::/48"]},
    {"ads": ["ads.example", "*.ads.example"], "many": NameTable([".tracker.test"])},
)

RULES: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "all": [{"name": "all", "allow": True}],
    "nothing": [{"name": "no", "allow": False}],
    "web": [{"name": "web", "allow": True, "ports": [80, "443", "8000-8099"], "commands": ["connect"]}],
    "people": [
        {"name": "not-eve", "allow": False, "users": ["eve"]},
        {"name": "staff", "allow": True, "users": ["bob"], "groups": ["staff", "ops"]},
        {"name": "known", "allow": True, "authenticated": True, "ports": [443]},
        {"name": "anon", "allow": True, "authenticated": False, "ports": [80]},
    ],
    "from": [
        {"name": "inside", "allow": True, "clients": ["10.0.0.0/8", "2001:db8:1::/48"]},
        {"name": "socket", "allow": True, "clients": ["unix"]},
        {"name": "front", "allow": True, "listeners": ["front"]},
        {"name": "old", "allow": True, "versions": [4], "commands": ["connect"]},
    ],
    "commands": [
        {"name": "c", "allow": True, "commands": ["connect"], "networks": ["198.51.100.1"]},
        {"name": "b", "allow": True, "commands": ["bind"], "networks": ["198.51.100.2"]},
        {"name": "a", "allow": True, "commands": ["associate"], "networks": ["198.51.100.3"]},
        {"name": "r", "allow": True, "commands": ["resolve"], "networks": ["198.51.100.4"]},
    ],
    "names": [
        {"name": "bad", "allow": False, "names": ["bad.example", "*.bad.example", "@ads", "@many"]},
        {"name": "glob", "allow": False, "names": ["ad?.*.test", "bücher.example"]},
        {"name": "ok", "allow": True, "names": ["*.example"], "ports": [80]},
    ],
    "both": [
        {
            "name": "bad",
            "allow": False,
            "names": ["bad.example"],
            "networks": ["203.0.113.66", "2001:db8::66"],
        },
        {"name": "rest", "allow": True},
    ],
    "private": [
        {"name": "private", "allow": False, "networks": ["private"]},
        {"name": "good", "allow": True, "names": ["*.example"]},
        {"name": "servers", "allow": True, "networks": ["servers"]},
    ],
    "hole": [
        {"name": "hole", "allow": True, "networks": ["10.1.2.3"]},
        {"name": "inner", "allow": False, "networks": ["10.0.0.0/8", "fc00::/7"]},
        {"name": "rest", "allow": True, "networks": ["0.0.0.0/0", "::/0"]},
    ],
    "special": [
        {"name": "lo", "allow": True, "networks": ["loopback"], "users": ["root"]},
        {"name": "one", "allow": True, "networks": ["127.0.0.5", "fe80::/10"], "users": ["bob"]},
        {"name": "ll", "allow": True, "networks": ["169.254.0.0/16"]},
        {"name": "meta", "allow": True, "networks": ["metadata"], "users": ["cloud"]},
        {"name": "six", "allow": True, "networks": ["64:ff9b::/96"]},
        {"name": "every", "allow": True, "networks": ["0.0.0.0/0", "::/0"]},
    ],
    "only4": [{"name": "net", "allow": True, "networks": ["203.0.113.0/24"]}],
    "not4": [
        {"name": "not", "allow": False, "networks": ["203.0.113.0/24"]},
        {"name": "rest", "allow": True},
    ],
    "noloop": [
        {"name": "noloop", "allow": False, "networks": ["loopback"]},
        {"name": "rest", "allow": True},
    ],
    "late": [
        {"name": "net", "allow": True, "networks": ["203.0.113.0/24"]},
        {"name": "bad", "allow": False, "names": ["bad.example"]},
        {"name": "rest", "allow": True},
    ],
    "bind": [
        {
            "name": "ftp",
            "allow": True,
            "commands": ["bind"],
            "networks": ["203.0.113.0/24"],
            "ports": [0, 20],
        },
    ],
}

TABLE = Path(__file__).with_name("decisions.txt")


def cases() -> list[Any]:
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return [pytest.param(*map(str.strip, line.split("|")), id=re.sub(r" +", " ", line)) for line in lines]


def client_of(text: str) -> Client:
    matched = re.fullmatch(r"(\w*)(?:/([\w,]+))?@([^#!]+)(?:#(\w+))?(?:!(\d))?", text)
    assert matched is not None, text
    user, groups, host, listener, version = matched.groups()
    host = None if host == "unix" else host.removeprefix("::ffff:")
    return Client(
        host, 5000, user or None, None, frozenset((groups or "").split(",")), listener, int(version or 5)
    )


def destination_of(text: str) -> Address:
    """As a client sends it; ``name=`` marks an address that comes as a name."""
    host, _, port = text.rpartition(":")
    if host.startswith("name="):
        return Address(host[5:], int(port), AddressType.DOMAIN_NAME)
    return Address.of(host.strip("[]"), int(port))


def own() -> OwnListeners:
    listeners = OwnListeners()
    listeners.add("10.9.9.9", 1080)
    return listeners


def policy_of(rules: str) -> RulePolicy:
    return RulePolicy([Rule(**fields) for fields in RULES[rules]], SETS, own())


def dialed(
    policy: RulePolicy, client: Client, command: str, requested: Address, answers: list[str]
) -> tuple[str | None, list[str], list[str]]:
    """The rule, the addresses to dial, and the names that were looked up."""
    clock = Clock()
    try:
        destination = canonical(requested)
    except NameNotFound:
        return "missing", [], []
    hosts = Hosts({destination.host: list(answers)})
    judge = Permission(policy)
    means = DestinationCheck(judge, NameLookups(hosts, clock), clock)
    number = COMMANDS[command][0]
    answer = ask(judge, client, number, destination)
    found: Any = maybeDeferred(permitted_addresses, means, client, number, destination, answer, lambda: None)
    results: list[Any] = []
    found.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        if result.check(NameNotFound):
            return "missing", [], hosts.asked
        result.trap(NotAllowed)
        return judge.rule_named(None)[0], [], hosts.asked
    return judge.rule_named(result[0])[0], [address.host for address in result], hosts.asked


@pytest.mark.parametrize(("rules", "who", "command", "requested", "answers", "rule", "reached"), cases())
def test_table(
    rules: str, who: str, command: str, requested: str, answers: str, rule: str, reached: str
) -> None:
    known = [] if answers == "unasked" else answers.split()
    result = dialed(policy_of(rules), client_of(who), command, destination_of(requested), known)
    assert result[:2] == (rule, reached.split())
    if answers == "unasked":
        assert result[2] == []
    elif known:
        assert result[2] != []


def test_table_is_large() -> None:
    assert len(cases()) >= 150
