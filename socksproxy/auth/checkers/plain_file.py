"""
Files of passwords in plain text, with a line ``NAME:PASSWORD`` for each user: ``--auth file:PATH``.

Twisted's own checker does not read them, because it cuts a password at a second colon and at spaces, and
takes comments for users.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from ...wire.password import MAX_FIELD
from ..credentials import share_of
from .threads import CheckThreads
from .users_file import FileChecker, Refused, Unusable, Users, UsersFile


class PlainUsers(Users[bytes]):
    """The users of a file with passwords in plain text."""

    right = f"one line a user, NAME:PASSWORD, each with 1 to {MAX_FIELD} bytes"

    @staticmethod
    def split(line: bytes, number: int) -> tuple[bytes, bytes]:
        """See :meth:`.Users.split`."""
        name, colon, password = line.partition(b":")
        if not name.strip() or not colon:
            raise Unusable(f"line {number} is not NAME:PASSWORD")
        if name != name.strip() or password != password.strip():
            raise Unusable(
                f"line {number} has spaces around the name or the password, which may be meant or not: "
                "take them out"
            )
        return name, password

    @staticmethod
    def password(name: bytes, text: bytes, number: int) -> bytes:
        """See :meth:`.Users.password`."""
        if not text:
            raise Refused("no password")
        if len(name) > MAX_FIELD or len(text) > MAX_FIELD:
            raise Refused(f"longer than {MAX_FIELD} bytes, which a client cannot send")
        return text


@implementer(ICredentialsChecker)
class PlainFileChecker(FileChecker):
    """
    Checks usernames and passwords by a file with passwords in plain text.

    :param path: the path of the file.
    :param checks: the threads that look at the file.
    :param clock: tells seconds, for the time between looks.
    :raises Unusable: when the file cannot be read, or is not whole.
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
