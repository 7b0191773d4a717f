"""The last good configuration on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from socksproxy.sources.found import FoundConfig, SourceProblem
from socksproxy.sources.last_good import LastGood, replace_file


def test_kept(tmp_path: Path) -> None:
    """What is kept is there again; only the owner can read it; what is the same is not written again."""
    path = tmp_path / "config.toml"
    last_good = LastGood(str(path), 100)
    assert last_good.read() is None
    last_good.keep(b"[log]\n")
    assert last_good.read() == FoundConfig(b"[log]\n")
    status = path.stat()
    assert status.st_mode & 0o777 == 0o600
    last_good.keep(b"[log]\n")
    assert path.stat().st_ino == status.st_ino
    last_good.keep(b"[udp]\n")
    assert last_good.read() == FoundConfig(b"[udp]\n")
    assert os.listdir(tmp_path) == ["config.toml"]


def test_problems(tmp_path: Path) -> None:
    last_good = LastGood(str(tmp_path / "none" / "config.toml"), 100)
    with pytest.raises(SourceProblem, match=r"none/config\.toml: no such file"):
        last_good.keep(b"")
    with pytest.raises(SourceProblem, match="is a directory"):
        LastGood(str(tmp_path), 100).read()
    with pytest.raises(SourceProblem, match="not a path"):
        LastGood("a\0b", 100).keep(b"")


def test_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old content stays, and nothing is left beside it."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["config.toml"]
