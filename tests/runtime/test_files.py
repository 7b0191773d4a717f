"""Reading files that may be anything: see :mod:`socksproxy.runtime.files`."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from socksproxy.runtime import files
from socksproxy.runtime.files import read_regular_file


def test_read(tmp_path: Path) -> None:
    """A regular file is read whole, whatever its size, and a link to it counts as the file."""
    path = tmp_path / "file"
    data = os.urandom(3 << 20)
    path.write_bytes(data)
    content = read_regular_file(str(path), most=len(data))
    assert content.data == data
    assert content.status.st_size == len(data)
    assert not content.changed
    (tmp_path / "link").symlink_to(path)
    assert read_regular_file(str(tmp_path / "link"), most=len(data)).data == data


def test_size_unknown() -> None:
    """A file that says it is empty, as those of /proc do, is read all the same."""
    assert b"Name:" in read_regular_file("/proc/self/status").data


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file or directory"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.symlink_to("/dev/null"), "is not a regular file"),
        (lambda path: path.symlink_to(path), "too many levels of symbolic links"),
        (lambda path: path.write_bytes(bytes((1 << 20) + 1)), "is larger than 1048576 bytes"),
    ],
    ids=["nothing", "FIFO", "directory", "endless", "null", "loop", "large"],
)
def test_not_read(tmp_path: Path, make: Callable[[Path], Any], words: str) -> None:
    """What is no regular file, or is too large, is told at once, with its name."""
    path = tmp_path / "file"
    make(path)
    with pytest.raises(OSError, match=str(path)) as caught:
        read_regular_file(str(path))
    assert caught.value.strerror is not None
    assert caught.value.strerror.lower() == words


def test_no_path() -> None:
    with pytest.raises(ValueError, match="null"):
        read_regular_file("a\0b")


def test_file_system_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not answer costs the time limit, and a thread that does not hold up the end."""
    answers = threading.Event()
    readers: list[threading.Thread] = []

    def hang(path: str, most: int) -> Any:
        readers.append(threading.current_thread())
        answers.wait()
        raise OSError(errno.EIO, "too late", path)

    monkeypatch.setattr(files, "_read", hang)
    with pytest.raises(OSError, match=r"its file system does not answer for 0\.01 seconds: 'here'"):
        read_regular_file("here", seconds=0.01)
    assert [reader.daemon for reader in readers] == [True]
    answers.set()
    readers[0].join()


def test_changed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes while it is read is told from one that does not."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    fstat = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        if status.st_size == 3:
            with path.open("ab") as file:
                file.write(b"two")
        return status

    monkeypatch.setattr(os, "fstat", grow)
    assert read_regular_file(str(path)).changed
