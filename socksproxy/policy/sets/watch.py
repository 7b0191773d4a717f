"""
The watch over the files of sets: a file is read again when it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...runtime.pool import NotRun, Pool
from .files import SetFile, SetFileError

_log = Logger(namespace="socksproxy")

#: Seconds between two looks at a file.
LOOK_EVERY = 5.0
#: Seconds that loading all changed files may take.
LOADED_WITHIN = 600.0


class SetFiles:
    """
    Loads files in a thread, and loads a file again when it has changed.

    :param reactor: gives time and threads.
    :param files: the files.
    :param every: seconds between two looks.
    """

    def __init__(self, reactor: Any, files: Iterable[SetFile], every: float = LOOK_EVERY) -> None:
        self._reactor = reactor
        self._pool = Pool(reactor, name="set files", threads=1, waiting=1, deadline=LOADED_WITHIN)
        self._every = every
        self._timer: Any = None
        self._stopped = False
        self.files = list(files)

    def start(self) -> Deferred[None]:
        """
        Load all files, and look at them from now on.

        :returns: fires after an attempt to load each file. A file that cannot be used is an empty set, and a
            warning names it.
        """
        self._stopped = False
        return self._in_thread(self._load_all, self.files)

    def watch(self) -> None:
        """Look at the files from now on; they are loaded already."""
        self._stopped = False
        for file in self.files:
            self._tell_ignored(file)
        self._again(None)

    def look(self) -> Deferred[None]:
        """Load the files that have changed."""
        return self._in_thread(self._look)

    def stop(self) -> None:
        """Stop looking at the files."""
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _in_thread(self, work: Callable[..., list[str]], *arguments: Any) -> Deferred[None]:
        done: Deferred[Any] = self._pool.run(work, *arguments)
        return done.addCallbacks(self._tell, self._broke).addBoth(self._again)

    def _look(self) -> list[str]:
        return self._load_all([file for file in self.files if file.changed()])

    def _load_all(self, files: Iterable[SetFile]) -> list[str]:
        told = []
        for file in files:
            try:
                file.load()
            except SetFileError as problem:
                told.append(str(problem))
            else:
                self._reactor.callFromThread(self._tell_ignored, file)
        return told

    def _tell(self, problems: list[str]) -> None:
        for problem in problems:
            _log.warn("a file cannot be used, and its last content stays in use: {problem}", problem=problem)

    def _tell_ignored(self, file: SetFile) -> None:
        for entry in file.ignored:
            _log.warn("an entry of a file does not count: {entry}", entry=entry)

    def _broke(self, failure: Failure) -> None:
        if failure.check(NotRun):
            if not self._stopped:
                _log.error("files of sets and pools cannot be read: {problem}", problem=str(failure.value))
        else:
            _log.failure("files of sets and pools cannot be read", failure)

    def _again(self, _: None) -> None:
        if not self._stopped and self._timer is None:
            self._timer = self._reactor.callLater(self._every, self._due)

    def _due(self) -> None:
        self._timer = None
        self.look()
