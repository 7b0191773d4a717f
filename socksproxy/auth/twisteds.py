"""
Twisted's own checkers, as a SOCKS server needs them.
"""

from __future__ import annotations

import os
import pwd
import warnings
from importlib import import_module
from typing import Any

from twisted.cred.checkers import FilePasswordDB, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString
from twisted.plugins.cred_unix import UNIXChecker

from ..errors import describe
from ..runtime.files import read_regular_file
from .threads import Checks, Threaded

__all__ = ["adapted"]

#: Bytes of a file of passwords.
MOST_BYTES = 32 << 20


def adapted(checker: Any, reactor: Any) -> Any:
    """
    What stands for *checker* where the reactor must not wait; for most that is *checker*.

    :raises InvalidAuthArgumentString: when it could not let anybody in.
    """
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # It keeps the names that "memory:" was given as text, and what comes from the network is bytes.
        checker.users = {_bytes(name): _bytes(password) for name, password in checker.users.items()}
        return checker
    if isinstance(checker, FilePasswordDB):
        # It is opened for each check, and twistd changes its directory before the first.
        checker.filename = os.path.abspath(checker.filename)
        try:
            read_regular_file(checker.filename, MOST_BYTES)
        except OSError as problem:
            why = f"{checker.filename} cannot be read: {describe(problem)}"
            raise InvalidAuthArgumentString(why) from None
        return Threaded(checker, Checks(reactor))
    if isinstance(checker, UNIXChecker):
        return Threaded(_Unix(checker), Checks.shared_fairly(reactor, name="passwords of the system"))
    return checker


class _Unix:
    """
    Twisted's checker of the system's passwords, which breaks on some names and is quick with unknown ones.

    :raises InvalidAuthArgumentString: where Python cannot compute such passwords: 3.13 and later.
    """

    def __init__(self, checker: UNIXChecker) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self._crypt: Any = import_module("crypt")
                self._shadow: Any = import_module("spwd")
        except ImportError:
            raise InvalidAuthArgumentString("this Python has no crypt: use pam:login instead") from None
        self.credentialInterfaces = checker.credentialInterfaces
        self._checker = checker

    def requestAvatarId(self, credentials: Any) -> Any:
        try:
            pwd.getpwnam(credentials.username.decode())
            return self._checker.requestAvatarId(credentials)
        except (KeyError, ValueError):
            self._crypt.crypt("as long as for a user", self._salt())
            raise UnauthorizedLogin() from None

    def _salt(self) -> str:
        """A user's: the same kind of hash, with the same cost."""
        try:
            hashes = [entry.sp_pwdp for entry in self._shadow.getspall()]
        except OSError:
            hashes = []
        return next((text for text in hashes if text.startswith("$")), "") or str(self._crypt.mksalt())


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
