"""
Files that hold the members of pools, one on each line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ..client.handshake import UsernamePassword
from ..client.proxy import Proxy
from ..errors import NameNotFound
from ..logs.printable import in_one_line
from ..net.names import canonical
from ..policy.sets import SetFile, SetFileError
from ..values.errors import ConfigError
from ..values.upstreams import Upstream, UpstreamType
from ..wire.password import Credentials
from ..wire.words import Address
from .hops import Hop


class MembersFile(SetFile):
    """
    The members of a pool in a file. A line is a URL, such as ``socks5://user:password@host:1080``, or
    HOST:PORT, which is SOCKS5. Settings may stand behind it, as in ``192.0.2.1:1080?bind=true&weight=2``.

    No message shows a line, which may have a password. A file with a wrong line is not used: the last content
    stays in use.

    :ivar table: the members by name: the host and the port, behind the user where there is one.
    """

    table: Mapping[str, Upstream]

    def _table(self, lines: Iterator[tuple[int, str]]) -> Mapping[str, Upstream]:
        found: dict[str, Upstream] = {}
        kinds: set[UpstreamType] = set()
        for number, line in lines:
            try:
                name, upstream = _member(line)
                if upstream.type not in kinds:
                    Hop(name, upstream)  # raises an error where an extra is missing
                    kinds.add(upstream.type)
            except ValueError as problem:
                raise SetFileError(f"{self.path}, line {number}: {problem}") from None
            if name in found:
                self._ignore(number, name, "stands there already")
            found.setdefault(name, upstream)
        return MappingProxyType(found)

    def _wrong(self, number: int, entry: str, right: str) -> SetFileError:
        return SetFileError(f"{self.path}, line {number}: {entry}: {right}")


def _member(line: str) -> tuple[str, Upstream]:
    """
    The name of the member of *line*, and its settings.

    :raises ValueError: when there is none; the message does not show a password.
    """
    if not line.isprintable() or " " in line:
        raise ValueError("one URL or HOST:PORT is due")
    line, _, settings = line.partition("?")
    proxy = Proxy.from_url(line if "://" in line else f"socks5://{line}")
    if "://" not in line and not line.rpartition(":")[2].isdecimal():
        raise ValueError("the port is missing")
    try:
        address = canonical(Address.of(proxy.host, proxy.port))
    except NameNotFound:
        raise ValueError("the host is not a valid name or address") from None
    login = None
    if isinstance(proxy.login, UsernamePassword):
        login = Credentials(*proxy.login.credentials)
    try:
        more = dict(_setting(word) for word in settings.split("&") if word)
        upstream = Upstream(type=proxy.kind.value, address=address, login=login, **more)
    except ConfigError as problem:
        raise ValueError(": ".join([*map(str, problem.path), problem.reason])) from None
    name = str(address)
    if login is not None:
        name = in_one_line(f"{login.username.decode('utf-8', 'replace')}@{name}")
    return name, upstream


#: The settings that may stand behind a member, with the kinds of their values.
_SETTINGS = {"bind": bool, "udp": bool, "resolve-commands": bool, "weight": int, "max-sessions": int}
_FLAGS = {"true": True, "false": False}


def _setting(word: str) -> tuple[str, Any]:
    """
    The field of :class:`.Upstream` and the value that *word* gives.

    :raises ValueError: when there is none; the message does not show the word.
    """
    key, _, text = word.partition("=")
    kind = _SETTINGS.get(key)
    value = _FLAGS.get(text) if kind is bool else int(text) if text.isascii() and text.isdecimal() else None
    if kind is None or value is None:
        known = [f"{name}={'true' if each is bool else 'NUMBER'}" for name, each in _SETTINGS.items()]
        raise ValueError(f"behind '?', with '&' between, stand {', '.join(known)}")
    return key.replace("-", "_"), value
