"""
Checks of passwords that block, in a pool of threads.

The pool (:mod:`socksproxy.runtime.pool`) has the bounds and is fair to its clients. This module adds what a
check of a password needs: a failure never shows a secret, and is always an
:class:`~twisted.cred.error.UnauthorizedLogin`. A failure that says nothing of the password is a
:class:`NotChecked`, and no client is told that its password is wrong for that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
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
from ..known import knows, tells_changes

_log = Logger(namespace="socksproxy")

T = TypeVar("T")

#: Checks that wait for a thread. Each belongs to a connection, and leaves the queue with it.
WAITING = 4096
#: Seconds in which a check must have ended, the time that it waits included.
DEADLINE = 7.0


class NotChecked(UnauthorizedLogin):
    """The user is refused, but nothing is known of the password."""


class TooManyChecks(NotChecked):
    """As many checks wait as may."""


class CheckTimedOut(NotChecked):
    """The check has not ended by its deadline."""


class CheckFailed(NotChecked):
    """The check has ended with an error of its own."""


def threads_for_hashing() -> int:
    """How many threads may compute at once: a core is left for the reactor where there are several."""
    return max(1, min(cores() - 1, 4))


class CheckThreads:
    """
    Makes checks in threads of its own.

    The threads start with the first checks, and end when the reactor does or when nothing refers to this
    object any more.

    :param reactor: for time, threads and shutdown; None: the running one, when the first check comes.
    :param name: what is checked, for the log.
    :param threads: how many checks run at once; None: as many as may compute.
    :param waiting: how many more wait; above that the newest check of the client with the most checks makes
        room.
    :param threads_per_share: how many threads the checks of one client may occupy; None: all of them.
    :param deadline: seconds in which a check must have ended, the time that it waits included; None: what
        :meth:`allow` says, or else :data:`DEADLINE`.
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
        self._reactor = reactor
        self._name = name
        self._at_once = threads_for_hashing() if threads is None else threads
        self._most = waiting
        self._per_share = threads_per_share
        self._pool: Pool | None = None
        self._seldom: dict[type[NotChecked], LogThrottle] = {}

    @classmethod
    def shared_fairly(cls, reactor: Any = None, *, name: str, threads: int | None = None) -> CheckThreads:
        """Checks of which one client has at most half of the threads, as far as there are several."""
        at_once = threads_for_hashing() if threads is None else threads
        return cls(reactor, name=name, threads=at_once, threads_per_share=max(1, at_once // 2))

    @property
    def reactor(self) -> Any:
        """The reactor; the global one is not imported before it is needed."""
        return self._threads().reactor

    def run(self, check: Callable[..., T], *arguments: Any, share: Hashable = None) -> Deferred[T]:
        """
        Call *check* with *arguments* in a thread.

        :param share: the client for whom the check is; clients take turns.
        :returns: fires, in the reactor's thread, with what *check* returns. To cancel it takes a check that
            waits out of the queue; a check that runs goes on to its end. It fails with what *check* raises if
            that is :class:`~twisted.cred.error.UnauthorizedLogin`, with :class:`NotChecked` otherwise, and
            never with anything that could show *arguments*.
        """
        return self._threads().run(check, *arguments, share=share).addErrback(self.failed)

    def allow(self, timeout: float) -> None:
        """
        Where no other deadline was given: end in time for a portal that has *timeout* seconds.

        It is a bit less, so that another checker can still be asked when one hangs. It has no effect any more
        once there was a check.
        """
        if self._deadline is None:
            self._deadline = timeout * 7 / 8

    def stop(self) -> None:
        """End the threads, each when it has done what it is at; checks that wait fail."""
        self._threads().stop()

    def failed(self, failure: Failure) -> Failure:
        """What is told in place of a check's own *failure*: nothing in it can show a secret."""
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
            self._pool = Pool(
                self._reactor,
                name=f"check of {self._name}",
                threads=self._at_once,
                waiting=self._most,
                threads_per_share=self._per_share,
                deadline=DEADLINE if self._deadline is None else self._deadline,
            )
        return self._pool

    def _tell(self, problem: NotChecked) -> None:
        if type(problem) is NotChecked and problem.args == (_ENDED,):
            return
        due = self._seldom.setdefault(type(problem), LogThrottle(self.reactor)).due()
        if due:
            _log.error(
                "{checked}: not checked, so refused: {problem} ({times} since the last such line)",
                checked=self._name,
                times=due,
                problem=str(problem),
            )


_ENDED = "the checks have ended"


def _not_checked(problem: NotRun) -> NotChecked:
    """What the pool's *problem* means for a check."""
    if isinstance(problem, PoolStopped):
        return NotChecked(_ENDED)
    if isinstance(problem, DeadlinePassed):
        return CheckTimedOut(str(problem))
    return TooManyChecks(str(problem).replace("jobs", "checks"))


def _bare(problem: BaseException) -> Failure:
    """A failure without a traceback: its frames would hold the variables of the check."""
    problem.__traceback__ = problem.__cause__ = problem.__context__ = None
    return Failure(problem)


def _where(failure: Failure) -> str:
    """What was raised and where. Its text is left out: some exceptions quote what they could not read."""
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
        """The user's name, in a thread; :raises UnauthorizedLogin: when the password is another one."""
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
    A checker that blocks, asked in threads; one at a time, because it may know nothing of threads.

    :param checker: another checker. It may return a Deferred.
    :param checks: where it is asked.
    :ivar checks: likewise.
    """

    def __init__(self, checker: Any, checks: CheckThreads) -> None:
        self.checker = checker
        self.credentialInterfaces = tuple(checker.credentialInterfaces)
        self.checks = checks
        self._one_at_a_time = Lock()

    @property
    def version(self) -> int:
        """The other checker's; 0, if it has none."""
        version: int = getattr(self.checker, "version", 0)
        return version

    @property
    def tells_changes(self) -> bool:
        """Whether the other checker has a version."""
        return tells_changes(self.checker)

    def knows(self, avatar_id: Any) -> bool | None:
        """Whether *avatar_id* is still somebody's; None: the other checker cannot tell."""
        return knows(self.checker, avatar_id)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        asked = self.checks.run(self._ask, credentials, share=share_of(credentials))
        return asked.addCallback(self._inside)

    def _ask(self, credentials: Any) -> tuple[Any]:
        with self._one_at_a_time:
            # Wrapped: its callbacks are for the reactor's thread, if it is a Deferred.
            return (self.checker.requestAvatarId(credentials),)

    def _inside(self, wrapped: tuple[Any]) -> Any:
        (result,) = wrapped
        return result.addErrback(self.checks.failed) if isinstance(result, Deferred) else result
