"""
The SQLite file of usage records: what each user has moved by each rule, in five minutes each.

Every call blocks, so a thread makes them. Several processes may have the same file open.

Strategy: bytes are added to the row of their user, rule and five minutes in one table. When these five
minutes are over, the row moves to another table, in the same transaction for all rows, and gets the next
number. A record with a number never changes, so a reader that asks for what is after the last number it has
seen gets every byte once. Bytes that come later than that make another record for the same five minutes.

The numbers of a new file begin at the milliseconds since the epoch. So they grow also where a file was lost.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ...values.records import RecordSettings
from .database import BUSY, UsageFileError, identity_of, is_new, pragma

#: The mark of our files: "SOCR".
APPLICATION = 0x534F4352
#: The number of the file's layout. A new layout takes the next number.
VERSION = 1
#: Seconds of a record.
SPAN = 300
#: Seconds after its end when a record gets its number: the last bytes are written by then.
SETTLES = 10
#: Rows that one statement deletes, or moves.
_AT_ONCE = 5000

_SCHEMA = (
    """
    CREATE TABLE growing (
        began INTEGER NOT NULL, user TEXT NOT NULL, rule TEXT NOT NULL,
        sent INTEGER NOT NULL, received INTEGER NOT NULL, sessions INTEGER NOT NULL,
        PRIMARY KEY (began, user, rule)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE records (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        began INTEGER NOT NULL, user TEXT NOT NULL, rule TEXT NOT NULL,
        sent INTEGER NOT NULL, received INTEGER NOT NULL, sessions INTEGER NOT NULL
    )
    """,
)
_COLUMNS = "began, user, rule, sent, received, sessions"
_ADD = f"""
    INSERT INTO growing ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (began, user, rule) DO UPDATE SET sent = sent + excluded.sent,
        received = received + excluded.received, sessions = sessions + excluded.sessions
"""
_SETTLE = f"INSERT INTO records ({_COLUMNS}) SELECT {_COLUMNS} FROM growing WHERE began <= ?"
_SETTLED = "DELETE FROM growing WHERE began <= ?"
_FORGET = "DELETE FROM records WHERE number IN (SELECT number FROM records WHERE began < ? LIMIT ?)"
_AFTER = f"SELECT number, {_COLUMNS} FROM records WHERE number > ? ORDER BY number LIMIT ?"


class Part(NamedTuple):
    """
    What an amount is of.

    :ivar began: the beginning of the five minutes, in seconds since the epoch.
    :ivar user: empty: there is none.
    :ivar rule: the rules that have decided; empty: none has.
    """

    began: int
    user: str
    rule: str


class Moved(NamedTuple):
    """Bytes sent to destinations and received from them, and the sessions that have begun to move them."""

    sent: int
    received: int
    sessions: int


class UsageRecord(NamedTuple):
    """
    A record.

    :ivar number: greater than that of each earlier record.
    """

    number: int
    began: int
    user: str
    rule: str
    sent: int
    received: int
    sessions: int


def span_at(seconds: float) -> int:
    """When the five minutes began to which *seconds* since the epoch belong."""
    return int(seconds // SPAN) * SPAN


class RecordFile:
    """
    The file of usage records.

    :param path: of the file. A missing file is made; a missing directory is an error.
    :param days: records are deleted after so many.
    """

    def __init__(self, path: str, days: int) -> None:
        self.path = os.path.abspath(path)
        self._days = days
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def open(self, now: float) -> None:
        """
        Open the file, unless it is open; one that is not there any more is made anew.

        :param now: the seconds since the epoch.
        :raises UsageFileError: when the file cannot be opened, or is not ours.
        """
        if self._connection is not None and identity_of(self.path) != self._identity:
            self.close()
        if self._connection is None:
            with self._told():
                self._open(now)

    def add(self, amounts: Mapping[Part, Moved], now: float) -> None:
        """
        Add *amounts*, all or none.

        :param now: the seconds since the epoch.
        :raises UsageFileError: when the file cannot be opened or written.
        """
        self.open(now)
        with self._changed() as connection:
            connection.executemany(_ADD, [(*part, *moved) for part, moved in amounts.items()])

    def settle(self, now: float) -> None:
        """
        Give numbers to the records whose time is over, and delete old ones.

        :raises UsageFileError: when the file cannot be opened or written.
        """
        self.open(now)
        last = int(now) - SPAN - SETTLES
        with self._changed() as connection:
            connection.execute(_SETTLE, (last,))
            connection.execute(_SETTLED, (last,))
            connection.execute(_FORGET, (int(now) - self._days * 86400, _AT_ONCE))

    def after(self, number: int, most: int, now: float) -> list[UsageRecord]:
        """
        The records after that *number*, *most* of them.

        :raises UsageFileError: when the file cannot be opened or read.
        """
        self.settle(now)
        assert self._connection is not None
        with self._told():
            rows = self._connection.execute(_AFTER, (number, most)).fetchall()
        return [UsageRecord(*row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    @contextmanager
    def _changed(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        assert self._connection is not None
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise any problem with the file as :class:`UsageFileError`, after the file is closed."""
        try:
            yield
        except (sqlite3.Error, OSError) as problem:
            self.close()  # which takes an unfinished transaction back
            words = problem.strerror if isinstance(problem, OSError) else str(problem)
            raise UsageFileError(f"{self.path}: {words}") from None

    def _open(self, now: float) -> None:
        with suppress(FileExistsError):
            # SQLite would make a file that other users can read.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._identity = identity_of(self.path)
        self._connection = connection = sqlite3.connect(
            self.path, timeout=BUSY, isolation_level=None, check_same_thread=False
        )
        connection.execute("BEGIN IMMEDIATE")  # fails when the file cannot be written
        if is_new(connection):
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT INTO sqlite_sequence VALUES ('records', ?)", (int(now * 1000),))
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif pragma(connection, "application_id") != APPLICATION:
            raise sqlite3.DatabaseError("is the database of another program")
        elif pragma(connection, "user_version") != VERSION:
            raise sqlite3.DatabaseError("has another format than this proxy knows")
        connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = NORMAL")


def check_records(settings: RecordSettings | None) -> None:
    """
    See whether the file of *settings* can be used; None: there is none. This blocks.

    :raises UsageFileError: when it cannot.
    """
    if settings is not None:
        file = RecordFile(settings.file, settings.days)
        file.open(time.time())
        file.close()
