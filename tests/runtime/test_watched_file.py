"""A file that is read again when it has changed: see :mod:`socksproxy.runtime.watched_file`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from socksproxy.runtime.watched_file import WatchedFile


def test_changed(tmp_path: Path) -> None:
    """Any other state than the one that was read is a change; one that was not read is always a change."""
    path = tmp_path / "file"
    path.write_text("one")
    file = WatchedFile(str(path))
    assert file.changed()
    assert file.read().data == b"one"
    assert not file.changed()
    path.write_text("three")
    assert file.changed()
    assert file.changed(), "it has not been read yet"
    file.read()
    file.signature = None
    assert file.changed()


def test_replaced(tmp_path: Path) -> None:
    """A file with the same size and time, but at another place on the disk, is another file."""
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("one")
    file = WatchedFile(str(path))
    status = file.read().status
    other.write_text("two")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)
    assert file.changed()


def test_gone(tmp_path: Path) -> None:
    file = WatchedFile(str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        file.read()
    with pytest.raises(FileNotFoundError):
        file.changed()
    assert not file.settled_change()


def test_settled_change(tmp_path: Path) -> None:
    """A change counts when two looks in a row find the same state."""
    path = tmp_path / "file"
    path.write_text("one")
    file = WatchedFile(str(path))
    file.read()
    assert not file.settled_change()
    path.write_text("three")
    assert not file.settled_change(), "it may be written just now"
    path.write_text("fifteen")
    assert not file.settled_change()
    assert file.settled_change()
    file.read()
    assert not file.settled_change()
    path.unlink()
    assert not file.settled_change()
    assert not file.settled_change()


def test_path_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path counts from where the process was at first."""
    (tmp_path / "file").write_text("one")
    monkeypatch.chdir(tmp_path)
    file = WatchedFile("file")
    monkeypatch.chdir("/")
    assert file.read().data == b"one"


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    with pytest.raises(OSError, match="larger than 2 bytes"):
        WatchedFile(str(path), 2).read()
