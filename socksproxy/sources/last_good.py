"""The last good configuration, which stays on disk for a start without its source."""

from __future__ import annotations

import os
from contextlib import suppress
from tempfile import mkstemp

from ..errors import describe
from ..runtime.files import read_regular_file
from .found import FoundConfig, SourceProblem


class LastGood:
    """
    The file that keeps it. Only the owner can read the file: there may be hashes of passwords in it.

    :param path: its path.
    :param most: bytes that it may have.
    """

    def __init__(self, path: str, most: int) -> None:
        self.path = path
        self._most = most

    def read(self) -> FoundConfig | None:
        """
        What it keeps; None: there is no file.

        :raises SourceProblem: when it cannot be read.
        """
        try:
            return FoundConfig(read_regular_file(self.path, self._most).data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as problem:
            raise SourceProblem(f"{self.path}: {_words(problem)}") from None

    def keep(self, content: bytes) -> None:
        """
        Keep *content*.

        :raises SourceProblem: when it cannot be written.
        """
        with suppress(SourceProblem):
            before = self.read()
            if before is not None and before.content == content:
                return
        try:
            replace_file(self.path, content)
        except (OSError, ValueError) as problem:
            raise SourceProblem(f"{self.path}: {_words(problem)}") from None


def replace_file(path: str, content: bytes, mode: int = 0o600) -> None:
    """
    Have *content* in the file at *path*. After a crash of the machine it has that, or what it had before.

    :param mode: who may do what with the file.
    :raises OSError: when it cannot be written.
    :raises ValueError: when *path* cannot be one.
    """
    place, name = os.path.split(path)
    descriptor, new = mkstemp(prefix=f".{name}.", dir=place or ".")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


def _words(problem: Exception) -> str:
    return describe(problem) if isinstance(problem, OSError) else "not a path"
