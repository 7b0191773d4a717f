"""``--auth htpasswd:FILE``. Whatever it needs is imported when a checker is wanted."""

from __future__ import annotations

from typing import Any

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer

_HELP = """
Usernames and passwords from a file in the format of Apache's htpasswd
program: a line NAME:HASH for each user, lines with # are comments.

The file is made and changed with either of these:

    socksproxy passwd FILE NAME
    htpasswd -B -C 12 FILE NAME

Hashes may be bcrypt ($2y$, $2b$, $2a$), which is best, sha512-crypt ($6$),
sha256-crypt ($5$) and apr1 ($apr1$). Lines with plain text, {SHA}, DES crypt
or anything else are left out, with a warning.

When the file changes it is read again, within a second of the next login; a
file that is half-written, empty or missing is not. It has to be readable for
the user that the proxy runs as, and should be for nobody else (chmod 640 or
600).

Needs the packages libpass and bcrypt: pip install 'twisted-socksproxy[htpasswd]'
"""


@implementer(ICheckerFactory, IPlugin)
class _Htpasswd:
    authType = "htpasswd"
    authHelp = _HELP
    argStringFormat = "Path of the file."
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> Any:
        """See :meth:`twisted.cred.strcred.ICheckerFactory.generateChecker`."""
        if not argstring:
            raise InvalidAuthArgumentString("htpasswd: no file is named, as in htpasswd:/etc/socks.htpasswd")
        try:
            from socksproxy.auth.checkers.htpasswd import HtpasswdChecker, Unusable
        except ImportError:
            raise InvalidAuthArgumentString(
                f"htpasswd:{argstring}: the packages libpass and bcrypt are needed, "
                "pip install 'twisted-socksproxy[htpasswd]' brings them"
            ) from None
        try:
            return HtpasswdChecker(argstring)
        except Unusable as problem:
            raise InvalidAuthArgumentString(f"htpasswd:{argstring}: {problem}") from None


htpasswd = _Htpasswd()
