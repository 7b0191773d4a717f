"""
A portal of several checkers: those that know the same kind of credentials are asked one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..logs.redaction import code_lines, redacted
from ..logs.throttle import LogThrottle
from .cache import Remembering
from .checkers.threads import NotChecked
from .users import Realm

_log = Logger(namespace="socksproxy")


def portal_of(
    checkers: Iterable[ICredentialsChecker],
    clock: IReactorTime,
    remember: float = 60.0,
    realm: IRealm | None = None,
) -> Portal:
    """
    A portal of several checkers.

    :param checkers: in the order in which they are asked.
    :param clock: tells the time.
    :param remember: seconds for which a right password is not checked again.
    :param realm: gives the users; None: every user has a name and nothing else.
    """
    portal = Portal(Realm() if realm is None else realm)
    for chain in chained(checkers, clock):
        (interface,) = chain.credentialInterfaces
        asked = Remembering(chain, clock, remember) if interface is IUsernamePassword else chain
        portal.registerChecker(asked, interface)
    return portal


def chained(checkers: Iterable[ICredentialsChecker], clock: IReactorTime) -> list[Chain]:
    """
    One checker for each kind of credentials that *checkers* know.

    :param checkers: in the order in which they are asked; each is asked once.
    :param clock: tells the time, for the rate of log lines.
    """
    by_interface: dict[Any, list[ICredentialsChecker]] = {}
    for checker in checkers:
        for interface in checker.credentialInterfaces:
            known = by_interface.setdefault(interface, [])
            if not any(checker is other for other in known):
                known.append(checker)
    return [Chain(interface, known, clock) for interface, known in by_interface.items()]


@implementer(ICredentialsChecker)
class Chain:
    """
    Asks one checker after the other, until one vouches for the client.

    A checker that fails with another error than a refusal, or that could not check, is passed over with a
    line in the log. If no checker has refused, the answer is the last failure: whether the client's
    credentials are wrong is not known then.

    :param interface: the kind of credentials.
    :param checkers: in the order in which they are asked.
    :param clock: tells the time, for the rate of log lines.
    """

    def __init__(self, interface: Any, checkers: Sequence[ICredentialsChecker], clock: IReactorTime) -> None:
        self.credentialInterfaces = (interface,)
        self.checkers = tuple(checkers)
        self._faulty = LogThrottle(clock)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """
        See :meth:`twisted.cred.checkers.ICredentialsChecker.requestAvatarId`.

        :raises UnauthorizedLogin: (by the Deferred) when all refuse: the last refusal that gives a reason, if
            there is one.
        """
        return _Asking(self, credentials).start()

    def failed(self, checker: ICredentialsChecker, failure: Failure) -> None:
        """Log that *checker* has neither vouched for the client nor refused it."""
        _log.error(
            "authentication goes on without {checker}: {problem}{where}",
            checker=type(checker).__name__,
            problem=redacted(failure),
            where=f"\n{code_lines(failure)}" if self._faulty.due() else "",
        )


class _Asking:
    """
    One client's credentials, on their way from checker to checker.

    :param chain: has the checkers, and is told of those that fail.
    """

    __slots__ = ("_answer", "_chain", "_credentials", "_current", "_fault", "_left", "_over", "_refusal")

    def __init__(self, chain: Chain, credentials: Any) -> None:
        self._chain = chain
        self._left = iter(chain.checkers)
        self._credentials = credentials
        self._current: Deferred[Any] | None = None
        self._refusal: UnauthorizedLogin | None = None
        # The last failure, which is not logged yet.
        self._fault: tuple[ICredentialsChecker, Failure] | None = None
        self._over = False
        self._answer: Deferred[Any] = Deferred(lambda _: self._cancel())

    def start(self) -> Deferred[Any]:
        self._next()
        return self._answer

    def _next(self) -> None:
        checker = next(self._left, None)
        if checker is None:
            self._end()
            return
        self._current = maybeDeferred(checker.requestAvatarId, self._credentials)
        self._current.addCallbacks(self._granted, self._denied, errbackArgs=(checker,))

    def _granted(self, avatar_id: Any) -> None:
        if self._over:
            return  # the question was cancelled
        self._over = True
        self._tell_fault()
        self._answer.callback(avatar_id)

    def _denied(self, failure: Failure, checker: ICredentialsChecker) -> None:
        if self._over:
            return
        problem = failure.value
        if isinstance(problem, UnauthorizedLogin) and not isinstance(problem, NotChecked):
            if _says_more(problem) or not _says_more(self._refusal):
                self._refusal = problem
        elif isinstance(problem, Exception):
            self._tell_fault()
            self._fault = checker, failure
        else:
            self._over = True
            self._answer.errback(failure)
            return
        self._next()

    def _end(self) -> None:
        self._over = True
        if self._refusal is None and self._fault is not None:
            self._answer.errback(self._fault[1])  # the caller logs it
            return
        self._tell_fault()
        self._answer.errback(self._refusal or UnauthorizedLogin())

    def _tell_fault(self) -> None:
        fault, self._fault = self._fault, None
        if fault is not None and not isinstance(fault[1].value, NotChecked):  # which was logged already
            self._chain.failed(*fault)

    def _cancel(self) -> None:
        self._over = True
        if self._current is not None:
            self._current.cancel()


def _says_more(refusal: UnauthorizedLogin | None) -> bool:
    return refusal is not None and type(refusal) is not UnauthorizedLogin
