"""
How tables of the configuration file are read: from what TOML has to values.

Strategy: a reader gets a value, its path and the list of all errors. It returns what the value means. What is
wrong it adds to the list, or raises, and the rest is read nevertheless. So one look finds all mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..policy.rules import Problem
from ..values.errors import ConfigError, Path
from .words import MOST_TOLD, listed, nearest

#: What TOML promises of whole numbers.
_MOST_BITS = 63
_WANTED = {
    (str,): "not text in quotes",
    (int,): "not a whole number",
    (int, float): "not a number",
    (bool,): "not true or false",
    (int, str): "neither a whole number nor text in quotes",
}

#: Reads a value at a path.
Reader = Callable[[Any, Path, "list[ConfigError]"], Any]


class Key(NamedTuple):
    """
    What is to be known of a key besides its type.

    :ivar example: a value, as the file has it.
    :ivar unit: what a number counts, if it is not plain.
    :ivar meaning: what it says, where no class says the same.
    """

    example: str
    unit: str = ""
    meaning: str = ""


def plain(parse: Callable[[Any], Any]) -> Reader:
    """Reads by *parse*, which raises the one thing that can be wrong."""
    return lambda value, path, errors: parse(value)


def typed(*kinds: type) -> Callable[[Any], Any]:
    """Reads a value of one of the types *kinds*."""

    def parse(value: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(_WANTED[kinds])
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise ConfigError("a number that is too large")
        return value

    return parse


#: Reads true or false; text.
flag, text = typed(bool), typed(str)


def each(parse: Callable[[Any], Any], alone: str = "") -> Reader:
    """
    Reads a list of what *parse* reads; entries that are wrong are left out.

    :param alone: an entry that needs no list where there is no other; empty: none.
    """

    def read(value: Any, path: Path, errors: list[ConfigError]) -> tuple[Any, ...]:
        if not isinstance(value, list):
            if alone and value == alone:
                return (alone,)
            raise ConfigError("not a list in brackets" + (f', nor "{alone}"' if alone else ""))
        found = []
        for number, entry in enumerate(value):
            try:
                found.append(parse(entry))
            except ConfigError as problem:
                errors.append(problem.within((*path, number)))
        return tuple(found)

    return read


def read_table(
    value: Any,
    path: Path,
    readers: Mapping[str, Reader],
    errors: list[ConfigError],
    unknown: Callable[[Path], str] | None = None,
) -> dict[str, Any]:
    """
    What is right in a table.

    :param value: what should be one.
    :param path: where.
    :param readers: for each key that there may be.
    :param errors: what is wrong is added to them.
    :param unknown: gives the reason why there is no key at a path; then what is right of a list is kept, and
        the caller leaves errors out where there are too many. None: the nearest key is told.
    :raises ConfigError: when it is no table.
    """
    if not isinstance(value, dict):
        raise ConfigError("not a table")
    found = {}
    strange: list[str] = []
    for key, inner in value.items():
        if key not in readers:
            strange.append(key)
            if unknown is not None or len(strange) <= MOST_TOLD:
                reason = no_such(key, readers) if unknown is None else unknown((*path, key))
                errors.append(ConfigError(reason, path=(*path, key), shown=False))
            continue
        known = len(errors)
        try:
            meaning = readers[key](inner, (*path, key), errors)
        except ConfigError as problem:
            errors.append(problem.within((*path, key)))
        else:
            if unknown is not None or len(errors) == known:
                found[key] = meaning
    if unknown is None and len(strange) > MOST_TOLD:
        reason = f"and {len(strange) - MOST_TOLD} more such keys"
        errors.append(ConfigError(reason, path=(*path, strange[MOST_TOLD]), shown=False))
    return found


def error_of(problem: Problem, path: Path, table: Mapping[str, Any], key: str) -> ConfigError:
    """
    A *problem* of a rule or a set, with its place in the file.

    :param path: of the *table* that it is about.
    :param key: in that.
    """
    value, number = table.get(key), problem.number
    if isinstance(value, list) and number is None and problem.value in value:
        number = value.index(problem.value)
    at = (number,) if isinstance(value, list) and number is not None else ()
    return ConfigError(problem.right, path=(*path, key, *at))


def no_such(key: str, keys: Iterable[str]) -> str:
    """What to say of a *key* that is none of *keys*."""
    near = nearest(key, keys)
    return f"no such key; did you mean {near}?" if near else f"no such key; there are {listed(keys)}"
