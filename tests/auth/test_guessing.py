"""Clients who guess, and users with the right password meanwhile: gate, cache and real threads together."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from socksproxy.auth.authentication import Authentication
from socksproxy.auth.cache import Remembering
from socksproxy.auth.chain import portal_of
from socksproxy.auth.checkers.threads import CheckThreads, CheckTimedOut, ThreadedChecker
from socksproxy.auth.credentials import Password
from socksproxy.auth.gate import Gate
from socksproxy.auth.penalties import Penalties, TooManyFailures
from socksproxy.auth.users import Realm
from socksproxy.identity import Client
from socksproxy.values.auth import AuthSettings

from ..support.proxy import ClockedReactor, reactor, until

pytest.importorskip("passlib")
htpasswd = pytest.importorskip("socksproxy.auth.checkers.htpasswd")

Waiting = Generator[Any, Any, None]
GUESSER, USER = Client("192.0.2.7", 1), Client("192.0.2.8", 1)


class Setting:
    """Users of a file, in one thread."""

    def __init__(self, path: Path, failures: int | None) -> None:
        path.write_bytes(
            b"".join(b"u%d:%s\n" % (number, htpasswd.new_hash(b"right", 4)) for number in range(10))
        )
        path.chmod(0o600)
        self.failures = failures
        self.checks = CheckThreads(reactor, name="guesses", threads=1)
        self.penalties = Penalties(reactor, failures)
        self.cache = Remembering(htpasswd.HtpasswdChecker(str(path), self.checks), reactor)
        self.gate = Gate(Portal(Realm(), [self.cache]), reactor, 60.0, self.penalties)

    def log_in(self, client: Client, name: str, password: str) -> Deferred[Any]:
        """The name of the user who is logged in, or the exception."""
        try:
            answer = self.gate.log_in(client, "password", Password(name.encode(), password.encode()))
        except UnauthorizedLogin as problem:
            answer = Deferred(lambda _: None)
            answer.errback(problem)
        if not isinstance(answer, Deferred):
            granted, answer = answer, Deferred()
            answer.callback(granted)
        return answer.addCallbacks(lambda granted: granted[0].name, _problem)


def _problem(failure: Failure) -> BaseException:
    problem: Any = failure.value
    assert isinstance(problem, BaseException)
    return problem


@pytest.fixture(params=[10, None], ids=["counted", "not counted"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setting]:
    """With and without a bound for wrong passwords."""
    made = Setting(tmp_path / "users", request.param)
    yield made
    made.checks.stop()


@pytest.mark.slow
@pytest_twisted.inlineCallbacks
def test_full_queue(setting: Setting) -> Waiting:
    """However many guesses of one address wait, each user is let in, after one of them."""
    told: list[Any] = []
    for number in range(500):
        setting.log_in(GUESSER, f"u{number % 10}", f"guess {number}").addCallback(told.append)
    logins = [setting.log_in(USER, f"u{number}", "right") for number in range(10)]
    for number, login in enumerate(logins):
        assert (yield login) == f"u{number}"
    # The first has begun before they came, and then they took turns.
    assert sum(not isinstance(problem, TooManyFailures) for problem in told) < 30
    yield until(lambda: len(told) == 500)
    assert all(isinstance(problem, UnauthorizedLogin) for problem in told)


@pytest_twisted.inlineCallbacks
def test_guesses_that_are_not_waited_for(setting: Setting) -> Waiting:
    """Nothing is left of them in the queue, and they count."""
    for number in range(500):
        guess = setting.log_in(GUESSER, f"u{number % 10}", f"guess {number}")
        guess.addErrback(lambda failure: failure.trap(CancelledError) and None)
        guess.cancel()
    for number in range(10):
        assert (yield setting.log_in(USER, f"u{number}", "right")) == f"u{number}"
    assert setting.penalties.refuses(GUESSER.host, b"u1") is (setting.failures is not None)


@pytest_twisted.inlineCallbacks
def test_remembered(setting: Setting) -> Waiting:
    """A user whose password is remembered is let in at once, whatever others guess, here and elsewhere."""
    assert (yield setting.log_in(USER, "u1", "right")) == "u1"
    for number in range(20):
        for guesser, name in ((GUESSER, "u1"), (USER, "u2"), (USER, "u1")):
            assert isinstance((yield setting.log_in(guesser, name, f"guess {number}")), UnauthorizedLogin)
        for client in (USER, GUESSER):
            answer = setting.gate.log_in(client, "password", Password(b"u1", b"right"))
            assert not isinstance(answer, Deferred)


@pytest_twisted.inlineCallbacks
def test_old_password(setting: Setting) -> Waiting:
    """One that is repeated is computed once, and shuts out nobody."""
    computed: list[object] = []
    check = setting.cache.checker._check

    def counting(credentials: Any) -> Any:
        computed.append(credentials)
        return check(credentials)

    setting.cache.checker._check = counting
    together = [setting.log_in(USER, "u1", "old") for _ in range(50)]
    for one in together:
        assert isinstance((yield one), UnauthorizedLogin)
    for _ in range(20):
        assert isinstance((yield setting.log_in(USER, "u1", "old")), UnauthorizedLogin)
    assert len(computed) == 1
    assert (yield setting.log_in(USER, "u2", "right")) == "u2"


@pytest_twisted.inlineCallbacks
def test_guesses_of_a_refused_address_are_not_computed(tmp_path: Path) -> Waiting:
    """As soon as an address is refused, its checks leave the queue."""
    setting = Setting(tmp_path / "users", 10)
    computed: list[object] = []
    check = setting.cache.checker._check

    def counting(credentials: Any) -> Any:
        computed.append(credentials)
        return check(credentials)

    setting.cache.checker._check = counting
    told: list[Any] = []
    for number in range(500):
        setting.log_in(GUESSER, f"u{number % 10}", f"guess {number}").addCallback(told.append)
    yield until(lambda: len(told) == 500)
    assert len(computed) < 20
    assert sum(isinstance(problem, TooManyFailures) for problem in told) == 490
    setting.checks.stop()


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize(("timeout", "given", "seconds"), [(8, None, 7), (80, None, 70), (80, 5, 5)])
@pytest_twisted.inlineCallbacks
def test_the_queue_waits_as_long_as_it_may(
    tmp_path: Path, timeout: float, given: float | None, seconds: float, other: bool
) -> Waiting:
    """What a checker has of the time for authentication is for its queue, too."""
    path = tmp_path / "users"
    path.write_bytes(b"bob:%s\n" % htpasswd.new_hash(b"right", 4))
    path.chmod(0o600)
    clock = Clock()
    checks = CheckThreads(ClockedReactor(clock), name="guesses", threads=1, deadline=given)
    checker: Any = htpasswd.HtpasswdChecker(str(path), checks)
    if other:
        checker = ThreadedChecker(InMemoryUsernamePasswordDatabaseDontUse(), checks)
    portal = portal_of([checker], clock)
    Authentication(portal, (), AuthSettings(timeout=timeout), clock)
    end = threading.Event()
    checks.run(end.wait).addErrback(lambda _: None)
    told: list[Any] = []
    asked: Any = portal.checkers[IUsernamePassword].requestAvatarId(Password(b"bob", b"right"))
    asked.addBoth(lambda outcome: told.append(outcome))
    clock.advance(seconds - 0.1)
    assert told == []
    clock.advance(0.2)
    assert told[0].check(CheckTimedOut)
    end.set()
    yield until(lambda: True)
    checks.stop()
