"""
A proxy as a value: what it speaks, where it is, and who logs in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from attr import evolve, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint

from ..extras import missing
from ..net.names import literal
from ..runtime.reactor import global_reactor
from ..wire.words import AddressType, Command, Version
from .associate import Associating, AssociationTransport
from .bind import BindEndpoint
from .destinations import destination_of, handshake_for, request_for
from .endpoints import (
    TIMEOUT,
    HTTPConnectClientEndpoint,
    Resolve,
    SOCKS4ClientEndpoint,
    SOCKS5ClientEndpoint,
)
from .errors import CommandNotSupported, InvalidDestination, ProxiedConnectError
from .handshake import Login, UsernamePassword
from .no_proxy import NoProxy
from .resolve import Resolving

if TYPE_CHECKING:
    from .agent import ProxiedAgent


class Kind(Enum):
    """What a proxy speaks, by the scheme of its URL."""

    SOCKS4 = "socks4"
    SOCKS4A = "socks4a"
    SOCKS5 = "socks5"
    HTTP = "http"
    #: HTTP over TLS.
    HTTPS = "https"


_SOCKS4 = (Kind.SOCKS4, Kind.SOCKS4A)
_HTTP = (Kind.HTTP, Kind.HTTPS)
_SCHEMES = {**{kind.value: kind for kind in Kind}, "socks": Kind.SOCKS5, "socks5h": Kind.SOCKS5}
_PORTS = {Kind.HTTP: 80, Kind.HTTPS: 443}
#: The port of SOCKS (IANA).
_SOCKS_PORT = 1080


@frozen(kw_only=True)
class Proxy:
    """
    A proxy, and what can be done through it.

    Each method makes connections of its own. What the proxy's protocol cannot do fails with
    :class:`~socksproxy.client.CommandNotSupported`; nothing is ever done from here instead.

    :param kind: what the proxy speaks.
    :param host: a name, which is looked up here, or a literal address.
    :param port: where it listens.
    :param login: who the client is; SOCKS4 sends the user's name alone.
    :param no_proxy: destinations that are reached without the proxy.
    :param via: the proxy through which this one is reached; None: directly.
    :param timeout: seconds for everything from the connection to the proxy to its reply; None: no limit.
    :param resolve: ``"proxy"`` or ``"here"``: who looks names up; SOCKS4 without "a" always has it done here.
    :param context: the TLS options for the proxy, as
        :func:`twisted.internet.ssl.optionsForClientTLS` makes them; None: those for *host*.
    :param reactor: makes connections; None: Twisted's global one.
    """

    kind: Kind
    host: str
    port: int
    login: Any = None
    no_proxy: NoProxy = NoProxy()
    via: Proxy | None = None
    timeout: float | None = TIMEOUT
    resolve_names: Resolve = field(default="proxy", alias="resolve")
    context: Any = field(default=None, eq=False, repr=False)
    _reactor: Any = field(default=None, eq=False, repr=False)

    @classmethod
    def from_url(cls, url: str, **more: Any) -> Proxy:
        """
        The proxy that *url* describes.

        :param url: ``SCHEME://[USER[:PASSWORD]@]HOST[:PORT]``. The scheme is ``socks4``, ``socks4a``,
            ``socks5`` (with ``socks5h`` and ``socks``, which are the same), ``http`` or ``https``. The port
            is 1080 for SOCKS, 80 for ``http`` and 443 for ``https``. User and password may have escapes
            (``%40``).
        :param more: other parameters of the class.
        :raises ValueError: for another text. The message does not show the password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
            if port == 0:
                raise ValueError
        except ValueError:
            raise ValueError(
                "the proxy's URL has a wrong host or port; in a user or password, '/', '?', '#' and '@'"
                " are written %2F, %3F, %23 and %40"
            ) from None
        kind = _SCHEMES.get(parts.scheme)
        if kind is None:
            begins = f"begins with {parts.scheme!r}" if "://" in url else "has no scheme"
            raise ValueError(f"the proxy's URL {begins}: one of {', '.join(sorted(_SCHEMES))} is due")
        host = parts.hostname or ""
        if not host or any(map(str.isspace, host)) or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"the proxy's URL has another form than {parts.scheme}://HOST:PORT")
        if ":" in host:
            host = host.replace("%25", "%")  # a zone (RFC 6874)
        given = {"login": _login_of(parts, kind), **more}
        return cls(kind=kind, host=host, port=port or _PORTS.get(kind, _SOCKS_PORT), **given)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **more: Any) -> Proxy | None:
        """
        The proxy that the environment names: ``ALL_PROXY``, or else ``HTTPS_PROXY``, with ``NO_PROXY``.

        A name in small letters goes before the same name in capitals. A URL without a scheme is ``http``.

        :param environment: the variables.
        :param more: other parameters of the class.
        :returns: None where the environment names none.
        :raises ValueError: for a wrong URL, with the variable's name.
        """
        for name in ("all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"):
            url = environment.get(name)
            if not url:
                continue
            no_proxy = NoProxy(environment.get("no_proxy") or environment.get("NO_PROXY") or "")
            try:
                return cls.from_url(url if "://" in url else f"http://{url}", no_proxy=no_proxy, **more)
            except ValueError as problem:
                raise ValueError(f"{name}: {problem}") from None
        return None

    @property
    def reactor(self) -> Any:
        """Makes the connections."""
        return global_reactor() if self._reactor is None else self._reactor

    def endpoint(self) -> IStreamClientEndpoint:
        """The endpoint that leads to the proxy."""
        if self.via is not None:
            endpoint = self.via.connect_endpoint(self.host, self.port)
        else:
            endpoint = _direct(self.reactor, self.host, self.port)
        if self.kind is not Kind.HTTPS:
            return endpoint
        return wrapClientTLS(_options_for(self.host) if self.context is None else self.context, endpoint)

    def connect_endpoint(self, host: str | bytes, port: int) -> IStreamClientEndpoint:
        """
        The endpoint that leads to *host* and *port*: through the proxy, or not where ``no_proxy`` has it.
        """
        if self.no_proxy.matches(host, port):
            return _direct(self.reactor, host.decode() if isinstance(host, bytes) else host, port)
        more: dict[str, Any] = {
            "timeout": self.timeout,
            "resolve": "here" if self.kind is Kind.SOCKS4 else self.resolve_names,
            "reactor": self.reactor,
        }
        if self.kind in _SOCKS4:
            return SOCKS4ClientEndpoint(self.endpoint(), host, port, user=self._user(), **more)
        made = HTTPConnectClientEndpoint if self.kind in _HTTP else SOCKS5ClientEndpoint
        return made(self.endpoint(), host, port, login=self.login, **more)

    def listen_endpoint(self, peer: str | bytes = "0.0.0.0", port: int = 0) -> IStreamServerEndpoint:
        """
        An endpoint that listens at the proxy for one connection (BIND).

        ``listen`` fires when the proxy listens, with a :class:`~socksproxy.client.BoundPort`.

        :param peer: who is expected: the address of the control connection of FTP, for example.
        :param port: its port, where it is known.
        """
        return BindEndpoint(self, peer, port)

    def associate(self, protocol: Any) -> Deferred[AssociationTransport]:
        """
        Send and receive datagrams through the proxy (UDP ASSOCIATE).

        :param protocol: a :class:`~twisted.internet.protocol.DatagramProtocol`. Its transport is
            an :class:`~socksproxy.client.AssociationTransport`.
        :returns: fires with the transport.
        """
        if self.kind is not Kind.SOCKS5:
            return fail(self._unsupported("UDP"))
        if self.via is not None:
            return fail(CommandNotSupported("datagrams do not go through a chain of proxies"))
        return Associating(self.reactor, self.endpoint(), self.login, protocol).start(self.timeout)

    def resolve(self, name: str | bytes) -> Deferred[str]:
        """
        The address of *name* as the proxy looks it up (RESOLVE, Tor's extension).

        :returns: fires with a literal address.
        """
        return self._resolve(Command.RESOLVE, name)

    def resolve_ptr(self, address: str) -> Deferred[str]:
        """
        The name of the literal *address* as the proxy looks it up (RESOLVE_PTR, Tor's extension).

        :returns: fires with a name.
        """
        if literal(address) is None:
            return fail(InvalidDestination(f"{address!r} is not a literal address"))
        return self._resolve(Command.RESOLVE_PTR, address)

    def agent(self, policy: Any = None, *, persistent: bool = True) -> ProxiedAgent:
        """
        An HTTP client that connects through the proxy.

        It has a pool of connections of its own, so two logins never share a connection. Keep it for the
        next request.

        :param policy: a :class:`~twisted.web.iweb.IPolicyForHTTPS`; None: that of browsers.
        :param persistent: whether connections are kept for the next request.
        """
        from .agent import agent_for

        return agent_for(self, policy, persistent)

    def with_login(self, login: Login | None) -> Proxy:
        """The same proxy for another client."""
        return evolve(self, login=login)

    def request(self, command: Command, host: str | bytes, port: int) -> tuple[Any, Any]:
        """The handshake for *command*, and its request."""
        version = Version.SOCKS4 if self.kind in _SOCKS4 else Version.SOCKS5
        if self.kind in _HTTP:
            raise self._unsupported(command.name)
        destination = destination_of(host, port)
        if self.kind is Kind.SOCKS4 and destination.type is AddressType.DOMAIN_NAME:
            raise InvalidDestination(f"{destination.host}: SOCKS4 carries addresses alone; SOCKS4a has names")
        request = request_for(version, command, destination, self._user())
        return handshake_for(request, self.login), request

    def _resolve(self, command: Command, host: str | bytes) -> Deferred[str]:
        try:
            if self.kind is Kind.SOCKS4 or (self.kind is Kind.SOCKS4A and command is Command.RESOLVE_PTR):
                raise self._unsupported(command.name)
            handshake, request = self.request(command, host, 0)
        except ProxiedConnectError as problem:
            return fail(problem)
        if command is Command.RESOLVE and request.destination.type is not AddressType.DOMAIN_NAME:
            return succeed(request.destination.host)
        return Resolving(self.reactor, self.endpoint(), handshake, request).start(self.timeout)

    def _user(self) -> bytes:
        return self.login.credentials.username if isinstance(self.login, UsernamePassword) else b""

    def _unsupported(self, what: str) -> CommandNotSupported:
        return CommandNotSupported(f"a proxy that speaks {self.kind.value} does not serve {what}")


def _login_of(parts: SplitResult, kind: Kind) -> UsernamePassword | None:
    if parts.username is None:
        return None
    if parts.password and kind in _SOCKS4:
        raise ValueError(f"{kind.value} has a user and no password")
    return UsernamePassword(unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or ""))


def _direct(reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
    address = literal(host)
    if address is None:
        return HostnameEndpoint(reactor, host, port)
    return (TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint)(reactor, address, port)


def _options_for(host: str) -> Any:
    try:
        from twisted.internet.ssl import optionsForClientTLS
    except ImportError as problem:
        raise ImportError(missing("tls", problem)) from None
    return optionsForClientTLS(host)
