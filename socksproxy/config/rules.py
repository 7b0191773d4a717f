"""
The tables ``[[rule]]`` and ``[sets.NAME]``: from what TOML has to a policy.

Which values are right is for :class:`~socksproxy.policy.rules.Rule` and
:class:`~socksproxy.policy.sets.Sets` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from attrs import fields

from ..policy.compiled import RulePolicy
from ..policy.rules import Problem, Rule, RuleError, RuleTimeouts
from ..policy.sets import Sets
from ..values import Wrong, seconds
from .lines import Path
from .mistakes import listed, nearest
from .tables import spelled

#: Names of what stands at the top of the file.
RULE, SETS = "rule", "sets"

#: In place of the field *timeouts*.
IDLE_TIMEOUT = "idle-timeout"

#: By the names that the file has for them. What limits a rule has cannot be said yet.
RULE_KEYS = {
    spelled(field.name): field.name for field in fields(Rule) if field.name not in ("limits", "timeouts")
} | {IDLE_TIMEOUT: "timeouts"}
#: A value of each, as the file has it.
RULE_EXAMPLES = {
    "name": '"web"',
    "allow": "true",
    "users": '["bob", "eve"]',
    "groups": '["admins"]',
    "authenticated": "true",
    "clients": '["192.0.2.0/24", "private", "unix"]',
    "listeners": '["192.0.2.1:1080"]',
    "versions": "[5]",
    "commands": '["connect", "resolve"]',
    "names": '["www.example.com", "*.example.org", "@games"]',
    "networks": '["198.51.100.0/24", "metadata", "servers"]',
    "ports": '[80, 443, "8000-8099"]',
    "days": '["mon-fri"]',
    "hours": '["08:00-18:00"]',
    "zone": '"Europe/Berlin"',
    "outgoing": '["192.0.2.7", "2001:db8::7"]',
    "log": "false",
    IDLE_TIMEOUT: "600",
}
SET_KEYS = ("networks", "names")

_idle = seconds(or_zero="for never")


class Fault(NamedTuple):
    """
    Something wrong.

    :ivar path: where.
    :ivar reason: what would be right.
    :ivar shown: whether there is a value to be shown.
    """

    path: Path
    reason: str
    shown: bool = True


def policy_of(rules: Any, sets: Any) -> tuple[RulePolicy | None, list[Fault]]:
    """
    The policy, or None where there is no rule, and all that is wrong.

    :param rules: what stands as ``rule``; None: nothing.
    :param sets: likewise as ``sets``.
    """
    faults: list[Fault] = []
    known = _sets(sets, faults)
    found = _rules(rules, faults)
    if not found:
        return None, faults
    if known is None:
        # Nobody can tell which of the sets that rules name there are.
        return None, faults
    try:
        policy = RulePolicy([rule for rule in found.values() if rule is not None], known)
    except RuleError as problem:
        numbers = {rule.name: number for number, rule in found.items() if rule is not None}
        faults += [_fault((RULE, numbers[each.rule]), rules, each) for each in problem.problems]
        return None, faults
    return policy, faults


def _rules(rules: Any, faults: list[Fault]) -> dict[int, Rule | None]:
    if rules is None:
        return {}
    if not isinstance(rules, list):
        faults.append(Fault((RULE,), "there may be many rules: each begins with [[rule]]", False))
        return {}
    return {number: _rule((RULE, number), rules, faults) for number, _ in enumerate(rules)}


def _rule(path: Path, rules: Any, faults: list[Fault]) -> Rule | None:
    table = rules[path[1]]
    if not isinstance(table, dict):
        faults.append(Fault(path, "not a table: a rule begins with [[rule]]", False))
        return None
    before = len(faults)
    given: dict[str, Any] = {}
    for key, value in table.items():
        if key not in RULE_KEYS:
            faults.append(Fault((*path, key), _no_such(key, RULE_KEYS), False))
            continue
        try:
            given[RULE_KEYS[key]] = _idle_timeout(value) if key == IDLE_TIMEOUT else _simple(value)
        except Wrong as problem:
            faults.append(Fault((*path, key), problem.reason))
    missing = [key for key in ("name", "allow") if key not in table]
    faults += [Fault(path, f"{key} is missing", False) for key in missing]
    # What is missing or wrong already is no reason not to look at the rest.
    stand_ins = {"name": "rule", "allow": True}
    try:
        rule = Rule(**{**stand_ins, **given})
    except RuleError as problem:
        faults += [_fault(path, rules, each) for each in problem.problems]
        return None
    return rule if len(faults) == before else None


def _sets(sets: Any, faults: list[Fault]) -> Sets | None:
    if sets is None:
        return Sets()
    if not isinstance(sets, dict):
        faults.append(Fault((SETS,), "each set has a table: it begins with [sets.NAME]", False))
        return None
    before = len(faults)
    contents: dict[str, dict[str, Any]] = {key: {} for key in SET_KEYS}
    for name, table in sets.items():
        if not isinstance(table, dict):
            faults.append(Fault((SETS, name), f"not a table: it begins with [sets.{name}]", False))
            continue
        if not table:
            faults.append(Fault((SETS, name), f"there must be {listed(SET_KEYS)}, or one of them", False))
        for key, value in table.items():
            path = (SETS, name, key)
            if key not in SET_KEYS:
                faults.append(Fault(path, _no_such(key, SET_KEYS), False))
            elif not isinstance(value, list):
                faults.append(Fault(path, "not a list in brackets"))
            else:
                contents[key][name] = value
    try:
        known = Sets(contents["networks"], contents["names"])
    except RuleError as problem:
        faults += [_fault((SETS, each.rule), sets, each) for each in problem.problems]
        return None
    return known if len(faults) == before else None


def _idle_timeout(value: Any) -> RuleTimeouts:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Wrong("not a number")
    return RuleTimeouts(idle=_idle(str(value)))


def _simple(value: Any) -> Any:
    """*value*, in which there are no more than lists of plain things."""
    if isinstance(value, list):
        for entry in value:
            if not isinstance(entry, (str, int)):
                raise Wrong("must be a list of texts or whole numbers")
    elif isinstance(value, dict):
        raise Wrong("not a table")
    return value


def _fault(path: Path, document: Any, problem: Problem) -> Fault:
    """Where *problem* is, which is about what stands at *path*."""
    if problem.kind == "set" and problem.field == "name":
        return Fault(path, problem.right, False)
    key = next((key for key, field in RULE_KEYS.items() if field == problem.field), problem.field)
    path = (*path, key)
    value = document[path[1]].get(key)
    if isinstance(value, list) and problem.value is not value:
        number = next((at for at, entry in enumerate(value) if _same(entry, problem.value)), None)
        if number is not None:
            return Fault((*path, number), problem.right)
    return Fault(path, problem.right)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _no_such(key: str, keys: Iterable[str]) -> str:
    near = nearest(key, keys)
    return f"no such key; did you mean {near}?" if near else f"no such key; there are {listed(keys)}"


def place(path: Path, document: Mapping[str, Any]) -> str:
    """How *path* is told: the table with its name, and the key in it."""
    table, *rest = path
    if table == SETS:
        where = f"[{'.'.join(map(str, path[:2]))}]"
    elif not rest:
        where = f"[[{table}]]"
    else:
        rule = document[RULE][rest[0]]
        name = rule.get("name") if isinstance(rule, dict) else None
        where = f'[[{table}]] "{name}"' if isinstance(name, str) else f"[[{table}]] number {int(rest[0]) + 1}"
    inner = [f" {step}" if isinstance(step, str) else f"[{step}]" for step in path[2:]]
    return where + "".join(inner)
