"""
The table ``[usage]``: its presence has the server keep usage records.
"""

from __future__ import annotations

import os
from typing import Any

from ..values.errors import ConfigError
from ..values.records import RecordSettings
from .environment import expanded
from .readers import Key, plain, read_table, text, typed
from .words import USAGE

#: The examples and units of the keys; the docstring of the class describes them.
RECORD_KEYS = {"file": Key('"/var/lib/socks/records.sqlite"'), "days": Key("400", "days")}


def records_of(table: Any, node: str, directory: str, errors: list[ConfigError]) -> RecordSettings | None:
    """
    Read where usage records are kept.

    :param table: the value of the key ``usage``; None: the file does not have it.
    :param node: the name of this node.
    :param directory: the directory to which relative paths refer.
    :param errors: receives every mistake.
    :returns: None: no records are kept, or there are mistakes.
    """
    if table is None:
        return None
    known = len(errors)
    readers = {
        "file": plain(lambda value: os.path.join(directory, expanded(text(value)))),
        "days": plain(lambda value: RecordSettings(file="", node=node, days=typed(int)(value)).days),
    }
    try:
        found = read_table(table, (USAGE,), readers, errors)
    except ConfigError as problem:
        errors.append(problem.within((USAGE,)))
        return None
    if len(errors) > known:
        return None
    if "file" not in found:
        errors.append(ConfigError("file is missing", path=(USAGE,), shown=False))
        return None
    return RecordSettings(**found, node=node)
