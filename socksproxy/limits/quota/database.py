"""
Who has moved how many bytes in which day and month, in an SQLite file.

Everything here blocks: it is for a thread. Several processes may have the same file open.

The file may be deleted, replaced or overwritten while it is open. :class:`FileLost` tells so, and
:meth:`Database.restore` writes a new file. So SQLite keeps a rollback journal here, and forgets the pages
that it has read: otherwise it would go on with what it remembers of a file that is not there any more.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from .days import Day

#: What marks the file as one of ours: "SOCK".
APPLICATION = 0x534F434B
#: The layout of the file; to be raised when that changes.
VERSION = 1
#: Seconds for which another process may hold the file.
BUSY = 2.0
#: Days for which a day is kept after it has ended. Of months, this one and the last are kept.
DAYS_KEPT = 8
#: What is added to the name of a damaged file.
SET_ASIDE = ".damaged"
#: Seconds between two looks whether another process is done.
_LOOK_AGAIN = 0.05
#: What is added to the names of the files that SQLite keeps beside it.
_BESIDE = ("-journal", "-wal", "-shm")
#: Words of SQLite about a file that holds something else than before.
_DAMAGE = ("not a database", "malformed", "no such table", "no such column", "unsupported file format")
#: Rows that are deleted in one go.
_DELETED_AT_ONCE = 1000

_SCHEMA = """
    CREATE TABLE usage (
        period TEXT NOT NULL,
        holder TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (period, holder)
    ) WITHOUT ROWID
"""
_ADD = """
    INSERT INTO usage (period, holder, bytes) VALUES (?, ?, ?)
    ON CONFLICT (period, holder) DO UPDATE SET bytes = bytes + excluded.bytes
"""
_RAISE = """
    INSERT INTO usage (period, holder, bytes) VALUES (?, ?, ?)
    ON CONFLICT (period, holder) DO UPDATE SET bytes = MAX(bytes, excluded.bytes)
"""
_READ = "SELECT bytes FROM usage WHERE period = ? AND holder = ?"
_LARGEST = """
    SELECT of_month.holder, COALESCE(of_day.bytes, 0), of_month.bytes
    FROM usage AS of_month LEFT JOIN usage AS of_day
        ON of_day.period = ? AND of_day.holder = of_month.holder
    WHERE of_month.period = ? ORDER BY of_month.bytes DESC LIMIT ?
"""
_FORGET = """
    DELETE FROM usage WHERE (period, holder) IN
        (SELECT period, holder FROM usage WHERE period < ? AND length(period) = ? LIMIT ?)
"""


class UsageFileError(Exception):
    """The file cannot be used; its words are for the operator."""


class ForeignFile(UsageFileError):
    """What the file holds is not ours, or is damaged."""


class FileLost(UsageFileError):
    """The file was open, and is gone, or holds something else now: what it held is to be written again."""


class Amount(NamedTuple):
    """So many *bytes* of *holder* in the *day*; none: they are only asked for."""

    holder: str
    day: str
    bytes: int


class Totals(NamedTuple):
    """All the bytes of a holder, from all processes."""

    of_day: int
    of_month: int


class Known(NamedTuple):
    """
    What a process knows of a holder.

    :ivar day: such as ``2026-11-24``.
    """

    holder: str
    day: str
    of_day: int
    of_month: int


class Database:
    """
    The file.

    :param path: where it is; it is made if it is not there, its directory is not.
    """

    def __init__(self, path: str) -> None:
        # Absolute, because SQLite has a meaning of its own for some names.
        self.path = os.path.abspath(path)
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._pruned = ""

    def open(self) -> None:
        """
        Open the file, unless it is open.

        :raises FileLost: when it was open before, and what it held is gone.
        :raises UsageFileError: when it cannot be opened, or is not ours.
        """
        if self._identity is not None and _identity(self.path) != self._identity:
            self.close()
            there = os.path.lexists(self.path)
            raise FileLost(f"{self.path}: {'is another file than before' if there else 'is gone'}")
        with self._told():
            if self._connection is None:
                self._open()
            else:
                self._check(self._connection)

    def restore(self, known: Iterable[Known]) -> None:
        """
        After :class:`FileLost`: write *known* to the file that is there now, or to a new one.

        What the file holds stays where it is more. A damaged file is kept under another name.

        :raises UsageFileError: when it did not work; the file counts as lost until it does.
        """
        lost = self._identity
        try:
            self._open_another()
            assert self._connection is not None
            with self._told():
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(_RAISE, _known_rows(known))
                self._connection.execute("COMMIT")
        except UsageFileError:
            self.close()
            self._identity = lost
            raise

    def _open_another(self) -> None:
        """Open the file that is there now, or a new one, whatever was open before."""
        self.close()
        with self._told(), _alone(os.path.dirname(self.path)):
            if self._identity is not None and _identity(self.path) == self._identity:
                self._set_aside()  # otherwise another process has done so
            self._identity = None
            try:
                self.open()
            except ForeignFile:
                self._set_aside()
                self.open()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what is wrong with the file as :class:`UsageFileError`, and begin afresh the next time."""
        try:
            yield
        except (sqlite3.Error, OSError) as problem:
            self.close()
            kind: type[UsageFileError] = UsageFileError
            if any(words in str(problem) for words in _DAMAGE):
                kind = ForeignFile if self._identity is None else FileLost
            raise kind(f"{self.path}: {_said(problem)}") from None
        except ForeignFile as problem:
            self.close()
            if self._identity is None:
                raise
            raise FileLost(str(problem)) from None
        except UsageFileError:
            self.close()
            raise

    def _set_aside(self) -> None:
        with self._told():
            for suffix in _BESIDE:
                with suppress(FileNotFoundError):
                    os.unlink(self.path + suffix)
            with suppress(FileNotFoundError):
                os.replace(self.path, self.path + SET_ASIDE)

    def add(self, amounts: Sequence[Amount]) -> list[Totals]:
        """
        Add *amounts*, all or none.

        :returns: what there is of each then.
        :raises FileLost: when the file was open before, and what it held is gone.
        :raises UsageFileError: when it did not work.
        """
        self.open()
        assert self._connection is not None
        with self._told():
            return self._add(self._connection, amounts)

    def largest(self, day: Day, most: int) -> list[tuple[str, Totals]]:
        """
        Those *most* who have moved the most in the month of *day*.

        :raises UsageFileError: when it did not work.
        """
        self.open()
        assert self._connection is not None
        with self._told():
            rows = self._connection.execute(_LARGEST, (day.name, day.month, most)).fetchall()
        return [(holder, Totals(of_day, of_month)) for holder, of_day, of_month in rows]

    def prune(self, day: Day) -> None:
        """Delete some of what is too old to matter on that *day*."""
        if self._pruned == day.name or self._connection is None:
            return
        first_day = day.before(DAYS_KEPT)
        last_month = day.before(int(day.name[8:]))[:7]
        try:
            deleted = [
                self._connection.execute(_FORGET, (first, len(first), _DELETED_AT_ONCE)).rowcount
                for first in (first_day, last_month)
            ]
        except sqlite3.Error:
            return  # there is time
        if not any(deleted):
            self._pruned = day.name

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> None:
        with suppress(FileExistsError):
            # Made here, because SQLite would let others read it; not opened
            # where it is there: closing it again would drop SQLite's locks.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mode = os.stat(self.path).st_mode
        if stat.S_ISDIR(mode):
            raise UsageFileError(f"{self.path}: is a directory")
        if not stat.S_ISREG(mode):
            raise UsageFileError(f"{self.path}: is not a regular file")
        if not os.access(self.path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise UsageFileError(f"{self.path}: this process may not read and write it")
        identity = _identity(self.path)
        self._connection = connection = sqlite3.connect(
            self.path, timeout=BUSY, isolation_level=None, check_same_thread=False
        )
        connection.execute("BEGIN IMMEDIATE")  # it fails where nothing can be written
        if self._identity is None and _is_new(connection):
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        self._check(connection)
        connection.execute("COMMIT")
        with suppress(sqlite3.OperationalError):  # another process may have it open with a write-ahead log
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        connection.execute("PRAGMA synchronous = NORMAL")
        self._identity = identity

    def _check(self, connection: sqlite3.Connection) -> None:
        if self._identity is not None and _is_new(connection):
            raise ForeignFile(f"{self.path}: is empty")
        if _pragma(connection, "application_id") != APPLICATION:
            raise ForeignFile(f"{self.path}: is the database of another program")
        version = _pragma(connection, "user_version")
        if version != VERSION:
            raise ForeignFile(f"{self.path}: has format {version}, and this proxy knows format {VERSION}")

    def _add(self, connection: sqlite3.Connection, amounts: Sequence[Amount]) -> list[Totals]:
        added = [amount for amount in amounts if amount.bytes]
        connection.execute("BEGIN IMMEDIATE" if added else "BEGIN")
        connection.executemany(_ADD, _rows(added))
        totals = [
            Totals(_total(connection, day, holder), _total(connection, day[:7], holder))
            for holder, day, _ in amounts
        ]
        connection.execute("COMMIT")
        connection.execute("PRAGMA shrink_memory")
        return totals


def _rows(amounts: Iterable[Amount]) -> Iterable[tuple[str, str, int]]:
    for holder, day, count in amounts:
        yield day, holder, count
        yield day[:7], holder, count


def _known_rows(known: Iterable[Known]) -> Iterable[tuple[str, str, int]]:
    for holder, day, of_day, of_month in known:
        if of_day > 0:
            yield day, holder, of_day
        if of_month > 0:
            yield day[:7], holder, of_month


@contextmanager
def _alone(directory: str) -> Iterator[None]:
    """
    Keep other processes from doing the same in *directory*, where a directory can be locked.

    :raises UsageFileError: when another process has the lock for longer than :data:`BUSY`.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Some file systems have no locks, and there the work is done without one.
        with suppress(OSError):
            for _ in range(max(int(BUSY / _LOOK_AGAIN), 1)):
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(_LOOK_AGAIN)
            else:
                raise UsageFileError(f"{directory}: another process holds its lock")
        yield
    finally:
        os.close(descriptor)


def _total(connection: sqlite3.Connection, period: str, holder: str) -> int:
    row = connection.execute(_READ, (period, holder)).fetchone()
    return 0 if row is None else int(row[0])


def _is_new(connection: sqlite3.Connection) -> bool:
    return _pragma(connection, "application_id") == 0 and _pragma(connection, "schema_version") == 0


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _said(problem: Exception) -> str:
    if isinstance(problem, OSError):
        return problem.strerror or str(problem)
    return "is no SQLite database" if "not a database" in str(problem) else str(problem)
