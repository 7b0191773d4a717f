"""
Apache's htpasswd files: a user and a hashed password a line.

The file is looked at again while the proxy runs, in the threads that check
passwords. ``htpasswd`` writes over it in place, so it may be seen half-written:
what cannot be whole is left alone, and what was read before stays.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any, NamedTuple

from passlib.exc import MissingBackendError
from passlib.hash import apr_md5_crypt, bcrypt, sha256_crypt, sha512_crypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import describe
from ..runtime.files import read_regular_file
from .credentials import share_of
from .threads import Checks
from .users import bytes_of

try:
    # Here and not with the first password: it is tried out, which takes a while.
    bcrypt.set_backend("bcrypt")
except MissingBackendError:
    raise ImportError("the package bcrypt is not installed") from None

_log = Logger(namespace="socksproxy")

#: Bytes of a file: some hundred thousand users.
MOST_BYTES = 32 << 20
#: Seconds between two looks at a file.
LOOK_EVERY = 1.0
#: Seconds for which a file may change once more without showing it: its time is not that fine.
SETTLED = 2.0
#: Bytes of a password that bcrypt takes into account.
BCRYPT_MOST = 72
#: bcrypt's cost for new passwords, as a power of two.
COST = 12
#: Lines that a warning names.
_MOST_NAMED = 10

_KINDS: dict[bytes, Any] = {
    b"$2y$": bcrypt,
    b"$2b$": bcrypt,
    b"$2a$": bcrypt,
    b"$5$": sha256_crypt,
    b"$6$": sha512_crypt,
    b"$apr1$": apr_md5_crypt,
}
_DES_CRYPT = frozenset(b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

# These are computed in Python, which does one thing at a time: two of them would
# be no faster, and keep the reactor waiting for two.
_in_python = Lock()


class Unusable(Exception):
    """A file cannot be read, or is not whole; its words are for the operator."""


class Unsafe(Exception):
    """What stands for a password is none of ours, or no protection; its words are for the operator."""


class Hash:
    """
    A hashed password.

    :param text: as it stands in the file.
    :raises Unsafe: when it is of a kind that is not taken.
    :raises ValueError: when it is of one that is, but not whole.
    :ivar kind: what decides how long a check takes.
    """

    __slots__ = ("_handler", "_text", "kind")

    def __init__(self, text: bytes) -> None:
        prefix = next((prefix for prefix in _KINDS if text.startswith(prefix)), None)
        if prefix is None:
            raise Unsafe(_what_else(text))
        self._handler = _KINDS[prefix]
        self._text = text.decode("ascii")
        parsed = self._handler.from_string(self._text)
        if not parsed.checksum:
            raise ValueError("there is nothing behind the salt")
        self.kind: tuple[str, int] = self._handler.name, getattr(parsed, "rounds", 0)

    def verify(self, password: bytes) -> bool:
        """Whether *password*, in which there is no NUL, is this one."""
        if self._handler is bcrypt:
            # As htpasswd and Apache have it; what is longer counts as far as it goes.
            return bool(bcrypt.verify(password[:BCRYPT_MOST], self._text))
        with _in_python:
            return bool(self._handler.verify(password, self._text))

    def __repr__(self) -> str:
        return f"<Hash: {self.kind[0]}>"


def _what_else(text: bytes) -> str:
    if not text:
        return "no password"
    if text.startswith(b"{SHA}"):
        return "SHA-1 without salt"
    if text.startswith((b"$", b"{")):
        return "a hash of another kind"
    if len(text) == 13 and _DES_CRYPT.issuperset(text):
        return "DES crypt"
    return "plain text"


def new_hash(password: bytes, cost: int = COST) -> bytes:
    """
    The bcrypt hash of *password*, with a new salt, as Apache's own programs take it.

    :param password: 1 to 72 bytes without NUL.
    :param cost: a power of two, from 4 to 31.
    """
    text: str = bcrypt.using(rounds=cost, ident="2y").hash(password)
    return text.encode("ascii")


class Users(NamedTuple):
    """
    What a file says.

    :ivar hashes: each user's.
    :ivar stand_in: of the most common kind: what an unknown user's password is checked against.
    :ivar refused: lines that do not count, and why.
    """

    hashes: dict[bytes, Hash]
    stand_in: Hash | None
    refused: list[tuple[int, str]]

    @classmethod
    def parse(cls, content: bytes) -> Users:
        """
        Read a whole file's *content*.

        :raises Unusable: when it cannot be whole.
        """
        if content and not content.endswith(b"\n"):
            raise Unusable("its last line has no end, as if it were half-written")
        hashes: dict[bytes, Hash] = {}
        refused = []
        for number, line in enumerate(content.split(b"\n"), 1):
            entry = parse_line(line, number)
            if entry is None:
                continue
            name, text = entry
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
    def of(cls, hashes: dict[bytes, Hash], refused: Iterable[tuple[int, str]] = ()) -> Users:
        """Users with these *hashes*."""
        common = [kind for kind, _ in Counter(hash.kind for hash in hashes.values()).most_common(1)]
        stand_in = next((hash for hash in hashes.values() if hash.kind in common), None)
        return cls(hashes, stand_in, list(refused))

    def check(self, username: bytes, password: bytes) -> bool:
        """Whether *password* is *username*'s; it takes as long if there is no such user."""
        if b"\0" in password:
            return False  # in none of these hashes, whoever it is
        known = self.hashes.get(username)
        hash = known or self.stand_in
        return hash is not None and hash.verify(password) and known is not None


def parse_line(line: bytes, number: int) -> tuple[bytes, bytes] | None:
    """
    A line's user and hash; None for an empty one or a comment.

    :param line: without its end.
    :param number: of the line, for the error.
    :raises Unusable: when it is something else.
    """
    line = line.strip()
    if not line or line.startswith(b"#"):
        return None
    name, _, rest = line.partition(b":")
    if not name or name == line:
        raise Unusable(f"line {number} is not NAME:HASH")
    # Whatever stands behind a second colon is somebody else's, as Apache has it.
    return name, rest.partition(b":")[0]


def read_file(path: str) -> tuple[bytes, os.stat_result]:
    """
    What is in the file at *path*, and its status from before it was read.

    :raises Unusable: when it cannot be read.
    """
    try:
        content = read_regular_file(path, MOST_BYTES)
    except OSError as problem:
        raise Unusable(describe(problem)) from None
    return content.data, content.status


class PasswordFile:
    """
    The users of a file, as of the last look that found it whole.

    All looks but the first are for threads.

    :param path: of the file.
    :param clock: tells seconds, for the time between looks.
    :raises Unusable: when it cannot be read, or is not whole.
    :ivar version: grows when there is something new in the file.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.version = 0
        self._path = os.path.abspath(path)  # twistd changes its directory before the first check
        self._shown = path.encode("utf-8", "backslashreplace").decode()
        self._clock = clock
        self._looking = Lock()
        self._next_look = clock() + LOOK_EVERY
        self._seen: tuple[int, int, int] | None = None
        self._content: bytes | None = None
        self._users = Users({}, None, [])
        self._said: dict[str, str] = {}
        self._read()

    def has(self, username: bytes) -> bool:
        """Whether there was such a user at the last look."""
        return username in self._users.hashes

    def check(self, username: bytes, password: bytes) -> bool:
        """Whether *password* is *username*'s; the file is looked at first, if it is time."""
        self.look()
        return self._users.check(username, password)

    def due(self) -> bool:
        """Whether it is time to look at the file."""
        return self._clock() >= self._next_look

    def look(self) -> None:
        """Read the file, if it is time and it has changed; if it is not whole, what was read before stays."""
        if not self.due() or not self._looking.acquire(blocking=False):
            return
        try:
            self._next_look = self._clock() + LOOK_EVERY
            if self._changed():
                self._read()
        except Unusable as problem:
            self._say("content", f"{problem}; its users stay as they were")
        finally:
            self._looking.release()

    def _changed(self) -> bool:
        try:
            return _signature(os.stat(self._path)) != self._seen
        except OSError as problem:
            self._seen = None
            raise Unusable(describe(problem)) from None

    def _read(self) -> None:
        content, status = read_file(self._path)
        # Either way: the wall clock may have stepped back behind the last change of the file.
        settled = abs(time.time() - status.st_mtime) > SETTLED
        self._seen = _signature(status) if settled else None
        self._say("mode", open_to_all(status.st_mode))
        if content != self._content:
            if self._content and not content:
                raise Unusable("it is empty")
            self._take(content)
        self._say("content", "")

    def _take(self, content: bytes) -> None:
        users = Users.parse(content)
        # In this order: what is checked by the old users never counts as of the new version.
        self._users = users
        if self._content is not None:
            self.version += 1
            _log.info("{file}: read again, users: {count}", file=self._shown, count=len(users.hashes))
        self._content = content
        self._say("refused", _about_refused(users.refused))
        self._say("users", "" if users.hashes else "there is no user in it who could log in")

    def _say(self, topic: str, text: str) -> None:
        """Warn of *text*, once."""
        if text and text != self._said.get(topic):
            _log.warn("{file}: {text}", file=self._shown, text=text)
        self._said[topic] = text


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino


def open_to_all(mode: int) -> str:
    """A warning, if a file of *mode* is open to everybody on this machine; nothing otherwise."""
    if not mode & (stat.S_IROTH | stat.S_IWOTH):
        return ""
    does = "change" if mode & stat.S_IWOTH else "read"
    return f"everybody on this machine can {does} it: chmod o= takes that away"


def _about_refused(refused: list[tuple[int, str]]) -> str:
    if not refused:
        return ""
    lines = ", ".join(f"line {number} ({why})" for number, why in refused[:_MOST_NAMED])
    more = f" and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
    return (
        f"these do not count: {lines}{more}; right is one line a user, with bcrypt (htpasswd -B, "
        "or socksproxy passwd), sha512-crypt, sha256-crypt or apr1"
    )


@implementer(ICredentialsChecker)
class HtpasswdChecker:
    """
    Checks usernames and passwords by a file in Apache's htpasswd format.

    :param path: of the file.
    :param checks: where they are checked; None: in threads of its own.
    :raises Unusable: when the file cannot be read, or is not whole.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, path: str, checks: Checks | None = None) -> None:
        self._file = PasswordFile(path)
        self.checks = checks or Checks.shared_fairly(name=f"htpasswd:{path}")
        self._looks = False

    @property
    def version(self) -> int:
        """Grows when there is something new in the file. To ask has it looked at, if it is time."""
        if self._file.due() and not self._looks:
            self._looks = True
            self.checks.run(self._file.look).addBoth(self._looked)
        return self._file.version

    def knows(self, avatar_id: str | bytes) -> bool:
        """Whether there is such a user in the file, as of the last look."""
        return self._file.has(bytes_of(avatar_id))

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """See :meth:`twisted.cred.checkers.ICredentialsChecker.requestAvatarId`."""
        return self.checks.run(self._check, credentials, share=share_of(credentials))

    def _check(self, credentials: Any) -> bytes | tuple[()]:
        name: bytes = credentials.username
        if not self._file.check(name, credentials.password):
            raise UnauthorizedLogin("no such user, or another password")
        return name

    def _looked(self, _: object) -> None:
        self._looks = False
