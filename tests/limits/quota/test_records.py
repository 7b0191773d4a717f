"""The file of usage records: see :mod:`socksproxy.limits.quota.records`."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from socksproxy.limits.quota.database import UsageFileError
from socksproxy.limits.quota.records import SETTLES, SPAN, Moved, Part, RecordFile, UsageRecord, span_at

#: When it is, in these tests: the beginning of a record's time.
NOW = span_at(1_800_000_000)
OVER = NOW + SPAN + SETTLES


def added(path: Path, *amounts: tuple[int, str, int]) -> None:
    """What a process of its own writes."""
    file = RecordFile(str(path), 90)
    for began, user, sent in amounts:
        file.add({Part(began, user, "r"): Moved(sent, 1, 1)}, began)
    file.close()


def test_numbers(tmp_path: Path) -> None:
    """A record gets its number when its time is over, and does not change; what comes later is another."""
    path = tmp_path / "records"
    added(path, (NOW, "bob", 5), (NOW, "bob", 7), (NOW, "amy", 1))
    added(path, (NOW, "bob", 8), (NOW + SPAN, "bob", 9))
    file = RecordFile(str(path), 90)
    assert file.after(0, 10, OVER - 1) == []
    first, second = found = file.after(0, 10, OVER)
    assert [record[1:] for record in found] == [(NOW, "amy", "r", 1, 1, 1), (NOW, "bob", "r", 20, 3, 3)]
    assert first.number == NOW * 1000 + 1
    assert second.number == first.number + 1
    assert file.after(first.number, 10, OVER) == [second]
    assert file.after(0, 1, OVER) == [first]
    added(path, (NOW, "bob", 100))
    (late,) = file.after(second.number, 10, OVER)
    assert late == UsageRecord(second.number + 1, NOW, "bob", "r", 100, 1, 1)
    assert [record.sent for record in file.after(late.number, 10, OVER + SPAN)] == [9]
    file.close()
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_bound(tmp_path: Path) -> None:
    """Old records are deleted, and no number comes twice."""
    path = tmp_path / "records"
    added(path, (NOW, "bob", 5))
    file = RecordFile(str(path), 1)
    (record,) = file.after(0, 10, OVER)
    later = OVER + 2 * 86400
    assert file.after(0, 10, later) == []
    added(path, (span_at(later), "bob", 5))
    (next_one,) = file.after(0, 10, later + SPAN + SETTLES)
    assert next_one.number == record.number + 1
    file.close()


def test_lost_file(tmp_path: Path) -> None:
    """A file that is gone is made anew, and its numbers are greater than those of the old one."""
    path = tmp_path / "records"
    file = RecordFile(str(path), 90)
    file.add({Part(NOW, "bob", "r"): Moved(1, 1, 1)}, NOW)
    (record,) = file.after(0, 10, OVER)
    path.unlink()
    file.add({Part(NOW + SPAN, "bob", "r"): Moved(2, 1, 1)}, OVER)
    (other,) = file.after(record.number, 10, OVER + SPAN)
    assert other.sent == 2
    file.close()


def test_unusable(tmp_path: Path) -> None:
    """A file of another program, a directory and a missing directory are told as such, and left alone."""
    path = tmp_path / "records"
    for data in (b"other" * 1000, b""):
        path.write_bytes(data)
        if data:
            with pytest.raises(UsageFileError, match="records: file is not a database"):
                RecordFile(str(path), 90).open(NOW)
            assert path.read_bytes() == data
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE things (name TEXT)")
    with pytest.raises(UsageFileError, match="is the database of another program"):
        RecordFile(str(path), 90).open(NOW)
    with pytest.raises(UsageFileError, match=r"nothing/records: No such file or directory"):
        RecordFile(str(tmp_path / "nothing" / "records"), 90).open(NOW)
    with pytest.raises(UsageFileError):
        RecordFile(str(tmp_path), 90).open(NOW)
