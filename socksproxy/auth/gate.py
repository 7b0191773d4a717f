"""
The way through the portal: from credentials to a user or a refusal.

Strategy: a portal, its checkers and its realm may be foreign code. They may raise anything, hang, or answer
when no client waits any more. Every refusal is one line in the log, which a program can read
(docs/examples/fail2ban): it begins with the client's address, and quotes what the client has chosen. No line
has a secret. The text of a foreign exception is left out, because it may have one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.cred.credentials import ICredentials, IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..identity import ISOCKSUser
from ..logs.printable import printable
from ..logs.redaction import code_lines, redacted
from ..logs.throttle import LogThrottle
from ..net.dial import Pending
from ..twisted_internals import has_canceller
from ..wire.words import SOCKSError
from .cache import Remembering
from .checkers.threads import NotChecked
from .credentials import IGSSAPIName, IUserid, Password
from .known import Recall, inner, recalls
from .penalties import Penalties, TooManyFailures
from .users import name_of

if TYPE_CHECKING:
    from ..identity import Client

__all__ = ["Gate", "Granted"]

_log = Logger(namespace="socksproxy")

#: A user, and the logout, which is called once when the user leaves.
Granted: TypeAlias = "tuple[ISOCKSUser, Callable[[], None]]"

#: Stands for an answer that has not come.
_NOTHING = object()


class Gate:
    """
    Asks a portal who a client is.

    :param portal: checks credentials and gives users.
    :param reactor: tells the time.
    :param timeout: seconds that the portal has; then the client is refused.
    :param penalties: counts failures, and refuses clients that have failed too often.
    """

    def __init__(self, portal: Portal, reactor: Any, timeout: float, penalties: Penalties) -> None:
        self.reactor = reactor
        self.timeout = timeout
        self._portal = portal
        self._penalties = penalties
        self._refused = LogThrottle(reactor)
        self._repeated = LogThrottle(reactor)
        self._faulty = LogThrottle(reactor)
        self._unseen = LogThrottle(reactor)
        self._gives_up = False
        self._waiting: dict[str | None, dict[_LoginAttempt, None]] = {}

    def log_in(self, client: Client, method: str, credentials: ICredentials) -> Granted | Deferred[Granted]:
        """
        The user of *credentials* and the logout, at once or by a Deferred.

        The Deferred can be cancelled; an avatar that the realm still gives is logged out then. Cancelling it
        counts as a wrong password. Otherwise a client that does not wait for answers could guess, and have
        checks made, without end. A client that shows one password only has one such failure.

        :param client: the client; the realm gets it as the *mind*.
        :param method: the name of the method that has brought the credentials, for the log.
        :raises UnauthorizedLogin: (at once or by the Deferred) when the client is refused; the log says why.
        """
        guessed = _guessed(credentials)
        refused = guessed is not None and self._penalties.refuses(client.whose, guessed)
        asked = None if refused else self._remembered(client, credentials)
        if type(asked) is tuple and len(asked) == 3 and guessed is not None:
            # Most sessions end up here: what only a refusal needs would take half of their login.
            self._penalties.succeeded(client.whose, guessed)
            return asked[1], asked[2]
        attempt = _LoginAttempt(self, client, method, credentials, guessed)
        if guessed is not None:
            if isinstance(credentials, Password):
                credentials.share = self._penalties.share(client.whose, guessed)
                attempt.guess = self._penalties.fingerprints.of(guessed, credentials.password)
            if refused:
                attempt.passes = self._is_remembered(client, guessed, credentials)
                if not attempt.passes:
                    raise self._refuse(attempt)
        try:
            asked = self._portal.login(credentials, client, ISOCKSUser) if asked is None else asked
        except Exception:
            raise self._broken(attempt, Failure()) from None
        if not isinstance(asked, Deferred):
            return self.judge(attempt, asked)
        asked.addBoth(attempt.answered)
        if attempt.answer is _NOTHING:
            return attempt.wait(asked, self._checker_of(credentials))
        return self.judge(attempt, attempt.answer)

    def _remembered(self, client: Client, credentials: ICredentials) -> Any:
        """
        What the realm answers, at once or by a Deferred, where a checker of ours remembers the password.

        :returns: None: nothing is remembered.
        """
        portal = self._portal
        checker = self._checker(credentials) if type(portal) is Portal else None
        avatar_id: Any = checker.right_one(credentials) if type(checker) is Remembering else None
        if avatar_id is None:
            return None
        try:
            return portal.realm.requestAvatar(avatar_id, client, ISOCKSUser)
        except Exception:
            return Failure()

    def give_up(self, pending: Pending) -> None:
        """Cancel *pending*, such as a Deferred of :meth:`log_in`, because the server ends the session."""
        self._gives_up = True
        try:
            pending.cancel()
        finally:
            self._gives_up = False

    def renew(self, client: Client, avatar_id: Any) -> Deferred[Granted]:
        """
        The user of *avatar_id* as the realm gives it now, for a client that has logged in before.

        The Deferred can be cancelled; an avatar that the realm still gives is logged out then.

        :raises UnauthorizedLogin: (by the Deferred) when the realm refuses the user now.
        """
        asked = maybeDeferred(self._portal.realm.requestAvatar, avatar_id, client, ISOCKSUser)
        given: Deferred[Granted] = Deferred(lambda _: None)

        def answered(answer: Any) -> None:
            if given.called:
                self.forget(answer)
            elif isinstance(answer, Failure):
                given.errback(answer)
            else:
                maybeDeferred(_user_and_logout, answer).chainDeferred(given)

        asked.addBoth(answered)
        return given

    def failed(self, client: Client, method: str, problem: Exception) -> None:
        """
        Log that a method has ended without credentials, so that no password was guessed.

        :param problem: why; an exception that is neither ours nor a refusal is a fault.
        """
        attempt = _LoginAttempt(self, client, method, None, None)
        if isinstance(problem, (SOCKSError, UnauthorizedLogin)):
            _log.info(
                "authentication failed: {attempt}: {reason}", attempt=attempt, reason=printable(str(problem))
            )
        else:
            self._broken(attempt, Failure(problem))

    # Calls of attempts.

    def waits(self, attempt: _LoginAttempt) -> None:
        """Know that *attempt* waits for the portal."""
        self._waiting.setdefault(attempt.client.share, {})[attempt] = None

    def waits_no_more(self, attempt: _LoginAttempt) -> None:
        """Know that *attempt* waits no more."""
        network = attempt.client.share
        others = self._waiting[network]
        del others[attempt]
        if not others:
            del self._waiting[network]

    def judge(self, attempt: _LoginAttempt, answer: Any) -> Granted:
        """
        The user and the logout in the portal's *answer*.

        :raises UnauthorizedLogin: when the answer is no.
        """
        if isinstance(answer, Failure):
            raise self._denied(attempt, answer)
        try:
            user, logout = _user_and_logout(answer)
        except (TypeError, ValueError):
            raise self._broken(attempt, Failure()) from None
        if attempt.guessed is not None:
            self._penalties.succeeded(attempt.client.whose, attempt.guessed)
        return user, logout

    def judge_late(self, attempt: _LoginAttempt, answer: Any) -> Granted:
        """
        The user and the logout in an *answer* that has come late.

        A penalty that has begun meanwhile counts. So a client that tries a thousand passwords at once learns
        no more than a client that tries one after the other.

        :raises UnauthorizedLogin: when the answer is no, or the client is refused now.
        """
        guessed = attempt.guessed
        if guessed is None or attempt.passes or not self._penalties.refuses(attempt.client.whose, guessed):
            return self.judge(attempt, answer)
        self.forget(answer)
        raise self._refuse(attempt)

    def abandoned(self, attempt: _LoginAttempt) -> None:
        """Count *attempt* as failed, because the client has not waited for the answer."""
        if attempt.guessed is not None and not self._gives_up:
            self._count(attempt, "the client has not waited for the answer", answered=False)

    def hangs(self, attempt: _LoginAttempt, checker: str) -> UnauthorizedLogin:
        """The refusal when the portal has not answered in time; the log names *checker*."""
        _log.error(
            "authentication impossible: {attempt}: {checker} has not answered for {seconds:g} seconds",
            attempt=attempt,
            checker=checker,
            seconds=self.timeout,
        )
        return UnauthorizedLogin()

    def forget(self, answer: Any) -> None:
        """Log out the avatar in the portal's *answer*, for which no client waits any more."""
        if not isinstance(answer, tuple) or len(answer) != 3:
            return
        try:
            answer[2]()
        except Exception:
            _log.error("a logout failed: {problem}", problem=redacted(Failure()))

    # Refusals.

    def _is_remembered(self, client: Client, name: bytes, credentials: ICredentials) -> bool:
        """
        Whether *credentials* pass though the *client*'s address is refused, because they were right a moment
        ago.

        The answer would help a client that guesses. So wrong passwords of a remembered user are counted.
        """
        recall = recalls(self._checker(credentials), credentials)
        if recall is Recall.OTHER:
            self._penalties.guessed(client.whose, name)
        return recall is Recall.RIGHT and self._penalties.tolerates(client.whose, name)

    def _count(self, attempt: _LoginAttempt, reason: str, *, answered: bool) -> None:
        """Count and log a failure of *attempt*, each password once; *reason* is for the log."""
        seconds: float | None = 0.0
        if attempt.guessed is not None:
            seconds = self._penalties.failed(attempt.client.whose, attempt.guessed, attempt.guess, answered)
        if seconds is None:
            count = self._repeated.due()
            if count:
                _log.info(
                    "authentication failed again: {attempt}: {reason}, as before ({count} such attempts)",
                    attempt=attempt,
                    reason=reason,
                    count=count,
                )
            return
        _log.info(
            "authentication failed: {attempt}: {reason}{penalty}",
            attempt=attempt,
            reason=reason,
            penalty=f", and refused for {seconds:g} seconds" if seconds else "",
        )
        if seconds:
            self._refuse_waiting(attempt.client)

    def _refuse_waiting(self, client: Client) -> None:
        """Refuse the attempts that wait, of a client whose address is refused from now on."""
        for attempt in list(self._waiting.get(client.share, ())):
            guessed = attempt.guessed
            if guessed is None or attempt.passes or attempt.over:
                continue
            if self._penalties.refuses(client.whose, guessed):
                attempt.refuse(self._refuse(attempt))

    def _refuse(self, attempt: _LoginAttempt) -> UnauthorizedLogin:
        count = self._refused.due()
        if count:
            # The failures before the penalty have their own lines.
            _log.info(
                "authentication refused unchecked: {attempt}: too many failures ({count} such attempts)",
                attempt=attempt,
                count=count,
            )
        return TooManyFailures()

    def _denied(self, attempt: _LoginAttempt, failure: Failure) -> UnauthorizedLogin:
        problem = failure.value
        if isinstance(problem, LoginDenied):
            ours = isinstance(problem, SOCKSError)
            reason = printable(str(problem)) if ours else "the realm refuses the user"
            _log.info("authentication denied: {attempt}: {reason}", attempt=attempt, reason=reason)
            return UnauthorizedLogin()
        if not isinstance(problem, UnauthorizedLogin):
            return self._broken(attempt, failure)
        if isinstance(problem, NotChecked):
            return self._unchecked(attempt, problem)
        reason = printable(str(problem)) if isinstance(problem, SOCKSError) else "wrong"
        self._count(attempt, reason, answered=True)
        # Without the traceback, whose frames may hold a password.
        return problem.with_traceback(None)

    def _unchecked(self, attempt: _LoginAttempt, problem: NotChecked) -> UnauthorizedLogin:
        """The refusal when the password was not checked, which counts as no failure."""
        count = self._unseen.due()
        if count:
            _log.warn(
                "authentication impossible: {attempt}: {problem} ({count} such attempts)",
                attempt=attempt,
                problem=printable(str(problem)),
                count=count,
            )
        return problem.with_traceback(None)

    def _broken(self, attempt: _LoginAttempt, failure: Failure) -> UnauthorizedLogin:
        where = f"\n{code_lines(failure)}" if self._faulty.due() else ""
        _log.error(
            "authentication impossible: {attempt}: {problem}{where}",
            attempt=attempt,
            problem=redacted(failure),
            where=where,
        )
        return UnauthorizedLogin()

    def _checker(self, credentials: ICredentials) -> Any:
        """The portal's checker of *credentials*; None: there is none."""
        for interface, checker in self._portal.checkers.items():
            if interface.providedBy(credentials):
                return checker
        return None

    def _checker_of(self, credentials: ICredentials) -> str:
        """The name of the checker of *credentials*, for the log."""
        checker = self._checker(credentials)
        return type(self._portal).__name__ if checker is None else _named(checker)


class _LoginAttempt:
    """
    One client's attempt to log in; it keeps no secret.

    :ivar guessed: the name whose password the client may be guessing; None: the credentials have no password.
    :ivar guess: the fingerprint of that name and the password; None: there is none.
    :ivar passes: whether the credentials pass though the client's address is refused.
    :ivar over: whether the attempt waits no more.
    :ivar answer: the portal's answer, if it came at once.
    """

    __slots__ = (
        "_asked",
        "_checker",
        "_given",
        "_timer",
        "answer",
        "client",
        "gate",
        "guess",
        "guessed",
        "method",
        "name",
        "over",
        "passes",
    )

    def __init__(
        self, gate: Gate, client: Client, method: str, credentials: ICredentials | None, guessed: bytes | None
    ) -> None:
        self.gate = gate
        self.client = client
        self.method = method
        self.name = guessed if guessed is not None else _claimed(credentials)
        self.guessed = guessed
        self.guess: bytes | None = None
        self.passes = False
        self.answer: Any = _NOTHING
        self._given: Deferred[Granted] | None = None
        self.over = False

    def __str__(self) -> str:
        host, port = self.client.host, self.client.port
        where = "unix" if host is None else f"{host} port {port}"
        name = "" if self.name is None else f", user {_quoted(self.name)}"
        return f"{where}, method {self.method}{name}"

    def wait(self, asked: Deferred[Any], checker: str) -> Deferred[Granted]:
        """
        Wait for the portal.

        :param asked: fires with the portal's answer.
        :param checker: the name of the checker, for the log.
        """
        self._asked = asked
        self._checker = checker
        self._given = Deferred(self._cancelled)
        self._timer: IDelayedCall = self.gate.reactor.callLater(self.gate.timeout, self._expired)
        self.gate.waits(self)
        return self._given

    def answered(self, answer: Any) -> None:
        """Take the portal's answer; a :class:`Failure` is a no."""
        if self.over:
            self.gate.forget(answer)
            return
        if self._given is None:
            self.answer = answer
            return
        self._end()
        self._timer.cancel()
        try:
            granted = self.gate.judge_late(self, answer)
        except UnauthorizedLogin as problem:
            self._given.errback(problem)
            return
        self._given.callback(granted)

    def refuse(self, problem: UnauthorizedLogin) -> None:
        """End the wait with *problem*."""
        assert self._given is not None
        self._timer.cancel()
        self._give_up()
        self._given.errback(problem)

    def _expired(self) -> None:
        assert self._given is not None
        self._give_up()
        self._given.errback(self.gate.hangs(self, self._checker))

    def _cancelled(self, _: object) -> None:
        self._timer.cancel()
        self._give_up()
        self.gate.abandoned(self)

    def _end(self) -> None:
        self.over = True
        self.gate.waits_no_more(self)

    def _give_up(self) -> None:
        self._end()
        try:
            # Without a canceller the work would go on, and Twisted would drop the avatar without a logout.
            if has_canceller(self._asked):
                self._asked.cancel()
        except Exception:
            # The canceller is foreign code, and no client waits any more.
            _log.error("a portal's answer cannot be cancelled: {problem}", problem=redacted(Failure()))


def _user_and_logout(answer: Any) -> Granted:
    """
    The user and the logout in the *answer* of a realm.

    :raises TypeError: when *answer* has another form.
    :raises ValueError: when *answer* has another form.
    """
    _, user, logout = answer
    return user, logout


def _guessed(credentials: ICredentials) -> bytes | None:
    """The name whose password *credentials* may guess; None: *credentials* have no password."""
    if type(credentials) is Password:
        return credentials.username
    if IUsernamePassword.providedBy(credentials) or IUsernameHashedPassword.providedBy(credentials):
        name: bytes = credentials.username
        return name
    return None


def _claimed(credentials: Any) -> bytes | str | None:
    """The name in other *credentials*; None: there is none."""
    if IUserid.providedBy(credentials):
        userid: bytes = credentials.userid
        return userid
    if IGSSAPIName.providedBy(credentials):
        principal: str = credentials.principal
        return principal
    return None


def _named(checker: Any) -> str:
    """The name of *checker* for the log; the names of the checkers that it asks, if it asks others."""
    return " or ".join(map(_named, inner(checker))) or type(checker).__name__


def _quoted(name: bytes | str) -> str:
    """*name* in quotes; a quote within it has a backslash before it."""
    return '"' + printable(name_of(name)).replace('"', '\\"') + '"'
