"""
Files of passwords in plain text, a line ``NAME:PASSWORD`` for each user: ``--auth file:PATH``.

They are read here and not by Twisted's checker, which cuts a password at a second colon and at spaces, and
takes comments for users.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from ...wire.password import MAX_FIELD
from ..credentials import share_of
from .threads import CheckThreads
from .users_file import FileChecker, Unusable, UsersFile, lines_of


class PlainUsers(NamedTuple):
    """
    What a file says.

    :ivar passwords: each user's.
    :ivar refused: lines that do not count, and why.
    :ivar right: what would be right instead.
    """

    passwords: dict[bytes, bytes]
    refused: list[tuple[int, str]]
    right: str = f"one line a user, NAME:PASSWORD, each with 1 to {MAX_FIELD} bytes"

    @classmethod
    def parse(cls, content: bytes) -> PlainUsers:
        """
        Read a whole file's *content*.

        :raises Unusable: when it cannot be whole, or what belongs to a password cannot be seen.
        """
        passwords: dict[bytes, bytes] = {}
        refused = []
        for number, line in lines_of(content):
            name, colon, password = line.partition(b":")
            if not name.strip() or not colon:
                raise Unusable(f"line {number} is not NAME:PASSWORD")
            if name != name.strip() or password != password.strip():
                raise Unusable(
                    f"line {number} has spaces around the name or the password, which may be meant or not: "
                    "take them out"
                )
            problem = _wrong_with(name, password, passwords)
            if problem:
                refused.append((number, problem))
            else:
                passwords[name] = password
        return cls(passwords, refused)

    @property
    def count(self) -> int:  # type: ignore[override]  # a tuple has a method of that name
        """How many users there are."""
        return len(self.passwords)

    def has(self, username: bytes) -> bool:
        """Whether there is such a user."""
        return username in self.passwords

    def __repr__(self) -> str:
        return f"<PlainUsers: {self.count}>"


def _wrong_with(name: bytes, password: bytes, known: dict[bytes, bytes]) -> str:
    if name in known:
        return "the user has a line above"
    if not password:
        return "no password"
    if len(name) > MAX_FIELD or len(password) > MAX_FIELD:
        return f"longer than {MAX_FIELD} bytes, which a client cannot send"
    return ""


@implementer(ICredentialsChecker)
class PlainFileChecker(FileChecker):
    """
    Checks usernames and passwords by a file that has them in plain text.

    :param path: of the file.
    :param checks: where the file is looked at.
    :param clock: tells seconds, for the time between looks.
    :raises Unusable: when the file cannot be read, or cannot be understood.
    """

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)
    _file: UsersFile[PlainUsers]

    def __init__(self, path: str, checks: CheckThreads, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(UsersFile(path, PlainUsers.parse, clock), checks)

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        if not self._file.due():
            return self._check(credentials)
        looked = self.checks.run(self._file.look, share=share_of(credentials))
        return looked.addCallback(lambda _: self._check(credentials))

    def _check(self, credentials: Any) -> Deferred[Any]:
        name: bytes = credentials.username
        known = self._file.users.passwords.get(name)
        asked: Deferred[Any] = maybeDeferred(credentials.checkPassword, b"" if known is None else known)
        return asked.addCallback(lambda same: _granted(name, bool(same) and known is not None))


def _granted(name: bytes, right: bool) -> bytes:
    if not right:
        raise UnauthorizedLogin("no such user, or another password")
    return name
