"""
The proxies that a way out leads through, and the handshake with each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..client.connecting import Conversation
from ..client.handshake import Handshake, HandshakeFailed, Login, UsernamePassword
from ..client.logins import GSSAPILogin
from ..errors import AddressTypeNotSupported, UpstreamFailed
from ..extras import missing
from ..values.errors import ConfigError
from ..values.upstreams import CLIENTS_OWN, EACH_SESSION, GSSAPI, Upstream, UpstreamType, chain_of
from ..wire.password import Credentials
from ..wire.proxy import build_header
from ..wire.words import Address, Command, Reply, Reply4, Request, Version
from .counters import UpstreamCounters
from .interfaces import Trail

if TYPE_CHECKING:
    from ..client.http_connect import HTTPHandshake

#: Tor's own replies (proposal 304).
TOR = range(0xF0, 0xF8)
#: Those that mean a lack of permission.
_TOR_NOT_ALLOWED = frozenset({0xF4, 0xF5})
#: With these, HTTP proxies tell that a destination is not reached.
_NOT_REACHED = frozenset({403, 404, 502, 503, 504})


class Hop:
    """
    One proxy on a way out.

    :param name: the proxy's name in the configuration.
    :param upstream: the proxy's settings.
    :param counters: the proxy's numbers; None: new ones.
    :raises ConfigError: where an extra is missing, or the file of certificates is wrong.
    :ivar settings: the proxy's settings.
    :ivar address: the host and port of the proxy; None: *endpoint* leads there.
    :ivar endpoint: the client endpoint that leads to the proxy, as a text; None: *address* does.
    :ivar success: the number by which the proxy tells success.
    :ivar tls: the options of TLS to the proxy; None: it speaks no TLS.
    :ivar plain: whether the bytes on the connection are plain, so that a socket of the engine can carry them.
    """

    __slots__ = (
        "_header",
        "_http",
        "_kind",
        "_login",
        "_version",
        "_whose",
        "address",
        "counters",
        "endpoint",
        "name",
        "plain",
        "settings",
        "success",
        "tls",
    )

    def __init__(self, name: str, upstream: Upstream, counters: UpstreamCounters | None = None) -> None:
        kind, address, login = upstream.type, upstream.address, upstream.login
        self.name = name
        self.settings = upstream
        self.counters = UpstreamCounters(name) if counters is None else counters
        self.address = address
        self.endpoint = upstream.endpoint
        self._kind = kind
        self._whose = login if isinstance(login, str) else None
        self._login = _login(login, address)
        self._header = upstream.proxy_protocol
        self._version = Version.SOCKS4 if kind.is_socks4 else Version.SOCKS5
        self._http: type[HTTPHandshake] | None = _http() if kind.is_http else None
        self.success = 200 if kind.is_http else Reply4.GRANTED if kind.is_socks4 else Reply.SUCCEEDED
        self.tls = _tls(address, upstream.ca_file) if kind is UpstreamType.HTTPS else None
        self.plain = self.tls is None and self.endpoint is None and login != GSSAPI

    def handshake(
        self, destination: Address, trail: Trail, command: Command = Command.CONNECT
    ) -> Conversation:
        """
        The handshake that asks the proxy for *destination*.

        :param trail: knows the credentials that the client has shown, and those of its session.
        :param command: what the proxy is asked for.
        :raises AddressTypeNotSupported: where the proxy's protocol has no form for the destination.
        :raises UpstreamFailed: where the protocol has no form for the client's own login.
        """
        login = self._login_for(trail)
        known = login if isinstance(login, UsernamePassword) else None
        if self._http is not None:
            if known is not None and b":" in known.credentials.username:
                raise UpstreamFailed(f"{self.name}: HTTP has no form for a user with a colon")
            return self._http(destination, known)
        userid = b"" if known is None else known.credentials.username
        try:
            return Handshake(Request(self._version, command, destination, userid), login)
        except ValueError:
            raise AddressTypeNotSupported(
                f"{self.name}: {self._kind.value} has no form for the destination"
            ) from None

    def header(self, trail: Trail) -> bytes:
        """The PROXY header that the proxy expects before all else; empty: it expects none."""
        if self._header is None:
            return b""
        source, destination = trail.ends() or (None, None)
        return build_header(self._header, source, destination)

    def _login_for(self, trail: Trail) -> Login | None:
        if self._whose == CLIENTS_OWN:
            return None if trail.credentials is None else UsernamePassword(*trail.credentials)
        if self._whose == EACH_SESSION:  # a proxy that asks for no login would keep nothing apart
            return UsernamePassword(*trail.own_credentials, insist=True)
        return self._login

    def reaches_no(self, problem: HandshakeFailed) -> bool:
        """Whether the proxy tells by its refusal *problem* that it does not reach the destination."""
        if self._http is not None and problem.reply in _NOT_REACHED:
            return True
        return (
            Reply.NOT_ALLOWED <= problem.meaning <= Reply.ADDRESS_TYPE_NOT_SUPPORTED or problem.meaning in TOR
        )


def reply_to_client(meaning: int) -> Reply:
    """The reply to our client after a proxy's reply *meaning*."""
    if meaning in TOR:
        return Reply.NOT_ALLOWED if meaning in _TOR_NOT_ALLOWED else Reply.HOST_UNREACHABLE
    return Reply(meaning) if 1 <= meaning <= 8 else Reply.GENERAL_FAILURE


def hops_of(
    name: str, upstreams: Mapping[str, Upstream], counters: Mapping[str, UpstreamCounters]
) -> Sequence[Hop]:
    """
    The proxies on the way out *name*, the first one from here first; empty: the way leads directly.

    :param counters: the numbers of each upstream.
    :raises ConfigError: when the way out is unknown, or a proxy on it cannot be set up.
    """
    return [Hop(each, upstreams[each], counters.get(each)) for each in chain_of(name, upstreams)]


def _login(login: Credentials | str | None, address: Address | None) -> Login | None:
    """The login that is the same for all clients; None: there is none."""
    if isinstance(login, Credentials):
        return UsernamePassword(*login)
    if login != GSSAPI:
        return None
    assert address is not None
    try:
        return GSSAPILogin(address.host)
    except ImportError as problem:
        raise ConfigError(str(problem), path=("login",), shown=False) from None


def _http() -> type[HTTPHandshake]:
    try:
        from ..client.http_connect import HTTPHandshake
    except ImportError as problem:
        raise ConfigError(missing("http", problem), path=("type",), shown=False) from None
    return HTTPHandshake


def _tls(address: Address | None, ca_file: str | None) -> Any:
    if address is None:
        raise ConfigError("https needs an address: the certificate must have its host", shown=False)
    host = address.host
    try:
        from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
    except ImportError as problem:
        raise ConfigError(missing("tls", problem), path=("type",), shown=False) from None
    if ca_file is None:
        return optionsForClientTLS(host)
    try:
        with open(ca_file, "rb") as file:
            pieces = file.read().split(_BEGIN)[1:]
        trusted = [Certificate.loadPEM(_BEGIN + piece) for piece in pieces]
    except OSError as problem:
        raise ConfigError((problem.strerror or "cannot be read").lower(), path=("ca-file",)) from None
    except Exception:  # OpenSSL has its own exceptions
        trusted = []
    if not trusted:
        raise ConfigError("no certificates in PEM form", path=("ca-file",))
    return optionsForClientTLS(host, trustRootFromCertificates(trusted))


_BEGIN = b"-----BEGIN CERTIFICATE-----"
