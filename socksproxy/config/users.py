"""
The tables ``[users.NAME]`` and ``[groups.NAME]``: from what TOML has to a directory.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..auth.directory import Directory, GroupRecord, UserRecord, expiry
from ..extras import missing
from ..values.errors import ConfigError, Path
from ..values.outgoing import SAME, UNSAID, Sources, problems_with
from ..wire.password import MAX_FIELD
from .environment import expanded
from .limits import limits_reader
from .readers import Key, Reader, each, flag, plain, read_table, text
from .words import GROUPS, USERS, nearest, place

#: What is to be known of each key; the rest is said by the class.
USER_KEYS = {
    "password": Key('"$2y$12$..."'),
    "groups": Key('["staff"]'),
    "expires": Key("2027-01-31"),
    "disabled": Key("true"),
    "outgoing": Key('["192.0.2.7", "2001:db8::7"]'),
    "via": Key('"direct"'),
    "limits": Key('{ sessions = 50, download = "1 MB/s" }'),
}
GROUP_KEYS = {key: known for key, known in USER_KEYS.items() if key not in ("password", "groups")}


def directory_of(users: Any, groups: Any, quota_file: bool, errors: list[ConfigError]) -> Directory | None:
    """
    The directory, or None where there are no users, or something is wrong.

    :param users: what stands as ``users``; None: nothing.
    :param groups: what stands as ``groups``; None: nothing.
    :param quota_file: whether there is one, without which there are no quotas.
    :param errors: what is wrong is added to them.
    """
    known = len(errors)
    readers = dict(_READERS, limits=limits_reader(quota_file, lifts=True))
    for_groups = {key: reader for key, reader in readers.items() if key in GROUP_KEYS}
    templates = {
        name: GroupRecord(**found) for name, found in _tables(groups, GROUPS, for_groups, errors).items()
    }
    records: dict[str, UserRecord] = {}
    for name, found in _tables(users, USERS, readers, errors).items():
        if not 0 < len(name.encode()) <= MAX_FIELD:
            errors.append(
                ConfigError(f"a user's name has 1 to {MAX_FIELD} bytes", path=(USERS, name), shown=False)
            )
        check_groups(users[name].get("groups"), (USERS, name, "groups"), groups, errors)
        records[name] = UserRecord(**found)
    if len(errors) > known or not records:
        return None
    return Directory(records, templates)


def check_groups(names: Any, path: Path, groups: Any, errors: list[ConfigError]) -> None:
    """
    Note groups that there are not.

    :param names: what should be the names of some.
    :param path: where.
    :param groups: what stands as ``groups``; None: nothing.
    :param errors: what is wrong is added to them.
    """
    known: Collection[str] = {} if groups is None else groups
    if not isinstance(names, list) or not isinstance(known, dict):
        return  # that has been noted
    for number, name in enumerate(names):
        if not isinstance(name, str) or name in known:
            continue
        near = nearest(name, known)
        meant = f"did you mean {near}?" if near else "each has a table that begins with [groups.NAME]"
        errors.append(ConfigError(f"there is no such group; {meant}", path=(*path, number)))


def _tables(
    tables: Any, kind: str, readers: dict[str, Reader], errors: list[ConfigError]
) -> dict[str, dict[str, Any]]:
    """What is right in each of the *tables* of users, or of groups."""
    if tables is None:
        return {}
    if not isinstance(tables, dict):
        errors.append(
            ConfigError(
                f"each has a table of its own: it begins with [{kind}.NAME]", path=(kind,), shown=False
            )
        )
        return {}
    found = {}
    for name, table in tables.items():
        table = _without_parts_of_names(name, table, kind, readers, errors)
        try:
            found[name] = read_table(table, (kind, name), readers, errors)
        except ConfigError:
            errors.append(
                ConfigError(f"not a table: it begins with [{kind}.NAME]", path=(kind, name), shown=False)
            )
    return found


def _without_parts_of_names(
    name: str, table: Any, kind: str, readers: dict[str, Reader], errors: list[ConfigError]
) -> Any:
    """*table* without what a name with a dot, such as that in ``[users.bob.smith]``, has made of itself."""
    if not isinstance(table, dict):
        return table
    parts = [key for key, inner in table.items() if key not in readers and isinstance(inner, dict)]
    for key in parts:
        whole, inner = f"{name}.{key}", table[key]
        while len(inner) == 1 and isinstance(next(iter(inner.values())), dict):
            ((further, inner),) = inner.items()
            if further in readers:
                break
            whole += f".{further}"
        reason = f"a name with a dot stands in quotes: {place((kind, whole), {})}"
        errors.append(ConfigError(reason, path=(kind, name, key), shown=False))
    return {key: inner for key, inner in table.items() if key not in parts}


def _password(value: Any) -> str:
    try:
        value = expanded(value)
    except ConfigError as problem:
        raise ConfigError(problem.reason, shown=False) from None
    try:
        from ..auth.checkers.records import checked_hash
    except ImportError as problem:
        raise ConfigError(missing("htpasswd", problem), shown=False) from None
    try:
        return checked_hash(value)
    except ValueError as problem:
        raise ConfigError(str(problem), shown=False) from None


def _outgoing(value: Any, path: Path, errors: list[ConfigError]) -> Sources:
    if value != SAME and not isinstance(value, list):
        raise ConfigError(f'not a list in brackets, nor "{SAME}"')
    if not value:
        raise ConfigError("must not be empty; leave it out where it does not matter")
    problems = problems_with(value)
    errors += [ConfigError(problem.reason, path=(*path, *problem.path)) for problem in problems]
    return UNSAID if problems else Sources(value)


_READERS: dict[str, Reader] = {
    "password": plain(_password),
    "groups": each(text),
    "expires": plain(expiry),
    "disabled": plain(flag),
    "outgoing": _outgoing,
    "via": plain(text),
}
