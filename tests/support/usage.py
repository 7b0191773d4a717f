"""A reactor for files of used bytes: a test says when time passes and when threads are heard."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from socksproxy.limits.quota.usage import UsageFile

#: Seconds that a thread may take for anything; far more than it needs.
_PATIENCE = 60.0


class Desk(Clock):
    """A clock, and threads that are heard only when a test listens."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()

    def callFromThread(self, call: Callable[..., None], *arguments: Any) -> None:
        """See :meth:`twisted.internet.interfaces.IReactorFromThreads.callFromThread`."""
        self._calls.put((call, arguments))

    def addSystemEventTrigger(self, *arguments: Any) -> Any:
        """See :meth:`twisted.internet.interfaces.IReactorCore.addSystemEventTrigger`: it never shuts down."""
        return arguments

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        """See :meth:`twisted.internet.interfaces.IReactorCore.removeSystemEventTrigger`."""

    def hear(self) -> None:
        """Wait until a thread has something to say, and listen."""
        call, arguments = self._calls.get(timeout=_PATIENCE)
        call(*arguments)

    def hear_all(self) -> None:
        """Listen to what threads have said already."""
        while not self._calls.empty():
            self.hear()

    def pass_by(self, seconds: float) -> None:
        """So many seconds pass, and what the thread was given in them is done."""
        self.advance(seconds)
        self.hear()


def result_of(waiting: Deferred[Any]) -> Any:
    """What *waiting* has fired with; a failure is raised."""
    results: list[Any] = []
    waiting.addBoth(results.append)
    assert results, "it has not fired"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def started(desk: Desk, path: Path, **more: Any) -> UsageFile:
    """A file that is open."""
    usage = UsageFile(desk, str(path), **more)
    starting = usage.start()
    desk.hear()
    result_of(starting)
    return usage


def stop(desk: Desk, usage: UsageFile) -> None:
    """Write what is left, and close it."""
    stopping = usage.stop()
    while not stopping.called:
        desk.hear()


@contextmanager
def used(desk: Desk, path: Path, **more: Any) -> Iterator[UsageFile]:
    """A file that is open meanwhile."""
    usage = started(desk, path, **more)
    try:
        yield usage
    finally:
        stop(desk, usage)


def written(path: Path) -> dict[tuple[str, str], int]:
    """What the file at *path* says: bytes, by holder and period."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT holder, period, bytes FROM usage").fetchall()
    return {(holder, period): count for holder, period, count in rows}


def replaced(path: Path, content: bytes) -> None:
    """Another file is moved to the place of this one."""
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


def damaged(path: Path) -> None:
    """The pages behind a sound beginning are garbage."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def of_another_program(path: Path) -> None:
    """Another program's database is copied over the file."""
    other = path.with_name("other")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE cookies (name)")
    path.write_bytes(other.read_bytes())
    other.unlink()


#: What becomes of a file that is open, the words for it, and whether the file is kept under another name.
LOSSES: list[tuple[Callable[[Path], Any], str, bool]] = [
    (lambda path: path.unlink(), "is gone", False),
    (lambda path: path.write_bytes(b"garbage" * 1000), "is no SQLite database", True),
    (lambda path: path.write_bytes(b""), "is empty", True),
    (lambda path: path.write_bytes(path.read_bytes()[:4096]), "is malformed", True),
    (lambda path: replaced(path, b"garbage" * 1000), "is another file than before", True),
    (lambda path: replaced(path, b""), "is another file than before", False),
    (damaged, "is malformed", True),
    (of_another_program, "is the database of another program", True),
]
