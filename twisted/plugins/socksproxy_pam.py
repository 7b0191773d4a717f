"""``--auth pam:SERVICE``. Whatever it needs is imported when a checker is wanted."""

from __future__ import annotations

from typing import Any

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer

_HELP = """
Usernames and passwords of a PAM service, such as the accounts of this machine
or those of a directory. SERVICE is the name of a file in /etc/pam.d. For the
accounts of a Debian system it may hold:

    auth     required  pam_unix.so nodelay
    account  required  pam_unix.so

Both are asked: "auth" whether the password is right, "account" whether the
account may be used; one that is locked or has expired is refused. Sessions are
not opened, and passwords are not changed.

The proxy runs the service's modules as its own user. pam_unix needs root, or
the group shadow on Debian, for other users than that one. Each check takes a
thread for as long as it lasts, and is given up a bit before --auth-timeout.

Needs the package python-pam: pip install 'twisted-socksproxy[pam]'
"""


@implementer(ICheckerFactory, IPlugin)
class _PAM:
    authType = "pam"
    authHelp = _HELP
    argStringFormat = "Name of the PAM service."
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> Any:
        """See :meth:`twisted.cred.strcred.ICheckerFactory.generateChecker`."""
        if not argstring:
            raise InvalidAuthArgumentString("pam: no service is named, as in pam:login")
        try:
            from socksproxy.auth.checkers.pam import NoService, PAMChecker
        except ImportError:
            raise InvalidAuthArgumentString(
                f"pam:{argstring}: the package python-pam is needed, "
                "pip install 'twisted-socksproxy[pam]' brings it"
            ) from None
        try:
            return PAMChecker(argstring)
        except (NoService, OSError) as problem:
            raise InvalidAuthArgumentString(f"pam:{argstring}: {problem}") from None


pam = _PAM()
