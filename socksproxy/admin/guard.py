"""
Who may ask on an admin listener: names of hosts, origins of pages, tokens, certificates, levels.

A browser is on the operator's machine, and shows pages of others. Three things keep these out: a request must
name this server in Host, so that a name of theirs which leads here is of no use; no answer ever lets another
origin read it; and what changes something must be JSON, which a page may send to its own origin alone.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from hmac import compare_digest
from typing import Any

from twisted.web.http_headers import Headers

from ..auth.checkers.peercred import credentials_of
from ..net.names import is_localhost, plain
from ..net.special_addresses import is_loopback
from .errors import RequestRefused
from .settings import AdminLevel, AdminListener

#: Methods that change nothing.
_SAFE = frozenset({"GET", "HEAD"})


class Guard:
    """
    Decides about requests on one listener.

    :param listener: the listener.
    :param names: of the server, besides its addresses.
    :param token: what every request must have; None: it need not have any.
    """

    def __init__(self, listener: AdminListener, names: Iterable[str] = (), token: str | None = None) -> None:
        self.listener = listener
        self._names = frozenset(name.lower() for name in names)
        self._token = None if token is None else token.encode()

    @property
    def level(self) -> AdminLevel:
        """What clients of the listener may do."""
        return self.listener.level

    def admits_as(self, other: Guard) -> bool:
        """Whether clients need the same for the same as with *other*."""
        return (self.listener, self._token) == (other.listener, other._token)

    def admit(self, headers: Headers, transport: Any, version: bytes) -> None:
        """
        See whether the client may ask anything.

        :param transport: of the client.
        :param version: of HTTP.
        :raises RequestRefused: when it may not.
        """
        hosts = headers.getRawHeaders(b"host") or []
        if len(hosts) > 1 or (not hosts and version != b"HTTP/1.0"):
            raise RequestRefused(400, "one header Host is needed")
        own = self._own_names(transport)
        if hosts and not own(_host_of(hosts[0])):
            raise RequestRefused(403, "the header Host has no name of this server ([admin] names)")
        for origin in headers.getRawHeaders(b"origin") or ():
            if not own(_host_of(origin.partition(b"://")[2])):
                raise RequestRefused(403, "a page of another origin has sent this")
        self._identify(headers, transport)

    def _own_names(self, transport: Any) -> Callable[[str], bool]:
        address = getattr(transport.getHost(), "host", None)
        here = plain(address) if isinstance(address, str) else None
        local = here is None or is_loopback(here)

        def own(host: str) -> bool:
            if host in self._names or (here is not None and host == here):
                return True
            return local and (is_localhost(host) or is_loopback(host))

        return own

    def _identify(self, headers: Headers, transport: Any) -> None:
        if self.listener.client_ca is not None and transport.getPeerCertificate() is None:
            raise RequestRefused(401, "a certificate is needed (socksproxy ctl --certificate FILE)")
        if self._token is None:
            return
        given = headers.getRawHeaders(b"authorization") or [b""]
        scheme, _, token = given[0].partition(b" ")
        if scheme.lower() != b"bearer":
            words = (
                "a token is needed: the header Authorization: Bearer TOKEN (socksproxy ctl --token-file FILE)"
            )
            raise RequestRefused(401, words)
        if not compare_digest(token.strip(), self._token):
            raise RequestRefused(401, "the token is not that of this server's token-file")

    def permit(self, needed: AdminLevel, method: str, headers: Headers) -> None:
        """
        See whether the client may do what it asks for.

        :param needed: the level that it takes.
        :raises RequestRefused: when it may not.
        """
        if needed > self.level:
            raise RequestRefused(403, f"the listener's level is too low: {needed.name.lower()} is needed")
        if method in _SAFE:
            return
        kinds = headers.getRawHeaders(b"content-type") or [b""]
        if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != b"application/json":
            raise RequestRefused(415, "the header Content-Type: application/json is needed")


def _host_of(text: bytes) -> str:
    """The host in *text*, which may have a port; a host that makes no sense stays as it is."""
    host = text.decode("latin-1").strip().lower()
    if host.startswith("["):
        return plain(host[1:].partition("]")[0])
    return host.rpartition(":")[0] if host.count(":") == 1 else host.rstrip(".")


def peer_of(transport: Any) -> str:
    """The client on *transport*, for the log: the local user and the process, or the address."""
    sock = getattr(transport, "socket", None)
    if isinstance(sock, socket.socket):
        credentials = credentials_of(sock)
        if credentials is not None:
            return f"uid {credentials.uid} (process {credentials.pid})"
    peer = transport.getPeer()
    host = getattr(peer, "host", None)
    return f"{host}:{peer.port}" if host is not None else "unix"
