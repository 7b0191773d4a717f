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

from ...wire.password import MAX_FIELD
from .plain_file import PlainFileChecker
from .threads import CheckThreads, ThreadedChecker
from .users_file import Unusable

__all__ = ["adapted"]


def adapted(checker: Any, reactor: Any) -> Any:
    """
    A checker in place of *checker* that does not block the reactor; most checkers need none.

    :raises InvalidAuthArgumentString: when *checker* could let in no user, or wrong ones.
    """
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # The checker of "memory:" keeps names as text, and names from the network are bytes.
        checker.users = {_bytes(name): _bytes(password) for name, password in checker.users.items()}
        _check_users(checker.users)
        return checker
    if isinstance(checker, FilePasswordDB):
        path = os.path.abspath(checker.filename)
        try:
            return PlainFileChecker(path, CheckThreads.shared_fairly(reactor, name=f"file:{path}"))
        except Unusable as problem:
            raise InvalidAuthArgumentString(f"{path} cannot be read: {problem}") from None
    if isinstance(checker, UNIXChecker):
        return ThreadedChecker(
            _Unix(checker), CheckThreads.shared_fairly(reactor, name="passwords of the system")
        )
    return checker


class _Unix:
    """
    Twisted's checker of the system's passwords, without two faults: some names raise, and unknown ones are
    quick.

    An unknown user, and one without a password, takes as long as any other.

    :raises InvalidAuthArgumentString: when Python cannot compute such hashes, as from version 3.13 on.
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
            name = credentials.username.decode()
            if self._hash_of(name)[:1] not in ("", "!", "*"):
                return self._checker.requestAvatarId(credentials)
        except (KeyError, ValueError):
            pass
        self._crypt.crypt("as long as for a user", self._salt(credentials.username))
        raise UnauthorizedLogin()

    def _hash_of(self, name: str) -> str:
        """
        The hash of a user's password, or the text that the system has instead.

        :raises KeyError: when there is no such user.
        :raises ValueError: when *name* cannot be a name.
        :raises OSError: when this process may not read it.
        """
        text: str = pwd.getpwnam(name).pw_passwd
        if text not in ("x", "*"):
            return text
        hidden: str = self._shadow.getspnam(name).sp_pwdp
        return hidden

    def _salt(self, name: bytes) -> str:
        """The salt of some user's hash, always the same one for one *name*."""
        try:
            hashes = [entry.sp_pwdp for entry in self._shadow.getspall()]
        except OSError:
            hashes = []
        hashes = [text for text in hashes if text.startswith("$")]
        return hashes[hash(name) % len(hashes)] if hashes else str(self._crypt.mksalt())


def _check_users(users: dict[bytes, bytes]) -> None:
    if not users:
        raise InvalidAuthArgumentString("no user is named, as in memory:NAME:PASSWORD")
    if any(not 0 < len(field) <= MAX_FIELD for pair in users.items() for field in pair):
        raise InvalidAuthArgumentString(f"names and passwords have 1 to {MAX_FIELD} bytes, and no colon")


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
