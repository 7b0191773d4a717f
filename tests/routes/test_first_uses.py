"""The file of first uses: :mod:`socksproxy.routes.first_uses`."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from socksproxy.routes import first_uses
from socksproxy.routes.first_uses import Entry, FirstUses, FirstUsesError

NOW = 1_000_000.0


class Wall:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return None if request.param == "memory" else str(tmp_path / "sticky")


def test_sealed(path: str | None) -> None:
    """Only who has the secret can compute it; it is the same after a restart where there is a file."""
    uses = FirstUses(path)
    sealed = uses.sealed(b"bob")
    assert len(sealed) == 32
    assert sealed == uses.sealed(b"bob") != uses.sealed(b"eve")
    again, other = FirstUses(path), FirstUses()
    assert (again.sealed(b"bob") == sealed) is (path is not None)
    assert other.sealed(b"bob") != sealed
    for each in (uses, again, other):
        each.close()


def test_absolute(path: str | None) -> None:
    """The time begins with the first use, and later uses do not prolong it."""
    wall = Wall()
    uses = FirstUses(path, wall)
    first = uses.began(b"bob", 600)
    assert first == Entry(int(NOW * 1000), int(NOW * 1000) + 600_000, 0)
    wall.now += 599
    assert uses.began(b"bob", 60) == first
    assert uses.began(b"eve", 60) != first
    wall.now += 1
    assert uses.began(b"bob", 60) == Entry(int(wall.now * 1000), int(wall.now * 1000) + 60_000, 0)
    uses.close()


def test_moved(path: str | None) -> None:
    wall = Wall()
    uses = FirstUses(path, wall)
    ends = int(NOW * 1000) + 5000
    assert uses.moved(b"bob") == 0
    uses.move(b"bob", ends, 7)
    uses.move(b"bob", ends, 1 << 63)
    assert uses.moved(b"bob") == 1 << 63
    wall.now += 5
    assert uses.moved(b"bob") == 0
    uses.move(b"bob", ends, 7)  # its time is over
    assert uses.moved(b"bob") == 0
    uses.close()


def test_restart(tmp_path: Path) -> None:
    """The file keeps everything, for the next process and for others at the same time; only we read it."""
    path = str(tmp_path / "sticky")
    wall = Wall()
    one = FirstUses(path, wall)
    first = one.began(b"bob", 600)
    wall.now += 1
    two = FirstUses(path, wall)
    assert two.began(b"bob", 600) == first
    other = two.began(b"eve", 600)
    assert one.began(b"eve", 600) == other
    one.close()
    two.close()
    again = FirstUses(path, wall)
    assert again.began(b"bob", 600) == first
    again.close()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_bounded(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    """Many entries take no more room: those that end first give way."""
    monkeypatch.setattr(first_uses, "_PARTS", 2)
    monkeypatch.setattr(first_uses, "MOST", 32)
    wall = Wall()
    uses = FirstUses(path, wall)
    kept = uses.began(b"kept", 5000)
    for number in range(100):
        wall.now += 1
        uses.began(str(number).encode(), 600)
        if path is None:
            assert len(uses._memory) <= 32
    if path is not None:
        assert os.stat(path).st_size < 2000
        assert uses.began(b"kept", 1) == kept
    uses.close()


@pytest.mark.parametrize("harm", ["cut", "garbage"])
def test_harmed(tmp_path: Path, harm: str) -> None:
    """A file that is cut short or overwritten while it is open costs entries, and nothing else."""
    path = tmp_path / "sticky"
    uses = FirstUses(str(path), Wall())
    uses.began(b"bob", 600)
    size = path.stat().st_size
    if harm == "cut":
        os.truncate(path, 5)
    else:
        path.write_bytes(size * b"\xff")
    again = uses.began(b"bob", 600)
    assert uses.began(b"bob", 600) == again
    uses.close()


@pytest.mark.parametrize("content", [b"x", b"\x00" * 100, b"SQLite format 3\x00" + 100 * b"x"])
def test_foreign(tmp_path: Path, content: bytes) -> None:
    """A file that is not ours stays as it is."""
    path = tmp_path / "sticky"
    path.write_bytes(content)
    with pytest.raises(FirstUsesError, match="is no file of sticky sessions"):
        FirstUses(str(path))
    assert path.read_bytes() == content


def test_unusable(tmp_path: Path) -> None:
    with pytest.raises(FirstUsesError, match="no such file or directory"):
        FirstUses(str(tmp_path / "none" / "sticky"))
    with pytest.raises(FirstUsesError, match="is a directory"):
        FirstUses(str(tmp_path))


def _use(path: str, answers: object) -> None:
    uses = FirstUses(path)
    answers.put([uses.began(str(number).encode(), 600) for number in range(200)])  # type: ignore[attr-defined]


def test_together(tmp_path: Path) -> None:
    """Processes that use the same names at the same time agree on every first use."""
    context = get_context("fork")
    path, answers = str(tmp_path / "sticky"), context.SimpleQueue()
    processes = [context.Process(target=_use, args=(path, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    assert found == found[:1] * 4


def test_waits_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process begins while this one waits for the lock is a first use, and not one to come."""
    path, wall = str(tmp_path / "sticky"), Wall()
    uses, other = FirstUses(path, wall), FirstUses(path, wall)
    begun: list[Entry] = []

    def waits() -> None:
        wall.now += 0.005
        begun.append(other.began(b"bob", 600))

    monkeypatch.setattr(uses, "_lock", waits)
    assert [uses.began(b"bob", 600)] == begun
    uses.close()
    other.close()


def test_locked(tmp_path: Path) -> None:
    """A process that keeps the lock holds nothing up for long."""
    path = str(tmp_path / "sticky")
    uses = FirstUses(path, Wall())
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(FirstUsesError, match="another process keeps it locked"):
            uses.began(b"bob", 600)
        with pytest.raises(FirstUsesError, match="another process keeps it locked"):
            FirstUses(path)
        other.stdin.close()
        other.wait()
    assert uses.began(b"bob", 600)
    uses.close()
