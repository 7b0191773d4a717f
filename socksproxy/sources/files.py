"""A configuration in a file, or in a directory with all files that it names."""

from __future__ import annotations

import os
from hashlib import sha256

from ..errors import describe
from ..runtime.files import file_signature, read_regular_file
from .found import FoundConfig, SourceProblem

#: The name of the configuration in a directory.
IN_DIRECTORY = "socks.toml"
#: Files of a directory that are looked at.
MOST_FILES = 10_000


class FileSource:
    """
    A file.

    :param path: its path.
    :param most: bytes that it may have.
    """

    def __init__(self, path: str, most: int) -> None:
        self._path = path
        self._most = most

    def look(self, known: FoundConfig | None) -> FoundConfig:
        """See :meth:`~socksproxy.sources.found.Source.look`."""
        try:
            return FoundConfig(read_regular_file(self._path, self._most).data)
        except OSError as problem:
            raise SourceProblem(describe(problem)) from None
        except ValueError:
            raise SourceProblem("not a path") from None


class DirectorySource:
    """
    A directory with ``socks.toml``. A change of any file in it is a change of the configuration.

    :param path: its path, which can be that of a symbolic link.
    :param most: bytes that ``socks.toml`` may have.
    """

    def __init__(self, path: str, most: int) -> None:
        self._path = path
        self._file = FileSource(os.path.join(path, IN_DIRECTORY), most)

    def look(self, known: FoundConfig | None) -> FoundConfig:
        """See :meth:`~socksproxy.sources.found.Source.look`."""
        # First: what changes after it makes a difference at the next look.
        others = self._others()
        try:
            return FoundConfig(self._file.look(known).content, others)
        except SourceProblem as problem:
            raise SourceProblem(f"{IN_DIRECTORY}: {problem}") from None

    def _others(self) -> bytes:
        found = []
        try:
            # A path with a slash at its end goes through a symbolic link.
            for place, folders, files in os.walk(os.path.join(self._path, ""), onerror=_raise):
                folders[:] = [folder for folder in folders if not folder.startswith(".")]
                for name in files:
                    path = os.path.join(place, name)
                    if path.endswith(os.sep + IN_DIRECTORY) or name.startswith("."):
                        continue
                    signature = file_signature(os.stat(path))
                    found.append((os.path.relpath(path, self._path), signature.size, signature.modified))
                    if len(found) > MOST_FILES:
                        raise SourceProblem(f"has more than {MOST_FILES} files")
        except OSError as problem:
            raise SourceProblem(describe(problem)) from None
        return sha256(repr(sorted(found)).encode("utf-8", "surrogateescape")).digest() if found else b""


def _raise(problem: OSError) -> None:
    raise problem
