"""
What is wrong in tables that have no options, and how they are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..policy.rules import Problem
from ..values.errors import ConfigError
from .lines import Path
from .mistakes import MOST_TOLD, listed, nearest

#: Names of what stands at the top of the file, beside the tables of options.
USERS, GROUPS, RULE, SETS = "users", "groups", "rule", "sets"
OTHERS = (USERS, GROUPS, RULE, SETS)

#: A key that needs no quotes.
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


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


class Hidden(ConfigError):
    """Something is wrong with a value that is nobody's business."""


class Noted(Exception):
    """A value is wrong within, and that has been noted."""


#: Reads a value at a path; notes what is wrong within, or raises ConfigError.
Reader = Callable[[Any, Path, "list[Fault]"], Any]


def plain(parse: Callable[[Any], Any]) -> Reader:
    """Reads by *parse*, which has but one thing to say of what is wrong."""
    return lambda value, path, faults: parse(value)


def read_table(value: Any, path: Path, readers: Mapping[str, Reader], faults: list[Fault]) -> dict[str, Any]:
    """
    What is right in a table.

    :param value: what should be one.
    :param path: where.
    :param readers: for each key that there may be.
    :param faults: what is wrong is added to them.
    :raises ConfigError: when it is no table.
    """
    if not isinstance(value, dict):
        raise ConfigError("not a table")
    found = {}
    unknown: list[str] = []
    for key, inner in value.items():
        if key not in readers:
            unknown.append(key)
            if len(unknown) <= MOST_TOLD:
                faults.append(Fault((*path, key), no_such(key, readers), False))
            continue
        try:
            found[key] = readers[key](inner, (*path, key), faults)
        except Noted:
            pass
        except ConfigError as problem:
            faults.append(Fault((*path, key, *problem.path), problem.reason, not isinstance(problem, Hidden)))
    if len(unknown) > MOST_TOLD:
        reason = f"and {len(unknown) - MOST_TOLD} more such keys"
        faults.append(Fault((*path, unknown[MOST_TOLD]), reason, False))
    return found


def each(parse: Callable[[Any], Any]) -> Reader:
    """Reads a list of what *parse* reads."""

    def read(value: Any, path: Path, faults: list[Fault]) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ConfigError("not a list in brackets")
        found = []
        for number, entry in enumerate(value):
            try:
                found.append(parse(entry))
            except ConfigError as problem:
                faults.append(Fault((*path, number), problem.reason))
        if len(found) < len(value):
            raise Noted
        return tuple(found)

    return read


def fault_of(problem: Problem, path: Path, table: Mapping[str, Any], key: str) -> Fault:
    """
    Where a *problem* of a rule or a set is.

    :param path: of the *table* that it is about.
    :param key: in that.
    """
    value, number = table.get(key), problem.number
    if isinstance(value, list) and number is None and problem.value in value:
        number = value.index(problem.value)
    if isinstance(value, list) and number is not None:
        return Fault((*path, key, number), problem.right)
    return Fault((*path, key), problem.right)


def flag(value: Any) -> bool:
    """Reads true or false."""
    if not isinstance(value, bool):
        raise ConfigError("not true or false")
    return value


def text(value: Any) -> str:
    """Reads text."""
    if not isinstance(value, str):
        raise ConfigError("not text in quotes")
    return value


def no_such(key: str, keys: Iterable[str]) -> str:
    """What to say of a *key* that is none of *keys*."""
    near = nearest(key, keys)
    return f"no such key; did you mean {near}?" if near else f"no such key; there are {listed(keys)}"


def place(path: Path, document: Mapping[str, Any]) -> str:
    """How *path* is told: the table with its name, and the key in it."""
    if path[0] == RULE:
        return _place_of_rule(path, document)
    where = f"[{'.'.join(map(named, path[:2]))}]"
    return f"{where} {_inner(path[2:])}".rstrip()


def _place_of_rule(path: Path, document: Mapping[str, Any]) -> str:
    table, *rest = path
    if not rest:
        return f"[[{table}]]"
    rule = document[RULE][rest[0]]
    name = rule.get("name") if isinstance(rule, dict) else None
    where = f'[[{table}]] "{name}"' if isinstance(name, str) else f"[[{table}]] number {int(rest[0]) + 1}"
    return f"{where} {_inner(path[2:])}".rstrip()


def _inner(steps: Iterable[str | int]) -> str:
    told = "".join(f".{named(step)}" if isinstance(step, str) else f"[{step}]" for step in steps)
    return told.removeprefix(".")


def named(step: str | int) -> str:
    """A key as the file has it."""
    name = str(step)
    return name if BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)
