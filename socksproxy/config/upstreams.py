"""
The tables ``[upstreams.NAME]``: this module reads them, and checks the names of upstreams in other tables.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from ..errors import describe
from ..net.sockets import SO_BINDTODEVICE, can_enter_namespaces
from ..routes.endpoint_reactor import check_endpoint
from ..routes.hops import Hop
from ..values.errors import ConfigError, Path
from ..values.outgoing import outgoing_of
from ..values.parsers import seconds
from ..values.pools import UpstreamPool, pool_looks_up
from ..values.upstreams import (
    CLIENTS_OWN,
    DIRECT,
    EACH_SESSION,
    GSSAPI,
    Upstream,
    UpstreamType,
    chain_of,
    check_upstream_name,
    problems_of,
)
from ..wire.password import Credentials
from ..wire.words import Address
from .environment import expanded
from .readers import Key, Reader, flag, named_tables, number_by, place_in, plain, read_table, text, typed
from .words import UPSTREAMS, listed, nearest

#: The examples and units of the keys; the docstring of the class describes them.
UPSTREAM_KEYS = {
    "type": Key('"socks5"'),
    "address": Key('"proxy.example.org:1080"'),
    "endpoint": Key('"tls:proxy.example.org:443"'),
    "login": Key('{ user = "office", password-file = "/etc/socks/office" }'),
    "via": Key('"office"'),
    "resolve": Key('"here"'),
    "try-timeout": Key("3", "seconds"),
    "udp": Key("false"),
    "udp-address": Key('"server"'),
    "bind": Key("true"),
    "resolve-commands": Key("true"),
    "ca-file": Key('"/etc/ssl/office.pem"'),
    "max-sessions": Key("100"),
    "weight": Key("2"),
    "outgoing": Key('["192.0.2.11"]'),
    "interface": Key('"wg0"'),
    "mark": Key("7"),
    "netns": Key('"vpn"'),
    "proxy-protocol": Key("2"),
}

#: Bytes of the longest name of an interface (IFNAMSIZ, without the zero at the end).
_LONGEST_INTERFACE = 15
#: Most bytes of a file with a password.
_MOST_BYTES = 4096


def upstreams_in(tables: Any, directory: str, errors: list[ConfigError]) -> dict[str, Upstream] | None:
    """
    Read the upstreams of a file.

    :param tables: the value of the key ``upstreams``; None: the file does not have it.
    :param directory: the directory to which relative paths refer.
    :param errors: receives every mistake.
    :returns: the upstreams by name; None: there are mistakes.
    """
    known = len(errors)
    readers = dict(_READERS)
    readers["login"] = partial(_login, directory)
    readers["ca-file"] = plain(lambda value: os.path.join(directory, expanded(value)))
    found = named_tables(
        tables,
        UPSTREAMS,
        lambda table, path: _upstream(table, path, readers, errors),
        errors,
        check_upstream_name,
    )
    if len(errors) == known:
        errors += [problem.within((UPSTREAMS,)) for problem in problems_of(found)]
    return found if len(errors) == known else None


def check_way(name: Any, path: Path, ways: Collection[str], errors: list[ConfigError]) -> None:
    """
    Note an unknown way out.

    :param name: the value, which should be the name of an upstream or a pool, or ``direct``.
    :param path: the place of the value in the file.
    :param ways: the names of the upstreams and pools.
    :param errors: receives the mistake.
    """
    if not isinstance(name, str) or name == DIRECT or name in ways:
        return
    near = nearest(name, ways)
    meant = f"did you mean {near}?" if near else f"each has a table that begins with [{UPSTREAMS}.NAME]"
    errors.append(ConfigError(f"there is no such upstream; {meant}", path=path))


def names_resolved_by(
    via: str | None, upstreams: Mapping[str, Upstream], pools: Mapping[str, UpstreamPool]
) -> str | None:
    """The upstream or pool that looks up names on the way out *via*; None: there is none."""
    if via is not None and via in pools:
        return via if pool_looks_up(via, pools, upstreams) else None
    if via is None or via not in upstreams or not chain_of(via, upstreams):
        return None
    return via if upstreams[via].takes_names else None


def _upstream(
    table: Any, path: Path, readers: Mapping[str, Reader], errors: list[ConfigError]
) -> Upstream | None:
    known = len(errors)
    found = read_table(table, path, readers, errors)
    if "type" not in table:
        errors.append(ConfigError("type is missing", path=path, shown=False))
    if len(errors) > known:
        return None
    upstream = Upstream(**{key.replace("-", "_"): value for key, value in found.items()})
    if upstream.type is not UpstreamType.DIRECT:
        Hop(str(path[-1]), upstream)  # raises an error where an extra is missing or the ca-file is wrong
    return upstream


def _type(value: Any) -> UpstreamType:
    kinds = [kind.value for kind in UpstreamType]
    if value not in kinds:
        raise ConfigError(f"there are {listed(kinds)}")
    return UpstreamType(value)


def _address(value: Any) -> Address:
    return place_in(expanded(value), "proxy.example.org:1080")


def _endpoint(value: Any) -> str:
    description = expanded(value)
    check_endpoint(description)
    return description


def _resolve(value: Any) -> str:
    if value not in ("upstream", "here", "judge"):
        raise ConfigError("upstream, here or judge")
    return str(value)


def _interface(value: Any) -> str:
    name: str = text(value)
    if (
        not 0 < len(os.fsencode(name)) <= _LONGEST_INTERFACE
        or set(name) & set("/ \0")
        or SO_BINDTODEVICE is None
    ):
        raise ConfigError("not the name of a network interface, on a platform that can bind to one")
    return name


def _netns(value: Any) -> str:
    name = expanded(value)
    if not can_enter_namespaces():
        raise ConfigError("needs Linux, and Python 3.12 or later")
    if not name or "\0" in name:
        raise ConfigError("neither a name of ip netns nor a path")
    return name


def _version(value: Any) -> int:
    if value not in (1, 2) or isinstance(value, bool):
        raise ConfigError("1 or 2")
    return int(value)


def _login(directory: str, value: Any, path: Path, errors: list[ConfigError]) -> Any:
    if isinstance(value, str) and value in (CLIENTS_OWN, EACH_SESSION, GSSAPI):
        return value
    if not isinstance(value, dict):
        right = 'neither "client", "session" nor "gssapi", nor a table with user and password-file'
        raise ConfigError(right, shown=False)
    found = read_table(
        value,
        path,
        {"user": plain(expanded), "password-file": plain(partial(password_in, directory))},
        errors,
    )
    if "user" not in value:
        errors.append(ConfigError("user is missing", path=path, shown=False))
    return Credentials(found.get("user", "").encode(), found.get("password-file", b""))


def password_in(directory: str, value: Any) -> bytes:
    """The password in the file *value*: its only line."""
    path = os.path.join(directory, expanded(value))
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as problem:
        raise ConfigError(describe(problem)) from None
    except ValueError:
        raise ConfigError("not a path") from None
    line, _, rest = data.partition(b"\n")
    if not line or rest.strip() or len(data) > _MOST_BYTES:
        raise ConfigError("not a file with one line, the password")
    return line.removesuffix(b"\r")


_READERS: dict[str, Reader] = {
    "type": plain(_type),
    "address": plain(_address),
    "via": plain(text),
    "resolve": plain(_resolve),
    "try-timeout": plain(number_by(seconds())),
    "max-sessions": plain(typed(int)),
    "weight": plain(typed(int)),
    "endpoint": plain(_endpoint),
    "outgoing": plain(outgoing_of),
    "interface": plain(_interface),
    "mark": plain(typed(int)),
    "netns": plain(_netns),
    "proxy-protocol": plain(_version),
    "udp": plain(flag),
    "udp-address": plain(text),
    "bind": plain(flag),
    "resolve-commands": plain(flag),
}
