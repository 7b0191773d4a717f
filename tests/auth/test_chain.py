"""Several checkers as one: see :mod:`socksproxy.auth.chain`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.cred.checkers import ANONYMOUS, AllowAnonymousAccess, ICredentialsChecker
from twisted.cred.credentials import IAnonymous, ICredentials, IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksproxy.auth.chain import Chain, chained
from socksproxy.auth.credentials import Anonymous, Password
from socksproxy.auth.users import ISOCKSUser, Realm
from socksproxy.errors import IdentMismatch, IdentUnreachable

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
    [chain] = chained(checkers)
    asking = chain.requestAvatarId(credentials)
    fired: list[Any] = []
    asking.addBoth(fired.append)
    return asking, fired


@pytest.fixture
def failures() -> Any:
    """What is logged as a failure of somebody's."""
    events: list[Any] = []

    def observe(event: Any) -> None:
        if event.get("log_namespace") == "socksproxy" and event["log_level"] is LogLevel.critical:
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


class TestChained:
    def test_one_of_each_kind(self) -> None:
        """In the order in which they were given, which is the portal's order of kinds too."""
        first = Checker(b"1", IUsernamePassword, IUsernameHashedPassword)
        anonymous = AllowAnonymousAccess()
        second = Checker(b"2", IUsernamePassword)
        chains = chained([anonymous, first, second])
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
        [chain] = chained([one, other, one])
        assert [checker is one for checker in chain.checkers] == [True, False]

    def test_none(self) -> None:
        assert chained([]) == []

    def test_portal(self) -> None:
        """What they are for."""
        portal = Portal(Realm(), chained([refusing(), Checker(b"b\xc3\xbcb"), AllowAnonymousAccess()]))
        assert set(portal.listCredentialsInterfaces()) == {IUsernamePassword, IAnonymous}
        names: list[Any] = []
        for credentials in (BOB, Anonymous()):
            portal.login(credentials, None, ISOCKSUser).addCallback(lambda found: names.append(found[1].name))
        assert names == ["büb", None]


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
        [chain] = chained([checker])
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
    @pytest.mark.parametrize("answer", [ZeroDivisionError("raised"), OSError("raised")])
    def test_counts_as_refusal(self, failures: list[Any], answer: Any) -> None:
        """One line, and the next is asked; the credentials are not in it."""
        assert ask(refusing(answer), Checker())[1] == [b"bob"]
        [event] = failures
        assert event["log_failure"].value is answer
        assert event["checker"] == "Checker"
        assert "secret-word" not in event["log_failure"].getTraceback()

    def test_by_deferred(self, failures: list[Any]) -> None:
        broken: Deferred[Any] = Deferred()
        fired = ask(Checker(broken))[1]
        broken.errback(ZeroDivisionError())
        assert type(fired[0].value) is UnauthorizedLogin
        assert len(failures) == 1

    def test_refusals_are_not_logged(self, failures: list[Any]) -> None:
        ask(refusing(), refusing(IdentMismatch("no")))
        assert not failures

    def test_an_end_of_the_program(self, failures: list[Any]) -> None:
        """That is not the checker's to decide, nor ours to keep from anybody."""
        last = Checker()
        assert ask(refusing(KeyboardInterrupt()), last)[1][0].type is KeyboardInterrupt
        assert not last.asked
        assert not failures


class TestCancelled:
    def test_passes_through(self) -> None:
        """The one that is asked is cancelled, and nobody is asked after it."""
        cancelled = []
        waiting: Deferred[Any] = Deferred(cancelled.append)
        last = Checker()
        asking, fired = ask(refusing(), Checker(waiting), last)
        asking.cancel()
        assert cancelled == [waiting]
        assert fired[0].check(CancelledError)
        assert not last.asked

    @pytest.mark.parametrize("outcome", [UnauthorizedLogin(), ZeroDivisionError()])
    def test_cancelled_with_another_error(self, failures: list[Any], outcome: Exception) -> None:
        last = Checker()
        asking, fired = ask(Checker(Deferred(lambda waiting: waiting.errback(outcome))), last)
        asking.cancel()
        assert fired[0].check(CancelledError)
        assert not last.asked
        assert not failures

    def test_cancelled_in_vain(self) -> None:
        """One that grants all the same is not heard."""
        asking, fired = ask(Checker(Deferred(lambda waiting: waiting.callback(b"bob"))))
        asking.cancel()
        assert fired[0].check(CancelledError)


class TestVersion:
    def test_sum(self) -> None:
        """It grows with each of theirs; one without is always the same."""
        first, second = Versioned(), Versioned()
        [chain] = chained([first, Checker(), second])
        assert chain.version == 2
        second.version = 5
        assert chain.version == 6

    def test_none(self) -> None:
        assert Chain(ICredentials, [Checker()]).version == 0
