"""The wording of messages about a configuration: one line each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from ..values.errors import ConfigError, Path
from .options import SCOPES, TABLES

#: The keys at the top of the file, beside the tables of options.
USERS, GROUPS, RULE, SETS = "users", "groups", "rule", "sets"
UPSTREAMS, POOLS = "upstreams", "pools"
STICKY, ADMIN, HELPERS, METRICS = "sticky", "admin", "helpers", "metrics"
#: The tables of these that have keys, and not tables with names.
SHARED, NODE, USAGE = "shared", "node", "usage"
SINGLE = (STICKY, SHARED, NODE, METRICS, USAGE)
OTHERS = (USERS, GROUPS, RULE, SETS, UPSTREAMS, POOLS, STICKY, ADMIN, HELPERS, SHARED, NODE, METRICS, USAGE)

#: Bytes of a file. A file that people write is shorter, and some files never end.
MOST_BYTES = 16 << 20

#: Most mistakes of one kind, or in one table, that are shown: a full list of very many would take minutes.
MOST_TOLD = 100

#: A key that needs no quotes.
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

#: Most characters of a value that are shown.
MOST_SHOWN = 60

#: The similarity, from 0 to 1, from which on a word may be a misspelling of another.
ALIKE = 0.7


class OpenToAll(ConfigError):
    """A listener without authentication is open to other machines; the reason names the listener."""


def in_option(problem: ConfigError) -> str:
    """The line about an option of the command line."""
    return str(problem) if isinstance(problem, OpenToAll) else f"--{problem.path[0]} {problem}"


def place(path: Path, document: Mapping[str, Any]) -> str:
    """*path* in a message: the table with its name, and the key in it."""
    table, *inside = path
    if table == RULE:
        where, inside = _rule(path, document), inside[1:]
    elif table == ADMIN:
        where, inside = _admin(inside)
    elif not inside:
        value = document.get(str(table))
        where = f"[{table}]" if table in OTHERS or isinstance(value, (dict, list)) else str(table)
    elif table in TABLES and inside[0] not in SCOPES:
        where, inside = f"[{table}] {inside[0]}", inside[1:]  # an unknown key is shown as the file writes it
        return where + "".join(f"[{step}]" for step in inside)
    elif table in SINGLE:
        where = f"[{table}]"
    else:
        where, inside = f"[{'.'.join(map(named, path[:2]))}]", inside[1:]
    told = "".join(f".{named(step)}" if isinstance(step, str) else f"[{step}]" for step in inside)
    return f"{where} {told.removeprefix('.')}".rstrip()


def _admin(inside: list[str | int]) -> tuple[str, list[str | int]]:
    if len(inside) > 1 and inside[0] == "listener" and isinstance(inside[1], int):
        return f"[[admin.listener]] number {inside[1] + 1}", inside[2:]
    return "[admin]", inside


def _rule(path: Path, document: Mapping[str, Any]) -> str:
    if len(path) == 1:
        return "[[rule]]"
    number = int(path[1])
    rule = document["rule"][number]
    name = rule.get("name") if isinstance(rule, dict) else None
    return f'[[rule]] "{name}"' if isinstance(name, str) else f"[[rule]] number {number + 1}"


def named(step: str | int) -> str:
    """The key *step* as the file writes it, in quotes if it needs them."""
    name = str(step)
    return name if BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def shown(value: Any) -> str:
    """*value* as the file writes it, cut off after :data:`MOST_SHOWN` characters."""
    text = _toml(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The entry of *names* that is most like *name*; None: no entry is like it."""
    return _nearest(name[:MOST_SHOWN].lower().replace("_", "-"), tuple(names))


@lru_cache(maxsize=1024)  # a file often has the same mistake many times
def _nearest(name: str, names: tuple[str, ...]) -> str | None:
    found = get_close_matches(name, names, 1, ALIKE)
    return found[0] if found else None


def listed(names: Iterable[str]) -> str:
    """*names* as a sentence lists them: with commas, and "and" before the last."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # The caller cuts the text off anyway.
        return json.dumps(value[: 2 * MOST_SHOWN], ensure_ascii=False)
    if isinstance(value, int):
        return str(value) if value.bit_length() < 8 * MOST_SHOWN else "a number of many digits"
    if isinstance(value, list):
        return f"[{', '.join(_toml(entry) for entry in value[:MOST_SHOWN])}]"
    if isinstance(value, dict):
        return "{...}"
    return str(value)
