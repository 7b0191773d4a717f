"""
Checks of passwords that block, in a pool of threads.

The pool (:mod:`socksproxy.runtime.pool`) has the bounds, and its clients take turns. This module adds two
rules. A failure never shows a secret. It is always an :class:`~twisted.cred.error.UnauthorizedLogin`: a
:class:`NotChecked` if it says nothing of the password, because then no client has given a wrong one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...logs.throttle import LogThrottle
from ...runtime.pool import DeadlinePassed, NotRun, Pool, PoolStopped
from ...values.parsers import cores
from ..credentials import share_of

_log = Logger(namespace="socksproxy")

T = TypeVar("T")

#: Checks that may wait for a thread. Each belongs to a connection, and leaves the queue with it.
WAITING = 4096
#: Seconds in which a check must have ended, with the time that it waits.
DEADLINE = 7.0


class NotChecked(UnauthorizedLogin):
    """The user is refused, but the password was not checked."""


class TooManyChecks(NotChecked):
    """The greatest number of checks waits already."""


class CheckTimedOut(NotChecked):
    """The check has not ended by its deadline."""


class CheckFailed(NotChecked):
    """The check has ended with an error of its own."""


def threads_for_hashing() -> int:
    """How many threads may compute at once: one core is left to the reactor if there are several."""
    return max(1, min(cores() - 1, 4))


class CheckThreads:
    """
    Makes checks in threads of its own.

    The threads start with the first checks. They end with the reactor, or when no reference to this object is
    left.

    :param reactor: for time, threads and shutdown; None: the running reactor, when the first check comes.
    :param name: what is checked, for the log.
    :param threads: how many checks run at once; None: :func:`threads_for_hashing`.
    :param waiting: how many more checks wait. Above that the newest check of the client with the most checks
        makes room.
    :param threads_per_share: how many threads the checks of one client may occupy; None: all of them.
    :param deadline: seconds in which a check must have ended, with the time that it waits; None: what
        :meth:`allow` says, else :data:`DEADLINE`.
    """

    def __init__(
        self,
        reactor: Any = None,
        *,
        name: str = "passwords",
        threads: int | None = None,
        waiting: int = WAITING,
        threads_per_share: int | None = None,
        deadline: float | None = None,
    ) -> None:
        self._deadline = deadline
        self._name = name
        self._make_pool = partial(
            Pool,
            reactor,
            name=f"check of {name}",
            threads=threads_for_hashing() if threads is None else threads,
            waiting=waiting,
            threads_per_share=threads_per_share,
        )
        self._pool: Pool | None = None
        self._throttles: dict[type[NotChecked], LogThrottle] = {}

    @classmethod
    def shared_fairly(cls, reactor: Any = None, *, name: str, threads: int | None = None) -> CheckThreads:
        """Make threads of which the checks of one client occupy at most half, if there are several."""
        at_once = threads_for_hashing() if threads is None else threads
        return cls(reactor, name=name, threads=at_once, threads_per_share=max(1, at_once // 2))

    @property
    def reactor(self) -> Any:
        """The reactor. The global one is imported when it is first needed."""
        return self._threads().reactor

    def run(self, check: Callable[..., T], *arguments: Any, share: Hashable = None) -> Deferred[T]:
        """
        Call *check* with *arguments* in a thread.

        :param share: the client for whom the check is; clients take turns.
        :returns: fires in the reactor's thread with what *check* returns. Cancelling it takes a check that
            waits out of the queue; a check that runs goes on to its end. It fails with what *check* raises if
            that is an :class:`~twisted.cred.error.UnauthorizedLogin`, else with a :class:`NotChecked`, and
            never with an exception that could show *arguments*.
        """
        return self._threads().run(check, *arguments, share=share).addErrback(self.failed)

    def allow(self, timeout: float) -> None:
        """
        End checks in time for a portal that has *timeout* seconds, unless a deadline was given.

        The deadline is a bit shorter than that, so that another checker can still be asked when this one
        hangs. It does not change once there was a check.
        """
        if self._deadline is None:
            self._deadline = timeout * 7 / 8

    def stop(self) -> None:
        """End each thread after the check that it runs; checks that wait fail."""
        self._threads().stop()

    def failed(self, failure: Failure) -> Failure:
        """The failure for the caller in place of a check's own *failure*; it shows no secret."""
        problem = failure.value
        if isinstance(problem, NotRun):
            problem = _not_checked(problem)
        elif not isinstance(problem, (UnauthorizedLogin, CancelledError)):
            problem = CheckFailed(_where(failure))
        if isinstance(problem, NotChecked):
            self._tell(problem)
        return _bare(problem)

    def _threads(self) -> Pool:
        if self._pool is None:
            self._pool = self._make_pool(deadline=DEADLINE if self._deadline is None else self._deadline)
        return self._pool

    def _tell(self, problem: NotChecked) -> None:
        if type(problem) is NotChecked and problem.args == (_ENDED,):
            return
        due = self._throttles.setdefault(type(problem), LogThrottle(self.reactor)).due()
        if due:
            _log.error(
                "{checked}: not checked, so refused: {problem} ({times} since the last such line)",
                checked=self._name,
                times=due,
                problem=str(problem),
            )


_ENDED = "the checks have ended"


def _not_checked(problem: NotRun) -> NotChecked:
    """The exception for a check that the pool has not run, because of *problem*."""
    if isinstance(problem, PoolStopped):
        return NotChecked(_ENDED)
    if isinstance(problem, DeadlinePassed):
        return CheckTimedOut(str(problem))
    return TooManyChecks(str(problem).replace("jobs", "checks"))


def _bare(problem: BaseException) -> Failure:
    """A failure without a traceback, whose frames would hold the variables of the check."""
    problem.__traceback__ = problem.__cause__ = problem.__context__ = None
    return Failure(problem)


def _where(failure: Failure) -> str:
    """The kind of the exception and its place, without its text, which may quote a secret."""
    frames = failure.frames
    function, file, line = frames[-1][:3] if frames else ("?", "?", 0)
    return f"{type(failure.value).__name__} in {function} ({os.path.basename(file)}, line {line})"


@implementer(ICredentialsChecker)
class PasswordChecker:
    """
    A checker of usernames and passwords that looks at each password in a thread.

    :ivar checks: the threads.
    """

    credentialInterfaces: tuple[Any, ...] = (IUsernamePassword,)
    checks: CheckThreads

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        return self.checks.run(self._check, credentials, share=share_of(credentials))

    def _check(self, credentials: Any) -> bytes:
        """
        The user's name; called in a thread.

        :raises UnauthorizedLogin: when the password is wrong.
        """
        name: bytes = credentials.username
        if not self._is_right(name, credentials.password):
            raise UnauthorizedLogin("no such user, or another password")
        return name

    def _is_right(self, username: bytes, password: bytes) -> bool:
        """Whether *password* is *username*'s."""
        raise NotImplementedError


@implementer(ICredentialsChecker)
class ThreadedChecker:
    """
    Asks a checker that blocks in threads, one question at a time because the checker may not be thread-safe.

    :param checker: the checker. It may return a Deferred.
    :param checks: the threads.
    """

    def __init__(self, checker: Any, checks: CheckThreads) -> None:
        self.checker = checker
        self.credentialInterfaces = tuple(checker.credentialInterfaces)
        self.checks = checks
        self._one_at_a_time = Lock()

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        asked = self.checks.run(self._ask, credentials, share=share_of(credentials))
        return asked.addCallback(self._inside)

    def _ask(self, credentials: Any) -> tuple[Any]:
        with self._one_at_a_time:
            # Wrapped, because the callbacks of a Deferred belong to the reactor's thread.
            return (self.checker.requestAvatarId(credentials),)

    def _inside(self, wrapped: tuple[Any]) -> Any:
        (result,) = wrapped
        return result.addErrback(self.checks.failed) if isinstance(result, Deferred) else result
