"""The way through the portal: see :mod:`socksproxy.auth.gate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, strategies
from twisted.cred.checkers import ANONYMOUS, FilePasswordDB
from twisted.cred.credentials import IAnonymous, IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from socksproxy.auth.cache import Remembering
from socksproxy.auth.chain import Chain
from socksproxy.auth.checkers.threads import TooManyChecks
from socksproxy.auth.credentials import Anonymous, GSSAPIName, IGSSAPIName, IUserid, Password, Userid
from socksproxy.auth.gate import Gate
from socksproxy.auth.penalties import Penalties, TooManyFailures
from socksproxy.auth.users import Realm, User
from socksproxy.errors import NotAuthenticated, SOCKSError
from socksproxy.identity import Client, ISOCKSUser
from tests.support.logs import log_publisher

HERE = Client("192.0.2.7", 4711)
BOB = Password(b"bob", b"sesame")
WRONG = Password(b"bob", b"wrong-7391")
TIMEOUT = 8.0


def guess(number: int, name: bytes = b"bob") -> Password:
    """A wrong password, another one for each *number*."""
    return Password(name, b"wrong-7391-%d" % number)


class Checker:
    """Does as the test says; keeps what it is asked."""

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword, IAnonymous, IUserid, IGSSAPIName)

    def __init__(self) -> None:
        self.answer: Callable[[], Any] | None = None
        self.asked: list[Any] = []

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append(credentials)
        if self.answer is not None:
            return self.answer()
        if credentials.password == b"sesame":
            return succeed(credentials.username)
        return fail(UnauthorizedLogin("no: " + repr(credentials.password)))


@implementer(IRealm)
class Users:
    """A realm that counts; it gives what the test says."""

    def __init__(self) -> None:
        self.answer: Callable[[Any], Any] | None = None
        self.minds: list[Any] = []
        self.gone = 0

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
        self.minds.append(mind)
        triple = ISOCKSUser, User(avatarId.decode()), self.logout
        return triple if self.answer is None else self.answer(triple)

    def logout(self) -> None:
        self.gone += 1


class Setting:
    def __init__(self, failures: int | None = 10) -> None:
        self.clock = Clock()
        self.checker = Checker()
        self.realm = Users()
        self.penalties = Penalties(self.clock, failures)
        self.gate = Gate(Portal(self.realm, [self.checker]), self.clock, TIMEOUT, self.penalties)  # type: ignore[list-item]

    def log_in(self, credentials: Any = BOB, client: Client = HERE, method: str = "password") -> list[Any]:
        """What comes of it, once it has: what it gave, or the exception."""
        results: list[Any] = []
        try:
            answer = self.gate.log_in(client, method, credentials)
        except Exception as problem:
            return [problem]
        if not isinstance(answer, Deferred):
            return [answer]
        answer.addBoth(lambda result: results.append(result.value if isinstance(result, Failure) else result))
        return results


@pytest.fixture
def setting() -> Setting:
    return Setting()


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    """What is logged meanwhile."""
    events: list[LogEvent] = []
    log_publisher.addObserver(events.append)
    yield events
    log_publisher.removeObserver(events.append)


def lines(log: list[LogEvent]) -> list[str]:
    return [formatEvent(event) for event in log]


class TestGranted:
    def test_at_once(self, setting: Setting, log: list[LogEvent]) -> None:
        """What is known at once takes no Deferred."""
        ((user, logout),) = setting.log_in()
        assert user.name == "bob"
        assert logout == setting.realm.logout
        assert setting.realm.minds == [HERE]
        assert setting.realm.gone == 0
        assert log == []

    @pytest.mark.parametrize("who", ["checker", "realm"])
    def test_later(self, setting: Setting, log: list[LogEvent], who: str) -> None:
        waits: Deferred[Any] = Deferred()
        if who == "checker":
            setting.checker.answer = lambda: waits
            setting.realm.answer = None
            answer: Any = b"bob"
        else:
            triples: list[Any] = []
            setting.realm.answer = lambda triple: triples.append(triple) or waits
            answer = ISOCKSUser, User("bob"), setting.realm.logout
        results = setting.log_in()
        assert results == []
        waits.callback(answer)
        ((user, logout),) = results
        assert (user.name, logout) == ("bob", setting.realm.logout)
        setting.clock.advance(2 * TIMEOUT)
        assert len(results) == 1
        assert setting.realm.gone == 0
        assert log == []
        assert setting.clock.getDelayedCalls() == []

    def test_a_realm_of_ours(self) -> None:
        clock = Clock()
        checker = Checker()
        checker.answer = lambda: ANONYMOUS
        gate = Gate(Portal(Realm(), [checker]), clock, TIMEOUT, Penalties(clock))  # type: ignore[list-item]
        answer = gate.log_in(HERE, "none", Anonymous())
        assert not isinstance(answer, Deferred)
        assert answer[0].name is None

    def test_remembered(self) -> None:
        """With a cache in front of a slow checker, the second log-in is there at once."""
        clock = Clock()
        checker = Checker()
        waits: Deferred[bytes] = Deferred()
        checker.answer = lambda: waits
        gate = Gate(Portal(Realm(), [Remembering(checker, clock)]), clock, TIMEOUT, Penalties(clock))
        assert isinstance(gate.log_in(HERE, "password", BOB), Deferred)
        waits.callback(b"bob")
        shown = Password(b"bob", b"sesame")
        assert not isinstance(gate.log_in(HERE, "password", shown), Deferred)
        assert len(checker.asked) == 1
        assert shown.share is None  # what only a queue of checks needs is not looked up

    def test_remembered_and_refused_by_the_realm(self, setting: Setting) -> None:
        """A realm may refuse a user whose password is remembered."""
        setting.gate = Gate(
            Portal(setting.realm, [Remembering(setting.checker, setting.clock)]),
            setting.clock,
            TIMEOUT,
            setting.penalties,
        )
        setting.log_in(BOB)
        setting.realm.answer = lambda _: fail(UnauthorizedLogin())
        assert [type(one) for one in setting.log_in(BOB)] == [UnauthorizedLogin]


class TestRefused:
    def test_line(self, setting: Setting, log: list[LogEvent]) -> None:
        """One line, which others read: it does not change."""
        (problem,) = setting.log_in(WRONG)
        assert type(problem) is UnauthorizedLogin
        assert lines(log) == [
            'authentication failed: 192.0.2.7 port 4711, method password, user "bob": wrong'
        ]
        assert log[0]["log_namespace"] == "socksproxy"
        assert log[0]["log_level"] is LogLevel.info

    def test_later(self, setting: Setting, log: list[LogEvent]) -> None:
        waits: Deferred[bytes] = Deferred()
        setting.checker.answer = lambda: waits
        results = setting.log_in(WRONG)
        waits.errback(UnauthorizedLogin())
        assert type(results[0]) is UnauthorizedLogin
        setting.clock.advance(2 * TIMEOUT)
        assert len(lines(log)) == 1

    @pytest.mark.parametrize("answer", [None, (), (ISOCKSUser, None)])
    def test_nonsense_for_who_is_there(self, setting: Setting, answer: Any) -> None:
        """Nobody waits for ever for a realm that gives no avatar."""
        setting.realm.answer = lambda _: answer
        results: list[Any] = []
        setting.gate.renew(HERE, b"bob").addErrback(lambda failure: results.append(failure.type))
        assert results in ([TypeError], [ValueError])

    def test_local_users(self, setting: Setting) -> None:
        """On a Unix socket nobody is refused for what another local user has done."""
        guesser, other = Client(None, uid=1000), Client(None, uid=1001)
        for number in range(10):
            setting.log_in(guess(number), guesser)
        assert [type(one) for one in setting.log_in(BOB, guesser)] == [TooManyFailures]
        assert [type(one) for one in setting.log_in(BOB, other)] == [tuple]

    @pytest.mark.parametrize(
        ("client", "where"),
        [
            (Client("2001:db8::7", 1), "2001:db8::7 port 1"),
            (Client(None), "unix"),
        ],
    )
    def test_where(self, setting: Setting, log: list[LogEvent], client: Client, where: str) -> None:
        setting.log_in(WRONG, client)
        assert lines(log) == [f'authentication failed: {where}, method password, user "bob": wrong']

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            (b"b\xc3\xbcb", "büb"),
            (b"\xff", r"\udcff"),
            (b'a", "b', r"a\", \"b"),
            (b"a\\", r"a\\"),
            (b"a\r\nb\0\x1b[2J", r"a\r\nb\x00\x1b[2J"),
            ("a\u2028b\u202e".encode(), r"a\u2028b\u202e"),
        ],
    )
    def test_names(self, setting: Setting, log: list[LogEvent], name: bytes, shown: str) -> None:
        setting.log_in(Password(name, b"x"))
        assert lines(log) == [
            f'authentication failed: 192.0.2.7 port 4711, method password, user "{shown}": wrong'
        ]

    @given(strategies.binary(min_size=1, max_size=255))
    def test_any_name_is_one_line(self, name: bytes) -> None:
        """It is in quotes, and nothing in it ends them; nor is it the end of the line."""
        log: list[LogEvent] = []
        log_publisher.addObserver(log.append)
        try:
            Setting().log_in(Password(name, b"x"))
        finally:
            log_publisher.removeObserver(log.append)
        (line,) = lines(log)
        assert len(line.splitlines()) == 1
        head, tail = 'authentication failed: 192.0.2.7 port 4711, method password, user "', '": wrong'
        assert line.startswith(head)
        assert line.endswith(tail)
        quoted = line[len(head) : -len(tail)]
        assert '"' not in quoted.replace("\\\\", "").replace('\\"', "")

    def test_kinds(self, log: list[LogEvent]) -> None:
        """Other credentials have names too, or none."""
        setting = Setting()
        setting.checker.answer = lambda: fail(UnauthorizedLogin())
        setting.log_in(Anonymous(), method="none")
        setting.log_in(Userid(b"joe", HERE, None), method="userid")
        setting.log_in(GSSAPIName("bob@EXAMPLE.ORG"), method="gssapi")
        assert [line.partition("4711, ")[2] for line in lines(log)] == [
            "method none: wrong",
            'method userid, user "joe": wrong',
            'method gssapi, user "bob@EXAMPLE.ORG": wrong',
        ]

    def test_subclass(self, setting: Setting, log: list[LogEvent]) -> None:
        """What a checker has raised comes out: it may know what to tell the client. Ours say why."""

        class Mismatch(NotAuthenticated):
            pass

        problem = Mismatch("the host knows\nno such user")
        setting.checker.answer = lambda: fail(problem)
        assert setting.log_in(Userid(b"joe", HERE, None), method="userid") == [problem]
        assert lines(log)[0].endswith(r', user "joe": the host knows\nno such user')

    def test_words_of_others(self, setting: Setting, log: list[LogEvent]) -> None:
        """A checker's own words may hold the password."""
        setting.log_in(WRONG)
        assert "7391" not in lines(log)[0]

    def test_realm(self, setting: Setting, log: list[LogEvent]) -> None:
        """The realm may not want somebody whose password is right: that is no attempt at guessing."""

        def deny(_: object) -> Any:
            raise LoginDenied("full up with sesame")

        setting.realm.answer = deny
        for _ in range(20):
            (problem,) = setting.log_in()
            assert type(problem) is UnauthorizedLogin
        (line,) = set(lines(log))
        assert line.startswith('authentication denied: 192.0.2.7 port 4711, method password, user "bob": ')
        assert not setting.penalties.refuses(HERE.host, b"bob")

    def test_no_frames(self, setting: Setting) -> None:
        """What is raised does not lead to the checker's variables."""

        def check() -> Any:
            password = "wrong-7391"  # noqa: F841
            raise UnauthorizedLogin

        setting.checker.answer = check
        (problem,) = setting.log_in(WRONG)
        traceback = problem.__traceback__
        while traceback is not None:
            assert traceback.tb_frame.f_code.co_name != "check"
            traceback = traceback.tb_next


class TestFaults:
    """Whatever a checker or a realm does, it is a no, a line, and no guess of the client's."""

    def broken(self, setting: Setting, log: list[LogEvent]) -> str:
        """The one line of a refusal, which is no failure of the client's."""
        (problem,) = setting.log_in(WRONG)
        assert type(problem) is UnauthorizedLogin
        assert setting.penalties.entries == 0
        (line,) = lines(log)
        assert log[0]["log_level"] is LogLevel.error
        assert "7391" not in line
        start = 'authentication impossible: 192.0.2.7 port 4711, method password, user "bob": '
        assert line.startswith(start)
        return line[len(start) :]

    def test_raises(self, setting: Setting, log: list[LogEvent]) -> None:
        def check_it() -> Any:
            raise ValueError(f"{WRONG.password!r} is too odd")

        setting.checker.answer = check_it
        line = self.broken(setting, log)
        assert line.startswith("ValueError\n")
        assert "check_it" in line

    def test_fails(self, setting: Setting, log: list[LogEvent]) -> None:
        setting.checker.answer = lambda: fail(KeyError(WRONG.password))
        assert self.broken(setting, log).startswith("KeyError")

    def test_system(self, setting: Setting, log: list[LogEvent]) -> None:
        """The system's own words are without secrets, and tell an operator most."""
        setting.checker.answer = lambda: fail(ConnectionRefusedError(111, "7391"))
        assert self.broken(setting, log).startswith("ConnectionRefusedError: Connection refused")

    def test_ours(self, setting: Setting, log: list[LogEvent]) -> None:
        setting.checker.answer = lambda: fail(SOCKSError("PAM is\nbusy"))
        assert self.broken(setting, log).startswith(r"SOCKSError: PAM is\nbusy")

    def test_realm(self, setting: Setting, log: list[LogEvent]) -> None:
        def fall(_: object) -> Any:
            raise ZeroDivisionError

        setting.checker.answer = lambda: succeed(b"bob")
        setting.realm.answer = fall
        assert self.broken(setting, log).startswith("ZeroDivisionError")

    @pytest.mark.parametrize("answer", [None, (), (1, 2), "abcd"])
    def test_no_avatar(self, setting: Setting, log: list[LogEvent], answer: object) -> None:
        setting.checker.answer = lambda: succeed(b"bob")
        setting.realm.answer = lambda _: answer
        assert "Error" in self.broken(setting, log)

    def test_no_avatar_later(self, setting: Setting, log: list[LogEvent]) -> None:
        waits: Deferred[Any] = Deferred()
        setting.realm.answer = lambda _: waits
        results = setting.log_in()
        waits.callback(None)
        assert type(results[0]) is UnauthorizedLogin
        assert len(log) == 1

    def test_nobody_checks_it(self, log: list[LogEvent]) -> None:
        clock = Clock()
        gate = Gate(Portal(Realm(), []), clock, TIMEOUT, Penalties(clock))
        with pytest.raises(UnauthorizedLogin):
            gate.log_in(HERE, "password", BOB)
        assert "UnhandledCredentials" in lines(log)[0]

    def test_portal(self, log: list[LogEvent]) -> None:
        class Odd(Portal):
            def login(self, *_: Any) -> Any:
                raise ZeroDivisionError

        clock = Clock()
        gate = Gate(Odd(Realm(), []), clock, TIMEOUT, Penalties(clock))
        with pytest.raises(UnauthorizedLogin):
            gate.log_in(HERE, "password", BOB)
        assert "ZeroDivisionError" in lines(log)[0]

    def test_traceback_once_a_while(self, setting: Setting, log: list[LogEvent]) -> None:
        def check_it() -> Any:
            raise ZeroDivisionError

        setting.checker.answer = check_it
        for _ in range(5):
            setting.log_in(WRONG)
        assert [len(line.splitlines()) > 1 for line in lines(log)] == [True, False, False, False, False]
        setting.clock.advance(60)
        setting.log_in(WRONG)
        assert "check_it" in lines(log)[-1]

    def test_not_checked(self, setting: Setting, log: list[LogEvent]) -> None:
        """Nobody has looked: that is no wrong password, and who fills the queue fills no disk."""
        problem = TooManyChecks("as many checks wait as may")
        setting.checker.answer = lambda: fail(problem)
        for _ in range(30):
            assert setting.log_in(WRONG) == [problem]
        setting.checker.answer = None
        ((user, _),) = setting.log_in()
        assert user.name == "bob"
        (line,) = lines(log)
        assert line == (
            'authentication impossible: 192.0.2.7 port 4711, method password, user "bob": '
            "as many checks wait as may (1 such attempts)"
        )


class TestHanging:
    def test_too_long(self, setting: Setting, log: list[LogEvent]) -> None:
        cancelled: list[Any] = []
        setting.checker.answer = lambda: Deferred(cancelled.append)
        results = setting.log_in()
        setting.clock.advance(TIMEOUT - 0.1)
        assert (results, cancelled) == ([], [])
        setting.clock.advance(0.2)
        assert type(results[0]) is UnauthorizedLogin
        assert len(cancelled) == 1
        (line,) = lines(log)
        assert line == (
            'authentication impossible: 192.0.2.7 port 4711, method password, user "bob": '
            "Checker has not answered for 8 seconds"
        )
        assert log[0]["log_level"] is LogLevel.error
        assert setting.penalties.entries == 0

    def test_which(self, log: list[LogEvent]) -> None:
        """Behind a cache and a chain there are those that are meant."""
        clock = Clock()
        checker, other = Checker(), FilePasswordDB("/nonexistent")
        checker.answer = Deferred
        chain = Chain(IUsernamePassword, [checker, other], clock)  # type: ignore[list-item]
        gate = Gate(Portal(Realm(), [Remembering(chain, clock)]), clock, TIMEOUT, Penalties(clock))
        answer = gate.log_in(HERE, "password", BOB)
        assert isinstance(answer, Deferred)
        answer.addErrback(lambda failure: failure.trap(UnauthorizedLogin) and None)
        clock.advance(TIMEOUT)
        assert ": Checker or FilePasswordDB has not answered" in lines(log)[0]

    @pytest.mark.parametrize("how", ["cancelled", "timed out"])
    @pytest.mark.parametrize("who", ["checker", "realm"])
    def test_avatar_that_comes_too_late(
        self, setting: Setting, log: list[LogEvent], how: str, who: str
    ) -> None:
        """Nobody has it: it is logged out, once, though Twisted throws away what comes after a cancel()."""
        waits: Deferred[Any] = Deferred()
        answer: Any = b"bob"
        if who == "checker":
            setting.checker.answer = lambda: waits
        else:
            setting.realm.answer = lambda _: waits
            answer = ISOCKSUser, User("bob"), setting.realm.logout
        self.give_up(setting, how)
        told = len(log)
        waits.callback(answer)
        assert setting.realm.gone == 1
        assert len(log) == told == 1

    @pytest.mark.parametrize("how", ["cancelled", "timed out"])
    def test_avatar_from_the_canceller(self, setting: Setting, how: str) -> None:
        triple = ISOCKSUser, User("bob"), setting.realm.logout
        setting.realm.answer = lambda _: Deferred(lambda waits: waits.callback(triple))
        self.give_up(setting, how)
        assert setting.realm.gone == 1

    @pytest.mark.parametrize("how", ["cancelled", "timed out"])
    def test_logout_that_fails(self, setting: Setting, log: list[LogEvent], how: str) -> None:
        def logout() -> None:
            raise ValueError("sesame")

        triple = ISOCKSUser, User("bob"), logout
        setting.realm.answer = lambda _: Deferred(lambda waits: waits.callback(triple))
        self.give_up(setting, how)
        assert "a logout failed: ValueError" in lines(log)

    def give_up(self, setting: Setting, how: str) -> None:
        answer = setting.gate.log_in(HERE, "password", BOB)
        assert isinstance(answer, Deferred)
        ended: list[Failure] = []
        answer.addErrback(ended.append)
        if how == "cancelled":
            answer.cancel()
            assert ended[0].check(CancelledError)
        else:
            setting.clock.advance(TIMEOUT)
            assert ended[0].check(UnauthorizedLogin)
        assert setting.clock.getDelayedCalls() == []


class TestCancelled:
    """A client that does not wait for the answer."""

    def leave(self, setting: Setting, credentials: Password, client: Client = HERE) -> None:
        answer = setting.gate.log_in(client, "password", credentials)
        assert isinstance(answer, Deferred)
        answer.addErrback(lambda failure: failure.trap(CancelledError) and None)
        answer.cancel()

    def test_is_a_failure(self, setting: Setting, log: list[LogEvent]) -> None:
        """Who guesses and goes is refused as soon as one who guesses and waits."""
        cancelled: list[Any] = []
        setting.checker.answer = lambda: Deferred(cancelled.append)
        for number in range(10):
            self.leave(setting, guess(number))
        assert len(cancelled) == 10
        assert [type(one) for one in setting.log_in(guess(99))] == [TooManyFailures]
        told = 'authentication failed: 192.0.2.7 port 4711, method password, user "bob": '
        assert lines(log)[8] == f"{told}the client has not waited for the answer"
        assert lines(log)[9] == f"{told}the client has not waited for the answer, and refused for 60 seconds"
        assert setting.clock.getDelayedCalls() == []

    def test_once(self, setting: Setting, log: list[LogEvent]) -> None:
        """A client that opens fifty connections with its one password, and drops them, has one failure."""
        setting.checker.answer = Deferred
        for _ in range(50):
            self.leave(setting, BOB)
        setting.checker.answer = None
        ((user, _),) = setting.log_in()
        assert user.name == "bob"
        assert len(log) == 2  # one of them for all that are repeated

    def test_forgiven(self, setting: Setting) -> None:
        """A success forgives what the user has dropped before."""
        setting.checker.answer = Deferred
        for number in range(9):
            self.leave(setting, guess(number))
        setting.checker.answer = None
        setting.log_in()
        assert type(setting.log_in(guess(100))[0]) is UnauthorizedLogin
        ((user, _),) = setting.log_in()
        assert user.name == "bob"

    def test_late_no(self, setting: Setting, log: list[LogEvent]) -> None:
        """What the portal says afterwards is not a second failure."""
        waits: Deferred[Any] = Deferred()
        setting.checker.answer = lambda: waits
        self.leave(setting, WRONG)
        waits.errback(UnauthorizedLogin())
        assert len(log) == 1

    def test_not_the_client(self, setting: Setting, log: list[LogEvent]) -> None:
        """Where the server does not wait any more, the client has not failed."""
        cancelled: list[Any] = []
        setting.checker.answer = lambda: Deferred(cancelled.append)
        for number in range(20):
            answer = setting.gate.log_in(HERE, "password", guess(number))
            assert isinstance(answer, Deferred)
            answer.addErrback(lambda failure: failure.trap(CancelledError) and None)
            setting.gate.give_up(answer)
        assert len(cancelled) == 20
        assert setting.penalties.entries == 0
        assert log == []
        setting.checker.answer = Deferred
        self.leave(setting, WRONG)
        assert len(log) == 1

    def test_nothing_to_guess(self, setting: Setting, log: list[LogEvent]) -> None:
        setting.checker.answer = Deferred
        for _ in range(20):
            answer = setting.gate.log_in(HERE, "none", Anonymous())
            assert isinstance(answer, Deferred)
            answer.addErrback(lambda failure: failure.trap(CancelledError) and None)
            answer.cancel()
        assert setting.penalties.entries == 0
        assert log == []

    def test_canceller_that_fails(self, setting: Setting, log: list[LogEvent]) -> None:
        def cancel(_: object) -> None:
            raise ValueError("sesame")

        setting.checker.answer = lambda: Deferred(cancel)
        answer = setting.gate.log_in(HERE, "password", BOB)
        assert isinstance(answer, Deferred)
        answer.addErrback(lambda failure: failure.trap(CancelledError) and None)
        answer.cancel()
        assert lines(log)[0] == "a portal's answer cannot be cancelled: ValueError"

    def test_by_somebody_else(self, setting: Setting, log: list[LogEvent]) -> None:
        """A checker whose answer is cancelled, though not by us, has not said no."""
        setting.checker.answer = lambda: fail(CancelledError())
        (problem,) = setting.log_in(WRONG)
        assert type(problem) is UnauthorizedLogin
        assert setting.penalties.entries == 0
        assert lines(log)[0].startswith("authentication impossible: ")


class TestPenalties:
    def test_too_many(self, setting: Setting, log: list[LogEvent]) -> None:
        for number in range(10):
            setting.log_in(guess(number))
        ends = [line.partition(": wrong")[2] for line in lines(log)]
        assert ends == [""] * 9 + [", and refused for 60 seconds"]
        asked = len(setting.checker.asked)
        (problem,) = setting.log_in()
        assert type(problem) is TooManyFailures
        assert len(setting.checker.asked) == asked
        setting.clock.advance(60)
        ((user, _),) = setting.log_in()
        assert user.name == "bob"

    def test_lines(self, setting: Setting, log: list[LogEvent]) -> None:
        """Whoever goes on while refused does not fill the disk."""
        for number in range(1000):
            setting.log_in(guess(number))
        assert len(log) == 11
        assert lines(log)[-1] == (
            'authentication refused unchecked: 192.0.2.7 port 4711, method password, user "bob": '
            "too many failures (1 such attempts)"
        )
        setting.clock.advance(59)
        setting.log_in(WRONG)
        assert len(log) == 11

    def test_passwords_only(self, setting: Setting) -> None:
        """What nobody can guess at is not counted, and is not refused for others' guesses."""
        setting.checker.answer = lambda: fail(UnauthorizedLogin())
        for _ in range(20):
            setting.log_in(Anonymous(), method="none")
            setting.log_in(Userid(b"bob", HERE, None), method="userid")
        assert setting.penalties.entries == 0
        for number in range(20):
            setting.log_in(guess(number))
        asked = len(setting.checker.asked)
        setting.log_in(Anonymous(), method="none")
        assert len(setting.checker.asked) == asked + 1

    @pytest.mark.parametrize("kind", [IUsernamePassword, IUsernameHashedPassword])
    def test_passwords_of_others(self, setting: Setting, kind: Any) -> None:
        """Whatever the class: a method of somebody else's may have its own."""

        @implementer(kind)
        class Credentials:
            username = b"bob"
            password = b"wrong"

        for _ in range(10):
            setting.log_in(Credentials(), method="odd")
        assert setting.penalties.refuses(HERE.host, b"bob")

    def test_success(self, setting: Setting) -> None:
        for _ in range(3):
            for _ in range(9):
                setting.log_in(WRONG)
            assert len(setting.log_in()[0]) == 2

    def test_many_at_once(self, setting: Setting, log: list[LogEvent]) -> None:
        """Who asks for a thousand at once learns no more than from ten; not even whether one was right."""
        waiting: list[Deferred[bytes]] = []

        def wait() -> Deferred[bytes]:
            waiting.append(Deferred())
            return waiting[-1]

        setting.checker.answer = wait
        results = [setting.log_in(guess(number)) for number in range(100)]
        for one in waiting[:50]:
            one.errback(UnauthorizedLogin())
        for one in waiting[50:]:
            one.callback(b"bob")
        kinds = [type(outcome) for (outcome,) in results]
        assert kinds == [UnauthorizedLogin] * 10 + [TooManyFailures] * 90
        assert setting.realm.gone == 50
        assert len(log) == 11

    def test_off(self) -> None:
        setting = Setting(failures=None)
        for number in range(100):
            setting.log_in(guess(number))
        assert len(setting.log_in()[0]) == 2

    def test_the_same_again(self, setting: Setting, log: list[LogEvent]) -> None:
        """A neighbour's old password, repeated, is one failure, and shuts nobody out."""
        for _ in range(15):
            setting.log_in(WRONG)
        ((user, _),) = setting.log_in(Password(b"alice", b"sesame"))
        assert user.name == "alice"
        first, again = lines(log)
        who = '192.0.2.7 port 4711, method password, user "bob": wrong'
        assert first == f"authentication failed: {who}"
        assert again == f"authentication failed again: {who}, as before (1 such attempts)"

    def test_share(self, setting: Setting) -> None:
        """A checker's queue is told whose turn it is: the address's, or the /64 network's."""
        for client, share in (
            (HERE, "192.0.2.7"),
            (Client("2001:db8::7", 1), "2001:db8::/64"),
            (Client(None, uid=1000), "uid 1000"),
            (Client(None), None),
        ):
            setting.log_in(Password(b"bob", b"wrong"), client)
            assert setting.checker.asked[-1].share == share

    def test_share_of_their_own(self, setting: Setting) -> None:
        """A user who has logged in from there does not wait behind what a neighbour guesses."""
        setting.log_in(BOB)
        for credentials, own in ((BOB, True), (Password(b"alice", b"x"), False)):
            setting.log_in(credentials)
            assert (setting.checker.asked[-1].share != HERE.host) is own
        setting.log_in(BOB, Client("192.0.2.8", 1))
        assert setting.checker.asked[-1].share == "192.0.2.8"


class TestRemembered:
    """A user whose password is remembered passes the penalty of an address."""

    @pytest.fixture
    def cached(self) -> Setting:
        """With bob's password remembered, from elsewhere, and an address that is refused."""
        setting = Setting()
        portal = Portal(setting.realm, [Remembering(setting.checker, setting.clock)])
        setting.gate = Gate(portal, setting.clock, TIMEOUT, setting.penalties)
        setting.log_in(BOB, Client("198.51.100.1", 1))
        for number in range(15):
            setting.log_in(guess(number, b"mallory"))
        assert setting.penalties.refuses("192.0.2.7", b"bob")
        return setting

    def test_passes(self, cached: Setting) -> None:
        asked = len(cached.checker.asked)
        assert [type(one) for one in cached.log_in(WRONG)] == [TooManyFailures]
        ((user, _),) = cached.log_in()
        assert user.name == "bob"
        assert len(cached.checker.asked) == asked

    def test_whatever_others_guess(self, cached: Setting) -> None:
        for number in range(50):
            assert [type(one) for one in cached.log_in(guess(number))] == [TooManyFailures]
        ((user, _),) = cached.log_in()
        assert user.name == "bob"

    def test_no_way_to_guess(self, cached: Setting) -> None:
        """Who tries passwords until one passes has a bound; behind it the right one is refused, too."""
        for number in range(100):
            cached.log_in(guess(number))
        assert [type(one) for one in cached.log_in()] == [TooManyFailures]
        cached.clock.advance(60)
        assert [type(one) for one in cached.log_in()] == [tuple]

    def test_a_repeated_guess(self, cached: Setting) -> None:
        """An old password that is repeated does not use that bound up."""
        for _ in range(300):
            cached.log_in(WRONG)
        assert [type(one) for one in cached.log_in()] == [tuple]

    def test_the_realm_takes_its_time(self, cached: Setting) -> None:
        waits: Deferred[Any] = Deferred()
        cached.realm.answer = lambda _: waits
        results = cached.log_in()
        waits.callback((ISOCKSUser, User("bob"), cached.realm.logout))
        assert [type(one) for one in results] == [tuple]


def test_no_secret_is_shown(log: list[LogEvent]) -> None:
    """Neither in what is raised, nor in the log with all its keys, nor in what an attempt shows of itself."""
    setting = Setting()
    problems = [setting.log_in(WRONG)]

    def check() -> Any:
        raise ValueError(WRONG.password)

    setting.checker.answer = check
    problems.append(setting.log_in(WRONG))
    setting.checker.answer = Deferred
    problems.append(setting.log_in(WRONG))
    setting.clock.advance(TIMEOUT)
    for event in log:
        shown = [formatEvent(event), *(f"{value!s} {value!r}" for value in event.values())]
        assert "7391" not in "".join(shown)
    assert len(log) == 3
    assert all("7391" not in repr(Failure(problem)) for (problem,) in problems[1:])
