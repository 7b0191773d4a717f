"""
The kinds of credentials, in :mod:`twisted.cred`'s sense. None shows a secret in its ``repr``.
"""

from __future__ import annotations

from collections.abc import Hashable
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

import attrs
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
    """The process at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED)."""

    pid = Attribute("The process that has connected.")
    uid = Attribute("Its effective user.")
    gid = Attribute("Its effective group.")


class IUserid(ICredentials):
    """The userid of a SOCKS4 request, which is not verified yet."""

    userid = Attribute("Bytes without a NUL; may be empty.")
    client = Attribute("The client.")
    local = Attribute("The literal address of ours that the client has reached, and the port.")


class IGSSAPIName(ICredentials):
    """The initiator of an established GSS-API context (RFC 1961)."""

    principal = Attribute("The initiator's name in text, such as bob@EXAMPLE.ORG.")


@implementer(IAnonymous)
@attrs.define(eq=False)
class Anonymous:
    """The client shows nothing."""


@implementer(IUsernamePassword)
@attrs.define(eq=False)
class Password:
    """
    A username and password (RFC 1929).

    :ivar username: 1 to 255 bytes.
    :ivar password: 1 to 255 bytes.
    :ivar share: the client, as queues of checks tell clients apart; None: it is not known.
    """

    username: bytes
    password: bytes = attrs.field(repr=False)
    share: Hashable = attrs.field(default=None, repr=False)

    def checkPassword(self, password: bytes) -> bool:
        """Whether *password* is this one; the comparison takes as long for every password of one length."""
        return compare_digest(self.password, password)


@implementer(ICertificate)
@attrs.define(eq=False)
class Certificate:
    """See :class:`ICertificate`."""

    certificate: Any = attrs.field(repr=False)


@implementer(ICertifiedName)
@attrs.define(eq=False)
class CertifiedName:
    """See :class:`ICertifiedName`."""

    name: str


@implementer(IPeerCredentials)
@attrs.define(eq=False)
class PeerCredentials:
    """See :class:`IPeerCredentials`."""

    pid: int
    uid: int
    gid: int


@implementer(IUserid)
@attrs.define(eq=False)
class Userid:
    """See :class:`IUserid`."""

    userid: bytes
    client: Client = attrs.field(repr=str)
    local: tuple[str, int] | None = attrs.field(repr=False)


@implementer(IGSSAPIName)
@attrs.define(eq=False)
class GSSAPIName:
    """See :class:`IGSSAPIName`."""

    principal: str


def share_of(credentials: Any) -> Hashable:
    """The client that shows *credentials*, as queues tell clients apart; None: it is not known."""
    share: Hashable = getattr(credentials, "share", None)
    return share
