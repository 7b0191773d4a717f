"""
Several checkers as one: a portal has one for each kind of credentials.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .methods import IMethod

_log = Logger(namespace="socksproxy")


def chained(checkers: Iterable[ICredentialsChecker]) -> list[Chain]:
    """
    For each kind of credentials that *checkers* know, one checker that asks those who know it.

    :param checkers: in the order in which they are asked; each is asked once.
    """
    by_interface: dict[Any, list[ICredentialsChecker]] = {}
    for checker in checkers:
        for interface in checker.credentialInterfaces:
            known = by_interface.setdefault(interface, [])
            if not any(checker is other for other in known):
                known.append(checker)
    return [Chain(interface, known) for interface, known in by_interface.items()]


@implementer(ICredentialsChecker)
class Chain:
    """
    Asks one checker after the other, until one vouches for somebody.

    One that fails in another way than by refusing costs a log line, and counts as a refusal.

    :param interface: of the credentials.
    :param checkers: in the order in which they are asked.
    """

    def __init__(self, interface: Any, checkers: Sequence[ICredentialsChecker]) -> None:
        self.credentialInterfaces = (interface,)
        self.checkers = tuple(checkers)

    @property
    def version(self) -> int:
        """It grows whenever what one of them knows has changed."""
        return sum(getattr(checker, "version", 0) for checker in self.checkers)

    def methods(self) -> list[IMethod]:
        """The authentication methods that the checkers bring along."""
        return [method for checker in self.checkers for method in getattr(checker, "methods", list)()]

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """
        See :meth:`twisted.cred.checkers.ICredentialsChecker.requestAvatarId`.

        :raises UnauthorizedLogin: (by the Deferred) when all refuse: the last one's that says
            more than that, if there is one.
        """
        return _Asking(self.checkers, credentials).start()


class _Asking:
    """One look at credentials, by one checker after the other."""

    __slots__ = ("_answer", "_checkers", "_credentials", "_current", "_over", "_refusal")

    def __init__(self, checkers: Sequence[ICredentialsChecker], credentials: Any) -> None:
        self._checkers = iter(checkers)
        self._credentials = credentials
        self._current: Deferred[Any] | None = None
        self._refusal = UnauthorizedLogin()
        self._over = False
        self._answer: Deferred[Any] = Deferred(lambda _: self._cancel())

    def start(self) -> Deferred[Any]:
        self._next()
        return self._answer

    def _next(self) -> None:
        checker = next(self._checkers, None)
        if checker is None:
            self._over = True
            self._answer.errback(self._refusal)
            return
        self._current = maybeDeferred(checker.requestAvatarId, self._credentials)
        self._current.addCallbacks(self._granted, self._denied, errbackArgs=(checker,))

    def _granted(self, avatar_id: Any) -> None:
        if not self._over:
            self._over = True
            self._answer.callback(avatar_id)

    def _denied(self, failure: Failure, checker: ICredentialsChecker) -> None:
        if self._over:
            return  # nobody waits any more
        problem = failure.value
        if isinstance(problem, UnauthorizedLogin):
            if type(problem) is not UnauthorizedLogin or type(self._refusal) is UnauthorizedLogin:
                self._refusal = problem
        elif isinstance(problem, Exception):
            _log.failure("{checker} failed", failure, checker=type(checker).__name__)
        else:
            self._over = True
            self._answer.errback(failure)
            return
        self._next()

    def _cancel(self) -> None:
        self._over = True
        if self._current is not None:
            self._current.cancel()
