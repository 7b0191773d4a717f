"""
Reading the configuration again while sessions go on, which SIGHUP asks for.

A thread reads and checks the configuration, and all files that it names. With any mistake nothing changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from ..logs.debug import RELOAD as DEBUG
from ..runtime.pool import NotRun, Pool
from .notify import Notifier

if TYPE_CHECKING:
    from ..config.command_line import SOCKSOptions
    from ..sources.found import FoundConfig

_log = Logger(namespace="socksproxy")

#: Seconds in which the configuration and all that it names must have been read.
READ_WITHIN = 600.0


class CannotReload(Exception):
    """
    The configuration that was read cannot come into force, and nothing has changed.

    :ivar lines: why, a line for each reason.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class ReloadUnderway(Exception):
    """The configuration is being read already."""


class Reloading:
    """
    Reads the configuration again, one time after the other.

    :param reactor: has threads.
    :param current: gives the options that are in force.
    :param apply: puts others in force; a Deferred of what has changed besides, in a few words or none.
        It fails with :class:`CannotReload` when they cannot be.
    :param notifier: tells the service manager that the configuration is being read, and has been.
    :param counted: called with whether it was read and is in force.
    """

    def __init__(
        self,
        reactor: Any,
        current: Callable[[], SOCKSOptions],
        apply: Callable[[SOCKSOptions], Deferred[list[str]]],
        notifier: Notifier,
        counted: Callable[[bool], None] = lambda done: None,
    ) -> None:
        #: Reads, in a thread of its own: no look-up and no password waits for it, nor the end of the process.
        self.pool = Pool(reactor, name="configuration", threads=1, waiting=1, deadline=READ_WITHIN)
        self._current = current
        self._apply = apply
        self._notifier = notifier
        self._counted = counted
        #: When the last reading has failed, and its mistakes; None: it has not, or there was none.
        self.failed: tuple[float, list[str]] | None = None
        self._underway = False
        self._again = False
        self._stopped = False
        #: The caller who waits for the end of the reading that is under way.
        self._answer: Deferred[list[str]] | None = None

    @property
    def underway(self) -> bool:
        """Whether the configuration is being read."""
        return self._underway

    def now(self, seen: FoundConfig | None = None) -> Deferred[list[str]]:
        """
        Read it again, and tell how that ends.

        :param seen: the configuration as it was found; None: its source is looked at.
        :returns: fires with what has changed, in a few words each.
        :raises ReloadUnderway: (by the Deferred) when it is being read already.
        :raises CannotReload: (by the Deferred) when it cannot come into force, with the reasons.
        :raises UsageError: (by the Deferred) when it has mistakes, a line for each.
        """
        if self._stopped:
            return fail(CannotReload(["the server stops"]))
        if self._underway:
            return fail(ReloadUnderway())
        answer: Deferred[list[str]] = Deferred()
        self._answer = answer
        self._begin(seen)
        return answer

    def want(self) -> None:
        """Read it again; if that is being done, once more after it: something may have changed since."""
        if self._stopped:
            return
        if self._underway:
            self._again = True
            return
        self._begin(None)

    def _begin(self, seen: FoundConfig | None) -> None:
        self._underway = True
        if DEBUG.on:
            DEBUG("reads the configuration again")
        self._notifier.reloading()
        reading: Deferred[Any] = self.pool.run(self._current().again, seen)
        reading.addCallback(self._read).addCallbacks(self._told, self._failed).addBoth(self._over)

    def start(self) -> None:
        """It may be wanted from now on."""
        self._stopped = False

    def stop(self) -> None:
        """What is being read comes too late."""
        self._stopped = True
        self._again = False

    def _read(self, options: SOCKSOptions) -> Deferred[list[str]] | None:
        if DEBUG.on:
            DEBUG("the configuration is read; opens what is new")
        return None if self._stopped else self._apply(options)

    def _told(self, changes: list[str] | None) -> None:
        answer, self._answer = self._answer, None
        if changes is None:
            if answer is not None:
                answer.errback(CannotReload(["the server stops"]))
            return
        self.failed = None
        self._counted(True)
        what = f"; {', '.join(changes)}" if changes else ""
        _log.info("reloaded: {source} in force from now on{what}", source=self._source(), what=what)
        if answer is not None:
            answer.callback(changes)

    def _source(self) -> str:
        config = self._current()["config"]
        return "what the options name is" if config is None else f"{config} is"

    def _failed(self, failure: Failure) -> None:
        answer, self._answer = self._answer, None
        self._complain_of(failure)
        if answer is not None:
            answer.errback(failure)

    def _complain_of(self, failure: Failure) -> None:
        problem = failure.value
        if self._stopped and isinstance(problem, NotRun):
            return
        self.failed = time.time(), str(problem).splitlines()
        self._counted(False)
        if isinstance(problem, (CannotReload, UsageError, NotRun)):
            _log.error(
                "not reloaded, the old configuration stays in force: correct this and send SIGHUP again:"
            )
            for line in str(problem).splitlines():
                _log.error("{line}", line=line)
        else:
            _log.failure("not reloaded, the old configuration stays in force", failure)

    def _over(self, _: object) -> None:
        self._underway = False
        if not self._stopped:
            self._notifier.ready()
        again, self._again = self._again, False
        if again:
            self.want()
