"""
The tables ``[users.NAME]`` and ``[groups.NAME]``: from what TOML has to a directory.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..auth.directory import Directory, GroupRecord, UserRecord, expiry
from ..extras import missing
from ..values.errors import ConfigError
from ..values.outgoing import outgoing_of
from ..wire.password import MAX_FIELD
from .faults import (
    GROUPS,
    USERS,
    Fault,
    Hidden,
    Noted,
    Reader,
    each,
    flag,
    place,
    plain,
    read_table,
    text,
)
from .limits import limits_reader
from .lines import Path
from .mistakes import nearest
from .tables import Key

#: What is to be known of each key; the rest is said by the class.
USER_KEYS = {
    "password": Key('"$2y$12$..."', secret=True),
    "groups": Key('["staff"]'),
    "expires": Key("2027-01-31"),
    "disabled": Key("true"),
    "outgoing": Key('["192.0.2.7", "2001:db8::7"]'),
    "limits": Key('{ sessions = 50, download = "1 MB/s" }'),
}
GROUP_KEYS = {key: known for key, known in USER_KEYS.items() if key not in ("password", "groups")}


def directory_of(users: Any, groups: Any, quota_file: bool, faults: list[Fault]) -> Directory | None:
    """
    The directory, or None where there are no users, or something is wrong.

    :param users: what stands as ``users``; None: nothing.
    :param groups: likewise as ``groups``.
    :param quota_file: whether there is one, without which there are no quotas.
    :param faults: what is wrong is added to them.
    """
    known = len(faults)
    readers = dict(_READERS, limits=limits_reader(quota_file))
    for_groups = {key: reader for key, reader in readers.items() if key in GROUP_KEYS}
    templates = {
        name: GroupRecord(**found) for name, found in _tables(groups, GROUPS, for_groups, faults).items()
    }
    records: dict[str, UserRecord] = {}
    for name, found in _tables(users, USERS, readers, faults).items():
        if not 0 < len(name.encode()) <= MAX_FIELD:
            faults.append(Fault((USERS, name), f"a user's name has 1 to {MAX_FIELD} bytes", False))
        check_groups(users[name].get("groups"), (USERS, name, "groups"), groups, faults)
        records[name] = UserRecord(**found)
    if len(faults) > known or not records:
        return None
    return Directory(records, templates)


def check_groups(names: Any, path: Path, groups: Any, faults: list[Fault]) -> None:
    """
    Note groups that there are not.

    :param names: what should be the names of some.
    :param path: where.
    :param groups: what stands as ``groups``; None: nothing.
    :param faults: what is wrong is added to them.
    """
    known: Collection[str] = {} if groups is None else groups
    if not isinstance(names, list) or not isinstance(known, dict):
        return  # that has been noted
    for number, name in enumerate(names):
        if not isinstance(name, str) or name in known:
            continue
        near = nearest(name, known)
        meant = f"did you mean {near}?" if near else "each has a table that begins with [groups.NAME]"
        faults.append(Fault((*path, number), f"there is no such group; {meant}"))


def _tables(
    tables: Any, kind: str, readers: dict[str, Reader], faults: list[Fault]
) -> dict[str, dict[str, Any]]:
    """What is right in each of the *tables* of users, or of groups."""
    if tables is None:
        return {}
    if not isinstance(tables, dict):
        faults.append(Fault((kind,), f"each has a table of its own: it begins with [{kind}.NAME]", False))
        return {}
    found = {}
    for name, table in tables.items():
        table = _without_parts_of_names(name, table, kind, readers, faults)
        try:
            found[name] = read_table(table, (kind, name), readers, faults)
        except ConfigError:
            faults.append(Fault((kind, name), f"not a table: it begins with [{kind}.NAME]", False))
    return found


def _without_parts_of_names(
    name: str, table: Any, kind: str, readers: dict[str, Reader], faults: list[Fault]
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
        faults.append(Fault((kind, name, key), reason, False))
    return {key: inner for key, inner in table.items() if key not in parts}


def _password(value: Any) -> str:
    if not isinstance(value, str):
        raise Hidden("not text in quotes")
    try:
        from ..auth.checkers.records import checked_hash
    except ImportError as problem:
        raise Hidden(missing("htpasswd", problem)) from None
    try:
        return checked_hash(value)
    except ValueError as problem:
        raise Hidden(str(problem)) from None


def _outgoing(value: Any, path: Path, faults: list[Fault]) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ConfigError("not a list in brackets")
    if not value:
        raise ConfigError("must not be empty; leave it out where it does not matter")
    right: list[Any] = []
    for number, entry in enumerate(value):
        try:
            outgoing_of([*right, entry])
        except ConfigError as problem:
            faults.append(Fault((*path, number), problem.reason))
        else:
            right.append(entry)
    if len(right) < len(value):
        raise Noted
    return tuple(right)


_READERS: dict[str, Reader] = {
    "password": plain(_password),
    "groups": each(text),
    "expires": plain(expiry),
    "disabled": plain(flag),
    "outgoing": _outgoing,
}
