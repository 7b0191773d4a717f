"""
Users and passwords of a PAM service.

Both are asked for: whether the password is right, and whether the account may be
used now. One that is locked or has expired is refused, whatever the password.
"""

from __future__ import annotations

import os
import re

import pam
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString

from ...errors import NotAuthenticated
from .threads import CheckFailed, CheckThreads, PasswordChecker

#: Checks at once. They wait more than they compute: pam_unix takes two seconds to refuse.
THREADS = 8

#: Where services are described: pam.d(5).
FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d")

#: Another password than the user's, or no such user.
_WRONG = frozenset({pam.PAM_AUTH_ERR, pam.PAM_USER_UNKNOWN})
#: Somebody whom the service does not let in now. Anything else says that nobody could be asked.
_REFUSALS = frozenset(
    {
        pam.PAM_PERM_DENIED,
        pam.PAM_CRED_INSUFFICIENT,
        pam.PAM_MAXTRIES,
        pam.PAM_NEW_AUTHTOK_REQD,
        pam.PAM_ACCT_EXPIRED,
        pam.PAM_CRED_EXPIRED,
        pam.PAM_AUTHTOK_EXPIRED,
    }
)

_is_service = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*").fullmatch


class NoService(Exception):
    """There is no such service; its words are for the operator."""


def _require(service: str) -> None:
    # PAM itself would take the service "other" in its place, which may let in everybody with an account.
    if not any(os.path.isfile(os.path.join(folder, service.lower())) for folder in FOLDERS):
        raise NoService(
            f"there is no PAM service {service!r}: it would be described in {FOLDERS[0]}/{service}"
        )


class PAMChecker(PasswordChecker):
    """
    Checks usernames and passwords by PAM.

    :param service: its name, as in ``/etc/pam.d``.
    :param checks: where they are checked; None: in threads of its own.
    :raises NoService: when there is none of that name.
    :raises OSError: when there is no PAM.
    """

    def __init__(self, service: str, checks: CheckThreads | None = None) -> None:
        if not _is_service(service):
            raise NoService(f"{service!r} is not the name of a PAM service, such as login")
        _require(service)
        try:
            pam.PamAuthenticator()  # finds the library, which takes a while
        except AttributeError:
            raise OSError("there is no libpam here") from None
        self._service = service
        self.checks = checks or CheckThreads.shared_fairly(name=f"pam:{service}", threads=THREADS)

    def _is_right(self, username: bytes, password: bytes) -> bool:
        if b"\0" in username or b"\0" in password:
            raise UnauthorizedLogin("a NUL is in no name and no password")
        try:
            _require(self._service)
        except NoService as problem:
            raise CheckFailed(str(problem)) from None
        asked = pam.PamAuthenticator()  # one each: it is not for several threads
        # Latin-1 is for PAM's own messages, which may be in any language. The credentials of this
        # process, which setcred might change, are not the client's.
        if asked.authenticate(username, password, self._service, encoding="latin-1", resetcreds=False):
            return True
        if asked.code in _WRONG:
            return False
        raise (NotAuthenticated if asked.code in _REFUSALS else CheckFailed)(f"PAM: {asked.reason}")


def make_checker(argument: str) -> PAMChecker:
    """
    The checker of ``--auth pam:SERVICE``.

    :raises InvalidAuthArgumentString: when there is no such service, or no PAM.
    """
    if not argument:
        raise InvalidAuthArgumentString("pam: no service is named, as in pam:login")
    try:
        return PAMChecker(argument)
    except (NoService, OSError) as problem:
        raise InvalidAuthArgumentString(f"pam:{argument}: {problem}") from None
