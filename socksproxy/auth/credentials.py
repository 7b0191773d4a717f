"""
What a client can show: credentials for checkers, in :mod:`twisted.cred`'s sense.

None of them shows a secret in its ``repr``.
"""

from __future__ import annotations

from collections.abc import Hashable
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from twisted.cred.credentials import IAnonymous, ICredentials, IUsernamePassword
from zope.interface import Attribute, implementer

if TYPE_CHECKING:
    from ..identity import Client

__all__ = [
    "Anonymous",
    "Certificate",
    "CertifiedName",
    "GSSAPIName",
    "IAnonymous",
    "ICertificate",
    "ICertifiedName",
    "IGSSAPIName",
    "IPeerCredentials",
    "IUserid",
    "IUsernamePassword",
    "Password",
    "PeerCredentials",
    "Userid",
]


class ICertificate(ICredentials):
    """A TLS certificate, which the listener has verified."""

    certificate = Attribute("A pyOpenSSL X509.")


class ICertifiedName(ICredentials):
    """The common name in a TLS certificate, which a balancer has verified and tells in its PROXY header."""

    name = Attribute("The name in text, which may be any.")


class IPeerCredentials(ICredentials):
    """Who the kernel says is at the other end of a Unix socket (SO_PEERCRED)."""

    pid = Attribute("The process, as of its connecting.")
    uid = Attribute("Its effective user.")
    gid = Attribute("Its effective group.")


class IUserid(ICredentials):
    """The userid of a SOCKS4 request, which nobody has verified yet."""

    userid = Attribute("Bytes without a NUL; may be empty.")
    client = Attribute("The client, by its address and port.")
    local = Attribute("The literal address of ours that the client has reached, and the port.")


class IGSSAPIName(ICredentials):
    """The initiator of an established GSS-API context (RFC 1961)."""

    principal = Attribute("Its name in text, such as bob@EXAMPLE.ORG.")


@implementer(IAnonymous)
class Anonymous:
    """Nothing is shown."""

    def __repr__(self) -> str:
        return "Anonymous()"


@implementer(IUsernamePassword)
class Password:
    """
    A username and password (RFC 1929).

    :ivar username: 1 to 255 bytes.
    :ivar password: 1 to 255 bytes.
    :ivar share: the client that shows it, as queues of checks tell clients apart; None: not known.
    """

    __slots__ = ("password", "share", "username")

    def __init__(self, username: bytes, password: bytes, share: Hashable = None) -> None:
        self.username = username
        self.password = password
        self.share = share

    def checkPassword(self, password: bytes) -> bool:
        """Whether *password* is this one; it takes as long for every one of its length."""
        return compare_digest(self.password, password)

    def __repr__(self) -> str:
        return f"Password(username={self.username!r})"


@implementer(ICertificate)
class Certificate:
    """See :class:`ICertificate`."""

    __slots__ = ("certificate",)

    def __init__(self, certificate: Any) -> None:
        self.certificate = certificate


@implementer(ICertifiedName)
class CertifiedName:
    """See :class:`ICertifiedName`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"CertifiedName(name={self.name!r})"


@implementer(IPeerCredentials)
class PeerCredentials:
    """See :class:`IPeerCredentials`."""

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid

    def __repr__(self) -> str:
        return f"PeerCredentials(pid={self.pid}, uid={self.uid}, gid={self.gid})"


@implementer(IUserid)
class Userid:
    """See :class:`IUserid`."""

    __slots__ = ("client", "local", "userid")

    def __init__(self, userid: bytes, client: Client, local: tuple[str, int] | None) -> None:
        self.userid = userid
        self.client = client
        self.local = local

    def __repr__(self) -> str:
        return f"Userid(userid={self.userid!r}, client={self.client})"


@implementer(IGSSAPIName)
class GSSAPIName:
    """See :class:`IGSSAPIName`."""

    __slots__ = ("principal",)

    def __init__(self, principal: str) -> None:
        self.principal = principal

    def __repr__(self) -> str:
        return f"GSSAPIName(principal={self.principal!r})"


def share_of(credentials: Any) -> Hashable:
    """The client that shows *credentials*, as queues tell clients apart; None: not known."""
    share: Hashable = getattr(credentials, "share", None)
    return share
