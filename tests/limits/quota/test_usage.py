"""What has been used, kept by a thread."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import timezone
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings, strategies as st
from twisted.internet import reactor as _reactor

from socksproxy.limits.quota import database, usage as module
from socksproxy.limits.quota.database import UsageFileError
from socksproxy.limits.quota.quota import Quota
from socksproxy.limits.quota.usage import RETRY_AFTER, STOP_WITHIN, WRITE_AFTER, UsageFile
from socksproxy.logs.throttle import EVERY
from tests.support.logs import heard
from tests.support.processes import PATIENCE, Program
from tests.support.usage import LOSSES, Desk, result_of, started, stop, used, written

reactor: Any = _reactor

NOON = 1_795_348_800.0
DAY, MONTH = "2026-11-22", "2026-11"
PLENTY = 10**15


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.sqlite"


def opened(desk: Desk, path: Path) -> UsageFile:
    return started(desk, path, wall=lambda: NOON, zone=timezone.utc)


@pytest.fixture
def usage(desk: Desk, path: Path) -> Iterator[UsageFile]:
    """A file that is open."""
    usage = opened(desk, path)
    yield usage
    stop(desk, usage)


def bob(usage: UsageFile, desk: Desk | None = None) -> Quota:
    """A quota; with *desk*, the file has been read for it."""
    quota = Quota(usage, "user bob", PLENTY)
    if desk is not None:
        desk.pass_by(0)
    return quota


def of_bob(path: Path) -> int:
    """What the file says."""
    return written(path).get(("user bob", DAY), 0)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for."""
    monkeypatch.setattr(database, "BUSY", 0.01)


def test_written_soon(usage: UsageFile, desk: Desk, path: Path) -> None:
    """What is spent is written once a while, all together; the longest that may be lost is 5 seconds."""
    assert WRITE_AFTER + database.BUSY < 5
    quota = bob(usage, desk)
    quota.spend(1)
    desk.advance(WRITE_AFTER / 2)
    quota.spend(10)
    assert of_bob(path) == 0
    desk.pass_by(WRITE_AFTER / 2)
    assert written(path) == {("user bob", DAY): 11, ("user bob", MONTH): 11}


def test_one_at_a_time(usage: UsageFile, desk: Desk, path: Path) -> None:
    """What is spent while the thread writes is added up for its next time."""
    quota = bob(usage, desk)
    quota.spend(1)
    desk.advance(WRITE_AFTER)  # the thread is at it until it is heard
    for _ in range(10):
        quota.spend(10)
        desk.advance(WRITE_AFTER)
    assert desk.getDelayedCalls() == []
    desk.hear()
    assert of_bob(path) == 1
    assert quota.available() == PLENTY - 101
    desk.pass_by(WRITE_AFTER)
    assert of_bob(path) == 101
    assert quota.available() == PLENTY - 101


def test_given_back(usage: UsageFile, desk: Desk, path: Path) -> None:
    """What turns out not to have been used is taken out of the file, too."""
    quota = bob(usage, desk)
    quota.spend(16384)
    desk.pass_by(WRITE_AFTER)
    quota.spend(-16000)
    desk.pass_by(WRITE_AFTER)
    assert of_bob(path) == 384
    assert quota.available() == PLENTY - 384


def test_many(usage: UsageFile, desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transaction does not take more than so many holders; the others follow at once."""
    monkeypatch.setattr(module, "MOST_AT_ONCE", 10)
    quotas = [Quota(usage, f"user {number}", PLENTY) for number in range(25)]
    for quota in quotas:
        quota.spend(1)
    desk.pass_by(0)
    assert len(written(path)) == 2 * 10
    desk.pass_by(0)
    assert len(written(path)) == 2 * 20
    desk.pass_by(WRITE_AFTER)
    assert len(written(path)) == 2 * 25


def test_restarted(desk: Desk, path: Path) -> None:
    """What had been used is known as soon as the file is open, so that nobody is let in who has none left."""
    usage = opened(desk, path)
    bob(usage).spend(PLENTY)
    stop(desk, usage)
    usage = opened(desk, path)
    assert bob(usage).exhausted
    stop(desk, usage)


def test_before_the_start(desk: Desk, path: Path) -> None:
    """What is spent while the file is being opened is added to what it says."""
    usage = opened(desk, path)
    bob(usage).spend(100)
    stop(desk, usage)
    usage = UsageFile(desk, str(path), wall=lambda: NOON, zone=timezone.utc)
    quota = bob(usage)
    starting = usage.start()
    quota.spend(10)
    desk.hear()
    result_of(starting)
    assert quota.available() == PLENTY - 110
    stop(desk, usage)
    assert of_bob(path) == 110


def test_others(usage: UsageFile, desk: Desk, path: Path) -> None:
    """Another process's bytes count from this one's next write on; who is new is read at once."""
    elsewhere = Desk()
    with used(elsewhere, path, wall=lambda: NOON, zone=timezone.utc) as other:
        quota, theirs = bob(usage, desk), bob(other, elsewhere)
        theirs.spend(1000)
        elsewhere.pass_by(WRITE_AFTER)
        assert quota.available() == PLENTY
        quota.spend(1)
        desk.pass_by(WRITE_AFTER)
        assert quota.available() == PLENTY - 1001
        Quota(other, "user eve", PLENTY).spend(5)
        elsewhere.pass_by(0)
        eve = Quota(usage, "user eve", PLENTY)
        desk.pass_by(0)
        assert eve.available() == PLENTY - 5
        # Who is known is read once more when it comes back.
        again = bob(other)
        assert again.available() == PLENTY - 1000
        elsewhere.pass_by(WRITE_AFTER)
        assert again.available() == PLENTY - 1001
    assert of_bob(path) == 1001


def test_deleted_by_hand(usage: UsageFile, desk: Desk, path: Path) -> None:
    """Who is let in again by the operator is, when it has asked; nobody looks before."""
    quota = bob(usage, desk)
    quota.spend(PLENTY)
    desk.pass_by(WRITE_AFTER)
    with closing(sqlite3.connect(path, isolation_level=None)) as by_hand:
        by_hand.execute("DELETE FROM usage WHERE holder = 'user bob'")
    assert desk.getDelayedCalls() == []
    assert quota.exhausted
    desk.pass_by(WRITE_AFTER)
    assert not quota.exhausted


@pytest.mark.usefixtures("hasty")
def test_locked(usage: UsageFile, desk: Desk, path: Path) -> None:
    """The file cannot be written for a while: amounts count and are kept, and the log says so once."""
    quota = bob(usage, desk)
    with heard() as lines:
        with locked(path):
            for step in range(10):
                quota.spend(1)
                desk.pass_by(RETRY_AFTER if step else WRITE_AFTER)
            assert quota.available() == PLENTY - 10
        assert len(desk.getDelayedCalls()) == 1
        (line,) = lines
        assert line == (
            "the use of quotas cannot be written; it is kept and written later: "
            f"{path}: database is locked (1 times since the last such line)"
        )
        desk.pass_by(RETRY_AFTER)
        assert lines[1:] == [f"{path}: the use of quotas is written again"]
    assert of_bob(path) == 10
    assert quota.available() == PLENTY - 10
    assert desk.getDelayedCalls() == []


@pytest.mark.usefixtures("hasty")
def test_said_again(usage: UsageFile, desk: Desk, path: Path) -> None:
    """The log says it once more after a while."""
    bob(usage, desk).spend(1)
    with heard() as lines, locked(path):
        desk.pass_by(WRITE_AFTER)
        for _ in range(int(EVERY / RETRY_AFTER) + 1):
            desk.pass_by(RETRY_AFTER)
    assert len(lines) == 2


@pytest.mark.parametrize(("happens", "words", "kept"), LOSSES)
def test_lost(
    usage: UsageFile, desk: Desk, path: Path, happens: Callable[[Path], Any], words: str, kept: bool
) -> None:
    """The file is deleted, replaced or overwritten: the log says so, and no count is lost."""
    many = [Quota(usage, f"user {number}", daily=PLENTY, monthly=PLENTY) for number in range(500)]
    desk.pass_by(WRITE_AFTER)
    quota = bob(usage, desk)
    for each in (quota, *many):
        each.spend(5)
    desk.pass_by(WRITE_AFTER)
    happens(path)
    quota.spend(1)
    with heard() as lines:
        desk.pass_by(WRITE_AFTER)
        assert lines[0].startswith(f"{path}: ")
        assert words in lines[0]
        assert "the known use of quotas is written again" in lines[0]
        quota.spend(2)
        desk.hear()  # what is known
        desk.hear()  # and what was spent
    assert lines[1:] == [f"{path}: the use of quotas is written again"]
    assert quota.available() == PLENTY - 8
    assert of_bob(path) == 8
    stop(desk, usage)
    found = written(path)
    assert all(found[each.name, usage.today().name] == 5 for each in many)


def test_lost_while_nothing_is_used(usage: UsageFile, desk: Desk, path: Path) -> None:
    """The file is looked at once more at the end."""
    quota = bob(usage, desk)
    quota.spend(5)
    desk.pass_by(WRITE_AFTER)
    path.write_bytes(b"")
    stop(desk, usage)
    assert of_bob(path) == 5


@pytest.mark.usefixtures("hasty")
def test_not_all_kept(usage: UsageFile, desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written only so many holders' bytes are kept, and the log says what is lost."""
    monkeypatch.setattr(module, "MOST_KEPT", 10)
    with heard() as lines:
        with locked(path):
            for number in range(25):
                Quota(usage, f"user {number}", PLENTY).spend(1)
                if number == 4:
                    desk.pass_by(0)
        assert sum("is lost" in line for line in lines) == 1
        desk.pass_by(RETRY_AFTER)
    assert [written(path).get((f"user {number}", DAY), 0) for number in range(25)] == [0] * 15 + [1] * 10


def test_not_all_known(usage: UsageFile, desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holders that have not been there for long are forgotten here; the file knows them."""
    monkeypatch.setattr(module, "MOST_KNOWN", 10)
    first = bob(usage, desk)
    first.spend(7)
    for number in range(10):
        Quota(usage, f"user {number}", PLENTY)
    desk.pass_by(0)
    second = bob(usage)
    assert second.available() == PLENTY
    desk.pass_by(0)
    assert second.available() == PLENTY - 7
    first.spend(1)
    second.spend(1)
    desk.pass_by(WRITE_AFTER)
    assert of_bob(path) == 9
    assert (first.available(), second.available()) == (PLENTY - 9, PLENTY - 9)


@pytest.mark.parametrize("wrong", ["directory", "garbage"])
def test_cannot_start(desk: Desk, path: Path, wrong: str) -> None:
    """The error names the file; the thread ends, and there is nothing to stop."""
    if wrong == "directory":
        path = path / "usage"
    else:
        path.write_bytes(b"garbage" * 1000)
    usage = UsageFile(desk, str(path))
    starting = usage.start()
    desk.hear()
    with pytest.raises(UsageFileError, match=str(path)):
        result_of(starting)
    result_of(usage.stop())
    assert desk.getDelayedCalls() == []


def test_stop(desk: Desk, path: Path) -> None:
    """What is left is written, nothing after it, and the file is by itself."""
    usage = opened(desk, path)
    quota = bob(usage)
    quota.spend(1)
    stop(desk, usage)
    assert [file.name for file in path.parent.iterdir()] == ["usage.sqlite"]
    quota.spend(1)
    assert desk.getDelayedCalls() == []
    result_of(usage.stop())
    assert of_bob(path) == 1


def test_stop_while_writing(desk: Desk, path: Path) -> None:
    """What came meanwhile is written, too."""
    usage = opened(desk, path)
    quota = bob(usage)
    quota.spend(1)
    desk.advance(WRITE_AFTER)
    quota.spend(10)
    stop(desk, usage)
    assert of_bob(path) == 11


def test_stop_while_starting(desk: Desk, path: Path) -> None:
    """Whoever waits is told, whether it could be opened or not."""
    for place in (path, path / "nowhere"):
        usage = UsageFile(desk, str(place))
        starting, stopping = usage.start(), usage.stop()
        starting.addErrback(lambda failure: failure.trap(UsageFileError))
        while not stopping.called:
            desk.hear()
        result_of(starting)
    assert desk.getDelayedCalls() == []


def test_stop_before_start(desk: Desk, path: Path) -> None:
    """There is nothing to do."""
    result_of(UsageFile(desk, str(path)).stop())


@pytest.mark.usefixtures("hasty")
def test_stop_fails(desk: Desk, path: Path) -> None:
    """It is tried once, and the log says how much is lost."""
    usage = opened(desk, path)
    bob(usage, desk).spend(77)
    with heard() as lines, locked(path):
        stop(desk, usage)
    assert lines[-1] == f"{path}: 77 used bytes are not written"
    assert desk.getDelayedCalls() == []


def test_stop_hangs(desk: Desk, path: Path) -> None:
    """A disk that says nothing does not keep the server from ending."""
    usage = opened(desk, path)
    quota = bob(usage)
    quota.spend(70)
    desk.advance(WRITE_AFTER)  # and it is not heard
    quota.spend(7)
    stopping = usage.stop()
    assert not stopping.called
    with heard() as lines:
        desk.advance(STOP_WITHIN)
    result_of(stopping)
    assert lines == [f"{path}: 77 used bytes are not written"]
    desk.hear()
    assert desk.getDelayedCalls() == []


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), st.integers(0, 2), st.integers(1, 10**9), st.sampled_from([0.0, 0.3, 1.0, 2.0])
        ),
        max_size=30,
    )
)
@settings(max_examples=50)
def test_two(tmp_path_factory: pytest.TempPathFactory, spends: list[tuple[int, int, int, float]]) -> None:
    """However two spend from the same quotas: the file says what both have, and each knows its own."""
    path = tmp_path_factory.mktemp("usage") / "usage"
    desks = [Desk(), Desk()]
    files = [opened(desk, path) for desk in desks]
    quotas = [[Quota(file, f"user {number}", PLENTY) for number in range(3)] for file in files]
    own = [[0] * 3, [0] * 3]
    for which, number, amount, seconds in spends:
        quotas[which][number].spend(amount)
        own[which][number] += amount
        left = quotas[which][number].available()
        assert PLENTY - own[0][number] - own[1][number] <= left <= PLENTY - own[which][number]
        for desk in desks:
            desk.advance(seconds)
            desk.hear_all()
    for desk, file in zip(desks, files, strict=True):
        stop(desk, file)
    kept = written(path)
    for number in range(3):
        assert kept.get((f"user {number}", DAY), 0) == own[0][number] + own[1][number]


@pytest_twisted.inlineCallbacks
def test_real_reactor(path: Path) -> Generator[Any, Any, None]:
    """It works with the reactor's own time and threads."""
    usage = UsageFile(reactor, str(path), wall=lambda: NOON, zone=timezone.utc)
    yield usage.start()
    bob(usage).spend(7)
    yield usage.stop()
    assert of_bob(path) == 7


_SPENDER = """
import sys, time
from twisted.internet import reactor, task
from socksproxy.limits.quota.quota import Quota
from socksproxy.limits.quota.usage import UsageFile

usage = UsageFile(reactor, sys.argv[1])
total = 0

def spend(quota):
    global total
    quota.spend(1000)
    total += 1000
    print("spent", total, time.monotonic())

def begin(_):
    task.LoopingCall(spend, Quota(usage, "server", 10**15)).start(0.02)

usage.start().addCallback(begin)
reactor.run()
"""


@pytest.mark.slow
def test_killed(path: Path, start: Callable[..., Program]) -> None:
    """Two processes share the file and are killed: all that was spent 5 seconds before is there."""
    programs = [start([sys.executable, "-c", _SPENDER, str(path)]) for _ in range(2)]
    for program in programs:
        program.wait_for(r"spent \d+ .*\n")
    began = time.monotonic()
    while time.monotonic() < began + 7:
        for program in programs:
            # They go on until they are killed, so there is always another line.
            before = program.output.count("\n")
            program.wait_for(rf"(?:.*\n){{{before + 10}}}")
    killed = time.monotonic()
    for program in programs:
        program.process.kill()
        program.wait()
    spent = [_spent(program.output, killed - 5) for program in programs]
    assert all(spent)
    in_all = [_spent(program.output, killed + PATIENCE) for program in programs]
    kept = sum(count for (holder, period), count in written(path).items() if len(period) == 7)
    assert sum(spent) <= kept <= sum(in_all) + 2 * 1000


def _spent(output: str, until: float) -> int:
    """What a process says it had spent at that time."""
    said = [line.split() for line in output.splitlines() if line.startswith("spent ")]
    return max((int(line[1]) for line in said if len(line) == 3 and float(line[2]) <= until), default=0)
