"""Patterns of users and groups in rules."""

from __future__ import annotations

from typing import Any

import pytest

from socksproxy.identity import Client
from socksproxy.policy.compiled import Compiled
from socksproxy.policy.matching import Matcher, RuleQuestion
from socksproxy.policy.rules import Rule, RuleError
from socksproxy.wire.words import Command


@pytest.mark.parametrize(
    ("fields", "user", "groups", "allowed"),
    [
        ({"user_patterns": ["mgr_*"]}, "mgr_bob", (), True),
        ({"user_patterns": ["mgr_*"]}, "mgr_", (), True),
        ({"user_patterns": ["mgr_*"]}, "MGR_bob", (), False),
        ({"user_patterns": ["mgr_*"]}, "a mgr_bob", (), False),
        ({"user_patterns": ["mgr_*"]}, "bob", ("mgr_x",), False),
        ({"user_patterns": ["*"]}, None, (), False),
        ({"user_patterns": ["*"]}, "a\nb", (), True),
        ({"user_patterns": ["j?"]}, "jo", (), True),
        ({"user_patterns": ["j?"]}, "joe", (), False),
        ({"user_patterns": ["a.[b]*"]}, "a.[b]c", (), True),
        ({"user_patterns": ["a.[b]*"]}, "axb", (), False),
        ({"user_patterns": ["x*", "mgr_*"], "users": ["bob"]}, "bob", (), True),
        ({"user_patterns": ["mgr_*"], "groups": ["staff"]}, "bob", ("staff",), True),
        ({"group_patterns": ["team-?"]}, "bob", ("other", "team-1"), True),
        ({"group_patterns": ["team-?"]}, "bob", ("team-10",), False),
        ({"group_patterns": ["team-?"]}, "team-1", (), False),
        ({"group_patterns": ["team-?"], "users": ["bob"]}, "eve", (), False),
    ],
)
def test_patterns(fields: dict[str, Any], user: str | None, groups: tuple[str, ...], allowed: bool) -> None:
    """The indexes and the plain look at each rule agree; no other rule is touched."""
    rules = [Rule(name="other", allow=True, users=["nobody"]), Rule(name="these", allow=True, **fields)]
    client = Client("192.0.2.1", 1, user, None, frozenset(groups), "tcp", 5)
    question = RuleQuestion(client, Command.CONNECT, "203.0.113.1", 443, None)
    for deciding in (Compiled(rules), Matcher(rules)):
        decision = deciding.decide(question, 0.0)
        assert (decision.allowed, decision.rule) == ((True, "these") if allowed else (False, "default"))


@pytest.mark.parametrize("value", ["mgr", "", 7, "*" * 4, "x" * 255 + "*"])
def test_mistakes(value: Any) -> None:
    """A name is no pattern, and no pattern takes long."""
    for field in ("user_patterns", "group_patterns"):
        fields: dict[str, Any] = {field: [value]}
        with pytest.raises(RuleError, match=f"{field}: "):
            Rule(name="a", allow=True, **fields)
