"""
``--auth peercred``: see :mod:`socksproxy.auth.checkers.peercred`.

It imports nothing of ours before that is needed: every program that looks for plugins reads this file.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import implementer

_HELP = """
Who connects to a Unix socket (--listen unix:...) is the local user that the program runs as, says the
kernel (Linux). A user without a name is refused, and so is nobody, who may be anybody.

group=NAME: only members of this group; given several times, members of any of these.
"""


@implementer(ICheckerFactory, IPlugin)
class PeerCredentialsFactory:
    """Makes checkers of who is at the other end of a Unix socket."""

    authType = "peercred"
    authHelp = _HELP
    argStringFormat = "[group=NAME]..."

    @property
    def credentialInterfaces(self) -> Any:
        """See :class:`twisted.cred.strcred.ICheckerFactory`."""
        from socksproxy.auth.credentials import IPeerCredentials

        return (IPeerCredentials,)

    def generateChecker(self, argstring: str) -> Any:
        """See :meth:`twisted.cred.strcred.ICheckerFactory.generateChecker`."""
        from socksproxy.auth.checkers.peercred import PeerCredentialsChecker

        return PeerCredentialsChecker.from_arguments(argstring)


peercred = PeerCredentialsFactory()
