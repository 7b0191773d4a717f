"""
Files that hold the members of pools, one on each line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

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
    HOST:PORT, which is SOCKS5.

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
        upstream = Upstream(type=proxy.kind.value, address=address, login=login)
    except ConfigError as problem:
        raise ValueError(problem.reason) from None
    name = str(address)
    if login is not None:
        name = in_one_line(f"{login.username.decode('utf-8', 'replace')}@{name}")
    return name, upstream
