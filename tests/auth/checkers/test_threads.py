"""Checks in threads: see :mod:`socksproxy.auth.checkers.threads`."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.checkers import FilePasswordDB, ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail, setDebugging, succeed
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksproxy.auth.checkers.threads import (
    CheckFailed,
    CheckThreads,
    CheckTimedOut,
    NotChecked,
    ThreadedChecker,
    TooManyChecks,
    threads_for_hashing,
)
from socksproxy.auth.credentials import Password
from socksproxy.auth.known import versioned

from ...support.logs import heard
from ...support.proxy import PATIENCE, ClockedReactor, reactor, until

Waiting = Generator[Any, Any, None]
Make = Callable[..., CheckThreads]

SECRET = "correct horse"


@pytest.fixture
def make() -> Iterator[Make]:
    """``make(...)``: checks, which are stopped after the test."""
    made: list[CheckThreads] = []

    def checks(reactor: Any = None, **settings: Any) -> CheckThreads:
        made.append(CheckThreads(reactor, **settings))
        return made[-1]

    yield checks
    for one in made:
        one.stop()


class Blocked:
    """Checks that go on until the test opens the gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun: list[object] = []
        self.ended: list[object] = []

    def __call__(self, number: object = 0) -> object:
        self.begun.append(number)
        assert self.gate.wait(PATIENCE)
        self.ended.append(number)
        return number


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    """Checks that end with the test at the latest."""
    check = Blocked()
    yield check
    check.gate.set()


def outcomes(pending: Deferred[Any]) -> list[Any]:
    """What comes of it; the exception of a failure."""
    results: list[Any] = []
    pending.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


@pytest_twisted.inlineCallbacks
def test_in_a_thread(make: Make) -> Waiting:
    """It is called in another thread, and what comes of it is told in the reactor's."""
    threads = []
    pending = make().run(lambda *numbers: (threading.get_ident(), sum(numbers)), 1, 2)
    pending.addBoth(lambda result: threads.append(threading.get_ident()) or result)  # type: ignore[call-overload]
    thread, result = yield pending
    assert result == 3
    assert threads == [threading.get_ident()]
    assert thread != threading.get_ident()


@pytest_twisted.inlineCallbacks
def test_bounded(make: Make, blocked: Blocked) -> Waiting:
    """So many go on at once and so many wait; any above are refused at once, with one line in the log."""
    checks = make(threads=2, waiting=3, name="these")
    told = [outcomes(checks.run(blocked, number)) for number in range(5)]
    yield until(lambda: len(blocked.begun) == 2)
    with heard() as lines:
        refused = [outcomes(checks.run(blocked, "refused")) for _ in range(4)]
    assert [type(problem) for (problem,) in refused] == [TooManyChecks] * 4
    assert all(isinstance(problem, UnauthorizedLogin) for (problem,) in refused)
    assert lines == [
        "these: not checked, so refused: as many checks wait as may (1 since the last such line)"
    ]
    assert sorted(map(str, blocked.begun)) == ["0", "1"]
    assert told == [[]] * 5
    blocked.gate.set()
    yield until(lambda: all(told))
    assert told == [[0], [1], [2], [3], [4]]
    assert len(names_of_threads("these")) == 2


def names_of_threads(name: str) -> list[str]:
    """The threads of the checks *name* that live."""
    return [thread.name for thread in threading.enumerate() if thread.name == f"socksproxy check of {name}"]


@pytest_twisted.inlineCallbacks
def test_no_more_threads_than_needed(make: Make) -> Waiting:
    """One check after the other takes one thread, and none before the first."""
    checks = make(threads=5, name="one")
    assert not names_of_threads("one")
    for number in range(5):
        assert (yield checks.run(abs, -number)) == number
    assert len(names_of_threads("one")) == 1


@pytest_twisted.inlineCallbacks
def test_deadline(make: Make, blocked: Blocked) -> Waiting:
    """Who hangs or waits for too long is refused; the thread is used again if it ever comes back."""
    clock = Clock()
    checks = make(ClockedReactor(clock), threads=1, deadline=5.0, name="slow")
    hanging = outcomes(checks.run(blocked, "hanging"))
    yield until(lambda: blocked.begun)
    clock.advance(3)
    waiting = outcomes(checks.run(blocked, "waiting"))
    with heard() as lines:
        clock.advance(1.9)
        assert hanging == []
        clock.advance(0.1)
        assert [type(problem) for problem in hanging] == [CheckTimedOut]
        assert waiting == []
        clock.advance(3)
    assert [type(problem) for problem in waiting] == [CheckTimedOut]
    assert lines == ["slow: not checked, so refused: not ended after 5 seconds (1 since the last such line)"]
    later = outcomes(checks.run(blocked, "later"))
    blocked.gate.set()
    yield until(lambda: later)
    assert later == ["later"]
    assert blocked.begun == ["hanging", "later"]
    assert len(hanging) == len(waiting) == 1
    assert not clock.getDelayedCalls()


@pytest_twisted.inlineCallbacks
def test_hanging_threads_are_not_replaced(make: Make, blocked: Blocked) -> Waiting:
    """Behind checks that hang, as many wait as may, each until its deadline."""
    clock = Clock()
    checks = make(ClockedReactor(clock), threads=2, waiting=1, deadline=5.0, name="hung")
    for number in range(2):
        checks.run(blocked, number).addErrback(lambda _: None)
    yield until(lambda: len(blocked.begun) == 2)
    clock.advance(5)
    for _ in range(3):
        waiting = outcomes(checks.run(blocked, "never"))
        assert isinstance(outcomes(checks.run(blocked, "never"))[0], TooManyChecks)
        clock.advance(5)
        assert isinstance(waiting[0], CheckTimedOut)
    assert len(names_of_threads("hung")) == 2
    assert sorted(map(str, blocked.begun)) == ["0", "1"]


@pytest_twisted.inlineCallbacks
def test_cancelled(make: Make, blocked: Blocked) -> Waiting:
    """What a client that is gone has waited for is not begun, and its place is free at once."""
    checks = make(threads=1, waiting=1)
    running = checks.run(blocked, "running")
    results = outcomes(running)
    yield until(lambda: blocked.begun)
    waiting = checks.run(blocked, "waiting")
    gone = outcomes(waiting)
    waiting.cancel()
    assert [type(problem) for problem in gone] == [CancelledError]
    last = outcomes(checks.run(blocked, "last"))
    assert last == []
    running.cancel()
    assert [type(problem) for problem in results] == [CancelledError]
    blocked.gate.set()
    yield until(lambda: last)
    assert last == ["last"]
    assert blocked.begun == ["running", "last"]
    assert len(results) == len(gone) == 1


def raising(problem: BaseException) -> Callable[[str], Any]:
    """A check that raises *problem* and has a secret in its variables."""

    def check(secret: str) -> None:
        assert secret == SECRET
        raise problem

    return check


def everything(failure: Failure) -> str:
    """All that can be made to be seen of *failure*."""
    shown = [failure.getTraceback(detail=detail) for detail in ("brief", "default", "verbose")]
    value: BaseException | None = failure.value
    while value is not None:
        assert value.__traceback__ is None or value is failure.value
        value = value.__context__
    frame = failure.getTracebackObject()
    while frame is not None:
        shown.append(repr(frame.tb_frame.f_locals))
        frame = frame.tb_next
    return "\n".join([*shown, repr(failure), str(failure), repr(failure.value), str(failure.value)])


@pytest.mark.parametrize(
    ("problem", "kind", "lines"),
    [
        (UnauthorizedLogin("no such user"), UnauthorizedLogin, 0),
        (NotChecked("nobody there"), NotChecked, 1),
        (ValueError(f"cannot read {SECRET}"), CheckFailed, 1),
        (SystemExit(f"cannot read {SECRET}"), CheckFailed, 1),
        (UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, "as it is"), CheckFailed, 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
@pytest.mark.parametrize("debug", [False, True])
@pytest_twisted.inlineCallbacks
def test_no_secret_is_shown(
    make: Make, problem: BaseException, kind: type[BaseException], lines: int, debug: bool
) -> Waiting:
    """A check that fails shows neither its arguments nor what a library says of them, to nobody."""
    setDebugging(debug)
    failures: list[Failure] = []
    checks = make(threads=1)
    try:
        with heard() as logged:
            yield checks.run(raising(problem), SECRET).addErrback(failures.append)
    finally:
        setDebugging(False)
    assert type(failures[0].value) is kind
    assert SECRET not in everything(failures[0])
    assert len(logged) == lines
    assert SECRET not in "\n".join(logged)
    assert (yield checks.run(abs, -1)) == 1  # the thread lives


@pytest_twisted.inlineCallbacks
def test_failure_says_where(make: Make) -> Waiting:
    """The line in the log is enough to find the fault."""
    with heard() as lines:
        yield make(name="mine").run(raising(KeyError(SECRET)), SECRET).addErrback(lambda _: None)
    assert "mine: not checked, so refused: KeyError in check (test_threads.py, line " in lines[0]


@pytest_twisted.inlineCallbacks
def test_stop(make: Make, blocked: Blocked) -> Waiting:
    """Who waits is told; threads end as soon as they can; nothing begins any more."""
    checks = make(threads=1, name="stopped")
    told = [outcomes(checks.run(blocked, number)) for number in range(2)]
    yield until(lambda: blocked.begun)
    checks.stop()
    checks.stop()
    assert [type(problem) for (problem,) in told] == [NotChecked] * 2
    assert isinstance(outcomes(checks.run(blocked))[0], NotChecked)
    blocked.gate.set()
    yield until(lambda: not names_of_threads("stopped"))
    assert blocked.begun == [0]


@pytest_twisted.inlineCallbacks
def test_without_threads(make: Make, monkeypatch: pytest.MonkeyPatch) -> Waiting:
    """A system that has no thread left refuses, and later serves."""

    def no_thread(_: object) -> Any:
        raise RuntimeError("can't start new thread")

    checks = make(threads=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert isinstance(outcomes(checks.run(abs, -1))[0], TooManyChecks)
    assert (yield checks.run(abs, -1)) == 1


def test_threads_for_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core is left for the reactor, where there is more than one."""
    for cores, threads in ((1, 1), (2, 1), (3, 2), (5, 4), (64, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert threads_for_hashing() == threads


@pytest_twisted.inlineCallbacks
def test_clients_take_turns(make: Make, blocked: Blocked) -> Waiting:
    """A client with a thousand checks delays another client by one; the flood makes room for itself."""
    checks = make(threads=1, waiting=100)
    checks.run(blocked, "first", share="192.0.2.7").addErrback(lambda _: None)
    yield until(lambda: blocked.begun)
    flood = [outcomes(checks.run(blocked, number, share="192.0.2.7")) for number in range(1000)]
    other = outcomes(checks.run(blocked, "other", share="192.0.2.8"))
    blocked.gate.set()
    yield until(lambda: other)
    assert other == ["other"]
    assert blocked.begun.index("other") <= 2
    assert sum(bool(told) and isinstance(told[0], TooManyChecks) for told in flood) == 901


@pytest_twisted.inlineCallbacks
def test_half_of_the_threads(blocked: Blocked) -> Waiting:
    """Checks of one client that hang leave threads to the others."""
    checks = CheckThreads.shared_fairly(reactor, name="halves", threads=4)
    try:
        for number in range(8):
            checks.run(blocked, number, share="192.0.2.7").addErrback(lambda _: None)
        yield until(lambda: len(blocked.begun) == 2)
        assert (yield checks.run(abs, -1, share="192.0.2.8")) == 1
        assert len(blocked.begun) == 2
    finally:
        blocked.gate.set()
        checks.stop()


_ENDS = """
import sys, time
from socksproxy.auth.checkers.threads import CheckThreads
checks = CheckThreads(threads=1)
assert "twisted.internet.reactor" not in sys.modules
from twisted.internet import reactor
def hang():
    reactor.callFromThread(reactor.stop)
    time.sleep(3600)
def ask():
    checks.run(hang).addErrback(lambda failure: print(failure.value, flush=True))
reactor.callWhenRunning(ask)
reactor.run()
"""


def test_end_of_the_process() -> None:
    """The reactor's end is theirs; one that hangs does not hold it up, and the reactor not chosen early."""
    done = subprocess.run([sys.executable, "-c", _ENDS], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, "the checks have ended\n"), done.stderr


# Other checkers.


class Checker:
    """A checker that blocks."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, result: Callable[[], Any]) -> None:
        self.result = result
        self.threads: list[int] = []
        self.at_once = self.most = 0

    def requestAvatarId(self, credentials: Any) -> Any:
        self.threads.append(threading.get_ident())
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        threading.Event().wait(0.01)
        self.at_once -= 1
        return self.result()


def denied() -> Deferred[Any]:
    return fail(UnauthorizedLogin())


@pytest.mark.parametrize("result", [lambda: b"bob", lambda: succeed(b"bob")], ids=["plain", "deferred"])
@pytest_twisted.inlineCallbacks
def test_threaded(make: Make, result: Callable[[], Any]) -> Waiting:
    """Its checker is asked in a thread, and what it says is said."""
    checker = Checker(result)
    threaded = ThreadedChecker(checker, make())
    assert verifyObject(ICredentialsChecker, threaded)
    assert list(threaded.credentialInterfaces) == [IUsernamePassword]
    assert (yield threaded.requestAvatarId(Password(b"bob", b"secret"))) == b"bob"
    assert checker.threads
    assert threading.get_ident() not in checker.threads


@pytest_twisted.inlineCallbacks
def test_threaded_answer_comes_later(make: Make) -> Waiting:
    """A Deferred that its checker fires in the reactor's thread will do, too."""
    later: Deferred[bytes] = Deferred()
    checker = Checker(lambda: later)
    results = outcomes(ThreadedChecker(checker, make()).requestAvatarId(Password(b"bob", b"secret")))
    yield until(lambda: checker.threads)
    reactor.callLater(0, later.callback, b"bob")
    yield until(lambda: results)
    assert results == [b"bob"]


@pytest_twisted.inlineCallbacks
def test_threaded_one_at_a_time(make: Make) -> Waiting:
    """Checkers that know nothing of threads are never asked twice at once."""
    checker = Checker(denied)
    threaded = ThreadedChecker(checker, make(threads=4))
    told = [outcomes(threaded.requestAvatarId(Password(b"bob", b"x"))) for _ in range(8)]
    yield until(lambda: all(told))
    assert [type(problem) for (problem,) in told] == [UnauthorizedLogin] * 8
    assert checker.most == 1
    assert len(set(checker.threads)) > 1


@pytest_twisted.inlineCallbacks
def test_threaded_shows_no_secret(make: Make) -> Waiting:
    """What its checker fails with is not shown either."""
    threaded = ThreadedChecker(Checker(lambda: fail(ValueError(SECRET))), make())
    failures: list[Failure] = []
    with heard() as lines:
        yield threaded.requestAvatarId(Password(b"bob", SECRET.encode())).addErrback(failures.append)
    assert isinstance(failures[0].value, CheckFailed)
    assert SECRET not in everything(failures[0])
    assert len(lines) == 1
    assert SECRET not in lines[0]


def test_threaded_version(make: Make) -> None:
    """Whether it has changed is its checker's to say."""
    checker: Any = Checker(denied)
    threaded = ThreadedChecker(checker, make())
    assert versioned(threaded) == []
    checker.version = 7
    assert versioned(threaded) == [checker]


@pytest_twisted.inlineCallbacks
def test_twisteds_file(make: Make, tmp_path: Path) -> Waiting:
    """Twisted's own ``file:``, which reads a file for each question."""
    path = tmp_path / "passwords"
    path.write_bytes(b"bob:secret\n")
    threaded = ThreadedChecker(FilePasswordDB(str(path)), make())
    assert (yield threaded.requestAvatarId(Password(b"bob", b"secret"))) == b"bob"
    for name, password in ((b"bob", b"wrong"), (b"eve", b"secret")):
        with pytest.raises(UnauthorizedLogin):
            yield threaded.requestAvatarId(UsernamePassword(name, password))


@pytest_twisted.inlineCallbacks
def test_twisteds_unix(make: Make) -> Waiting:
    """Twisted's own ``unix`` fails for what is not UTF-8, and its exception holds the password."""
    from twisted.plugins.cred_unix import UNIXChecker

    failures: list[Failure] = []
    threaded = ThreadedChecker(UNIXChecker(), make())
    yield threaded.requestAvatarId(Password(b"\xff" + SECRET.encode(), b"x")).addErrback(failures.append)
    assert isinstance(failures[0].value, UnauthorizedLogin)
    assert SECRET not in everything(failures[0])


@pytest_twisted.inlineCallbacks
def test_nobody_has_them_any_more() -> Waiting:
    """Threads whose checks have been replaced end, and the reactor keeps nothing of them."""
    checks = CheckThreads(reactor, name="those before", threads=3)
    done = [checks.run(time.sleep, 0.05) for _ in range(3)]
    for each in done:
        yield each
    threads = [
        thread for thread in threading.enumerate() if thread.name == "socksproxy check of those before"
    ]
    assert len(threads) == 3
    gone = weakref.ref(checks)
    del checks, each, done
    # This is called by what they do last, and a thread may be about to let go.
    yield until(lambda: gc.collect() >= 0 and gone() is None)
    for thread in threads:
        yield deferToThread(thread.join, PATIENCE)
        assert not thread.is_alive()


@pytest_twisted.inlineCallbacks
def test_nobody_has_them_but_they_are_at_it() -> Waiting:
    """A check that is under way ends first."""
    begun, end = threading.Event(), threading.Event()

    def check() -> int:
        begun.set()
        assert end.wait(PATIENCE)
        return 5

    answer = CheckThreads(reactor, name="those at it", threads=1).run(check)
    yield deferToThread(begun.wait, PATIENCE)
    gc.collect()
    end.set()
    assert (yield answer) == 5
