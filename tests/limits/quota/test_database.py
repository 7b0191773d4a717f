"""The file of what has been used, by itself."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from socksproxy.limits.quota import database as module
from socksproxy.limits.quota.database import (
    APPLICATION,
    SET_ASIDE,
    Amount,
    Database,
    FileLost,
    Known,
    Totals,
    UsageFileError,
)
from socksproxy.limits.quota.days import Day
from tests.support.usage import LOSSES, written

DAY = "2026-11-24"


def day(name: str) -> Day:
    return Day(name, 0.0, 1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.sqlite"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = Database(str(path))
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for."""
    monkeypatch.setattr(module, "BUSY", 0.01)


def test_increments(path: Path, database: Database) -> None:
    """Two have it open: each is told what there is of both."""
    other = Database(str(path))
    assert database.add([Amount("server", DAY, 100), Amount("user bob", DAY, 7)]) == [(100, 100), (7, 7)]
    assert other.add([Amount("server", "2026-11-25", 20)]) == [Totals(of_day=20, of_month=120)]
    assert database.add([Amount("server", DAY, 1), Amount("nobody", DAY, 0)]) == [(101, 121), (0, 0)]
    other.close()
    assert written(path) == {
        ("server", DAY): 101,
        ("server", "2026-11-25"): 20,
        ("server", "2026-11"): 121,
        ("user bob", DAY): 7,
        ("user bob", "2026-11"): 7,
    }


def test_twice_in_one(database: Database) -> None:
    """One holder may come twice: both amounts count, and both are told the sum."""
    assert database.add([Amount("server", DAY, 1), Amount("server", DAY, 2)]) == [(3, 3), (3, 3)]


def test_private(path: Path, database: Database) -> None:
    """Only the proxy's user reads who has used how much. No other file stays beside it."""
    database.add([Amount("server", DAY, 1)])
    (file,) = path.parent.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_largest(database: Database) -> None:
    """Who has moved the most in the month, with what it was today."""
    database.add([Amount("a", "2026-11-01", 5), Amount("b", DAY, 7), Amount("c", DAY, 1)])
    database.add([Amount("d", "2026-10-31", 100), Amount("e", "2026-11-01", 50), Amount("e", DAY, 2)])
    assert database.largest(day(DAY), 3) == [("e", (2, 52)), ("b", (7, 7)), ("a", (0, 5))]


def test_rows(database: Database) -> None:
    """Rows are told in parts: what stands behind the last one of a part follows, and nothing twice."""
    database.add([Amount(holder, day, 1) for day in ("2026-11-01", "2026-11-02") for holder in "abc"])
    everything = database.rows("2026-11", "2026-11-02", 100)
    assert [row[:2] for row in everything] == [
        *(("2026-11", holder) for holder in "abc"),
        *(("2026-11-01", holder) for holder in "abc"),
        *(("2026-11-02", holder) for holder in "abc"),
    ]
    found = database.rows("2026-11", "2026-11-02", 2)
    while page := database.rows(found[-1][0], "2026-11-02", 2, found[-1][1]):
        found += page
    assert found == everything
    assert database.rows("2026-11-02", "2026-11-02", 9, "c") == []


def test_prune(path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days and months go some time after they have ended, a few at a time."""
    monkeypatch.setattr(module, "_DELETED_AT_ONCE", 2)
    days = ["2025-12-31", "2026-01-01", "2026-09-30", "2026-10-31", "2026-11-15", "2026-11-16", DAY]
    database.add([Amount("server", name, 1) for name in days])
    database.prune(day(DAY))
    assert len(written(path)) == 12 - 2 - 2
    for _ in range(5):
        database.prune(day(DAY))
    assert [period for _, period in written(path)] == ["2026-10", "2026-11", "2026-11-16", DAY]
    # From the next day on the one before counts.
    database.prune(day("2026-11-25"))
    assert ("server", "2026-11-16") not in written(path)


@pytest.mark.parametrize("name", [":memory:", "", "file:usage?mode=memory"])
def test_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name means anything but a file."""
    monkeypatch.chdir(tmp_path)
    opened = Database(name)
    if name:
        opened.open()
        assert (tmp_path / name).is_file()
    else:
        with pytest.raises(UsageFileError, match="is a directory"):
            opened.open()
    opened.close()


def said(path: Path) -> str:
    with pytest.raises(UsageFileError) as caught:
        Database(str(path)).open()
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def test_no_directory(tmp_path: Path) -> None:
    """It is not made: a mistyped path would keep the quotas somewhere else."""
    assert said(tmp_path / "nowhere" / "usage") == "No such file or directory"
    assert said(tmp_path) == "is a directory"


@pytest.mark.parametrize("content", [b"# Our quotas\n" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_no_database(path: Path, content: bytes) -> None:
    """What is something else stays as it is."""
    path.write_bytes(content)
    assert said(path) == "is no SQLite database"
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (["CREATE TABLE cookies (name)"], "is the database of another program"),
        (["PRAGMA application_id = 1"], "is the database of another program"),
        (["CREATE TABLE usage (x)", "PRAGMA user_version = 1"], "is the database of another program"),
        (
            [f"PRAGMA application_id = {APPLICATION}", "PRAGMA user_version = 2"],
            "has format 2, and this proxy knows format 1",
        ),
    ],
)
def test_foreign(path: Path, statements: list[str], problem: str) -> None:
    """A database of another program, or of a later version, stays as it is."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    content = path.read_bytes()
    assert said(path) == problem
    assert path.read_bytes() == content


def test_empty(path: Path) -> None:
    """An empty file, such as one of which the process was killed in the making, becomes one of ours."""
    path.touch()
    opened = Database(str(path))
    assert opened.add([Amount("server", DAY, 1)]) == [(1, 1)]
    opened.close()


@contextmanager
def somebody() -> Iterator[Path]:
    """A directory for somebody to whom the system can say no: the superuser is not one."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        (Path(name) / "usage").touch()
        own = os.geteuid()
        if own == 0:
            os.seteuid(65534)
        try:
            yield Path(name) / "usage"
        finally:
            os.seteuid(own)


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_no_permission(mode: int) -> None:
    """The file may not be written, or not even read."""
    with somebody() as path:
        own = os.geteuid()
        if own == 65534:
            os.seteuid(0)
        path.chmod(mode)
        os.seteuid(own)
        assert said(path) == "this process may not read and write it"
        path = path.parent / "another"
        if own == 65534:
            assert said(path) == "Permission denied"


@pytest.mark.usefixtures("hasty")
def test_locked(path: Path, database: Database) -> None:
    """Another process holds the file: nothing is written, and all of it later."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        database.close()
        with pytest.raises(UsageFileError, match=r"usage\.sqlite: database is locked"):
            database.add([Amount("server", DAY, 1)])
        other.execute("ROLLBACK")
    assert database.add([Amount("server", DAY, 1)]) == [(1, 1)]


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file can grow to more than the one at *path* has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full(path: Path, database: Database) -> None:
    """There is no room: nothing is written, nothing is broken, and it goes on when there is."""
    database.add([Amount("server", DAY, 1)])
    many = [Amount(f"user {number}", DAY, number) for number in range(1, 3000)]
    with (
        full_disk(path),
        pytest.raises(UsageFileError, match=r"usage\.sqlite: (database or disk is full|disk I/O)"),
    ):
        database.add(many)
    assert written(path) == {("server", DAY): 1, ("server", "2026-11"): 1}
    assert database.add(many)[:2] == [(1, 1), (2, 2)]
    assert len(written(path)) == 2 * 3000


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(("happens", "words", "kept"), LOSSES)
def test_lost(
    path: Path, database: Database, happens: Callable[[Path], Any], words: str, kept: bool, closed: bool
) -> None:
    """A file that was open and is not what it was is told, until what is known is written again."""
    database.add([Amount(f"user {number}", DAY, 1) for number in range(2000)])
    if closed:
        database.close()
    happens(path)
    with pytest.raises(FileLost, match=words):
        database.add([Amount("user 7", DAY, 1)])
    with pytest.raises(FileLost):
        database.add([Amount("user 7", DAY, 1)])
    there = path.read_bytes() if kept else b""
    database.restore([Known("user 7", DAY, 5, 6), Known("user 8", "2026-11-02", 0, 9)])
    assert database.add([Amount("user 7", DAY, 1)]) == [(6, 7)]
    assert written(path) == {
        ("user 7", DAY): 6,
        ("user 7", "2026-11"): 7,
        ("user 8", "2026-11"): 9,
    }
    aside = path.with_name(path.name + SET_ASIDE)
    assert aside.exists() == kept
    if kept:
        assert aside.read_bytes() == there
    assert {file.name for file in path.parent.iterdir()} <= {path.name, aside.name}


def test_lost_until_it_is_restored(path: Path, database: Database) -> None:
    """Where the file cannot be written anew at once, the next write does not begin from nothing."""
    database.add([Amount("bob", DAY, 5)])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileLost):
        database.add([Amount("bob", DAY, 1)])
    with pytest.raises(UsageFileError, match="is not a regular file"):
        database.restore([Known("bob", DAY, 5, 5)])
    path.unlink()
    with pytest.raises(FileLost):
        database.add([Amount("bob", DAY, 1)])
    database.restore([Known("bob", DAY, 5, 5)])
    assert database.add([Amount("bob", DAY, 1)]) == [(6, 6)]


def test_restored_by_another(path: Path, database: Database) -> None:
    """Of several processes each writes what it knows, and the most counts."""
    other = Database(str(path))
    for each in (database, other):
        each.add([Amount("server", DAY, 10)])
    path.write_bytes(b"garbage")
    for each in (database, other):
        with pytest.raises(FileLost):
            each.add([Amount("server", DAY, 1)])
    database.restore([Known("server", DAY, 20, 20)])
    database.add([Amount("server", DAY, 5)])
    other.restore([Known("server", DAY, 19, 30), Known("user bob", DAY, 1, 1)])
    assert other.add([Amount("server", DAY, 1)]) == [(26, 31)]
    assert database.add([Amount("user bob", DAY, 0)]) == [(1, 1)]
    other.close()


def test_fifo(path: Path) -> None:
    """What is no regular file is not opened."""
    os.mkfifo(path)
    assert said(path) == "is not a regular file"


def test_not_restored(path: Path, database: Database) -> None:
    """It is told again as long as no new file can be made."""
    database.add([Amount("server", DAY, 1)])
    path.unlink()
    path.mkdir()
    with pytest.raises(FileLost):
        database.add([Amount("server", DAY, 1)])
    with pytest.raises(UsageFileError, match="is a directory"):
        database.restore([Known("server", DAY, 1, 1)])
    path.rmdir()
    database.restore([Known("server", DAY, 1, 1)])
    assert database.add([Amount("server", DAY, 1)]) == [(2, 2)]


def test_with_a_write_ahead_log(path: Path, database: Database) -> None:
    """A file of an earlier version, which has one, is taken over."""
    database.add([Amount("server", DAY, 1)])
    database.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE usage SET bytes = 5")
        assert path.with_name(f"{path.name}-wal").exists()
    again = Database(str(path))
    assert again.add([Amount("server", DAY, 1)]) == [(6, 6)]
    assert list(path.parent.iterdir()) == [path]
    again.close()


def test_started_at_once(path: Path) -> None:
    """Workers start together, and one of them makes the file."""
    program = (
        "import sys; from socksproxy.limits.quota.database import *; sys.stdin.read(1);"
        f"d = Database({str(path)!r}); [d.add([Amount('server', {DAY!r}, 1)]) for _ in range(20)]; d.close()"
    )
    workers = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) for _ in range(4)]
    for worker in workers:
        worker.communicate(b"x")
    assert [worker.returncode for worker in workers] == [0] * 4
    assert written(path)["server", DAY] == 4 * 20


def test_another_process_restores_for_long(path: Path, database: Database, hasty: None) -> None:
    """Nothing is written beside it, and what is lost stays so until there is room."""
    known = [Known("bob", DAY, 5, 5)]
    path.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        with pytest.raises(UsageFileError, match="another process holds its lock"):
            database.restore(known)
        assert not path.exists()
    finally:
        os.close(directory)
    with pytest.raises(FileLost):
        database.open()
    database.restore(known)
    assert database.add([Amount("bob", DAY, 1)]) == [Totals(6, 6)]


def test_a_directory_without_locks(
    path: Path, database: Database, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have none; the file is restored there all the same."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path.unlink()
    database.restore([Known("bob", DAY, 5, 5)])
    assert database.add([Amount("bob", DAY, 1)]) == [Totals(6, 6)]
