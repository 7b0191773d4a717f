"""
Apache's htpasswd files, with a user and a hashed password in each line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from twisted.cred.strcred import InvalidAuthArgumentString

from .hashes import BCRYPT_MOST, COST, HASH, EqualTime, Hash, Unsafe, new_hash
from .threads import CheckThreads, PasswordChecker
from .users_file import LOOK_EVERY, FileChecker, Unusable, Users, UsersFile, open_to_all

__all__ = [
    "BCRYPT_MOST",
    "COST",
    "HASH",
    "LOOK_EVERY",
    "Hash",
    "HashedUsers",
    "HtpasswdChecker",
    "PasswordFile",
    "Unsafe",
    "Unusable",
    "make_checker",
    "new_hash",
    "open_to_all",
]


class HashedUsers(Users[Hash]):
    """
    The users of a file, or of records.

    :ivar equal: makes wrong answers take as long as one another.
    """

    right = (
        "one line a user, with bcrypt (htpasswd -B, or socksproxy passwd), argon2, yescrypt, sha512-crypt, "
        "sha256-crypt or apr1"
    )

    def __init__(self, passwords: dict[bytes, Hash], refused: Iterable[tuple[int, str]] = ()) -> None:
        super().__init__(passwords, refused)
        self.equal = EqualTime(passwords.values())

    @staticmethod
    def split(line: bytes, number: int) -> tuple[bytes, bytes]:
        """See :meth:`.Users.split`."""
        name, colon, rest = line.partition(b":")
        name = name.strip()
        if not name or not colon:
            raise Unusable(f"line {number} is not NAME:HASH")
        # Apache leaves the text behind a second colon to other programs.
        return name, rest.partition(b":")[0].strip()

    @staticmethod
    def password(name: bytes, text: bytes, number: int) -> Hash:
        """See :meth:`.Users.password`."""
        try:
            return Hash(text)
        except ValueError:
            raise Unusable(f"the hash in line {number} is not whole") from None

    def check(self, username: bytes, password: bytes) -> bool:
        """Whether *password* is right for *username*; a no takes as long for every name, known or not."""
        if b"\0" in password:
            return False  # no password of these kinds of hashes has a NUL
        known = self.passwords.get(username)
        hash = known or self.equal.stand_in(username)
        if hash is None:
            return False
        if hash.verify(password) and known is not None:
            return True
        self.equal.fill(hash)
        return False


class PasswordFile(UsersFile[HashedUsers]):
    """
    The users of an htpasswd file.

    :param path: the path of the file.
    :param clock: tells seconds, for the time between looks.
    :raises Unusable: when the file cannot be read, or is not whole.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(path, HashedUsers.parse, clock)

    def check(self, username: bytes, password: bytes) -> bool:
        """Whether *password* is right for *username*, after a look at the file if it is time."""
        self.look()
        return self.users.check(username, password)


class HtpasswdChecker(FileChecker, PasswordChecker):
    """
    Checks usernames and passwords by a file in Apache's htpasswd format.

    :param path: the path of the file.
    :param checks: the threads that check passwords; None: threads of the checker's own.
    :raises Unusable: when the file cannot be read, or is not whole.
    """

    _file: PasswordFile

    def __init__(self, path: str, checks: CheckThreads | None = None) -> None:
        super().__init__(PasswordFile(path), checks or CheckThreads.shared_fairly(name=f"htpasswd:{path}"))

    def _is_right(self, username: bytes, password: bytes) -> bool:
        return self._file.check(username, password)


def make_checker(argument: str) -> HtpasswdChecker:
    """
    The checker of ``--auth htpasswd:FILE``.

    :raises InvalidAuthArgumentString: when there is no file, or when it cannot be read.
    """
    if not argument:
        raise InvalidAuthArgumentString("htpasswd: no file is named, as in htpasswd:/etc/socks.htpasswd")
    try:
        return HtpasswdChecker(argument)
    except Unusable as problem:
        raise InvalidAuthArgumentString(f"htpasswd:{argument}: {problem}") from None
