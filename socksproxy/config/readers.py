"""
How tables of the configuration file are read: from what TOML has to values.

Strategy: a reader gets a value, its path and the list of all errors. It returns what the value means. What is
wrong it adds to the list, or raises, and the rest is read nevertheless. So one look finds all mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from ..errors import NameNotFound
from ..net.names import canonical
from ..policy.rules import Problem
from ..values.errors import ConfigError, Path
from ..values.parsers import Parser
from ..wire.words import Address
from .words import MOST_TOLD, listed, nearest

T = TypeVar("T")

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


def number_by(parse: Parser) -> Callable[[Any], float]:
    """Reads a number as *parse*, a parser of the command line, does."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError("not a number")
        return float(parse(str(value)))

    return read


def place_in(value: str, example: str) -> Address:
    """
    The host and the port in *value*.

    :param example: a right value with a name, for the message.
    :raises ConfigError: when *value* is no such thing.
    """
    host, colon, port = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    right = port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536
    if not (colon and bare and right) or (":" in bare and not host.startswith("[")):
        raise ConfigError(f"not HOST:PORT, such as {example} or [2001:db8::1]:{example.rpartition(':')[2]}")
    try:
        return canonical(Address.of(bare, int(port)))
    except NameNotFound:
        raise ConfigError("the host is not a valid name or address") from None


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


def named_tables(
    tables: Any,
    kind: str,
    read: Callable[[Any, Path], T | None],
    errors: list[ConfigError],
    check_name: Callable[[Any], None] = lambda name: None,
) -> dict[str, T]:
    """
    What is right in tables that have names of their own, such as ``[upstreams.NAME]``.

    :param tables: the value of the key *kind*; None: the file does not have it.
    :param read: called with a table and its path; returns None, or raises, where the table is wrong.
    :param errors: receives every mistake.
    :param check_name: raises where a table cannot have the name.
    """
    found: dict[str, T] = {}
    if tables is None:
        return found
    if not isinstance(tables, dict):
        reason = f"each has a table of its own: it begins with [{kind}.NAME]"
        errors.append(ConfigError(reason, path=(kind,), shown=False))
        return found
    for name, table in tables.items():
        path: Path = (kind, name)
        try:
            check_name(name)
            if not isinstance(table, dict):
                raise ConfigError(f"not a table: it begins with [{kind}.NAME]", shown=False)
            value = read(table, path)
        except ConfigError as problem:
            errors.append(problem.within(path))
        else:
            if value is not None:
                found[name] = value
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
