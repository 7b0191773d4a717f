"""
The table ``[sticky]``: names of users with a word that keeps one address or one upstream.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial
from typing import Any

from ..values.errors import ConfigError, Path
from ..values.outgoing import STICKY as CHOICE
from ..values.sticky import StickySettings
from .environment import expanded
from .limits import check_quota_file
from .readers import Key, Reader, each, flag, plain, read_table, text, typed
from .words import STICKY, USERS

#: The examples and units of the keys; the docstring of the class describes them.
STICKY_KEYS = {
    "separator": Key('"-session-"'),
    "allow": Key('["for"]'),
    "for-separator": Key('"-for-"'),
    "for": Key("1800", "seconds"),
    "max": Key("86400", "seconds"),
    "strict": Key("true"),
    "file": Key('"/var/lib/socks/sticky"'),
}
#: The fields of the class whose keys have other names.
FIELDS = {"for": "seconds", "max": "most"}


def sticky_of(table: Any, directory: str, errors: list[ConfigError]) -> StickySettings | None:
    """
    Read the table.

    :param table: the value of the key ``sticky``; None: the file does not have it.
    :param directory: the directory to which a relative path refers.
    :param errors: receives every mistake.
    :returns: the settings; None: there is no such table, or there are mistakes.
    """
    if table is None:
        return None
    path: Path = (STICKY,)
    known = len(errors)
    readers = dict(_READERS, file=plain(partial(_file, directory)))
    try:
        found = read_table(table, path, readers, errors)
        if len(errors) == known:
            return StickySettings(
                **{FIELDS.get(key, key.replace("-", "_")): value for key, value in found.items()}
            )
    except ConfigError as problem:
        if problem.path:
            problem.shown = problem.path[0] in table
        errors.append(problem.within(path))
    return None


def check_names(settings: StickySettings, users: Collection[str], errors: list[ConfigError]) -> None:
    """Note the names of *users* that clients cannot log in with."""
    for name in users:
        if settings.is_sticky(name):
            reason = f'no user can have this name: "{settings.separator}" is the separator in [{STICKY}]'
            errors.append(ConfigError(reason, path=(USERS, name), shown=False))


def check_choice(word: str, sticky: bool) -> str | None:
    """Why *word* of a list ``outgoing`` cannot be there; None: it can."""
    if word != CHOICE or sticky:
        return None
    return f"needs the table [{STICKY}], which says for how long"


def _file(directory: str, value: Any) -> str:
    path = os.path.join(directory, expanded(value))
    check_quota_file(path)
    return path


_READERS: dict[str, Reader] = {
    "separator": plain(text),
    "allow": each(text),
    "for-separator": plain(text),
    "for": plain(typed(int, float)),
    "max": plain(typed(int, float)),
    "strict": plain(flag),
}
