"""
The tables ``[helpers.NAME]``: external programs that judge requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..values.errors import ConfigError, Path
from ..values.helpers import FORMAT, HelperSettings
from .readers import Key, Reader, each, named_tables, plain, read_table, text, typed
from .words import HELPERS, nearest

#: The examples and units of the keys; the docstring of the class describes them.
HELPER_KEYS = {
    "command": Key('["/usr/local/lib/socks/judge", "--strict"]'),
    "children": Key("5"),
    "concurrency": Key("50"),
    "timeout": Key("10", "seconds"),
    "ttl": Key("60", "seconds"),
    "negative-ttl": Key("10", "seconds"),
    "format": Key(f'"{FORMAT}"'),
}

_number, _whole = typed(int, float), typed(int)
_READERS: dict[str, Reader] = {
    "command": each(text),
    "children": plain(_whole),
    "concurrency": plain(_whole),
    "timeout": plain(_number),
    "ttl": plain(_number),
    "negative-ttl": plain(_number),
    "format": plain(text),
}


def helpers_in(tables: Any, errors: list[ConfigError]) -> dict[str, HelperSettings] | None:
    """
    Read the helpers of a file.

    :param tables: the value of the key ``helpers``; None: the file does not have it.
    :param errors: receives every mistake.
    :returns: the helpers by name; None: there are mistakes.
    """
    known = len(errors)
    found = named_tables(tables, HELPERS, lambda table, path: _helper(table, path, errors), errors)
    return found if len(errors) == known else None


def _helper(table: Any, path: Path, errors: list[ConfigError]) -> HelperSettings | None:
    known = len(errors)
    found = read_table(table, path, _READERS, errors)
    if "command" not in table:
        errors.append(ConfigError("command is missing", path=path, shown=False))
    if len(errors) > known:
        return None
    return HelperSettings(**{key.replace("-", "_"): value for key, value in found.items()})


def check_helper(
    name: Any, path: Path, helpers: Mapping[str, HelperSettings], errors: list[ConfigError]
) -> None:
    """
    Note a helper that there is not.

    :param name: the value of the key ``ask``.
    :param path: the place of the value in the file.
    :param errors: receives the mistake.
    """
    if not isinstance(name, str) or name in helpers:
        return
    near = nearest(name, helpers)
    meant = f"did you mean {near}?" if near else f"each has a table that begins with [{HELPERS}.NAME]"
    errors.append(ConfigError(f"there is no such helper; {meant}", path=path))
