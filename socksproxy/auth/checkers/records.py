"""
The checker of passwords that are in users' records.
"""

from __future__ import annotations

from ..directory import Directory
from ..users import bytes_of
from .hashes import Hash, Unsafe
from .htpasswd import HashedUsers
from .threads import CheckThreads, PasswordChecker

#: What a password may be in a record.
RIGHT = "right is a hash: bcrypt (socksproxy passwd, or htpasswd -B), sha512-crypt, sha256-crypt or apr1"


def checked_hash(text: str) -> str:
    """
    *text*, which is a password's hash.

    :raises ValueError: when it is not; it says what else, and nothing of *text*.
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
    :param checks: where they are checked; None: in threads of its own.
    :raises ValueError: when a password in it is no hash.
    :ivar version: grows when there are other records.
    """

    def __init__(self, directory: Directory, checks: CheckThreads | None = None) -> None:
        self.version = 0
        self.checks = checks or CheckThreads.shared_fairly(name="passwords of users' records")
        self._users = _users_of(directory)

    def take(self, directory: Directory) -> None:
        """
        Check by other records from now on.

        :raises ValueError: when a password in them is no hash; then those of before stay.
        """
        # In this order: what is checked by the old records never counts as of the new version.
        self._users = _users_of(directory)
        self.version += 1

    def knows(self, avatar_id: str | bytes) -> bool:
        """Whether there is such a user."""
        return bytes_of(avatar_id) in self._users.hashes

    def _is_right(self, username: bytes, password: bytes) -> bool:
        return self._users.check(username, password)


def _users_of(directory: Directory) -> HashedUsers:
    hashes = {bytes_of(name): checked_hash(text) for name, text in directory.passwords().items()}
    return HashedUsers.of({name: Hash(text.encode()) for name, text in hashes.items()})
