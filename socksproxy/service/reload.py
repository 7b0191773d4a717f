"""
Reading the configuration again while sessions go on, which SIGHUP asks for.

A thread reads and checks the configuration, and all files that it names. With any mistake nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from ..runtime.pool import NotRun, Pool
from .notify import Notifier

if TYPE_CHECKING:
    from ..config.command_line import SOCKSOptions

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


class Reloading:
    """
    Reads the configuration again, one time after the other.

    :param reactor: has threads.
    :param current: gives the options that are in force.
    :param apply: puts others in force; a Deferred of what has changed besides, in a few words or none.
        It fails with :class:`CannotReload` when they cannot be.
    :param notifier: tells the service manager that the configuration is being read, and has been.
    """

    def __init__(
        self,
        reactor: Any,
        current: Callable[[], SOCKSOptions],
        apply: Callable[[SOCKSOptions], Deferred[list[str]]],
        notifier: Notifier,
    ) -> None:
        #: Reads, in a thread of its own: no look-up and no password waits for it, nor the end of the process.
        self.pool = Pool(reactor, name="configuration", threads=1, waiting=1, deadline=READ_WITHIN)
        self._current = current
        self._apply = apply
        self._notifier = notifier
        self._underway = False
        self._again = False
        self._stopped = False

    def want(self) -> None:
        """Read it again; if that is being done, once more after it: something may have changed since."""
        if self._stopped:
            return
        if self._underway:
            self._again = True
            return
        self._underway = True
        self._notifier.reloading()
        reading: Deferred[Any] = self.pool.run(self._current().again)
        reading.addCallback(self._read).addCallbacks(self._told, self._failed).addBoth(self._over)

    def start(self) -> None:
        """It may be wanted from now on."""
        self._stopped = False

    def stop(self) -> None:
        """What is being read comes too late."""
        self._stopped = True
        self._again = False

    def _read(self, options: SOCKSOptions) -> Deferred[list[str]] | None:
        return None if self._stopped else self._apply(options)

    def _told(self, changes: list[str] | None) -> None:
        if changes is None:
            return
        what = f"; {', '.join(changes)}" if changes else ""
        _log.info("reloaded: {source} in force from now on{what}", source=self._source(), what=what)

    def _source(self) -> str:
        config = self._current()["config"]
        return "what the options name is" if config is None else f"{config} is"

    def _failed(self, failure: Failure) -> None:
        problem = failure.value
        if self._stopped and isinstance(problem, NotRun):
            return
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
