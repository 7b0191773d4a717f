"""
The tables ``[[rule]]`` and ``[sets.NAME]``: from what TOML has to a policy.

Which values are right is for :class:`~socksproxy.policy.rules.Rule` and
:class:`~socksproxy.policy.sets.Sets` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import fields

from ..policy.compiled import RulePolicy
from ..policy.rules import Problem, Rule, RuleError, RuleTimeouts
from ..values.errors import ConfigError, Path
from ..values.parsers import seconds
from ..values.timeouts import NEVER
from .limits import limits_reader
from .readers import Reader, error_of, number_by, plain, read_table
from .sets import sets_of
from .words import MOST_TOLD, RULE

#: In place of the field *timeouts*.
CONNECT_TIMEOUT, IDLE_TIMEOUT = "connect-timeout", "idle-timeout"
HALF_CLOSED_TIMEOUT = "half-closed-timeout"

#: By the names that the file has for them.
RULE_KEYS = {
    **{field.name.replace("_", "-"): field.name for field in fields(Rule) if field.name != "timeouts"},
    CONNECT_TIMEOUT: "timeouts",
    IDLE_TIMEOUT: "timeouts",
    HALF_CLOSED_TIMEOUT: "timeouts",
}
#: A value of each, as the file has it.
RULE_EXAMPLES = {
    "name": '"web"',
    "allow": "true",
    "users": '["bob", "eve"]',
    "groups": '["admins"]',
    "user-patterns": '["mgr_*"]',
    "group-patterns": '["team-?"]',
    "authenticated": "true",
    "clients": '["192.0.2.0/24", "private", "unix"]',
    "listeners": '["192.0.2.1:1080", "unix:/run/socks"]',
    "versions": "[5]",
    "commands": '["connect", "resolve"]',
    "names": '["www.example.com", "*.example.org", "@games"]',
    "networks": '["198.51.100.0/24", "metadata", "servers"]',
    "ports": '[80, 443, "8000-8099"]',
    "days": '["mon-fri"]',
    "hours": '["08:00-18:00"]',
    "zone": '"Europe/Berlin"',
    "ends-sessions": "true",
    "outgoing": '["192.0.2.7", "2001:db8::7"]',
    "via": '"direct"',
    "ask": '"accounting"',
    "limits": '{ sessions = 50, download = "2 MB/s" }',
    "user-limits": '{ download = "1 MB/s" }',
    "quota": "false",
    "log": "false",
    CONNECT_TIMEOUT: "5",
    IDLE_TIMEOUT: "600",
    HALF_CLOSED_TIMEOUT: "60",
}

_TABLES = ("limits", "user_limits", "timeouts")
_PLAIN_RULE_KEYS = [key for key, field in RULE_KEYS.items() if field not in _TABLES]
_connect = seconds()
_idle = seconds(or_zero="for never", zero=NEVER)


def policy_of(
    rules: Any, sets: Any, quota_file: bool, directory: str, errors: list[ConfigError]
) -> RulePolicy | None:
    """
    The policy, or None where there is no rule, or something is wrong.

    Without a rule there is one only where metadata addresses are added: it decides as the default
    policy does.

    :param rules: what stands as ``rule``; None: nothing.
    :param sets: what stands as ``sets``; None: nothing.
    :param quota_file: whether there is one, without which there are no quotas.
    :param directory: from where files are named.
    :param errors: what is wrong is added to them.
    """
    known = sets_of(sets, directory, errors)
    found = _rules(rules, quota_file, errors)
    if not _names_differ(rules, errors):
        return None
    if not found and not (known is not None and known.metadata):
        return None
    if known is None:
        # Which of the sets that rules name exist is not known.
        return None
    try:
        return RulePolicy([rule for rule in found.values() if rule is not None], known)
    except RuleError as problem:
        numbers = {rule.name: number for number, rule in found.items() if rule is not None}
        errors += [_error((RULE, numbers[each.rule]), rules, each) for each in problem.problems[:MOST_TOLD]]
        return None


def _rules(rules: Any, quota_file: bool, errors: list[ConfigError]) -> dict[int, Rule | None]:
    if rules is None:
        return {}
    if not isinstance(rules, list):
        errors.append(
            ConfigError("there may be many rules: each begins with [[rule]]", path=(RULE,), shown=False)
        )
        return {}
    readers: dict[str, Reader] = {
        **dict.fromkeys(_PLAIN_RULE_KEYS, plain(_simple)),
        "limits": limits_reader(quota_file, scope="rule"),
        "user-limits": limits_reader(quota_file),
        CONNECT_TIMEOUT: plain(number_by(_connect)),
        IDLE_TIMEOUT: plain(number_by(_idle)),
        HALF_CLOSED_TIMEOUT: plain(number_by(_idle)),
    }
    return {number: _rule((RULE, number), rules, readers, errors) for number, _ in enumerate(rules)}


def _rule(path: Path, rules: Any, readers: Mapping[str, Reader], errors: list[ConfigError]) -> Rule | None:
    table = rules[path[1]]
    if not isinstance(table, dict):
        errors.append(ConfigError("not a table: a rule begins with [[rule]]", path=path, shown=False))
        return None
    before = len(errors)
    found = read_table(table, path, readers, errors)
    given = {RULE_KEYS[key]: value for key, value in found.items() if RULE_KEYS[key] != "timeouts"}
    if len(errors) == before:
        given["timeouts"] = _timeouts(found)
    missing = [key for key in ("name", "allow") if key not in table]
    errors += [ConfigError(f"{key} is missing", path=path, shown=False) for key in missing]
    # What is missing or wrong already is no reason not to look at the rest.
    stand_ins = {"name": "rule", "allow": True}
    try:
        rule = Rule(**{**stand_ins, **given})
    except RuleError as problem:
        errors += [_error(path, rules, each) for each in problem.problems[:MOST_TOLD]]
        return None
    return rule if len(errors) == before else None


def _names_differ(rules: Any, errors: list[ConfigError]) -> bool:
    """Whether each of the *rules* has a name of its own; what is wrong is added to *errors*."""
    known = len(errors)
    first: dict[str, int] = {}
    for number, table in enumerate(rules if isinstance(rules, list) else ()):
        name = table.get("name") if isinstance(table, dict) else None
        if isinstance(name, str) and first.setdefault(name, number) != number:
            right = f"another name: the rule number {first[name] + 1} has this one"
            errors.append(ConfigError(right, path=(RULE, number, "name")))
    return len(errors) == known


def _timeouts(found: dict[str, Any]) -> RuleTimeouts | None:
    """The timeouts among the values that are *found* in the table of a rule."""
    timeouts = RuleTimeouts(*map(found.get, (CONNECT_TIMEOUT, IDLE_TIMEOUT, HALF_CLOSED_TIMEOUT)))
    return None if timeouts == RuleTimeouts() else timeouts


def _simple(value: Any) -> Any:
    """*value*, which the rule itself checks."""
    if isinstance(value, dict):
        raise ConfigError("not a table")
    return value


def _error(path: Path, rules: Any, problem: Problem) -> ConfigError:
    """Where *problem* is, which is about the rule at *path*."""
    key = next((key for key, field in RULE_KEYS.items() if field == problem.field), problem.field)
    return error_of(problem, path, rules[path[1]], key)
