"""
The tables ``[shared]`` and ``[node]``: the store that several nodes share, and what is of this node alone.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from ..values.errors import ConfigError, Path
from ..values.shared import NodeSettings, SharedSettings, StoreAddress, check_admin_url, check_name
from .environment import expanded
from .readers import Key, Reader, flag, plain, read_table, text
from .upstreams import password_in
from .words import NODE, SHARED

#: The examples of the keys; the docstring of the class describes them.
SHARED_KEYS = {
    "store": Key('"redis://valkey.example.org:6379/0"'),
    "password-file": Key('"/etc/socks/store.password"'),
    "ca-file": Key('"/etc/ssl/store.pem"'),
    "site": Key('"berlin"'),
    "required": Key("false"),
    "nodes": Key("4"),
}
NODE_KEYS = {"name": Key('"node1"'), "admin": Key('"https://10.90.0.11:9090"')}

#: Most nodes that an operator may name.
_MOST_NODES = 1024


def shared_in(table: Any, node: str, directory: str, errors: list[ConfigError]) -> SharedSettings | None:
    """
    Read the store of a file.

    :param table: the value of the key ``shared``; None: the file does not have it.
    :param node: the name of this node.
    :param directory: the directory to which relative paths refer.
    :param errors: receives every mistake.
    :returns: the settings; None: there is no store, or there are mistakes.
    """
    known = len(errors)
    readers: dict[str, Reader] = {
        "store": plain(lambda value: StoreAddress.of(expanded(value))),
        "password-file": plain(partial(_password, directory)),
        "ca-file": plain(lambda value: os.path.join(directory, expanded(value))),
        "site": plain(_name),
        "required": plain(flag),
        "nodes": plain(_nodes),
    }
    found = _table(table, (SHARED,), readers, errors)
    if table is None or len(errors) > known:
        return None
    if "store" not in found:
        errors.append(ConfigError("store is missing", path=(SHARED,), shown=False))
        return None
    if not found.get("required", True) and "nodes" not in found:
        reason = "needs nodes: without the store, each node has its part of a limit"
        errors.append(ConfigError(reason, path=(SHARED, "required")))
        return None
    file = found.pop("password-file", None)
    if file is not None:
        found["password_file"], found["password"] = file
    return SharedSettings(**{key.replace("-", "_"): value for key, value in found.items()}, node=node)


def node_in(table: Any, has_address: bool, errors: list[ConfigError]) -> NodeSettings:
    """
    Read what is of this node alone.

    :param table: the value of the key ``node``; None: the file does not have it.
    :param has_address: whether there may be an admin socket at an address.
    :param errors: receives every mistake.
    """
    known = len(errors)
    found = _table(table, (NODE,), {"name": plain(_name), "admin": plain(_admin_url)}, errors)
    if len(errors) > known:
        return NodeSettings()
    if "admin" in found and not has_address:
        reason = "there is no [[admin.listener]] at an address: one with tcp: or ssl: is needed"
        errors.append(ConfigError(reason, path=(NODE, "admin")))
    return NodeSettings(**found)


def _table(value: Any, path: Path, readers: dict[str, Reader], errors: list[ConfigError]) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        return read_table(value, path, readers, errors)
    except ConfigError:
        reason = f"not a table; its keys stand below a line [{path[0]}]"
        errors.append(ConfigError(reason, path=path, shown=False))
        return {}


def _name(value: Any) -> str:
    return check_name(expanded(value))


def _admin_url(value: Any) -> str:
    return check_admin_url(expanded(value))


def _nodes(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST_NODES:
        raise ConfigError(f"not a whole number from 1 to {_MOST_NODES}")
    return value


def _password(directory: str, value: Any) -> tuple[str, str]:
    path = os.path.join(directory, expanded(text(value)))
    return path, password_in(directory, value).decode("utf-8", "surrogateescape")
