"""The indexes, held against one rule after the other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from socksproxy.policy.compiled import Compiled
from socksproxy.policy.matching import Matcher, question_of_command
from socksproxy.policy.rules import Rule
from tests.support.questions import MOMENTS, QUESTIONS, RULES, SETS, own


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(RULES, st.lists(QUESTIONS, min_size=1, max_size=12), st.sampled_from(MOMENTS), st.booleans())
def test_both_agree(conditions: list[dict[str, Any]], questions: list[Any], now: float, zoned: bool) -> None:
    """Whatever the rules and the questions, both ways decide the same, by the same rule."""
    rules = rules_of(conditions, zoned)
    plain, compiled = Matcher(rules, SETS, own()), Compiled(rules, SETS, own())
    for question in questions:
        assert compiled.decide(question, now) == plain.decide(question, now)


def rules_of(conditions: list[dict[str, Any]], zoned: bool) -> list[Rule]:
    rules = []
    for number, fields in enumerate(conditions):
        timed = fields["days"] or fields["hours"]
        zone = "UTC" if timed else None
        rules.append(Rule(name=f"r{number}", zone="Asia/Kolkata" if zone and zoned else zone, **fields))
    return rules


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(RULES, st.lists(QUESTIONS, min_size=1, max_size=12), st.sampled_from(MOMENTS), st.booleans())
def test_whether_there_is_any_destination(
    conditions: list[dict[str, Any]], questions: list[Any], now: float, zoned: bool
) -> None:
    """Both ways agree on it, and who may have none is denied every one."""
    rules = rules_of(conditions, zoned)
    plain, compiled = Matcher(rules, SETS, own()), Compiled(rules, SETS, own())
    for question in questions:
        any_destination = question_of_command(question.client, question.command)
        decision = plain.decide(any_destination, now)
        assert compiled.decide(any_destination, now) == decision
        if not decision.allowed and question.port:
            assert not plain.decide(question, now).allowed
