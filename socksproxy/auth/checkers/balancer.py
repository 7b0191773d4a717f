"""
The name of a client that a balancer has verified by the client's TLS certificate.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import InvalidAuthArgumentString
from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from ...errors import NotAuthenticated
from ..credentials import CertifiedName, ICertifiedName


@implementer(ICredentialsChecker)
class CertifiedNameChecker:
    """Takes the name that a balancer tells as the user's."""

    credentialInterfaces = (ICertifiedName,)

    def requestAvatarId(self, credentials: CertifiedName) -> Deferred[Any]:
        return execute(_checked, credentials.name)


def _checked(name: str) -> str:
    if not name.isprintable() or "*" in name:
        raise NotAuthenticated("the name that the balancer tells is not one of a user")
    return name


def make_checker(argument: str) -> CertifiedNameChecker:
    """
    The checker of ``--auth balancer``.

    :raises InvalidAuthArgumentString: when there is an *argument*.
    """
    if argument:
        raise InvalidAuthArgumentString(f"balancer: {argument}: nothing stands behind balancer")
    return CertifiedNameChecker()
