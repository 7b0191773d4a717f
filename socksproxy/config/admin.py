"""
The tables ``[admin]`` and ``[[admin.listener]]``.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from typing import Any

from ..admin.settings import AdminLevel, AdminListener, AdminSettings, token_in
from ..errors import describe
from ..runtime.files import read_regular_file
from ..values.errors import ConfigError, Path
from ..values.parsers import seconds
from .environment import expanded
from .readers import Key, Reader, each, plain, read_table, text, typed
from .words import ADMIN

#: The examples and units of the keys; the docstring of the class describes them.
ADMIN_KEYS = {
    "listener": Key("[[admin.listener]]", meaning="The admin listeners, a table for each: see below."),
    "names": Key('["proxy1.example.org"]'),
    "agent": Key('"tcp:9777:interface=127.0.0.1"'),
    "notice": Key("10", "seconds"),
}
ADMIN_LISTENER_KEYS = {
    "endpoint": Key('"unix:/run/socksproxy/admin.sock:mode=600"'),
    "level": Key('"operator"'),
    "token-file": Key('"/etc/socks/admin.token"'),
    "client-ca": Key('"/etc/socks/operators.pem"'),
}

_LISTENER = "listener"
#: Admin listeners of one server.
_MOST = 16


def admin_of(table: Any, directory: str, errors: list[ConfigError]) -> AdminSettings | None:
    """
    Read the admin sockets of a file.

    :param table: the value of the key ``admin``; None: the file does not have it.
    :param directory: the directory to which relative paths refer.
    :param errors: receives every mistake.
    :returns: the settings; None: there are none, or there are mistakes.
    """
    if table is None:
        return None
    known = len(errors)
    readers: dict[str, Reader] = {
        _LISTENER: partial(_listeners, directory),
        "names": each(_name),
        "agent": plain(_agent),
        "notice": plain(_seconds),
    }
    try:
        found = read_table(table, (ADMIN,), readers, errors)
    except ConfigError:
        errors.append(
            ConfigError("not a table; its keys stand below a line [admin]", path=(ADMIN,), shown=False)
        )
    if len(errors) > known:
        return None
    listeners = found.pop(_LISTENER, ())
    return AdminSettings(listeners=listeners, **found)


def _listeners(
    directory: str, value: Any, path: Path, errors: list[ConfigError]
) -> tuple[AdminListener, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ConfigError(
            "each listener has a table of its own: it begins with [[admin.listener]]", shown=False
        )
    if len(value) > _MOST:
        raise ConfigError(f"more than {_MOST} of them", shown=False)
    readers: dict[str, Reader] = {
        "endpoint": plain(text),
        "level": plain(lambda word: AdminLevel.called(text(word))),
        "token-file": plain(partial(_token_file, directory)),
        "client-ca": plain(partial(_file, directory)),
    }
    found: list[AdminListener] = []
    for number, table in enumerate(value):
        here = (*path, number)
        known = len(errors)
        fields = read_table(table, here, readers, errors)
        if "endpoint" not in table:
            errors.append(ConfigError("endpoint is missing", path=here, shown=False))
        if len(errors) > known:
            continue
        try:
            listener = AdminListener(**{key.replace("-", "_"): value for key, value in fields.items()})
        except ConfigError as problem:
            errors.append(problem.within(here))
            continue
        if any(listener.endpoint == other.endpoint for other in found):
            errors.append(ConfigError("two listeners have this endpoint", path=(*here, "endpoint")))
        found.append(listener)
    return tuple(found)


def _file(directory: str, value: Any) -> str:
    path = os.path.join(directory, expanded(value))
    try:
        mode = os.stat(path).st_mode
    except PermissionError:
        return path  # a worker, which has given up its rights, does not read it
    except (OSError, ValueError) as problem:
        raise ConfigError(describe(problem) if isinstance(problem, OSError) else "not a path") from None
    if not stat.S_ISREG(mode):
        raise ConfigError("not a regular file")
    return path


def _token_file(directory: str, value: Any) -> str:
    path = _file(directory, value)
    try:
        token_in(read_regular_file(path).data)
    except PermissionError:
        pass  # as above
    except OSError as problem:
        raise ConfigError(describe(problem)) from None
    except ValueError as problem:
        raise ConfigError(str(problem)) from None
    return path


def _name(value: Any) -> str:
    name: str = text(value)
    if not name or "/" in name or name != name.strip() or not name.isascii():
        raise ConfigError("not the name of a host, without a port")
    return name.lower().rstrip(".")


def _agent(value: Any) -> str:
    description: str = text(value)
    if not description.lower().startswith(("tcp:", "tcp6:", "unix:")):
        raise ConfigError("must begin with tcp:, tcp6: or unix:")
    return description


def _seconds(value: Any) -> float:
    typed(int, float)(value)
    return float(_not_negative(str(value)))


_not_negative = seconds(or_zero="for not at all")
