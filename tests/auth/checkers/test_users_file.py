"""Files with one user in each line: see :mod:`socksproxy.auth.checkers.users_file`."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from socksproxy.auth.checkers.htpasswd import (
    LOOK_EVERY,
    PasswordFile,
)
from socksproxy.runtime.watched_file import WatchedFile

from ...support.logs import heard
from ...support.programs import require, run
from ...support.users_files import BOB, EVE, HALVES, Watched, htpasswd

Waiting = Generator[Any, Any, None]


def test_changed(watched: Watched) -> None:
    """A change is seen by the next check, not earlier than a second after the last look."""
    watched.write(EVE + BOB)
    watched.clock.advance(LOOK_EVERY - 0.1)
    assert not watched.lets_in(b"eve")
    assert watched.file.version == 0
    watched.clock.advance(0.1)
    assert watched.lets_in(b"eve")
    assert watched.file.version == 1
    watched.write(EVE)
    assert watched.look() == [f"{watched.path}: read again, users: 1"]
    assert not watched.lets_in(b"bob")
    assert watched.file.version == 2


def test_replaced(watched: Watched) -> None:
    """Another file of the same size and time in its place is another file."""
    status = watched.path.stat()
    other = watched.path.with_name("other")
    other.write_bytes(EVE)
    os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert other.stat().st_size == status.st_size
    other.replace(watched.path)
    watched.look()
    assert watched.lets_in(b"eve")
    assert not watched.lets_in(b"bob")


def test_changed_twice_at_once(watched: Watched) -> None:
    """What is a moment old is read once more: it may have changed within one tick of the file's time."""
    watched.path.write_bytes(EVE)
    now = watched.path.stat().st_mtime_ns
    watched.look()
    assert watched.lets_in(b"eve")
    watched.path.write_bytes(BOB)
    os.utime(watched.path, ns=(now, now))
    watched.look()
    assert watched.lets_in(b"bob")


def test_touched(watched: Watched) -> None:
    """Where nothing is new, nothing is said."""
    os.utime(watched.path)
    assert watched.look() == []
    assert watched.file.version == 0


def test_not_read_where_nothing_has_changed(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs a stat."""
    monkeypatch.setattr(WatchedFile, "read", None)
    assert watched.look() == []


def test_not_read_again_after_the_clock_stepped_back(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was changed an hour after the present time is no file that is being changed."""
    status = watched.path.stat()
    os.utime(watched.path, ns=(status.st_mtime_ns + 3600 * 10**9,) * 2)
    assert watched.look() == []
    monkeypatch.setattr(WatchedFile, "read", None)
    assert watched.look() == []


@pytest.mark.parametrize("content", [*HALVES, b""])
def test_half_written(watched: Watched, content: bytes) -> None:
    """It is left alone with one warning until it is whole."""
    watched.write(content)
    (line,) = watched.look()
    assert line.startswith(f"{watched.path}: ")
    assert line.endswith("; its users stay as they were")
    assert watched.look() == []
    os.utime(watched.path)
    assert watched.look() == []
    assert watched.lets_in(b"bob")
    assert watched.file.version == 0
    watched.write(EVE)
    assert watched.look() == [f"{watched.path}: read again, users: 1"]
    assert watched.lets_in(b"eve")
    watched.write(content)
    assert len(watched.look()) == 1


def test_gone(watched: Watched) -> None:
    """A file that is away for a while."""
    watched.path.unlink()
    assert watched.look() == [f"{watched.path}: no such file or directory; its users stay as they were"]
    assert watched.look() == []
    watched.path.mkdir()
    assert watched.look() == [f"{watched.path}: is a directory; its users stay as they were"]
    assert watched.lets_in(b"bob")
    watched.path.rmdir()
    watched.write(EVE)
    watched.look()
    assert watched.lets_in(b"eve")


def test_nobody_left(watched: Watched) -> None:
    """A comment alone is whole: nobody is let in any more."""
    watched.write(b"# no users\n")
    lines = watched.look()
    assert lines[-1] == f"{watched.path}: no user in it can log in"
    assert not watched.lets_in(b"bob")


def test_path_from_the_start(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """twistd changes its directory once it has read its options."""
    monkeypatch.chdir(tmp_path)
    watched.file = PasswordFile(watched.path.name, watched.clock.seconds)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    watched.write(EVE)
    watched.look()
    assert watched.lets_in(b"eve")


def test_one_look_at_once(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread looks at a slow file, the others go on with what is known."""
    watched.clock.advance(LOOK_EVERY)
    looks = []

    def slow(path: str) -> os.stat_result:
        looks.append(path)
        watched.clock.advance(LOOK_EVERY)
        assert watched.lets_in(b"bob")
        return os.stat_result(range(10))

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", slow)
        assert watched.lets_in(b"bob")
    assert len(looks) == 1


@pytest.mark.interop
def test_while_htpasswd_writes(tmp_path: Path) -> None:
    """The real program changes the file again and again, in place; a user who is in it is always let in."""
    path = tmp_path / "users"
    htpasswd(path, "-BC4", b"bob", b"secret")
    for number in range(50):
        htpasswd(path, "-m", b"user%d" % number, b"secret")
    program = require("htpasswd")
    ended = threading.Event()

    def write() -> None:
        for number in range(40):
            run([program, "-bm", str(path), f"user{number}", "other"])
        ended.set()

    clock = Clock()
    file = PasswordFile(str(path), clock.seconds)
    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        clock.advance(LOOK_EVERY)
        assert file.check(b"bob", b"secret")
    writer.join()
    clock.advance(LOOK_EVERY)
    assert file.check(b"user39", b"other")
    assert file.version > 1


@pytest.mark.parametrize(
    ("mode", "does"),
    [(0o600, None), (0o640, None), (0o660, None), (0o644, "read"), (0o602, "change"), (0o666, "change")],
)
def test_open_to_all(watched: Watched, mode: int, does: str | None) -> None:
    """A file that everybody can read gives the hashes away; one that everybody can write gives away more."""
    watched.path.chmod(mode)
    with heard() as lines:
        file = PasswordFile(str(watched.path), watched.clock.seconds)
    expected = [f"{watched.path}: every user of this machine can {does} it: chmod o= takes that away"]
    assert lines == (expected if does else [])
    os.utime(watched.path)
    watched.clock.advance(LOOK_EVERY)
    with heard() as again:
        file.look()
    assert again == []


def test_path_with_any_bytes(tmp_path: Path) -> None:
    """A path that is no text does not spoil the log."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    Path(path).write_bytes(b"# nobody\n")
    os.chmod(path, 0o600)
    with heard() as lines:
        PasswordFile(path)
    (line,) = lines
    assert line.encode().startswith(os.fsencode(tmp_path) + b"/\\udcff: ")
