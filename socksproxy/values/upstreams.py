"""
The settings of upstream proxies: address, protocol, login, and the upstream through which each is reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from typing import Any, Literal

import attrs

from ..wire.password import Credentials, build_credentials
from ..wire.words import Address, AddressType, Command
from .errors import ConfigError
from .outgoing import Outgoing, outgoing_of

#: The way out without an upstream, wherever a way out is named.
DIRECT = "direct"

#: The login that stands for the client's own.
CLIENTS_OWN: Literal["client"] = "client"
#: The login by a name and a password that each session has for itself.
EACH_SESSION: Literal["session"] = "session"
#: The login with the server's Kerberos tickets.
GSSAPI: Literal["gssapi"] = "gssapi"

#: The greatest weight, and the greatest number of sessions that can be a limit.
_MOST = 1_000_000
#: Names that no way out of the configuration can have.
_RESERVED = {DIRECT: "the way out without an upstream", "refuse": "what happens where no member is left"}
#: The fields that a direct way has not; those of the sockets with which a way begins.
_OF_PROXIES = "address", "endpoint", "login", "via", "ca_file", "proxy_protocol"
_OF_SOCKETS = "outgoing", "interface", "mark", "netns"

#: The words of udp-address: the address that the upstream tells, or the upstream's own.
REPORTED, SERVER = "reported", "server"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class UpstreamType(Enum):
    """The protocol of an upstream."""

    SOCKS4 = "socks4"
    SOCKS4A = "socks4a"
    SOCKS5 = "socks5"
    HTTP = "http"
    #: HTTP over TLS.
    HTTPS = "https"
    #: No proxy: the connection leaves from here.
    DIRECT = "direct"

    @property
    def is_http(self) -> bool:
        """Whether the upstream takes HTTP CONNECT."""
        return self in (UpstreamType.HTTP, UpstreamType.HTTPS)

    @property
    def is_socks4(self) -> bool:
        """Whether the protocol is SOCKS4 or SOCKS4a, which have a user and no password."""
        return self in (UpstreamType.SOCKS4, UpstreamType.SOCKS4A)


@attrs.frozen(kw_only=True)
class Upstream:
    """
    An upstream proxy.

    :ivar type: socks4, socks4a, socks5, http, https (HTTP over TLS) or direct (no proxy).
    :ivar address: host and port of the proxy.
    :ivar endpoint: any client endpoint of Twisted that leads to the proxy, in place of the address.
    :ivar login: user and password-file; the text "client" stands for the name and the password that the
        client has shown, "session" for random ones of each session, "gssapi" for the server's tickets.
    :ivar via: another upstream, through which this one is reached.
    :ivar resolve: the place where names of destinations are looked up: upstream or here. judge: they are
        looked up here for the rules, and passed on as names. Default: upstream; here for socks4, which has no
        names, and for direct.
    :ivar try_timeout: seconds until the proxy has the request: for TCP, TLS, greeting and login of a whole
        chain. The answer may take the rest of connect-timeout.
    :ivar max_sessions: the greatest number of sessions through the upstream at once, with the tries that run;
        a session too many gets reply 1, or another member of the pool. Default: any number.
    :ivar weight: the upstream's share of the sessions of a pool, beside the weights of the other members.
    :ivar udp: whether datagrams leave through the upstream; None: wherever its protocol is SOCKS5
        and its login is not gssapi.
    :ivar udp_address: where the upstream takes datagrams, at the port that it tells: at the address that it
        tells (reported), at the address of the upstream itself (server), or at this literal address.
    :ivar bind: whether the upstream serves BIND.
    :ivar resolve_commands: whether the upstream serves RESOLVE and RESOLVE_PTR, as Tor does.
    :ivar ca_file: the file of certificates that certify the proxy's own, for https. Default: the system's.
    :ivar outgoing: the addresses to leave from, at most one of each family; they go before all others.
    :ivar interface: the interface to leave by (SO_BINDTODEVICE).
    :ivar mark: the mark of all packets, for firewalls and routing rules (SO_MARK).
    :ivar netns: the network namespace to leave from: a name of ``ip netns``, or a path. Needs Python 3.12.
    :ivar proxy_protocol: 1 or 2: a PROXY header of that version tells the upstream who the client is, before
        TLS and greeting.
    :raises ConfigError: when values do not go together; its path is the key.
    """

    type: UpstreamType = attrs.field(converter=UpstreamType)
    address: Address | None = None
    endpoint: str | None = attrs.field(default=None, repr=False)
    login: Credentials | Literal["client", "session", "gssapi"] | None = attrs.field(default=None, repr=False)
    via: str | None = None
    resolve: Literal["upstream", "here", "judge"] | None = None
    try_timeout: float = 5.0
    ca_file: str | None = None
    max_sessions: int | None = None
    weight: int = 1
    outgoing: Outgoing | None = attrs.field(default=None, converter=attrs.converters.optional(outgoing_of))
    interface: str | None = None
    mark: int | None = None
    netns: str | None = None
    proxy_protocol: Literal[1, 2] | None = None
    udp: bool | None = None
    udp_address: str = REPORTED
    bind: bool = False
    resolve_commands: bool = False

    def __attrs_post_init__(self) -> None:
        kind = self.type
        _check_number("max-sessions", self.max_sessions, 1)
        _check_number("weight", self.weight, 1)
        _check_number("mark", self.mark, 0, 0xFFFFFFFF)
        if self.outgoing == Outgoing():
            raise ConfigError("there is no address in the list", path=("outgoing",), shown=False)
        if self.resolve in ("upstream", "judge") and kind in (UpstreamType.SOCKS4, UpstreamType.DIRECT):
            right = f"{kind.value} passes on no names: they are looked up here"
            raise ConfigError(right, path=("resolve",), shown=False)
        if kind is UpstreamType.DIRECT:
            self._need_none("not with the type direct", *_OF_PROXIES)
            self._check_commands()
            return
        if self.address is None and self.endpoint is None:
            raise ConfigError("address is missing", shown=False)
        if self.address is not None and _is_of_no_proxy(self.address.host):
            raise ConfigError("no proxy has such an address", path=("address",))
        if self.endpoint is not None:
            self._need_none("not together with endpoint", "address", "via", *_OF_SOCKETS)
        if self.via is not None:
            self._need_none("not together with via: the first upstream of the chain has it", *_OF_SOCKETS)
        if self.login == GSSAPI:
            if kind is not UpstreamType.SOCKS5:
                raise ConfigError("gssapi is a login of socks5", path=("login",), shown=False)
            if self.address is None:
                raise ConfigError(
                    "gssapi needs an address: tickets are for a host", path=("login",), shown=False
                )
        if isinstance(self.login, Credentials):
            if kind.is_socks4 and self.login.password:
                raise ConfigError(f"{kind.value} has a user and no password", path=("login",), shown=False)
            _check_login(self.login, kind)
        self._check_commands()
        if self.ca_file is not None and kind is not UpstreamType.HTTPS:
            raise ConfigError("only with the type https", path=("ca-file",))

    def _need_none(self, reason: str, *fields: str) -> None:
        for field in fields:
            if getattr(self, field):
                raise ConfigError(reason, path=(field.replace("_", "-"),), shown=False)

    def _check_commands(self) -> None:
        kind = self.type
        for key, stated in (
            ("udp", self.udp),
            ("udp-address", self.udp_address != REPORTED),
            ("resolve-commands", self.resolve_commands),
        ):
            if stated and kind is not UpstreamType.SOCKS5:
                raise ConfigError("only with the type socks5", path=(key,), shown=False)
        if self.bind and (kind.is_http or kind is UpstreamType.DIRECT):
            raise ConfigError("only with the types socks4, socks4a and socks5", path=("bind",), shown=False)
        if self.udp_address not in (REPORTED, SERVER):
            literal = _literal(self.udp_address)
            if literal is None or _is_of_no_proxy(self.udp_address):
                right = f"{REPORTED}, {SERVER} or the literal address of a proxy"
                raise ConfigError(right, path=("udp-address",))
        if self.udp and self.login == GSSAPI:
            right = "not with the login gssapi: the proxy carries no datagrams within its protection"
            raise ConfigError(right, path=("udp",), shown=False)
        if self.resolve_commands and self.resolve not in (None, "upstream"):
            raise ConfigError("only with resolve = upstream", path=("resolve-commands",), shown=False)

    @property
    def carries_udp(self) -> bool:
        """Whether datagrams leave through the upstream."""
        return self.type is UpstreamType.SOCKS5 and self.udp is not False and self.login != GSSAPI

    @property
    def takes_names(self) -> bool:
        """Whether names go to the proxy without a look-up; if not, they are looked up here."""
        return self.type is not UpstreamType.SOCKS4 and self.resolve in (None, "upstream")

    @property
    def judges_names(self) -> bool:
        """Whether names go to the proxy as they are, after a look-up that the rules want."""
        return self.resolve == "judge"


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_of_no_proxy(host: str) -> bool:
    """Whether *host* is 0.0.0.0 or ``::``, which lead to this machine itself, or a multicast address."""
    literal = _literal(host)
    return literal is not None and (literal.is_unspecified or literal.is_multicast)


def _check_number(key: str, value: int | None, least: int, most: int = _MOST) -> None:
    if value is not None and not least <= value <= most:
        raise ConfigError(f"not a whole number from {least} to {most}", value, path=(key,))


def _check_login(login: Credentials, kind: UpstreamType) -> None:
    if kind.is_http and b":" in login.username:
        raise ConfigError("a user of HTTP has no colon in its name", path=("login",), shown=False)
    if kind.is_socks4 and b"\0" in login.username:
        raise ConfigError("a user of SOCKS4 has no zero byte in its name", path=("login",), shown=False)
    try:
        build_credentials(login)
    except ValueError as problem:
        raise ConfigError(str(problem), path=("login",), shown=False) from None


def check_upstream_name(name: Any) -> None:
    """
    Check that an upstream can have the name *name*.

    :raises ConfigError: when it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError("a name is 1 to 64 letters, digits, '_', '.' or '-'", shown=False)
    if name in _RESERVED:
        raise ConfigError(f"another name: {name} is {_RESERVED[name]}", shown=False)


def chain_of(name: str, upstreams: Mapping[str, Upstream]) -> tuple[str, ...]:
    """
    The names of the proxies on the way out *name*, the first one from here first; empty: it leads directly.

    :raises ConfigError: when a name is unknown or the way is a loop; its path is the name and the key.
    """
    found: list[str] = []
    step: str | None = name
    while step is not None and step != DIRECT:
        if step in found:
            loop = " > ".join([*reversed(found[found.index(step) :]), found[-1]])
            raise ConfigError(f"the way is a loop: {loop}", path=(found[-1], "via"))
        if step not in upstreams:
            if not found:
                raise ConfigError("there is no such upstream", step)
            raise ConfigError(
                "there is no such upstream; a pool is no step of a chain", path=(found[-1], "via")
            )
        if upstreams[step].type is UpstreamType.DIRECT:
            if found:
                raise ConfigError("leave via out: each chain begins at this machine", path=(found[-1], "via"))
            return ()
        found.append(step)
        step = upstreams[step].via
    return tuple(reversed(found))


def commands_of(chain: Sequence[Upstream]) -> frozenset[Command]:
    """The commands that a way out through *chain* carries; the last upstream serves all but datagrams."""
    if not chain:
        return frozenset(Command)
    last = chain[-1]
    return _commands(all(each.carries_udp for each in chain), last.bind, last.resolve_commands)


@cache  # thousands of members of a pool share one set
def _commands(udp: bool, bind: bool, resolve: bool) -> frozenset[Command]:
    found = {Command.CONNECT}
    if udp:
        found.add(Command.UDP_ASSOCIATE)
    if bind:
        found.add(Command.BIND)
    if resolve:
        found |= {Command.RESOLVE, Command.RESOLVE_PTR}
    return frozenset(found)


def problems_of(upstreams: Mapping[str, Upstream]) -> Iterable[ConfigError]:
    """The mistakes in *upstreams* together: unknown names, loops, and names where SOCKS4 needs an address."""
    told = set()
    for name in upstreams:
        try:
            chain = chain_of(name, upstreams)
        except ConfigError as problem:
            if problem.path not in told:
                told.add(problem.path)
                yield problem
            continue
        for before, after in pairwise(chain):
            address = upstreams[after].address
            assert address is not None  # an upstream with an endpoint has no via
            no_names = upstreams[before].type is UpstreamType.SOCKS4
            if after == name and no_names and address.type is not AddressType.IPV4:
                right = f"must be an IPv4 address: {before}, on the way to it, speaks SOCKS4"
                yield ConfigError(right, path=(name, "address"))


def upstreams_of(upstreams: Mapping[str, Upstream]) -> dict[str, Upstream]:
    """
    A copy of *upstreams*, after a check of their names and chains.

    :raises ConfigError: for the first mistake.
    """
    for name in upstreams:
        check_upstream_name(name)
    for problem in problems_of(upstreams):
        raise problem
    return dict(upstreams)
