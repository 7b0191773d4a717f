"""
Apache's htpasswd files: a user and a hashed password a line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from twisted.cred.strcred import InvalidAuthArgumentString

from .hashes import BCRYPT_MOST, COST, EqualTime, Hash, Unsafe, new_hash
from .threads import CheckThreads, PasswordChecker
from .users_file import LOOK_EVERY, FileChecker, Unusable, UsersFile, lines_of, open_to_all

__all__ = [
    "BCRYPT_MOST",
    "COST",
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
    "parse_line",
]


class HashedUsers(NamedTuple):
    """
    What a file says.

    :ivar hashes: each user's.
    :ivar equal: makes wrong answers take as long as one another.
    :ivar refused: lines that do not count, and why.
    :ivar right: what would be right instead.
    """

    hashes: dict[bytes, Hash]
    equal: EqualTime
    refused: list[tuple[int, str]]
    right: str = (
        "one line a user, with bcrypt (htpasswd -B, or socksproxy passwd), sha512-crypt, sha256-crypt or apr1"
    )

    @classmethod
    def parse(cls, content: bytes) -> HashedUsers:
        """
        Read a whole file's *content*.

        :raises Unusable: when it cannot be whole.
        """
        hashes: dict[bytes, Hash] = {}
        refused = []
        for number, line in lines_of(content):
            name, text = parse_line(line, number)
            try:
                if name in hashes:
                    raise Unsafe("the user has a line above")
                hashes[name] = Hash(text)
            except Unsafe as problem:
                refused.append((number, str(problem)))
            except ValueError:
                raise Unusable(f"the hash in line {number} is not whole") from None
        return cls.of(hashes, refused)

    @classmethod
    def of(cls, hashes: dict[bytes, Hash], refused: Iterable[tuple[int, str]] = ()) -> HashedUsers:
        """Users with these *hashes*."""
        return cls(hashes, EqualTime(hashes.values()), list(refused))

    @property
    def count(self) -> int:  # type: ignore[override]  # a tuple has a method of that name
        """How many users there are."""
        return len(self.hashes)

    def has(self, username: bytes) -> bool:
        """Whether there is such a user."""
        return username in self.hashes

    def check(self, username: bytes, password: bytes) -> bool:
        """Whether *password* is *username*'s; a no takes as long for every name, known or not."""
        if b"\0" in password:
            return False  # in none of these hashes, whoever it is
        known = self.hashes.get(username)
        hash = known or self.equal.stand_in(username)
        if hash is None:
            return False
        if hash.verify(password) and known is not None:
            return True
        self.equal.fill(hash)
        return False


def parse_line(line: bytes, number: int) -> tuple[bytes, bytes]:
    """
    A line's user and hash.

    :param line: without its end.
    :param number: of the line, for the error.
    :raises Unusable: when it is something else.
    """
    name, colon, rest = line.partition(b":")
    name = name.strip()
    if not name or not colon:
        raise Unusable(f"line {number} is not NAME:HASH")
    # Whatever stands behind a second colon is somebody else's, as Apache has it.
    return name, rest.partition(b":")[0].strip()


class PasswordFile(UsersFile[HashedUsers]):
    """
    The users of an htpasswd file.

    :param path: of the file.
    :param clock: tells seconds, for the time between looks.
    :raises Unusable: when it cannot be read, or is not whole.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(path, HashedUsers.parse, clock)

    def check(self, username: bytes, password: bytes) -> bool:
        """Whether *password* is *username*'s; the file is looked at first, if it is time."""
        self.look()
        return self.users.check(username, password)


class HtpasswdChecker(FileChecker, PasswordChecker):
    """
    Checks usernames and passwords by a file in Apache's htpasswd format.

    :param path: of the file.
    :param checks: where they are checked; None: in threads of its own.
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
