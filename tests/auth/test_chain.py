"""Several checkers as one: see :mod:`socksproxy.auth.chain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.cred.checkers import ANONYMOUS, AllowAnonymousAccess, ICredentialsChecker
from twisted.cred.credentials import IAnonymous, ICredentials, IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksproxy.auth.chain import Chain, chained
from socksproxy.auth.checkers.threads import NotChecked
from socksproxy.auth.credentials import Anonymous, Password
from socksproxy.auth.known import methods_of, versioned
from socksproxy.auth.users import Realm
from socksproxy.errors import IdentMismatch, IdentUnreachable
from socksproxy.identity import ISOCKSUser
from socksproxy.logs.throttle import EVERY
from tests.support.logs import log_publisher

BOB = Password(b"bob", b"secret-word")


@implementer(ICredentialsChecker)
class Checker:
    """Answers as the test says: an avatar id, an exception that it raises, or a Deferred."""

    def __init__(self, answer: Any = b"bob", *interfaces: Any) -> None:
        self.credentialInterfaces = interfaces or (IUsernamePassword,)
        self.answer = answer
        self.asked: list[Any] = []

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append(credentials)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class Versioned(Checker):
    version = 1


def refusing(problem: BaseException | None = None) -> Checker:
    return Checker(problem or UnauthorizedLogin())


def ask(*checkers: Any, credentials: Any = BOB) -> tuple[Deferred[Any], list[Any]]:
    """The Deferred of a chain of *checkers*, and what it has fired with."""
    [chain] = chained(checkers, Clock())
    asking = chain.requestAvatarId(credentials)
    fired: list[Any] = []
    asking.addBoth(fired.append)
    return asking, fired


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """What is logged."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        if event.get("log_namespace") == "socksproxy":
            assert event["log_level"] is LogLevel.error
            lines.append(formatEvent(event))

    log_publisher.addObserver(observe)
    yield lines
    log_publisher.removeObserver(observe)


class TestChained:
    def test_one_of_each_kind(self) -> None:
        """In the order in which they were given, which is the portal's order of kinds too."""
        first = Checker(b"1", IUsernamePassword, IUsernameHashedPassword)
        anonymous = AllowAnonymousAccess()
        second = Checker(b"2", IUsernamePassword)
        chains = chained([anonymous, first, second], Clock())
        assert [(chain.credentialInterfaces, chain.checkers) for chain in chains] == [
            ((IAnonymous,), (anonymous,)),
            ((IUsernamePassword,), (first, second)),
            ((IUsernameHashedPassword,), (first,)),
        ]
        assert all(verifyObject(ICredentialsChecker, chain) for chain in chains)

    def test_the_same_again(self) -> None:
        """It is asked once; one that is only equal is another one."""

        class Alike(Checker):
            def __eq__(self, other: object) -> bool:
                return True

            __hash__ = None  # type: ignore[assignment]

        one, other = Alike(), Alike()
        [chain] = chained([one, other, one], Clock())
        assert [checker is one for checker in chain.checkers] == [True, False]

    def test_none(self) -> None:
        assert chained([], Clock()) == []

    def test_portal(self) -> None:
        """What they are for."""
        portal = Portal(
            Realm(), chained([refusing(), Checker(b"b\xc3\xbcb"), AllowAnonymousAccess()], Clock())
        )
        assert set(portal.listCredentialsInterfaces()) == {IUsernamePassword, IAnonymous}
        names: list[Any] = []
        for credentials in (BOB, Anonymous()):
            login: Deferred[Any] = portal.login(credentials, None, ISOCKSUser)
            login.addCallback(lambda found: names.append(found[1].name))
        assert names == ["büb", None]

    def test_methods(self) -> None:
        """What the checkers bring along, in their order."""

        class Bringing(Checker):
            def methods(self) -> list[Any]:
                return [self.answer]

        [chain] = chained([Bringing(1), Checker(), Bringing(2)], Clock())
        numbers: Any = methods_of(chain)
        assert numbers == [1, 2]


class TestOrder:
    def test_the_first_who_grants(self) -> None:
        checkers = refusing(), Checker(b"second"), Checker(b"third")
        assert ask(*checkers)[1] == [b"second"]
        assert [checker.asked for checker in checkers] == [[BOB], [BOB], []]

    @pytest.mark.parametrize("avatar_id", [ANONYMOUS, b"", "text"])
    def test_whatever_the_avatar_is(self, avatar_id: Any) -> None:
        """``ANONYMOUS`` is as false as nothing."""
        last = Checker()
        assert ask(Checker(avatar_id), last)[1] == [avatar_id]
        assert not last.asked

    def test_deferreds(self) -> None:
        """The next is asked when the one before has refused, and no sooner."""
        first: Deferred[Any] = Deferred()
        second: Deferred[Any] = Deferred()
        checkers = Checker(first), Checker(second)
        fired = ask(*checkers)[1]
        assert not checkers[1].asked
        first.errback(UnauthorizedLogin())
        assert checkers[1].asked == [BOB]
        assert not fired
        second.callback(b"second")
        assert fired == [b"second"]

    def test_nothing_is_remembered(self) -> None:
        checker = Checker()
        [chain] = chained([checker], Clock())
        for _ in range(2):
            chain.requestAvatarId(BOB)
        assert checker.asked == [BOB, BOB]


class TestRefused:
    def test_by_all(self) -> None:
        """It is an error of cred's, so that whoever asks knows it."""
        [problem] = ask(refusing(), refusing())[1]
        assert type(problem.value) is UnauthorizedLogin

    def test_says_most(self) -> None:
        """The last one that says more than no."""
        first, second = IdentUnreachable("first"), IdentMismatch("second")
        for problems in (
            (first, second, UnauthorizedLogin("plain")),
            (UnauthorizedLogin("plain"), first, second),
            (first, UnauthorizedLogin("plain"), second, ZeroDivisionError()),
        ):
            assert ask(*map(refusing, problems))[1][0].value is second

    def test_last_plain(self) -> None:
        last = UnauthorizedLogin("last")
        assert ask(refusing(), refusing(last))[1][0].value is last


class TestBroken:
    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            (ZeroDivisionError("secret-word"), "ZeroDivisionError"),
            (OSError(2, "secret-word"), "FileNotFoundError: No such file or directory"),
        ],
    )
    def test_the_next_is_asked(self, faults: list[str], answer: Any, told: str) -> None:
        """One line, without what the exception says: that may be a secret."""
        assert ask(refusing(answer), Checker())[1] == [b"bob"]
        [fault] = faults
        assert fault.startswith(f"authentication goes on without Checker: {told}\n")
        assert "secret-word" not in fault

    def test_by_deferred(self, faults: list[str]) -> None:
        broken: Deferred[Any] = Deferred()
        fired = ask(Checker(broken), Checker())[1]
        broken.errback(ZeroDivisionError())
        assert fired == [b"bob"]
        assert len(faults) == 1

    @pytest.mark.parametrize("problems", [(ZeroDivisionError(), None), (None, ZeroDivisionError())])
    def test_one_refuses(self, faults: list[str], problems: Any) -> None:
        """That may be a wrong password: it is a refusal, and who guesses gains nothing."""
        assert type(ask(*map(refusing, problems))[1][0].value) is UnauthorizedLogin
        assert len(faults) == 1

    def test_none_refuses(self, faults: list[str]) -> None:
        """Then it is no refusal. The last failure is told by whoever gets it, and by nobody else."""
        last = OSError("last")
        assert ask(refusing(ZeroDivisionError()), refusing(last))[1][0].value is last
        assert [fault.partition("\n")[0] for fault in faults] == [
            "authentication goes on without Checker: ZeroDivisionError"
        ]

    @pytest.mark.parametrize("others", [(refusing, None), (None, refusing)])
    def test_not_checked(self, faults: list[str], others: Any) -> None:
        """A password that another one has found wrong was a guess, and must count as one."""
        wrong = UnauthorizedLogin("wrong")
        checkers = [refusing(NotChecked("busy")) if other is None else refusing(wrong) for other in others]
        assert ask(*checkers)[1][0].value is wrong
        assert not faults

    def test_not_checked_by_any(self, faults: list[str]) -> None:
        busy = NotChecked("busy")
        assert ask(refusing(NotChecked("busy, too")), refusing(busy))[1][0].value is busy
        assert not faults

    def test_often(self, faults: list[str]) -> None:
        """Where it comes from is told once in a while."""
        clock = Clock()
        [chain] = chained([refusing(ZeroDivisionError()), Checker()], clock)
        for seconds in (0, 0, EVERY):
            clock.advance(seconds)
            chain.requestAvatarId(BOB)
        assert [" raise self.answer" in fault for fault in faults] == [True, False, True]

    def test_refusals_are_not_told(self, faults: list[str]) -> None:
        ask(refusing(), refusing(IdentMismatch("no")))[1].clear()
        assert not faults

    def test_an_end_of_the_program(self, faults: list[str]) -> None:
        """That is not the checker's to decide, nor ours to keep from anybody."""
        last = Checker()
        assert ask(refusing(KeyboardInterrupt()), last)[1][0].type is KeyboardInterrupt
        assert not last.asked
        assert not faults


class TestCancelled:
    def test_passes_through(self) -> None:
        """The one that is asked is cancelled, and nobody is asked after it."""
        cancelled: list[Any] = []
        waiting: Deferred[Any] = Deferred(cancelled.append)
        last = Checker()
        asking, fired = ask(refusing(), Checker(waiting), last)
        asking.cancel()
        assert cancelled == [waiting]
        assert fired[0].check(CancelledError)
        assert not last.asked

    @pytest.mark.parametrize("outcome", [UnauthorizedLogin(), ZeroDivisionError()])
    def test_cancelled_with_another_error(self, faults: list[str], outcome: Exception) -> None:
        last = Checker()
        asking, fired = ask(Checker(Deferred(lambda waiting: waiting.errback(outcome))), last)
        asking.cancel()
        assert fired[0].check(CancelledError)
        assert not last.asked
        assert not faults

    def test_cancelled_in_vain(self) -> None:
        """One that grants all the same is not heard."""
        asking, fired = ask(Checker(Deferred(lambda waiting: waiting.callback(b"bob"))))
        asking.cancel()
        assert fired[0].check(CancelledError)


class TestVersion:
    def test_each(self) -> None:
        """The versions are those of the checkers that have one."""
        first, second = Versioned(), Versioned()
        [chain] = chained([first, Checker(), second], Clock())
        assert versioned(chain) == [first, second]

    def test_none(self) -> None:
        assert versioned(Chain(ICredentials, [Checker()], Clock())) == []
