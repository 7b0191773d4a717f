"""
``--auth gssapi``: see :mod:`socksproxy.auth.checkers.gssapi`.

It imports nothing of ours before that is needed: every program that looks for plugins reads this file.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer

_HELP = """
Users are known by their Kerberos tickets (GSS-API, RFC 1961): a client shows one for the
service on this machine, and no password goes over the network.

  gssapi[:service=NAMES][:keytab=FILE][:protection=LEVEL][:realm=strip|keep]

service=rcmd,socks
    The services whose tickets are accepted, with commas between them. The default has
    rcmd, which curl and Dante ask for unless told otherwise, and socks.
keytab=FILE
    Has the keys of the services: of rcmd/proxy.example.org, say. The default is the
    system's, /etc/krb5.keytab or what KRB5_KTNAME says. It has to be readable for the
    user that the server runs as.
protection=integrity
    What all bytes after the login, and all datagrams, are protected against:
      none             nothing, whatever the client asks for. curl needs it: it knows
                       no protection, and goes away when it gets one.
      optional         as the client asks, nothing included.
      integrity        at least being changed on the way; confidentiality for clients
                       that ask for it. The default.
      confidentiality  being read, too.
realm=strip
    Users of this machine's own realm, as in krb5.conf, are known without it: bob, not
    bob@EXAMPLE.ORG; others are always known by the whole principal. With realm=keep,
    all are.

Needs the package gssapi: pip install 'twisted-socksproxy[gssapi]'
"""


@implementer(ICheckerFactory, IPlugin)
class GSSAPIFactory:
    """Makes the checker of ``--auth gssapi``."""

    authType = "gssapi"
    authHelp = _HELP
    argStringFormat = "[service=NAMES][:keytab=FILE][:protection=LEVEL][:realm=strip|keep]"

    @property
    def credentialInterfaces(self) -> Any:
        """See :class:`twisted.cred.strcred.ICheckerFactory`."""
        from socksproxy.auth.credentials import IGSSAPIName

        return (IGSSAPIName,)

    def generateChecker(self, argstring: str) -> Any:
        """See :meth:`twisted.cred.strcred.ICheckerFactory.generateChecker`."""
        try:
            from socksproxy.auth.checkers.gssapi import make_checker
        except ImportError as problem:
            raise InvalidAuthArgumentString(
                "gssapi: the package gssapi is needed, "
                f"pip install 'twisted-socksproxy[gssapi]' brings it ({problem})"
            ) from None
        return make_checker(argstring)


gssapi = GSSAPIFactory()
