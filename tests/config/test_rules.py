"""Rules and sets in a configuration file."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import fields
from hypothesis import given, strategies as st
from twisted.internet.testing import MemoryReactorClock

from socksproxy import Address, Client, Command, SOCKSFactory
from socksproxy.app import Options, makeService
from socksproxy.config.rules import RULE_EXAMPLES, RULE_KEYS
from socksproxy.net.resources import CheckedResources
from socksproxy.policy.rules import Rule

from ..support.mistakes import elsewhere, mistakes, toml, values, without_surrogates

__all__ = ["elsewhere"]

RULES = """
[sets.servers]
networks = ["198.51.100.0/28"]
[sets.games]
names = ["*.games.example"]
[[rule]]
name = "no-games"
allow = false
names = ["@games"]
[[rule]]
name = "servers"
allow = true
networks = ["servers"]
ports = [80, "8000-8099"]
commands = ["connect"]
idle-timeout = 7
half-closed-timeout = 5
"""


@pytest.fixture(autouse=True)
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address is this machine's."""
    monkeypatch.setattr("socksproxy.config.command_line.is_local", lambda host: True)


def parsed(config: str) -> Options:
    reactor = MemoryReactorClock()
    options = Options(reactor, CheckedResources(reactor), config.encode())
    options.parseOptions(["--config=file"])
    return options


def test_rules_decide() -> None:
    """The factory asks the file's rules."""
    service: Any = makeService(parsed(RULES))
    assert isinstance(service.factory, SOCKSFactory)
    policy = service.factory.sessions.context.policy
    client = Client("192.0.2.1", 5555)
    for host, port, command, allowed, rule in (
        ("198.51.100.1", 80, Command.CONNECT, True, "servers"),
        ("198.51.100.1", 8050, Command.CONNECT, True, "servers"),
        ("198.51.100.1", 81, Command.CONNECT, False, "default"),
        ("198.51.100.1", 80, Command.BIND, False, "default"),
        ("198.51.100.16", 80, Command.CONNECT, False, "default"),
        ("a.games.example", 80, Command.CONNECT, False, "no-games"),
    ):
        decision = policy.decide(client, command, Address.of(host, port))  # type: ignore[attr-defined]
        assert (decision.allowed, decision.rule) == (allowed, rule)
    assert policy.rules[1].timeouts.idle == 7  # type: ignore[attr-defined]


def test_without_rules() -> None:
    """A file without a rule changes nothing, whatever sets it has."""
    assert parsed("[timeouts]\nidle-timeout = 5").plan.settings.policy is None
    assert parsed('[sets.a]\nnetworks = ["10.0.0.0/8"]').plan.settings.policy is None


def test_rules_guard() -> None:
    """A listener that others reach starts with rules, as it does with authentication."""
    listener = '[listeners]\ninterface = "0.0.0.0"\n'
    assert len(mistakes(listener)) == 1
    assert mistakes(listener + RULES) == []


def test_a_key_for_each_field() -> None:
    """A new field of a rule has a key, unless it is known not to."""
    assert set(RULE_KEYS.values()) == {field.name for field in fields(Rule)}


@pytest.mark.parametrize("key", RULE_KEYS)
def test_examples(key: str) -> None:
    """The examples of the documentation are right."""
    rule = {"name": '"web"', "allow": "true", key: RULE_EXAMPLES[key]}
    if key == "zone":
        rule["days"] = RULE_EXAMPLES["days"]
    lines = [f"{name} = {value}" for name, value in rule.items()]
    sets = '[sets.games]\nnames = ["play.example"]\n[sets.servers]\nnetworks = ["198.51.100.0/28"]'
    helper = '[helpers.accounting]\ncommand = ["/bin/sh"]'
    assert mistakes("\n".join(["[[rule]]", *lines, sets, "[groups.admins]", helper])) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            '[[rule]]\nname = "web"\nallow = true\nports = [80, "x"]\nprots = [7]',
            [
                'file:4: [[rule]] "web" ports[1] = "x": must be a port or a range such as 6000-6063',
                'file:5: [[rule]] "web" prots: no such key; did you mean ports?',
            ],
        ),
        (
            '[[rule]]\nallow = "yes"\nidle-timeout = "x"',
            [
                "file:1: [[rule]] number 1: name is missing",
                'file:2: [[rule]] number 1 allow = "yes": must be true or false',
                'file:3: [[rule]] number 1 idle-timeout = "x": not a number',
            ],
        ),
        (
            '[[rule]]\nname = "a"\nallow = true\nnetworks = ["servrs"]\n[sets.servers]\nnetworks = ["::1"]',
            ['file:4: [[rule]] "a" networks[0] = "servrs": there is no such set; servers?'],
        ),
        (
            "[sets.a]\nnetwork = 7\nnames = ['*.b', 7]\nnetworks = 5",
            [
                "file:2: [sets.a] network: no such key; did you mean networks?",
                "file:3: [sets.a] names[1] = 7: must be a name such as a.example or *.example",
                "file:4: [sets.a] networks = 5: not a list in brackets",
            ],
        ),
        ("[rule]\nname = 'a'", ["file:1: [[rule]]: there may be many rules: each begins with [[rule]]"]),
        ("sets = 5", ["file:1: [sets]: each set has a table: it begins with [sets.NAME]"]),
        (
            "[listeners]\ninterface = '0.0.0.0'\n[[rule]]\nname = 'a'\nallow = 5",
            ['file:5: [[rule]] "a" allow = 5: must be true or false'],
        ),
    ],
)
def test_mistakes(config: str, expected: list[str]) -> None:
    """Each names the rule or the set, the key, the value and what would be right."""
    assert mistakes(config) == expected


def test_two_of_one_name() -> None:
    """Names of rules are in the log: each is one rule's."""
    rule = "[[rule]]\nname = 'a'\nallow = true\n"
    (line,) = mistakes(rule + rule)
    assert line.startswith('file:5: [[rule]] "a" name = "a": ')


@given(st.dictionaries(st.sampled_from([*RULE_KEYS]), values.filter(without_surrogates)))
def test_any_rule(rule: dict[str, Any]) -> None:
    """Of whatever stands in a rule something is made, or the operator reads lines of it."""
    lines = [f"{key} = {toml(value)}" for key, value in rule.items()]
    for line in mistakes("\n".join(["[[rule]]", *lines])):
        assert line.startswith("file:")
        assert line.isprintable()


@given(st.sampled_from(["rule", "sets"]), values.filter(without_surrogates))
def test_any_top(name: str, value: Any) -> None:
    """Likewise of whatever stands in the place of rules and sets."""
    for line in mistakes(f"{name} = {toml(value)}\n"):
        assert line.startswith("file:")
        assert line.isprintable()
