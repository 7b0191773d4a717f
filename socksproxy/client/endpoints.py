"""
Client endpoints that lead through a proxy.

Each takes an endpoint that leads to the proxy, of any kind. So a chain is one endpoint inside another,
and :func:`twisted.internet.endpoints.wrapClientTLS` gives TLS to the proxy inside and TLS to the destination
outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from ..extras import missing
from ..runtime.reactor import global_reactor
from ..wire.words import Address, AddressType, Command, Request, Version
from .connecting import Connecting, Conversation
from .destinations import destination_of, handshake_for, request_for
from .errors import ProxiedConnectError, ProxyTimedOut
from .handshake import Login, UsernamePassword
from .here import connect_here

#: Seconds for everything from the connection to the proxy to its reply.
TIMEOUT = 30.0

Resolve = Literal["proxy", "here"]


class ProxiedEndpoint:
    """What the endpoints have in common. See :class:`SOCKS5ClientEndpoint`."""

    _version = Version.SOCKS5

    def __init__(
        self,
        proxy: IStreamClientEndpoint,
        host: str | bytes,
        port: int,
        *,
        timeout: float | None = TIMEOUT,
        resolve: Resolve = "proxy",
        reactor: Any = None,
    ) -> None:
        if resolve not in ("proxy", "here"):
            raise ValueError(f"resolve={resolve!r}: 'proxy' or 'here' is due")
        self._proxy = proxy
        self._host = host
        self._port = port
        self._timeout = timeout
        self._here = resolve == "here"
        self._reactor = global_reactor() if reactor is None else reactor

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`."""
        try:
            destination = destination_of(self._host, self._port)
            if not self._here or destination.type is not AddressType.DOMAIN_NAME:
                return self._attempt(destination, protocolFactory).start(self._timeout)
        except ProxiedConnectError as problem:
            return fail(problem)

        waiting: list[Connecting] = []

        def attempt(address: Address) -> Deferred[Any]:
            made = self._attempt(address, protocolFactory)
            waiting.append(made)
            return made.start(None).addErrback(failed, made)

        def failed(failure: Failure, made: Connecting) -> Failure:
            if not failure.check(ConnectingCancelledError):
                waiting.remove(made)
            return failure

        def timed_out(result: object, timeout: float) -> None:
            for made in waiting:
                if made.asking:
                    made.timed_out(result, timeout)
            raise ProxyTimedOut(f"no address was reached within {timeout:g} seconds")

        found = connect_here(self._reactor, destination, self._version is Version.SOCKS4, attempt)
        if self._timeout is not None:
            found.addTimeout(self._timeout, self._reactor, timed_out)
        return found

    def _attempt(self, destination: Address, factory: IProtocolFactory) -> Connecting:
        handshake, request = self._handshake(destination)
        return Connecting(self._reactor, self._proxy, handshake, request, factory)

    def _handshake(self, destination: Address) -> tuple[Conversation, Request]:
        raise NotImplementedError


@implementer(IStreamClientEndpoint)
class SOCKS5ClientEndpoint(ProxiedEndpoint):
    """
    Connects to *host* and *port* through a SOCKS5 proxy (RFC 1928, RFC 1929, RFC 1961).

    ``connect`` fires with the protocol, and its transport is that of the connection to the proxy: nothing
    stands between the two, except where GSSAPI protects the bytes. Every failure is a
    :class:`~socksproxy.client.ProxiedConnectError`. Cancelling the Deferred closes the connection in every
    phase.

    :param proxy: leads to the proxy: a :class:`~twisted.internet.endpoints.HostnameEndpoint`, one
        with TLS, or another endpoint of this module.
    :param host: the destination: a name or a literal address.
    :param port: the destination's port.
    :param login: a :class:`~socksproxy.client.UsernamePassword` or a
        :class:`~socksproxy.client.GSSAPILogin`; None: the client does not say who it is.
    :param timeout: seconds for the connection, TLS, greeting, login and reply together; None: no limit.
    :param resolve: ``"proxy"``: the proxy gets the name, and nothing is looked up here. ``"here"``: the
        name is looked up here, and the next address is tried on replies 3, 4, 5, 6 and 8.
    :param reactor: has the time, the resolver for ``"here"``, and threads for GSSAPI; None: Twisted's
        global one.
    :raises ValueError: for another *resolve*.
    """

    def __init__(
        self,
        proxy: IStreamClientEndpoint,
        host: str | bytes,
        port: int,
        *,
        login: Login | None = None,
        timeout: float | None = TIMEOUT,
        resolve: Resolve = "proxy",
        reactor: Any = None,
    ) -> None:
        super().__init__(proxy, host, port, timeout=timeout, resolve=resolve, reactor=reactor)
        self._login = login

    def _handshake(self, destination: Address) -> tuple[Conversation, Request]:
        request = request_for(Version.SOCKS5, Command.CONNECT, destination)
        return handshake_for(request, self._login), request


@implementer(IStreamClientEndpoint)
class SOCKS4ClientEndpoint(ProxiedEndpoint):
    """
    Connects to *host* and *port* through a SOCKS4 proxy; a name goes to the proxy as SOCKS4a has it.

    The parameters are those of :class:`SOCKS5ClientEndpoint`. Destinations are names and IPv4 addresses.

    :param user: USERID: at most 512 bytes, without NUL. It proves nothing.
    :param resolve: ``"here"`` is plain SOCKS4: the name is looked up here, and IPv6 addresses do not count.
    """

    _version = Version.SOCKS4

    def __init__(
        self,
        proxy: IStreamClientEndpoint,
        host: str | bytes,
        port: int,
        *,
        user: str | bytes = b"",
        timeout: float | None = TIMEOUT,
        resolve: Resolve = "proxy",
        reactor: Any = None,
    ) -> None:
        super().__init__(proxy, host, port, timeout=timeout, resolve=resolve, reactor=reactor)
        self._user = user.encode() if isinstance(user, str) else user

    def _handshake(self, destination: Address) -> tuple[Conversation, Request]:
        request = request_for(Version.SOCKS4, Command.CONNECT, destination, self._user)
        return handshake_for(request, None), request


@implementer(IStreamClientEndpoint)
class HTTPConnectClientEndpoint(ProxiedEndpoint):
    """
    Connects to *host* and *port* through an HTTP proxy with CONNECT (RFC 9110, section 9.3.6).

    The parameters are those of :class:`SOCKS5ClientEndpoint`. Needs the extra ``[http]``.

    :param login: is sent with the first request, as Basic (RFC 7617).
    :raises ImportError: without the extra, with the way to install it.
    :raises ValueError: for another kind of login, and for a username with a colon, which Basic lacks.
    """

    def __init__(
        self,
        proxy: IStreamClientEndpoint,
        host: str | bytes,
        port: int,
        *,
        login: Login | None = None,
        timeout: float | None = TIMEOUT,
        resolve: Resolve = "proxy",
        reactor: Any = None,
    ) -> None:
        super().__init__(proxy, host, port, timeout=timeout, resolve=resolve, reactor=reactor)
        if login is not None and not isinstance(login, UsernamePassword):
            raise ValueError(f"login={login!r}: an HTTP proxy takes a UsernamePassword alone")
        if login is not None and b":" in login.credentials.username:
            raise ValueError(f"login={login!r}: the username of an HTTP proxy has no colon")
        self._login = login
        self._make = http_handshake()

    def _handshake(self, destination: Address) -> tuple[Conversation, Request]:
        request = request_for(Version.SOCKS5, Command.CONNECT, destination)
        return self._make(destination, self._login), request


def http_handshake() -> Callable[[Address, Any], Conversation]:
    """
    The handshake of HTTP CONNECT.

    :raises ImportError: when the extra is not installed.
    """
    try:
        from .http_connect import HTTPHandshake
    except ImportError as problem:
        raise ImportError(missing("http", problem)) from None
    return HTTPHandshake
