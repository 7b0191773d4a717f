"""A configuration in a file, or in a directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from socksproxy.sources.files import DirectorySource, FileSource
from socksproxy.sources.found import SourceProblem


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "first"
    place.mkdir()
    (place / "socks.toml").write_text("[log]\n")
    (place / "names.txt").write_text("example.org\n")
    return place


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "socks.toml"
    source = FileSource(str(file), 10)
    with pytest.raises(SourceProblem, match="no such file"):
        source.look(None)
    file.write_text("[log]\n")
    assert source.look(None).content == b"[log]\n"
    file.write_text("#" * 11)
    with pytest.raises(SourceProblem, match="is larger than 10 bytes"):
        source.look(None)
    with pytest.raises(SourceProblem, match="not a path"):
        FileSource("a\0b", 10).look(None)


def test_directory(directory: Path) -> None:
    """A change of any file is one of the configuration; its hash is that of socks.toml."""
    source = DirectorySource(str(directory), 100)
    first = source.look(None)
    assert source.look(first).same(first)
    (directory / "names.txt").write_text("example.org\nexample.net\n")
    second = source.look(first)
    assert not second.same(first)
    assert second.hash == first.hash
    (directory / "socks.toml").write_text("[udp]\n")
    assert source.look(second).hash != first.hash


def test_replaced(directory: Path, tmp_path: Path) -> None:
    """A symbolic link to another directory, and a directory in the place of another, are followed."""
    other = tmp_path / "second"
    other.mkdir()
    (other / "socks.toml").write_text("[udp]\n")
    (tmp_path / "now").symlink_to(directory)
    source = DirectorySource(str(tmp_path / "now"), 100)
    first = source.look(None)
    (tmp_path / "next").symlink_to(other)
    os.replace(tmp_path / "next", tmp_path / "now")
    assert source.look(first).content == b"[udp]\n"
    direct = DirectorySource(str(directory), 100)
    directory.rename(tmp_path / "old")
    with pytest.raises(SourceProblem, match="no such file"):
        direct.look(first)
    other.rename(directory)
    assert direct.look(first).content == b"[udp]\n"


def test_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(SourceProblem, match=r"socks\.toml: no such file"):
        DirectorySource(str(tmp_path), 100).look(None)


def test_many_files(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a bound, and files that are hidden do not count."""
    monkeypatch.setattr("socksproxy.sources.files.MOST_FILES", 2)
    source = DirectorySource(str(directory), 100)
    first = source.look(None)
    for number in range(3):
        (directory / f".{number}").write_text("")
    assert source.look(first).same(first)
    for number in range(3):
        (directory / f"{number}").write_text("")
    with pytest.raises(SourceProblem, match="has more than 2 files"):
        source.look(first)
