"""
``--auth tls``: see :mod:`socksproxy.auth.checkers.tls`.

It imports nothing of ours before that is needed: every program that looks for plugins reads this file.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import implementer

_HELP = """
Who connects to a listener with TLS (--listen ssl:...) may show a certificate of one of the
authorities in FILE. A client that shows none can still be known in another way; with a certificate
that is not valid, or of somebody else, there is no connection.

ca=FILE: the certificates of the authorities, in PEM.
name=subject: the user's name is the common name of the certificate's subject; this is the default.
name=email, name=dns, name=uri: it is the certificate's alternative name of that kind.
name=san: it is the certificate's alternative name, of whichever of these three kinds.

A certificate with none or with several of what names the user is refused.
"""


@implementer(ICheckerFactory, IPlugin)
class CertificateFactory:
    """Makes checkers of TLS certificates."""

    authType = "tls"
    authHelp = _HELP
    argStringFormat = "ca=FILE[:name=subject|email|dns|uri|san]"

    @property
    def credentialInterfaces(self) -> Any:
        """See :class:`twisted.cred.strcred.ICheckerFactory`."""
        from socksproxy.auth.credentials import ICertificate

        return (ICertificate,)

    def generateChecker(self, argstring: str) -> Any:
        """See :meth:`twisted.cred.strcred.ICheckerFactory.generateChecker`."""
        from twisted.cred.strcred import InvalidAuthArgumentString

        try:
            from socksproxy.auth.checkers.tls import CertificateChecker
        except ImportError as problem:
            raise InvalidAuthArgumentString(
                f"tls: it needs what comes with twisted-socksproxy[tls] ({problem})"
            ) from None
        return CertificateChecker.from_arguments(argstring)


tls = CertificateFactory()
