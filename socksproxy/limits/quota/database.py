"""
The SQLite file of used quotas: the bytes of each holder in each day and month.

Every call blocks, so a thread makes them. Several processes may have the same file open.

The file may be deleted, replaced or overwritten while it is open. :class:`FileLost` reports this, and
:meth:`Database.restore` writes a new file. So SQLite keeps a rollback journal here and drops the pages
that it has read: cached pages would hide that the file is gone.
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

#: The mark of our files: "SOCK".
APPLICATION = 0x534F434B
#: The number of the file's layout. A new layout takes the next number.
VERSION = 1
#: Seconds for which another process may hold the file.
BUSY = 2.0
#: Days that the file keeps a day after its end. The file keeps this month and the last one.
DAYS_KEPT = 8
#: The suffix of the name under which a damaged file is kept.
SET_ASIDE = ".damaged"
#: Seconds between two attempts to take a lock that another process has.
_LOOK_AGAIN = 0.05
#: The suffixes of the files that SQLite keeps beside its database.
_BESIDE = ("-journal", "-wal", "-shm")
#: Words in SQLite's errors about a file whose content is no longer ours.
_DAMAGE = ("not a database", "malformed", "no such table", "no such column", "unsupported file format")
#: Rows that one statement deletes.
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
_ROWS = """
    SELECT period, holder, bytes FROM usage
    WHERE period BETWEEN ? AND ? AND (? IS NULL OR period > ? OR holder > ?)
    ORDER BY period, holder LIMIT ?
"""
_FORGET_ONE = "DELETE FROM usage WHERE period = ? AND holder = ?"
_FORGET = """
    DELETE FROM usage WHERE (period, holder) IN
        (SELECT period, holder FROM usage WHERE period < ? AND length(period) = ? LIMIT ?)
"""


class UsageFileError(Exception):
    """The file cannot be used; the operator reads the message."""


class ForeignFile(UsageFileError):
    """The content of the file is not ours, or is damaged."""


class FileLost(UsageFileError):
    """The open file is gone or has other content; :meth:`Database.restore` writes the lost content again."""


class Amount(NamedTuple):
    """The *bytes* to add to *holder* in the *day*; with 0 bytes, the totals are only read."""

    holder: str
    day: str
    bytes: int


class Totals(NamedTuple):
    """All the bytes of a holder in a day and its month, from all processes."""

    of_day: int
    of_month: int


class Known(NamedTuple):
    """
    The use of a holder, as a process knows it.

    :ivar day: the name of the day, such as ``2026-11-24``.
    """

    holder: str
    day: str
    of_day: int
    of_month: int


class Database:
    """
    The file of used quotas.

    :param path: the path of the file. A missing file is made; a missing directory is an error.
    """

    def __init__(self, path: str) -> None:
        # Absolute, because SQLite gives some relative names a meaning of its own.
        self.path = os.path.abspath(path)
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._pruned = ""

    def open(self) -> None:
        """
        Open the file, unless it is open.

        :raises FileLost: when the file was open before, and its content is gone.
        :raises UsageFileError: when the file cannot be opened, or is not ours.
        """
        if self._identity is not None and identity_of(self.path) != self._identity:
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
        After :class:`FileLost`: write *known* to the file that is there now, or to a new file.

        A larger amount in the file stays. A damaged file is kept under another name.

        :raises UsageFileError: when writing fails; the file counts as lost until a call succeeds.
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
        """Close the file, and open the file that is there now or a new file."""
        self.close()
        with self._told(), _alone(os.path.dirname(self.path)):
            if self._identity is not None and identity_of(self.path) == self._identity:
                self._set_aside()  # otherwise another process has done so
            self._identity = None
            try:
                self.open()
            except ForeignFile:
                self._set_aside()
                self.open()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise any problem with the file as :class:`UsageFileError`, after the file is closed."""
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

        :returns: the totals of each entry of *amounts*, after the addition.
        :raises FileLost: when the file was open before, and its content is gone.
        :raises UsageFileError: when the file cannot be opened or written.
        """
        self.open()
        assert self._connection is not None
        with self._told():
            return self._add(self._connection, amounts)

    def largest(self, day: Day, most: int) -> list[tuple[str, Totals]]:
        """
        The *most* holders with the largest use in the month of *day*, with their totals.

        :raises UsageFileError: when the file cannot be opened or read.
        """
        self.open()
        assert self._connection is not None
        with self._told():
            rows = self._connection.execute(_LARGEST, (day.name, day.month, most)).fetchall()
        return [(holder, Totals(of_day, of_month)) for holder, of_day, of_month in rows]

    def used(self, holder: str, day: Day) -> Totals:
        """The totals of *holder* on *day* and in its month."""
        self.open()
        assert self._connection is not None
        with self._told():
            name, month = day.name, day.month
            return Totals(_total(self._connection, name, holder), _total(self._connection, month, holder))

    def rows(self, first: str, last: str, most: int, beyond: str | None = None) -> list[tuple[str, str, int]]:
        """
        The periods from *first* to *last*, the holders and their bytes.

        :param most: rows.
        :param beyond: of *first*, only the holders behind this one; None: all.
        """
        self.open()
        assert self._connection is not None
        with self._told():
            return self._connection.execute(_ROWS, (first, last, beyond, first, beyond, most)).fetchall()

    def forget(self, holder: str, period: str) -> int:
        """Delete the use of *holder* in a day or a month; the bytes that it was."""
        self.open()
        assert self._connection is not None
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            amount = _total(self._connection, period, holder)
            self._connection.execute(_FORGET_ONE, (period, holder))
            self._connection.execute("COMMIT")
        return amount

    def prune(self, day: Day) -> None:
        """Delete some rows of days and months that are too old on *day*."""
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
            return  # a later call tries again
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
            # SQLite would make a file that other users can read. A file that exists is not opened here:
            # closing it again would drop SQLite's locks.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mode = os.stat(self.path).st_mode
        if stat.S_ISDIR(mode):
            raise UsageFileError(f"{self.path}: is a directory")
        if not stat.S_ISREG(mode):
            raise UsageFileError(f"{self.path}: is not a regular file")
        if not os.access(self.path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise UsageFileError(f"{self.path}: this process may not read and write it")
        identity = identity_of(self.path)
        self._connection = connection = sqlite3.connect(
            self.path, timeout=BUSY, isolation_level=None, check_same_thread=False
        )
        connection.execute("BEGIN IMMEDIATE")  # fails when the file cannot be written
        if self._identity is None and is_new(connection):
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
        if self._identity is not None and is_new(connection):
            raise ForeignFile(f"{self.path}: is empty")
        if pragma(connection, "application_id") != APPLICATION:
            raise ForeignFile(f"{self.path}: is the database of another program")
        version = pragma(connection, "user_version")
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
    Lock *directory* against other processes, where the file system can lock directories.

    :raises UsageFileError: when another process has the lock for longer than :data:`BUSY`.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # On a file system without locks, the work goes on without one.
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


def is_new(connection: sqlite3.Connection) -> bool:
    """Whether nothing is in the database yet."""
    return pragma(connection, "application_id") == 0 and pragma(connection, "schema_version") == 0


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """The number of the pragma *name*."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def identity_of(path: str) -> tuple[int, int] | None:
    """What tells the file at *path* from another one of the same name; None: there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _said(problem: Exception) -> str:
    if isinstance(problem, OSError):
        return problem.strerror or str(problem)
    return "is no SQLite database" if "not a database" in str(problem) else str(problem)
