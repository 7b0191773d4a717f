"""Files of sets that are read again: see :mod:`socksproxy.policy.sets.watch`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.task import Clock

from socksproxy.policy.sets import (
    NamesFile,
    SetFiles,
)
from tests.support.logs import heard

reactor: Any = _reactor


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest_twisted.ensureDeferred
async def test_entries_that_can_never_match_are_logged(tmp_path: Path, told: list[str]) -> None:
    """Once for each state of the file; those of a file that was loaded before, when it is watched."""
    path = tmp_path / "names.txt"
    names = NamesFile(write(path, "a.example\nb..example\n"))
    files = SetFiles(Clocked(), [names])
    await files.start()
    await files.look()
    line = f"an entry of a file does not count: {path}, line 2: 'b..example': is no name that the DNS allows"
    assert told == [line]
    assert names.holds("a.example")
    files.watch()
    assert told == [line] * 2
    write(path, "a.example\nb.example\n")
    await files.look()
    await files.look()
    assert names.holds("b.example")
    assert told == [line] * 2
    assert names.ignored == ()
    files.stop()


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The warnings."""
    with heard() as lines:
        yield lines


class Clocked(Clock):
    """Time that is a test's, and the reactor's threads."""

    def addSystemEventTrigger(self, *arguments: Any) -> Any:
        return reactor.addSystemEventTrigger(*arguments)

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        reactor.removeSystemEventTrigger(trigger)

    def callFromThread(self, *arguments: Any, **named: Any) -> None:
        reactor.callFromThread(*arguments, **named)


@pytest_twisted.ensureDeferred
async def test_read_again(tmp_path: Path, told: list[str]) -> None:
    """A change is read once nobody writes any more; a broken one is told once, and the old content stays."""
    path = tmp_path / "names.txt"
    names = NamesFile(write(path, "a.example\n"))
    files = SetFiles(Clocked(), [names])
    await files.start()
    assert names.holds("a.example")
    write(path, "a.example\nb.exam")
    await files.look()
    assert not names.holds("b.exam"), "somebody may be writing yet"
    write(path, "a.example\nb.example\n")
    await files.look()
    assert not names.holds("b.example")
    await files.look()
    assert names.holds("b.example")
    assert told == []
    write(path, "d..example\n")
    for _ in range(4):
        await files.look()
    (line,) = told
    assert line.startswith("a file cannot be used, and its last content stays in use: ")
    assert line.endswith(
        f"{path}, line 1: 'd..example': is no name that the DNS allows; no entry of the file counts"
    )
    assert names.holds("b.example")
    assert not names.holds("c.example")
    os.unlink(path)
    for _ in range(3):
        await files.look()
    assert names.holds("b.example")
    write(path, "e.example\n")
    for _ in range(3):
        await files.look()
    assert names.holds("e.example")
    assert len(told) == 1
    files.stop()


@pytest_twisted.ensureDeferred
async def test_looks_by_itself(tmp_path: Path) -> None:
    clock = Clocked()
    names = NamesFile(write(tmp_path / "names.txt", "a.example\n"))
    files = SetFiles(clock, [names], every=5)
    await files.start()
    assert [call.getTime() for call in clock.getDelayedCalls()] == [5]
    files.stop()
    assert clock.getDelayedCalls() == []
    await files.look()
    assert clock.getDelayedCalls() == [], "it has been stopped"
