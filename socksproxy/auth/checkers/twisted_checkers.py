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
    What stands for *checker* where the reactor must not wait; for most that is *checker*.

    :raises InvalidAuthArgumentString: when it could not let a user in, or not the ones that are meant.
    """
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # It keeps the names that "memory:" was given as text, and what comes from the network is bytes.
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
    Twisted's checker of the system's passwords, which breaks on some names and is quick with unknown ones.

    A user without a password, such as a system's own, takes as long as any other.

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
            name = credentials.username.decode()
            if self._hash_of(name)[:1] not in ("", "!", "*"):
                return self._checker.requestAvatarId(credentials)
        except (KeyError, ValueError):
            pass
        self._crypt.crypt("as long as for a user", self._salt(credentials.username))
        raise UnauthorizedLogin()

    def _hash_of(self, name: str) -> str:
        """
        The hash of a user's password, or what the system has in its place.

        :raises KeyError: when there is no such user; ValueError: when the name cannot be one.
        :raises OSError: when this process may not know.
        """
        text: str = pwd.getpwnam(name).pw_passwd
        if text not in ("x", "*"):
            return text
        hidden: str = self._shadow.getspnam(name).sp_pwdp
        return hidden

    def _salt(self, name: bytes) -> str:
        """A user's, always the same for a *name* that has none: the same kind of hash, with the same cost."""
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
