"""
The checker of passwords that are in users' records.
"""

from __future__ import annotations

from ..directory import Directory
from ..users import bytes_of
from .hashes import Hash, Unsafe
from .htpasswd import HashedUsers
from .threads import CheckThreads, PasswordChecker

#: What a password in a record may be.
RIGHT = (
    "right is a hash: bcrypt (socksproxy passwd, or htpasswd -B), argon2, yescrypt, sha512-crypt, "
    "sha256-crypt or apr1"
)


def checked_hash(text: str) -> str:
    """
    *text*, if it is the hash of a password.

    :raises ValueError: when it is something else. The error says what, and quotes nothing of *text*.
    """
    try:
        Hash(text.encode())
    except Unsafe as problem:
        raise ValueError(f"{problem}; {RIGHT}") from None
    except ValueError:
        raise ValueError(f"a hash that is not whole; {RIGHT}") from None
    return text


class RecordsChecker(PasswordChecker):
    """
    Checks usernames and passwords by the hashes in users' records.

    :param directory: has the records.
    :param checks: the threads that check passwords; None: threads of the checker's own.
    :raises ValueError: when a password in *directory* is no hash.
    :ivar version: grows with each :meth:`take`.
    """

    def __init__(self, directory: Directory, checks: CheckThreads | None = None) -> None:
        self.version = 0
        self.checks = checks or CheckThreads.shared_fairly(name="passwords of users' records")
        self._users = _users_of(directory)

    def take(self, directory: Directory) -> None:
        """
        Check by the records in *directory* from now on.

        :raises ValueError: when a password in *directory* is no hash; then the old records stay.
        """
        # In this order, so that a check by the old records never counts as one of the new version.
        self._users = _users_of(directory)
        self.version += 1

    def knows(self, avatar_id: str | bytes) -> bool:
        """Whether the user *avatar_id* has a password here."""
        return bytes_of(avatar_id) in self._users.passwords

    def _is_right(self, username: bytes, password: bytes) -> bool:
        return self._users.check(username, password)


def _users_of(directory: Directory) -> HashedUsers:
    hashes = {bytes_of(name): checked_hash(text) for name, text in directory.passwords().items()}
    return HashedUsers({name: Hash(text.encode()) for name, text in hashes.items()})
