"""
``--auth ident``: see :mod:`socksproxy.auth.checkers.ident`.

It imports nothing of ours before that is needed: every program that looks for plugins reads this file.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import implementer

_HELP = """
The userid of a SOCKS4 request counts if the identd (RFC 1413) of the client's machine tells the
same user. The client must reach the proxy directly, and its machine must have an identd that we
can reach. Whoever rules that machine chooses the name: this is for machines that you rule.

port=PORT: where the identd listens, if it is not 113.
timeout=SECONDS: how long its answer may take, 5 if not given.

A client whose identd is not reached, or does not know, is told 92; one with another userid, 93.
"""


@implementer(ICheckerFactory, IPlugin)
class IdentFactory:
    """Makes checkers of userids."""

    authType = "ident"
    authHelp = _HELP
    argStringFormat = "[port=PORT][:timeout=SECONDS]"

    @property
    def credentialInterfaces(self) -> Any:
        """See :class:`twisted.cred.strcred.ICheckerFactory`."""
        from socksproxy.auth.credentials import IUserid

        return (IUserid,)

    def generateChecker(self, argstring: str) -> Any:
        """See :meth:`twisted.cred.strcred.ICheckerFactory.generateChecker`."""
        from socksproxy.auth.checkers.ident import IdentChecker

        return IdentChecker.from_arguments(argstring)


ident = IdentFactory()
