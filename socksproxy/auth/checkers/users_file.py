"""
Files with one user in each line, and the checkers that read them.

Strategy: while the proxy runs, the threads that check passwords look whether the file has changed. Programs
write over such a file in place, so a thread may see half of it. A file that cannot be whole is ignored, and
the users of the last whole file stay.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any, Generic, TypeVar

from twisted.logger import Logger

from ...errors import describe
from ...runtime.text import NotUTF8, without_mark
from ...runtime.watched_file import WatchedFile
from ..users import bytes_of
from .threads import CheckThreads

_log = Logger(namespace="socksproxy")

#: Bytes of the largest file: some hundred thousand users.
MOST_BYTES = 32 << 20
#: Seconds between two looks at a file.
LOOK_EVERY = 1.0
#: Seconds after a change in which the time of a file may not show another change.
SETTLED = 2.0
#: The greatest number of lines that a warning names.
_MOST_NAMED = 10
_NOBODY = "no user in it can log in"


class Unusable(Exception):
    """A file cannot be read, or is not whole; the text is for the operator."""


class Refused(Exception):
    """A line does not count; the text is for the operator, and has nothing of a password."""


V = TypeVar("V")
U = TypeVar("U", bound="Users[Any]")


class Users(Generic[V]):
    """
    The users of a file.

    :ivar passwords: what stands for each user's password.
    :ivar refused: the numbers of lines that do not count, and why.
    :ivar right: which lines would count.
    """

    right: str

    def __init__(self, passwords: dict[bytes, V], refused: Iterable[tuple[int, str]] = ()) -> None:
        self.passwords = passwords
        self.refused = list(refused)

    @classmethod
    def parse(cls: type[U], content: bytes) -> U:
        """
        Read the *content* of a whole file.

        :raises Unusable: when it cannot be whole.
        """
        passwords: dict[bytes, Any] = {}
        refused = []
        for number, line in lines_of(content):
            name, text = cls.split(line, number)
            try:
                if name in passwords:
                    raise Refused("the user has a line above")
                passwords[name] = cls.password(name, text, number)
            except Refused as problem:
                refused.append((number, str(problem)))
        return cls(passwords, refused)

    @staticmethod
    def split(line: bytes, number: int) -> tuple[bytes, bytes]:
        """
        The name and the password in *line*.

        :param line: a line without its end.
        :param number: its number, for the error.
        :raises Unusable: when it is something else.
        """
        raise NotImplementedError

    @staticmethod
    def password(name: bytes, text: bytes, number: int) -> V:
        """
        What stands for the password *text* of the user *name*.

        :raises Refused: when the line does not count.
        :raises Unusable: when the file cannot be whole.
        """
        raise NotImplementedError


def lines_of(content: bytes) -> Iterator[tuple[int, bytes]]:
    """
    The lines of a whole file without their ends, and their numbers; empty lines and comments are left out.

    Lines may end with CR LF, and the file may begin with a byte order mark of UTF-8.

    :raises Unusable: when the file cannot be whole, or is not in an encoding in which ASCII is ASCII.
    """
    try:
        content = without_mark(content)
    except NotUTF8 as problem:
        raise Unusable(f"it {problem}") from None
    if content and not content.endswith(b"\n"):
        raise Unusable("its last line has no end, as if it were half-written")
    for number, line in enumerate(content.split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if b"\r" in line:
            raise Unusable(f"line {number} has a carriage return in it; lines end with LF or CR LF")
        if line.strip() and not line.strip().startswith(b"#"):
            yield number, line


class UsersFile(Generic[U]):
    """
    The users of a file, as of the last look that found it whole.

    The first look is made at once; threads make all others.

    :param path: the path of the file.
    :param parse: reads the content of a whole file.
    :param clock: tells seconds, for the time between looks.
    :raises Unusable: when the file cannot be read, or is not whole.
    :ivar version: grows whenever the users in the file have changed.
    """

    def __init__(
        self, path: str, parse: Callable[[bytes], U], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.version = 0
        self._file = WatchedFile(path, MOST_BYTES)
        self._shown = path.encode("utf-8", "backslashreplace").decode()
        self._clock = clock
        self._looking = Lock()
        self._next_look = clock() + LOOK_EVERY
        self._content: bytes | None = None
        self._parse = parse
        self._users: U | None = None
        self._said: dict[str, str] = {}
        self._read()

    @property
    def users(self) -> U:
        """The users of the last look."""
        assert self._users is not None
        return self._users

    @property
    def refused(self) -> list[str]:
        """A warning for each line of the file that does not count, and one if no user can log in."""
        users = self.users
        lines = [f"{self._shown}, line {number} does not count: {why}" for number, why in users.refused]
        return lines if users.passwords else [*lines, f"{self._shown}: {_NOBODY}"]

    def due(self) -> bool:
        """Whether it is time to look at the file."""
        return self._clock() >= self._next_look

    def look(self) -> None:
        """Read the file if it is time and it has changed; if it is not whole, the users stay as they are."""
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
            return self._file.changed()
        except OSError as problem:
            self._file.signature = None
            raise Unusable(describe(problem)) from None

    def _read(self) -> None:
        try:
            content, status, _ = self._file.read()
        except OSError as problem:
            raise Unusable(describe(problem)) from None
        # The absolute value, because the wall clock may have been set back behind the change of the file.
        if abs(time.time() - status.st_mtime) <= SETTLED:
            self._file.signature = None
        self._say("mode", open_to_all(status.st_mode))
        if content != self._content:
            if self._content and not content:
                raise Unusable("it is empty")
            self._take(content)
        self._say("content", "")

    def _take(self, content: bytes) -> None:
        users = self._parse(content)
        # In this order, so that a check by the old users never counts as one of the new version.
        self._users = users
        if self._content is not None:
            self.version += 1
            _log.info("{file}: read again, users: {count}", file=self._shown, count=len(users.passwords))
        self._content = content
        self._say("refused", _about_refused(users))
        self._say("users", "" if users.passwords else _NOBODY)

    def _say(self, topic: str, text: str) -> None:
        """Warn of *text*, once."""
        if text and text != self._said.get(topic):
            _log.warn("{file}: {text}", file=self._shown, text=text)
        self._said[topic] = text


def open_to_all(mode: int) -> str:
    """A warning if every user of this machine can use a file of *mode*; else an empty text."""
    if not mode & (stat.S_IROTH | stat.S_IWOTH):
        return ""
    does = "change" if mode & stat.S_IWOTH else "read"
    return f"every user of this machine can {does} it: chmod o= takes that away"


def _about_refused(users: Users[Any]) -> str:
    refused = users.refused
    if not refused:
        return ""
    lines = ", ".join(f"line {number} ({why})" for number, why in refused[:_MOST_NAMED])
    more = f" and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
    return f"these do not count: {lines}{more}; right is {users.right}"


class FileChecker:
    """
    The base of checkers of the users of a file.

    :param file: the file.
    :param checks: the threads that look at the file.
    """

    def __init__(self, file: UsersFile[Any], checks: CheckThreads) -> None:
        self._file = file
        self.checks = checks
        self._looks = False

    @property
    def version(self) -> int:
        """A number that grows whenever the users have changed. A thread looks at the file, if it is time."""
        if self._file.due() and not self._looks:
            self._looks = True
            self.checks.run(self._file.look).addBoth(self._looked)
        return self._file.version

    @property
    def warnings(self) -> list[str]:
        """Warnings about the file."""
        return self._file.refused

    def knows(self, avatar_id: str | bytes) -> bool:
        """Whether the file had the user *avatar_id* at the last look."""
        return bytes_of(avatar_id) in self._file.users.passwords

    def _looked(self, _: object) -> None:
        self._looks = False
