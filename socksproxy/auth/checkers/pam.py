"""
Users and passwords of a PAM service.

PAM is asked whether the password is right, and whether the account may be used now. An account that is locked
or has expired is refused, whatever the password.
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

#: The folders with the descriptions of services: pam.d(5).
FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d")

#: The password is wrong, or there is no such user.
_WRONG = frozenset({pam.PAM_AUTH_ERR, pam.PAM_USER_UNKNOWN})
#: The service refuses the user now. Any other code says that the password was not checked.
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
    """There is no such service; the text is for the operator."""


def _require(service: str) -> None:
    # PAM itself would use the service "other" instead, which may let in every user with an account.
    if not any(os.path.isfile(os.path.join(folder, service.lower())) for folder in FOLDERS):
        raise NoService(
            f"there is no PAM service {service!r}: it would be described in {FOLDERS[0]}/{service}"
        )


class PAMChecker(PasswordChecker):
    """
    Checks usernames and passwords by PAM.

    :param service: the name of the service, as in ``/etc/pam.d``.
    :param checks: the threads that check passwords; None: threads of the checker's own.
    :raises NoService: when there is no service of that name.
    :raises OSError: when there is no PAM.
    """

    def __init__(self, service: str, checks: CheckThreads | None = None) -> None:
        if not _is_service(service):
            raise NoService(f"{service!r} is not the name of a PAM service, such as login")
        _require(service)
        try:
            pam.PamAuthenticator()  # finds the library, which is slow
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
        asked = pam.PamAuthenticator()  # one for each check, because it is not thread-safe
        # Latin-1 is for PAM's own messages, which may be in any language. setcred is left out, because it
        # would change the credentials of this process, which are not the client's.
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
