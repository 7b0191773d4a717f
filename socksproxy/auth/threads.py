"""
Checks of passwords that block, in threads: a few, with a queue that has an end, and a deadline each.

A thread that hangs cannot be ended. So there are never more of them, what waits
behind them is refused rather than kept, and they do not hold up the end of the
process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar
from weakref import WeakMethod, finalize

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..seldom import Seldom
from ..values import cores
from .known import knows

_log = Logger(namespace="socksproxy")

T = TypeVar("T")

#: Checks that wait for a thread.
WAITING = 64
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


class _Check:
    """One check: what is to be done, until nobody waits for it any more, and who is told."""

    __slots__ = ("answer", "ended", "timer", "work")

    def __init__(
        self,
        work: Callable[[], Any],
        answer: Deferred[Any],
        ended: Callable[[_Check, Any], None],
    ) -> None:
        self.work: Callable[[], Any] | None = work
        self.answer = answer
        self.ended = ended
        self.timer: IDelayedCall | None = None

    def end(self) -> None:
        """Nobody waits for it any more."""
        self.work = None  # a secret is in it
        if self.timer is not None and self.timer.active():
            self.timer.cancel()


class Checks:
    """
    Makes checks in threads of its own.

    The threads start with the first checks, and end when the reactor does or when nobody has this any more.

    :param reactor: for time, threads and shutdown; None: the running one, when the first check comes.
    :param name: what is checked, for the log.
    :param threads: how many checks go on at once; None: as many as may compute.
    :param waiting: how many more wait; any above are refused.
    :param deadline: seconds in which a check must have ended, the time that it waits included.
    """

    def __init__(
        self,
        reactor: Any = None,
        *,
        name: str = "passwords",
        threads: int | None = None,
        waiting: int = WAITING,
        deadline: float = DEADLINE,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._at_once = threads_for_hashing() if threads is None else threads
        self._most = waiting
        self._deadline = deadline
        self._waiting: dict[_Check, None] = {}
        self._running: set[_Check] = set()  # those that are too late still hold their thread
        self._queue: SimpleQueue[_Check | None] = SimpleQueue()
        self._threads = 0
        self._trigger: Any = None
        self._stopped = False
        self._seldom: dict[type[NotChecked], Seldom] = {}
        # The configuration may be another one in a minute, with checkers of its own.
        finalize(self, self._queue.put, None).atexit = False
        self._forgetting: finalize[Any, Any] | None = None

    @property
    def reactor(self) -> Any:
        """The reactor; the global one is not imported before it is needed."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    def run(self, check: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """
        Call *check* with *arguments* in a thread.

        :returns: fires, in the reactor's thread, with what it returns. When it is cancelled, a
            check that goes on is left to end in its own time. It fails with what *check* raises if that is
            :class:`~twisted.cred.error.UnauthorizedLogin`, with :class:`NotChecked` otherwise, and never
            with anything that could show *arguments*.
        """
        if self._stopped:
            return fail(NotChecked("the checks have ended"))
        if len(self._waiting) >= self._most and len(self._running) >= self._at_once:
            return fail(self._refused(TooManyChecks("as many checks wait as may")))
        if not self._ready():
            return fail(self._refused(TooManyChecks("the system has no thread left")))
        answer: Deferred[T] = Deferred(lambda _: self._forget(wanted))
        wanted = _Check(lambda: check(*arguments), answer, self._ended)
        wanted.timer = self.reactor.callLater(self._deadline, self._expired, wanted)
        self._waiting[wanted] = None
        self._next()
        return answer

    def stop(self) -> None:
        """End the threads, each when it has done what it is at; nobody waits for them."""
        if self._stopped:
            return
        self._stopped = True
        if self._trigger is not None:
            self.reactor.removeSystemEventTrigger(self._trigger)
        if self._forgetting is not None:
            self._forgetting.detach()
        for wanted in [*self._waiting, *self._running]:
            self._forget(wanted)
            if not wanted.answer.called:
                wanted.answer.errback(NotChecked("the checks have ended"))
        self._queue.put(None)

    def failed(self, failure: Failure) -> Failure:
        """What is told in place of a check's own *failure*: nothing in it can show a secret."""
        problem: BaseException | None = failure.value
        if not isinstance(problem, (UnauthorizedLogin, CancelledError)):
            problem = CheckFailed(_where(failure))
        return _bare(self._refused(problem) if isinstance(problem, NotChecked) else problem)

    def _ready(self) -> bool:
        if self._trigger is None:
            reactor, shutdown = self.reactor, WeakMethod(self._shutdown)
            self._trigger = reactor.addSystemEventTrigger("during", "shutdown", _call, shutdown)
            self._forgetting = finalize(
                self, reactor.callFromThread, reactor.removeSystemEventTrigger, self._trigger
            )
            self._forgetting.atexit = False
        if self._threads < min(self._at_once, len(self._running) + 1):
            try:
                # A thread that hangs must not keep the process alive.
                Thread(
                    target=_serve,
                    args=(self._queue, self.reactor),
                    name=f"check of {self._name}",
                    daemon=True,
                ).start()
                self._threads += 1
            except RuntimeError:
                pass  # the system has no more; those that there are will do
        return self._threads > 0

    def _shutdown(self) -> None:
        self._trigger = None
        self.stop()

    def _next(self) -> None:
        while self._waiting and len(self._running) < self._threads:
            wanted = next(iter(self._waiting))
            del self._waiting[wanted]
            self._running.add(wanted)
            self._queue.put(wanted)

    def _ended(self, wanted: _Check, outcome: Any) -> None:
        self._running.discard(wanted)
        self._next()
        wanted.end()
        # It has been called if it was too late, or if nobody wanted to know any more.
        if not wanted.answer.called:
            wanted.answer.callback(self.failed(outcome) if isinstance(outcome, Failure) else outcome)

    def _expired(self, wanted: _Check) -> None:
        self._forget(wanted)
        wanted.answer.errback(self._refused(CheckTimedOut(f"not ended after {self._deadline:g} seconds")))

    def _forget(self, wanted: _Check) -> None:
        self._waiting.pop(wanted, None)
        wanted.end()

    def _refused(self, problem: NotChecked) -> NotChecked:
        due = self._seldom.setdefault(type(problem), Seldom(self.reactor)).due()
        if due:
            _log.error(
                "{checked}: not checked, so refused: {problem} ({times} since the last such line)",
                checked=self._name,
                times=due,
                problem=str(problem),
            )
        return problem


def _serve(queue: SimpleQueue[_Check | None], reactor: Any) -> None:
    """What a thread does: it has no hold of those whose checks it makes while there is none."""
    while (wanted := queue.get()) is not None:
        reactor.callFromThread(wanted.ended, wanted, _outcome(wanted))
        del wanted
    queue.put(None)  # for the next one


def _call(method: WeakMethod[Any]) -> Any:
    there = method()
    return None if there is None else there()


def _outcome(wanted: _Check) -> Any:
    work = wanted.work
    if work is None:
        return None
    try:
        return work()
    except BaseException:
        # Whatever it is: nothing else may end the thread.
        return Failure()


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
class Threaded:
    """
    A checker that blocks, asked in threads; one at a time, because it may know nothing of threads.

    :param checker: another checker. It may return a Deferred.
    :param checks: where it is asked.
    """

    def __init__(self, checker: Any, checks: Checks) -> None:
        self.checker = checker
        self.credentialInterfaces = tuple(checker.credentialInterfaces)
        self._checks = checks
        self._one_at_a_time = Lock()

    @property
    def version(self) -> int:
        """The other checker's; 0, if it has none."""
        version: int = getattr(self.checker, "version", 0)
        return version

    def knows(self, avatar_id: Any) -> bool | None:
        """Whether *avatar_id* is still somebody's; None: the other checker cannot tell."""
        return knows(self.checker, avatar_id)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """See :meth:`twisted.cred.checkers.ICredentialsChecker.requestAvatarId`."""
        return self._checks.run(self._ask, credentials).addCallback(self._inside)

    def _ask(self, credentials: Any) -> tuple[Any]:
        with self._one_at_a_time:
            # Wrapped: its callbacks are for the reactor's thread, if it is a Deferred.
            return (self.checker.requestAvatarId(credentials),)

    def _inside(self, wrapped: tuple[Any]) -> Any:
        (result,) = wrapped
        return result.addErrback(self._checks.failed) if isinstance(result, Deferred) else result
