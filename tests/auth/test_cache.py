"""Passwords that were right a moment ago: see :mod:`socksproxy.auth.cache`."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType
from typing import Any

import pytest
from hypothesis import given, strategies
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksproxy.auth.cache import SHARE, WRONG, Remembering
from socksproxy.auth.chain import Chain
from socksproxy.auth.checkers.threads import CheckThreads, ThreadedChecker, TooManyChecks
from socksproxy.auth.credentials import Password
from socksproxy.auth.known import Recall, tells_changes
from socksproxy.errors import NotAuthenticated

BOB = Password(b"bob", b"sesame")
NOT_BOB = Password(b"bob", b"open")
ALICE = Password(b"alice", b"sesame")


class Checker:
    """Answers at once, or by Deferreds that the test fires; counts what it is asked."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, *, slow: bool = False) -> None:
        self.version = 0
        self.slow = slow
        self.right = {(b"bob", b"sesame"), (b"alice", b"sesame")}
        self.asked: list[tuple[bytes, bytes]] = []
        self.open: list[Deferred[bytes]] = []
        self.cancelled = 0

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        pair = credentials.username, credentials.password
        self.asked.append(pair)
        if self.slow:
            self.open.append(Deferred(self._cancel))
            return self.open[-1]
        return succeed(pair[0]) if pair in self.right else fail(UnauthorizedLogin())

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


class Setting:
    def __init__(self, *, slow: bool = False, **more: Any) -> None:
        self.clock = Clock()
        self.checker = Checker(slow=slow)
        self.cache = Remembering(self.checker, self.clock, **more)

    def ask(self, credentials: Password) -> list[Any]:
        """What comes of it, once it has."""
        answer = self.cache.requestAvatarId(credentials)
        if not isinstance(answer, Deferred):
            return [answer]
        results: list[Any] = []
        answer.addBoth(results.append)
        return results

    def is_remembered(self, credentials: Password) -> bool:
        """Whether the answer is there at once, and no Deferred."""
        before = len(self.checker.asked)
        answer = self.cache.requestAvatarId(credentials)
        if not isinstance(answer, Deferred):
            assert answer == credentials.username
            assert len(self.checker.asked) == before
            return True
        answer.addErrback(lambda failure: failure.trap(UnauthorizedLogin, CancelledError) and None)
        answer.cancel()
        return False


def test_is_a_checker() -> None:
    assert verifyObject(ICredentialsChecker, Remembering(Checker(), Clock()))
    assert Remembering.credentialInterfaces == (IUsernamePassword,)


class TestRemembering:
    def test_right(self) -> None:
        setting = Setting()
        assert setting.ask(BOB) == [b"bob"]
        assert setting.is_remembered(BOB)
        assert setting.checker.asked == [(b"bob", b"sesame")]

    def test_wrong(self) -> None:
        """A wrong password that is repeated is not checked again for a while."""
        setting = Setting()
        for _ in range(3):
            (failure,) = setting.ask(NOT_BOB)
            assert failure.check(UnauthorizedLogin)
            assert len(setting.checker.asked) == 1
        setting.clock.advance(WRONG)
        setting.ask(NOT_BOB)
        assert len(setting.checker.asked) == 2
        assert setting.cache.remembered == 0

    def test_wrong_takes_as_long(self) -> None:
        """The answer to a repeated wrong password comes when that of a check would have come."""
        setting = Setting(slow=True)
        setting.ask(NOT_BOB)
        setting.clock.advance(0.25)
        setting.checker.open[0].errback(UnauthorizedLogin())
        again = setting.ask(NOT_BOB)
        gone = setting.cache.requestAvatarId(NOT_BOB)
        gone.addErrback(lambda failure: failure.trap(CancelledError) and None)
        gone.cancel()
        setting.clock.advance(0.24)
        assert again == []
        setting.clock.advance(0.02)
        assert again[0].check(UnauthorizedLogin)
        assert len(setting.checker.asked) == 1
        assert not setting.clock.getDelayedCalls()

    @pytest.mark.parametrize(
        "problem", [TooManyChecks(), NotAuthenticated("the account has expired"), ZeroDivisionError()]
    )
    def test_wrong_is_what_was_checked(self, problem: Exception) -> None:
        """Whatever says nothing of the password, or has another reason, is asked about again."""
        setting = Setting(slow=True)
        for count in (1, 2):
            setting.ask(NOT_BOB)
            assert len(setting.checker.open) == count
            setting.checker.open[-1].errback(problem)

    def test_wrong_of_an_old_version(self) -> None:
        """What was wrong in the file as it was may be right in the file as it is."""
        setting = Setting()
        setting.ask(NOT_BOB)
        setting.checker.right.add((b"bob", b"open"))
        setting.checker.version += 1
        assert setting.ask(NOT_BOB) == [b"bob"]
        assert setting.is_remembered(NOT_BOB)

    def test_wrong_without_a_version(self) -> None:
        """Where the checker does not tell changes, such as PAM, a wrong password may be right at any time."""
        setting = Setting()
        del setting.checker.version
        setting.ask(NOT_BOB)
        setting.checker.right.add((b"bob", b"open"))
        assert setting.ask(NOT_BOB) == [b"bob"]
        chain = Chain(IUsernamePassword, [Checker(), setting.checker], setting.clock)  # type: ignore[list-item]
        assert not tells_changes(chain)
        assert tells_changes(Chain(IUsernamePassword, [Checker()], setting.clock))  # type: ignore[list-item]
        assert not tells_changes(ThreadedChecker(setting.checker, CheckThreads(name="none")))

    def test_wrong_ones_are_bounded(self) -> None:
        """The oldest wrong password makes room."""
        setting = Setting(most=2)
        guesses = [Password(b"bob", b"%d" % number) for number in range(3)]
        for guess in (*guesses, guesses[2]):
            setting.ask(guess)
        assert len(setting.checker.asked) == 3
        setting.ask(guesses[0])
        assert len(setting.checker.asked) == 4

    def test_raises(self) -> None:
        """A checker that does not give a Deferred is a checker, too."""

        class Raising(Checker):
            def requestAvatarId(self, credentials: Any) -> Any:
                raise UnauthorizedLogin

        (failure,) = results_of(Remembering(Raising(), Clock()).requestAvatarId(BOB))
        assert failure.check(UnauthorizedLogin)

    def test_who_the_checker_says(self) -> None:
        """What is remembered is the checker's word, not the client's."""

        class Folding(Checker):
            def requestAvatarId(self, credentials: Any) -> Any:
                return credentials.username.upper()

        cache = Remembering(Folding(), Clock())
        assert results_of(cache.requestAvatarId(BOB)) == [b"BOB"]
        assert cache.requestAvatarId(BOB) == b"BOB"

    def test_another_password(self) -> None:
        setting = Setting()
        setting.ask(BOB)
        (failure,) = setting.ask(NOT_BOB)
        assert failure.check(UnauthorizedLogin)

    def test_time(self) -> None:
        setting = Setting(seconds=60)
        setting.ask(BOB)
        setting.clock.advance(59.9)
        assert setting.is_remembered(BOB)
        setting.clock.advance(0.2)
        assert not setting.is_remembered(BOB)

    def test_time_from_the_beginning(self) -> None:
        """What a slow checker says was true when it began, and is not kept longer for its slowness."""
        setting = Setting(slow=True, seconds=60)
        setting.ask(BOB)
        setting.clock.advance(50)
        setting.checker.open[0].callback(b"bob")
        assert setting.is_remembered(BOB)
        setting.clock.advance(11)
        assert not setting.is_remembered(BOB)

    def test_off(self) -> None:
        setting = Setting(seconds=0)
        assert setting.ask(BOB) == [b"bob"]
        assert not setting.is_remembered(BOB)
        assert setting.cache.remembered == 0

    def test_version(self) -> None:
        """The file has changed: everything is asked about anew."""
        setting = Setting()
        setting.ask(BOB)
        setting.checker.version += 1
        assert not setting.is_remembered(BOB)
        setting.ask(BOB)
        assert setting.is_remembered(BOB)

    def test_version_while_checked(self) -> None:
        """What was right in the file as it was before says nothing of the file as it is."""
        setting = Setting(slow=True)
        setting.ask(BOB)
        setting.checker.version += 1
        setting.checker.open[0].callback(b"bob")
        assert not setting.is_remembered(BOB)

    def test_without_a_version(self) -> None:
        setting = Setting()
        del setting.checker.version
        setting.ask(BOB)
        assert setting.is_remembered(BOB)

    def test_others_guess(self) -> None:
        """Wrong passwords that others show as a user do not make us forget the right one."""
        setting = Setting()
        setting.ask(BOB)
        for number in range(100):
            (failure,) = setting.ask(Password(b"bob", b"guess %d" % number))
            assert failure.check(UnauthorizedLogin)
            assert setting.is_remembered(BOB)

    def test_recall(self) -> None:
        """What is remembered can be asked for without a check; another password is news once."""
        setting = Setting()
        assert setting.cache.recall(BOB) is Recall.NOTHING
        setting.ask(BOB)
        setting.ask(Password(b"alice", b"wrong"))
        asked = len(setting.checker.asked)
        assert setting.cache.recall(BOB) is Recall.RIGHT
        assert setting.cache.recall(NOT_BOB) is Recall.OTHER
        assert setting.cache.recall(NOT_BOB) is Recall.WRONG
        assert setting.cache.recall(Password(b"alice", b"wrong")) is Recall.WRONG
        assert setting.cache.recall(ALICE) is Recall.NOTHING
        assert len(setting.checker.asked) == asked
        setting.clock.advance(60)
        assert setting.cache.recall(BOB) is Recall.NOTHING

    def test_what_was_not_checked_is_not_wrong(self) -> None:
        """A new password that was only compared with the old one is checked when it comes to that."""
        setting = Setting()
        setting.ask(BOB)
        setting.checker.right = {(b"bob", b"open")}
        assert setting.cache.recall(NOT_BOB) is Recall.OTHER
        assert setting.ask(NOT_BOB) == [b"bob"]
        assert setting.cache.recall(NOT_BOB) is Recall.RIGHT

    def test_a_fault_is_no_failure(self) -> None:
        """That the checker is broken for a moment says nothing about what it said before."""
        setting = Setting(slow=True)
        setting.ask(BOB)
        setting.checker.open[0].callback(b"bob")
        for problem in (ZeroDivisionError(), TooManyChecks()):
            setting.ask(NOT_BOB)
            setting.checker.open.pop().errback(problem)
            assert setting.is_remembered(BOB)

    def test_the_last_right_one(self) -> None:
        """A new password is the end of the old one, though the checker does not say when that was."""
        setting = Setting()
        setting.ask(BOB)
        setting.checker.right = {(b"bob", b"open")}
        assert setting.ask(NOT_BOB) == [b"bob"]
        assert setting.is_remembered(NOT_BOB)
        assert not setting.is_remembered(BOB)

    def test_bound(self) -> None:
        """The one that was remembered longest goes."""
        setting = Setting(most=2)
        setting.checker.right.add((b"carol", b"x"))
        setting.ask(BOB)
        setting.clock.advance(1)
        setting.ask(ALICE)
        setting.ask(Password(b"carol", b"x"))
        assert setting.cache.remembered == 2
        assert setting.is_remembered(ALICE)
        assert not setting.is_remembered(BOB)

    def test_bound_is_of_users(self) -> None:
        """Another password of one who is remembered takes nobody else's place."""
        setting = Setting(most=2)
        other = Password(b"alice", b"open")
        setting.checker.right.add((b"alice", b"open"))
        for credentials in (BOB, ALICE, other):
            setting.ask(credentials)
        assert setting.is_remembered(BOB)
        assert setting.is_remembered(other)

    @given(strategies.lists(strategies.binary(min_size=1, max_size=3), min_size=4, max_size=4))
    def test_fields_are_apart(self, fields: list[bytes]) -> None:
        """What is right for one name and password is so for that name and that password alone."""
        first, second = Password(*fields[:2]), Password(*fields[2:])
        setting = Setting()
        setting.checker.right = {(first.username, first.password)}
        setting.ask(first)
        assert setting.is_remembered(second) == (fields[:2] == fields[2:])

    def test_border_between_fields(self) -> None:
        setting = Setting()
        setting.checker.right = {(b"ab", b"c")}
        setting.ask(Password(b"ab", b"c"))
        for other in (Password(b"a", b"bc"), Password(b"ab", b"cc"), Password(b"abc", b"c")):
            assert not setting.is_remembered(other)

    def test_key(self) -> None:
        """It is asked for, of a length that cannot be guessed, once."""
        asked = []

        def random(length: int) -> bytes:
            asked.append(length)
            return bytes(length)

        setting = Setting(random=random)
        setting.ask(BOB)
        setting.ask(ALICE)
        assert asked == [32]


class TestSharing:
    def test_one_check(self) -> None:
        """Fifty connections of a browser are one hash."""
        setting = Setting(slow=True)
        results = [setting.ask(BOB) for _ in range(50)]
        assert len(setting.checker.asked) == 1
        setting.checker.open[0].callback(b"bob")
        assert results == [[b"bob"]] * 50

    def test_a_wrong_one(self) -> None:
        setting = Setting(slow=True)
        results = [setting.ask(NOT_BOB) for _ in range(3)]
        setting.checker.open[0].errback(UnauthorizedLogin("no"))
        for (failure,) in results:
            assert failure.check(UnauthorizedLogin)
        assert len(setting.checker.asked) == 1

    def test_others_are_others(self) -> None:
        setting = Setting(slow=True)
        credentials = BOB, NOT_BOB, ALICE, Password(b"bo", b"bsesame"), Password(b"bobs", b"esame")
        for one in credentials:
            setting.ask(one)
        assert len(setting.checker.asked) == len(credentials)

    def test_not_of_an_old_version(self) -> None:
        """Who asks after the change gets no answer from before it."""
        setting = Setting(slow=True)
        before = setting.ask(BOB)
        setting.checker.version += 1
        after = setting.ask(BOB)
        old, new = setting.checker.open
        old.callback(b"bob")
        assert (before, after) == ([b"bob"], [])
        third = setting.ask(BOB)
        assert len(setting.checker.asked) == 2
        new.errback(UnauthorizedLogin())
        assert after[0].check(UnauthorizedLogin)
        assert third[0].check(UnauthorizedLogin)

    def test_not_what_hangs(self) -> None:
        """One lost answer is not everybody's who comes later."""
        setting = Setting(slow=True)
        setting.ask(BOB)
        setting.clock.advance(SHARE + 0.1)
        later = setting.ask(BOB)
        assert len(setting.checker.asked) == 2
        setting.checker.open[1].callback(b"bob")
        assert later == [b"bob"]

    def test_one_goes(self) -> None:
        """Who does not wait any more takes the answer from nobody else."""
        setting = Setting(slow=True)
        gone = setting.cache.requestAvatarId(BOB)
        stays = setting.ask(BOB)
        ended = results_of(gone)
        gone.cancel()
        assert ended[0].check(CancelledError)
        assert setting.checker.cancelled == 0
        setting.checker.open[0].callback(b"bob")
        assert stays == [b"bob"]

    def test_all_go(self) -> None:
        setting = Setting(slow=True)
        waiting = [setting.cache.requestAvatarId(BOB) for _ in range(2)]
        for one in waiting:
            one.addErrback(lambda failure: failure.trap(CancelledError) and None)
            one.cancel()
        assert setting.checker.cancelled == 1
        # The next one begins anew.
        setting.ask(BOB)
        assert len(setting.checker.asked) == 2

    def test_goes_again_and_again(self) -> None:
        """A client that repeats one password and never waits has it checked to the end the second time."""
        setting = Setting(slow=True)
        for _ in range(20):
            waiting = setting.cache.requestAvatarId(NOT_BOB)
            waiting.addErrback(lambda failure: failure.trap(CancelledError) and None)
            waiting.cancel()
        assert len(setting.checker.asked) == 2
        assert setting.checker.cancelled == 1
        setting.checker.open[1].errback(UnauthorizedLogin())
        assert setting.ask(NOT_BOB)[0].check(UnauthorizedLogin)
        assert len(setting.checker.asked) == 2

    def test_cannot_be_cancelled(self) -> None:
        """A checker's canceller that fails is nobody's trouble."""

        class Stubborn(Checker):
            def _cancel(self, _: object) -> None:
                raise ZeroDivisionError

        checker = Stubborn(slow=True)
        cache = Remembering(checker, Clock())
        waiting = cache.requestAvatarId(BOB)
        ended = results_of(waiting)
        waiting.cancel()
        assert ended[0].check(CancelledError)
        cache.requestAvatarId(BOB)
        assert len(checker.asked) == 2

    def test_one_cancels_the_next(self) -> None:
        """What one does with the answer may be that another does not want it any more."""
        setting = Setting(slow=True)
        first, second = (setting.cache.requestAvatarId(BOB) for _ in range(2))
        third = setting.ask(BOB)
        first.addCallback(lambda _: second.cancel())
        ended = results_of(second)
        setting.checker.open[0].callback(b"bob")
        assert ended[0].check(CancelledError)
        assert third == [b"bob"]


class TestSecrets:
    @pytest.mark.parametrize("password", [b"sesame-7391", b"wrong-7391"])
    def test_kept_no_longer_than_the_check(self, password: bytes) -> None:
        """Nothing that can be reached from the cache is a password, and what failed keeps no frames of it."""
        setting = Setting(slow=True)
        results = setting.ask(Password(b"bob", bytes(bytearray(password))))
        setting.checker.asked.clear()
        answer = setting.checker.open.pop()
        assert not holds(setting.cache, password)
        if password.startswith(b"sesame"):
            answer.callback(b"bob")
        else:
            answer.errback(UnauthorizedLogin())
        assert len(results) == 1
        assert not holds(setting.cache, password)
        assert not holds(results, password)
        assert password.decode() not in repr(setting.cache)


def holds(root: object, secret: bytes) -> bool:
    """Whether *secret* can be reached from *root*."""
    seen: set[int] = set()
    todo: list[Any] = [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, (type, ModuleType)):
            continue
        seen.add(id(thing))
        if isinstance(thing, FunctionType):
            todo.append(thing.__closure__)  # and not the module, which is this one
            continue
        if isinstance(thing, (bytes, bytearray)) and secret in thing:
            return True
        if isinstance(thing, Failure):
            todo.append(vars(thing))
        todo.extend(gc.get_referents(thing))
    return False


def results_of(answer: Deferred[Any]) -> list[Any]:
    """What *answer* has fired with, if it has."""
    results: list[Any] = []
    answer.addBoth(results.append)
    return results
