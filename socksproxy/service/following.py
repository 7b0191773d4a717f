"""
Following the source of the configuration: looking there again and again, and putting what is new in force.

Strategy: each node follows for itself and asks no other. What is new waits on each node for a part of the
spread that only the node's name decides: √p of it for a node at p of the way through all names. So a
hundredth of the nodes goes first, a quarter by half the time, and an operator who takes the new configuration
back meanwhile keeps it from the others. Before it waits, all of it is checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from math import sqrt
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from ..runtime.pool import NotRun, Pool
from ..sources.found import FoundConfig, SourceProblem
from ..values.timeouts import NEVER
from .reload import READ_WITHIN, CannotReload, Reloading, ReloadUnderway

if TYPE_CHECKING:
    from ..config.command_line import SOCKSOptions

_log = Logger(namespace="socksproxy")

#: Seconds between two looks at a source that is followed.
INTERVAL = 30.0


def turn(name: str) -> float:
    """How much of the spread a node of that *name* waits."""
    return sqrt(int.from_bytes(sha256(name.encode()).digest()[:8], "big") / (1 << 64))


class Following:
    """
    Follows a source.

    :param reactor: has time and threads.
    :param current: gives the options that are in force.
    :param reloading: puts others in force.
    :ivar looked: when the source was last looked at, in seconds since the epoch; None: never.
    :ivar waiting: what is new, and right, and has yet to come into force; None: nothing.
    :ivar due: when it comes into force, by the reactor's clock.
    """

    def __init__(self, reactor: Any, current: Callable[[], SOCKSOptions], reloading: Reloading) -> None:
        self.looked: float | None = None
        self.waiting: FoundConfig | None = None
        self.due = 0.0
        self._reactor = reactor
        self._current = current
        self._reloading = reloading
        # Not that of the reloading: SIGHUP does not wait for a source that hangs.
        self._pool = Pool(
            reactor, name="source of the configuration", threads=1, waiting=4, deadline=READ_WITHIN
        )
        self._known: FoundConfig | None = None
        #: What could not be used, and why. It is not tried again.
        self._refused: FoundConfig | None = None
        self._refusal = ""
        #: Why the last look came to nothing; empty: it did not.
        self._problem = ""
        self._told = ""
        self._looking: IDelayedCall | None = None
        self._applying: IDelayedCall | None = None
        self._running = False
        self._good = False

    @property
    def problem(self) -> str:
        """Why what was read last is not in force, for all that is known; empty: it is, or will be."""
        failed = self._reloading.failed
        return self.refusal or ("" if failed is None else "\n".join(failed[1]))

    @property
    def refusal(self) -> str:
        """The same, for what a look has found."""
        return self._problem or self._refusal

    def start(self) -> None:
        """Follow from now on, if there is something to follow."""
        options = self._current()
        self._running = True
        if options.fallback:
            self._problem = options.fallback
            _log.error(
                "the last good configuration is in force, for the present one cannot be used: {problem}",
                problem=options.fallback,
            )
        self._known = options.seen
        if self._good:
            self.keep()
        self._wait()

    def stop(self) -> None:
        """Follow no more."""
        self._running = self._good = False
        self._forget()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def reloaded(self, done: bool) -> None:
        """The configuration was read again; *done*: it is in force."""
        if not (done and self._running):
            return
        self._forget()
        self._accept()
        self._problem = ""
        self._known = self._current().seen
        self.keep()

    def told(self) -> dict[str, Any]:
        """What the admin API tells."""
        waiting = None
        if self.waiting is not None:
            left = max(self.due - self._reactor.seconds(), 0)
            waiting = {"hash": self.waiting.hash, "seconds": round(left, 3)}
        return {
            "checked": None if self.looked is None else round(self.looked, 3),
            "waiting": waiting,
            "error": self.refusal or None,
        }

    def _interval(self) -> float:
        options = self._current()
        said = options.plan.config_interval
        if options.origin is None:
            return NEVER
        if said is None:
            return INTERVAL if options.origin.watched else NEVER
        return said

    def _wait(self) -> None:
        interval = self._interval()
        if self._running and interval != NEVER:
            self._looking = self._reactor.callLater(interval, self._look)

    def _look(self) -> None:
        self._looking = None
        options = self._current()
        before = self.waiting, self._refused
        looking: Deferred[Any] = self._pool.run(_seen, options, self._known, before)
        looking.addCallbacks(self._found, self._failed, callbackArgs=(options,)).addErrback(_complain)
        looking.addBoth(lambda _: self._wait())

    def _found(self, result: tuple[FoundConfig, UsageError | None], options: SOCKSOptions) -> None:
        if not self._running or self._current() is not options:
            return  # it was read again meanwhile
        found, wrong = result
        self.looked = time.time()
        self._known = found
        self._problem = ""
        if found.same(self.waiting):
            return
        self._forget()
        if wrong is not None:
            self._refuse(found, str(wrong))
            self._tell(self._refusal)
        elif not found.same(self._refused):
            self._accept()
            if not found.same(options.seen):
                self._apply_later(found, options)

    def _failed(self, failure: Failure) -> None:
        failure.trap(SourceProblem, NotRun)
        origin = self._current().origin
        if self._running and origin is not None:
            self._problem = f"{origin.name}: {failure.value}"
            self._tell(self._problem)

    def _apply_later(self, found: FoundConfig, options: SOCKSOptions) -> None:
        wait = options.plan.config_spread * turn(options.plan.node.name)
        self.waiting, self.due = found, self._reactor.seconds() + wait
        _log.info(
            "the configuration {hash} of {source} comes into force in {wait} seconds",
            hash=found.hash,
            source=options["config"],
            wait=round(wait),
        )
        self._applying = self._reactor.callLater(wait, self._apply)

    def _apply(self) -> None:
        self._applying = None
        found, self.waiting = self.waiting, None
        assert found is not None
        self._reloading.now(found).addErrback(self._not_applied, found).addErrback(_complain)

    def _not_applied(self, failure: Failure, found: FoundConfig) -> None:
        if failure.check(ReloadUnderway, NotRun):
            return  # the next look finds it again
        failure.trap(CannotReload, UsageError)
        if self._running:
            self._reloading.failed = None
            self._refuse(found, str(failure.value))

    def _forget(self) -> None:
        """Let what waits not come into force."""
        self.waiting = None
        applying, self._applying = self._applying, None
        if applying is not None:
            applying.cancel()

    def _refuse(self, found: FoundConfig, problem: str) -> None:
        self._refused, self._refusal = found, problem

    def _accept(self) -> None:
        """Nothing that was refused is there any more."""
        self._refused, self._refusal, self._told = None, "", ""

    def _tell(self, problem: str) -> None:
        """Log *problem*, once as long as it stays."""
        if problem == self._told:
            return
        self._told = problem
        _log.error("what {source} holds does not come into force:", source=self._current()["config"])
        for line in problem.splitlines():
            _log.error("{line}", line=line)

    def keep(self) -> None:
        """Have what is in force stay on disk: it has come into force without a mistake."""
        self._good = True
        if not self._running:
            return  # the file is to belong to the user as whom the process will run
        options = self._current()
        if options.origin is None or options.seen is None or options.fallback:
            return
        last_good = options.origin.last_good
        if last_good is not None:
            keeping: Deferred[None] = self._pool.run(last_good.keep, options.seen.content)
            keeping.addErrback(self._not_kept).addErrback(_complain)

    def _not_kept(self, failure: Failure) -> None:
        failure.trap(SourceProblem, NotRun)
        _log.error("the last good configuration cannot be kept: {problem}", problem=failure.value)


def _seen(
    options: SOCKSOptions, known: FoundConfig | None, before: tuple[FoundConfig | None, ...]
) -> tuple[FoundConfig, UsageError | None]:
    """What the source holds now, and what is wrong with it, where it is new; in a thread."""
    origin = options.origin
    assert origin is not None
    found = origin.look(known, options.seen)
    if not any(found.same(other) for other in (options.seen, *before)):
        try:
            options.trial(found)
        except UsageError as problem:
            return found, problem
    return found, None


def _complain(failure: Failure) -> None:
    _log.failure("following the configuration fails", failure)
