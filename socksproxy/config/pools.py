"""
The tables ``[pools.NAME]``, and the files of members that they name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..policy.sets import SetFileError
from ..routes.member_files import MembersFile
from ..values.errors import ConfigError, Path
from ..values.parsers import seconds
from ..values.pools import Choose, PoolCheck, UpstreamPool, problems_of_pools
from ..values.upstreams import Upstream
from ..wire.words import Address
from .environment import expanded
from .readers import Key, Reader, each, named_tables, number_by, place_in, plain, read_table, text, typed
from .words import POOLS, listed

#: The examples and units of the keys; the docstring of the class describes them.
POOL_KEYS = {
    "members": Key('["frankfurt", "paris"]'),
    "members-file": Key('"/etc/socks/exits.txt"'),
    "choose": Key('"least-sessions"'),
    "backup": Key('["amsterdam"]'),
    "tries": Key("2"),
    "down-after": Key("5"),
    "retry-after": Key("30", "seconds"),
    "check": Key('{ every = 60, connect = "www.example.org:443", at-once = 8 }'),
    "otherwise": Key('"direct"'),
}

_number_of_seconds = number_by(seconds())


def pools_in(
    tables: Any, directory: str, upstreams: Mapping[str, Upstream] | None, errors: list[ConfigError]
) -> dict[str, UpstreamPool] | None:
    """
    Read the pools of a file. Files of members are loaded.

    :param tables: the value of the key ``pools``; None: the file does not have it.
    :param directory: the directory to which relative paths refer.
    :param upstreams: the upstreams of the file; None: they are wrong.
    :param errors: receives every mistake.
    :returns: the pools by name; None: there are mistakes, here or in the upstreams.
    """
    known = len(errors)
    readers = {**_READERS, "members-file": plain(partial(_members_file, directory))}

    def read(table: Any, path: Path) -> UpstreamPool | None:
        before = len(errors)
        values = read_table(table, path, readers, errors)
        if len(errors) > before:
            return None
        return UpstreamPool(**{key.replace("-", "_"): value for key, value in values.items()})

    found = named_tables(tables, POOLS, read, errors)
    if upstreams is None:
        return None
    if len(errors) == known:
        errors += [problem.within((POOLS,)) for problem in problems_of_pools(found, upstreams)]
    return found if len(errors) == known else None


def _members_file(directory: str, value: Any) -> MembersFile:
    path = os.path.join(directory, expanded(value))
    try:
        file = MembersFile(path)
        file.load()
    except SetFileError as problem:
        raise ConfigError(str(problem).removeprefix(os.path.abspath(path)).lstrip(":, ")) from None
    except ValueError:
        raise ConfigError("not a path") from None
    return file


def _choose(value: Any) -> Choose:
    words = [choose.value for choose in Choose]
    if value not in words:
        raise ConfigError(f"there are {listed(words)}")
    return Choose(value)


def _destination(value: Any) -> Address:
    return place_in(text(value), "www.example.org:443")


def _check(value: Any, path: Path, errors: list[ConfigError]) -> PoolCheck | None:
    known = len(errors)
    found = read_table(value, path, _CHECK_READERS, errors)
    for key in ("every", "connect"):
        if key not in value:
            errors.append(ConfigError(f"{key} is missing", path=path, shown=False))
    if len(errors) > known:
        return None
    try:
        return PoolCheck(**{key.replace("-", "_"): part for key, part in found.items()})
    except ConfigError as problem:
        errors.append(problem.within(path))
        return None


_CHECK_READERS: dict[str, Reader] = {
    "every": plain(_number_of_seconds),
    "connect": plain(_destination),
    "at-once": plain(typed(int)),
}

_READERS: dict[str, Reader] = {
    "members": each(text),
    "choose": plain(_choose),
    "backup": each(text),
    "tries": plain(typed(int)),
    "down-after": plain(typed(int)),
    "retry-after": plain(_number_of_seconds),
    "check": _check,
    "otherwise": plain(text),
}
