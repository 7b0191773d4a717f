"""
Files with a user a line, and the checkers that read them.

The file is looked at again while the proxy runs, in the threads that check passwords. Programs write over
such a file in place, so it may be seen half-written: what cannot be whole is left alone, and what was read
before stays.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, Generic, Protocol as Shape, TypeVar

from twisted.logger import Logger

from ...errors import describe
from ...runtime.text import NotUTF8, without_mark
from ...runtime.watched_file import WatchedFile
from ..users import bytes_of
from .threads import CheckThreads

_log = Logger(namespace="socksproxy")

#: Bytes of a file: some hundred thousand users.
MOST_BYTES = 32 << 20
#: Seconds between two looks at a file.
LOOK_EVERY = 1.0
#: Seconds for which a file may change once more without showing it: its time is not that fine.
SETTLED = 2.0
#: Lines that a warning names.
_MOST_NAMED = 10
_NOBODY = "there is no user in it who could log in"


class Unusable(Exception):
    """A file cannot be read, or is not whole; its words are for the operator."""


class Users(Shape):
    """What a file says."""

    @property
    def refused(self) -> list[tuple[int, str]]:
        """Lines that do not count, and why."""

    @property
    def right(self) -> str:
        """What would be right instead."""

    @property
    def count(self) -> int:
        """How many users there are."""

    def has(self, username: bytes) -> bool:
        """Whether there is such a user."""


U = TypeVar("U", bound=Users)


def lines_of(content: bytes) -> Iterator[tuple[int, bytes]]:
    """
    The lines of a whole file that say something, without their ends, and their numbers.

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

    All looks but the first are for threads.

    :param path: of the file.
    :param parse: what a whole file's content says.
    :param clock: tells seconds, for the time between looks.
    :raises Unusable: when it cannot be read, or is not whole.
    :ivar version: grows when there is something new in the file.
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

    def has(self, username: bytes) -> bool:
        """Whether there was such a user at the last look."""
        return self.users.has(username)

    @property
    def users(self) -> U:
        """The users of the last look."""
        assert self._users is not None
        return self._users

    @property
    def refused(self) -> list[str]:
        """A line for each line of the file that does not count, and one where no user could log in."""
        users = self.users
        lines = [f"{self._shown}, line {number} does not count: {why}" for number, why in users.refused]
        return lines if users.count else [*lines, f"{self._shown}: {_NOBODY}"]

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
            return self._file.changed()
        except OSError as problem:
            self._file.signature = None
            raise Unusable(describe(problem)) from None

    def _read(self) -> None:
        try:
            content, status, _ = self._file.read()
        except OSError as problem:
            raise Unusable(describe(problem)) from None
        # Either way: the wall clock may have stepped back behind the last change of the file.
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
        # In this order: what is checked by the old users never counts as of the new version.
        self._users = users
        if self._content is not None:
            self.version += 1
            _log.info("{file}: read again, users: {count}", file=self._shown, count=users.count)
        self._content = content
        self._say("refused", _about_refused(users))
        self._say("users", "" if users.count else _NOBODY)

    def _say(self, topic: str, text: str) -> None:
        """Warn of *text*, once."""
        if text and text != self._said.get(topic):
            _log.warn("{file}: {text}", file=self._shown, text=text)
        self._said[topic] = text


def open_to_all(mode: int) -> str:
    """A warning, if a file of *mode* is open to everybody on this machine; nothing otherwise."""
    if not mode & (stat.S_IROTH | stat.S_IWOTH):
        return ""
    does = "change" if mode & stat.S_IWOTH else "read"
    return f"everybody on this machine can {does} it: chmod o= takes that away"


def _about_refused(users: Users) -> str:
    refused = users.refused
    if not refused:
        return ""
    lines = ", ".join(f"line {number} ({why})" for number, why in refused[:_MOST_NAMED])
    more = f" and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
    return f"these do not count: {lines}{more}; right is {users.right}"


class FileChecker:
    """
    What checkers of the users of a file have in common.

    :param file: the file.
    :param checks: where it is looked at.
    """

    def __init__(self, file: UsersFile[Any], checks: CheckThreads) -> None:
        self._file = file
        self.checks = checks
        self._looks = False

    @property
    def version(self) -> int:
        """Grows when there is something new in the file. To ask has it looked at, if it is time."""
        if self._file.due() and not self._looks:
            self._looks = True
            self.checks.run(self._file.look).addBoth(self._looked)
        return self._file.version

    @property
    def warnings(self) -> list[str]:
        """A line for each line of the file that does not count."""
        return self._file.refused

    def knows(self, avatar_id: str | bytes) -> bool:
        """Whether there is such a user in the file, as of the last look."""
        return self._file.has(bytes_of(avatar_id))

    def _looked(self, _: object) -> None:
        self._looks = False
