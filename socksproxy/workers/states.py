"""
The states of workers: of one worker, and of all workers together.

Strategy: a :class:`Worker` and a :class:`WorkerGroup` have one state each, and a method for each input. A
method changes the state first and then acts, so that an input which comes meanwhile finds the new state. An
input that makes no difference in a state does nothing. Neither class knows processes or time: what starts
and stops a process, and the clock, are passed in. ``tests/workers/test_states.py`` holds the table of
states and inputs, and tries each input in each state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_log = Logger(namespace="socksproxy")

#: Seconds before the second restart in a row. The first comes at once; each further one waits twice as long.
FIRST_DELAY = 0.25
#: Seconds that a restart waits at most.
LONGEST_DELAY = 30.0
#: Seconds after which a worker has proved itself: its earlier failures are forgotten.
PROVED = 10.0
#: Seconds in which a worker must be ready.
START_TIMEOUT = 60.0
#: Seconds in which a worker must have put another configuration in force.
RELOAD_TIMEOUT = 120.0
#: Seconds beyond those that its sessions have, in which a worker must have ended. The whole is to end in one.
STOP_TIMEOUT = 0.9
#: Seconds in which a worker that is to end at once must have ended.
KILL_TIMEOUT = 2.0
#: Starts in a row that may fail, all workers together, while no worker runs.
FAILED_STARTS = 5


class WorkerState(Enum):
    """The state of a worker."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    RELOADING = "reloading"
    #: The worker accepts no client any more, and another one takes its place.
    LEAVING = "leaving"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    STOPPED = "stopped"


class GroupState(Enum):
    """The state of all workers together."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Ending:
    """
    How a process ended.

    :ivar how: in words.
    :ivar orderly: whether the process ended by itself, with status 0.
    :ivar killed: whether a signal has ended the process.
    """

    how: str
    orderly: bool = False
    killed: bool = False


class Process(Protocol):
    """A worker's process."""

    @property
    def pid(self) -> int | None:
        """The process's number; None: the process does not run yet."""

    def reload(self) -> bool:
        """Tell the process to put the current configuration in force; False: it cannot be told."""

    def drain(self) -> None:
        """Tell the process to accept no client any more, to let its sessions finish, and to end."""

    def end(self) -> None:
        """Tell the process to end its sessions and itself."""

    def kill(self) -> None:
        """End the process."""


class WorkerOwner(Protocol):
    """The owner of workers, which hears of their changes."""

    def worker_ready(self, worker: Worker) -> None:
        """*worker* accepts clients."""

    def worker_settled(self, worker: Worker) -> None:
        """*worker* has the current configuration in force, or accepts no client any more."""

    def worker_failed(self, worker: Worker, ending: Ending) -> None:
        """The process of *worker* ended before it was ready."""

    def worker_died(self, worker: Worker, ending: Ending) -> None:
        """The process of *worker* has ended."""

    def worker_stopped(self, worker: Worker) -> None:
        """*worker* has ended, and is not started again."""


class Worker:
    """
    A worker, through all the processes that it has one after the other.

    :param number: from 1 on.
    :param clock: for its timers.
    :param spawn: starts a process, which tells the worker what becomes of it.
    :param owner: hears of the worker's changes.
    :param drain_seconds: how long the sessions may go on at the end.
    :ivar process: the process that runs, or None.
    :ivar failures: how many processes in a row have failed.
    :ivar sessions: how many the process has had when it said so the last time.
    """

    def __init__(
        self,
        number: int,
        clock: IReactorTime,
        spawn: Callable[[Worker], Process],
        owner: WorkerOwner,
        drain_seconds: float = 0.0,
    ) -> None:
        self.number = number
        self.spawn = spawn
        self.drain_seconds = drain_seconds
        self.state = WorkerState.IDLE
        self.process: Process | None = None
        self.failures = 0
        self.sessions = 0
        self._clock = clock
        self._owner = owner
        self._ready_since = 0.0
        self._heard = 0.0
        # Whether the configuration has changed since the process got its own.
        self._outdated = False
        self._timer: IDelayedCall | None = None

    @property
    def serves(self) -> bool:
        """Whether the worker accepts clients."""
        return self.state in (WorkerState.RUNNING, WorkerState.RELOADING)

    @property
    def uptime(self) -> float:
        """Seconds since the process has come to accept clients."""
        return self._clock.seconds() - self._ready_since

    # What the supervisor wants.

    def start(self) -> None:
        """Run."""
        if self.state is WorkerState.IDLE:
            self._begin()

    def reload(self) -> None:
        """Put the current configuration in force. A process that starts later gets it at its start."""
        if self.state in (WorkerState.STARTING, WorkerState.RELOADING):
            self._outdated = True
        elif self.state is WorkerState.RUNNING:
            self.state, self._outdated = WorkerState.RELOADING, False
            self._wait(RELOAD_TIMEOUT, self.late)
            if self.process is None or not self.process.reload():
                self.not_reloaded()

    def drain(self) -> None:
        """End when the sessions have ended."""
        if self.state in (WorkerState.IDLE, WorkerState.BACKING_OFF):
            self._stop()
        elif self.state not in (WorkerState.STOPPING, WorkerState.STOPPED):
            self.state = WorkerState.STOPPING
            self._drain()

    def end(self) -> None:
        """End at once."""
        if self.state in (WorkerState.IDLE, WorkerState.BACKING_OFF):
            self._stop()
        elif self.state is not WorkerState.STOPPED:
            self.state = WorkerState.STOPPING
            self._wait(KILL_TIMEOUT, self.late)
            if self.process is not None:
                self.process.end()

    # What the process tells.

    def ready(self) -> None:
        """The process accepts clients."""
        if self.state is not WorkerState.STARTING:
            return
        self.state = WorkerState.RUNNING
        self._stop_timer()
        self._ready_since = self._heard = self._clock.seconds()
        self._owner.worker_ready(self)
        if self._outdated:
            self.reload()

    def reloaded(self) -> None:
        """The process has put its new configuration in force."""
        if self.state is not WorkerState.RELOADING:
            return
        self.state = WorkerState.RUNNING
        self._stop_timer()
        self._heard = self._clock.seconds()
        if self._outdated:
            self.reload()
        else:
            self._owner.worker_settled(self)

    def not_reloaded(self) -> None:
        """The process cannot put its new configuration in force."""
        if self.state is WorkerState.RELOADING:
            self._leave("cannot put the new configuration in force")

    def ended(self, ending: Ending) -> None:
        """The process has ended."""
        state = self.state
        if state is WorkerState.STOPPING:
            self.process = None
            self._owner.worker_died(self, ending)
            self._stop()
        elif state is WorkerState.STARTING:
            self._back_off(ending, 1)
            self._owner.worker_failed(self, ending)
        elif state is WorkerState.LEAVING or self.serves:
            if self.serves and (ending.orderly or self._clock.seconds() - self._ready_since >= PROVED):
                self.failures = 0
            self._back_off(ending, 0 if ending.orderly else 1)

    def beat(self, sessions: int) -> None:
        """The process shows that it lives, and has so many *sessions*."""
        self.sessions = sessions
        self._heard = self._clock.seconds()

    # What the timer tells.

    def check(self, limit: float) -> bool:
        """
        Whether the process has shown that it lives, within *limit* seconds.

        One that serves clients and has not is killed, and another takes its place. To read a configuration
        may take longer; that has a limit of its own.
        """
        if self.state is not WorkerState.RUNNING or self._clock.seconds() - self._heard <= limit:
            return True
        self._kill(f"has shown no sign of life for {limit:g} seconds, and is killed")
        return False

    def late(self) -> None:
        """What the worker is at takes too long."""
        if self.state is WorkerState.RELOADING:
            self._leave(f"has not put the new configuration in force in {RELOAD_TIMEOUT:g} seconds")
        elif self.state is WorkerState.STARTING:
            self._kill(f"is not ready after {START_TIMEOUT:g} seconds")
        elif self.state in (WorkerState.LEAVING, WorkerState.STOPPING):
            self._kill("does not end, and is killed")

    def retry(self) -> None:
        """The next process may start."""
        if self.state is WorkerState.BACKING_OFF:
            self._begin()

    def _begin(self) -> None:
        self.state, self._outdated = WorkerState.STARTING, False
        self._wait(START_TIMEOUT, self.late)
        try:
            self.process = self.spawn(self)
        except OSError as problem:
            # No process, no memory or no descriptor is left; that may be another way in a moment.
            self.ended(Ending(problem.strerror or str(problem)))

    def _leave(self, why: str) -> None:
        _log.error(
            "worker {number} {why}: it accepts no more clients, and a new worker replaces it",
            number=self.number,
            why=why,
        )
        self.state = WorkerState.LEAVING
        self._drain()
        self._owner.worker_settled(self)

    def _back_off(self, ending: Ending, failures: int) -> None:
        pid = None if self.process is None else self.process.pid
        self.state, self.process, self.sessions = WorkerState.BACKING_OFF, None, 0
        self.failures += failures
        self._owner.worker_died(self, ending)
        delay = 0.0
        if self.failures > 1:
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.failures - 2, 20))
        (_log.info if ending.orderly else _log.error)(
            "worker {number} (process {pid}) has ended: {how}; another starts {when}",
            number=self.number,
            pid=pid,
            how=ending.how,
            when=f"in {delay:g} seconds" if delay else "at once",
        )
        self._wait(delay, self.retry)

    def _drain(self) -> None:
        self._wait(self.drain_seconds + STOP_TIMEOUT, self.late)
        if self.process is not None:
            self.process.drain()

    def _kill(self, why: str) -> None:
        _log.error("worker {number} {why}", number=self.number, why=why)
        if self.process is not None:
            self.process.kill()

    def _stop(self) -> None:
        self.state, self.sessions = WorkerState.STOPPED, 0
        self._stop_timer()
        self._owner.worker_stopped(self)

    def _wait(self, seconds: float, call: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._clock.callLater(seconds, call)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


class WorkerGroup:
    """
    All workers together.

    :param workers: the workers, none of which has been started.
    :param started: called when each of them has come to accept clients.
    :param gave_up: called with a reason when no worker can start.
    :param stopped: called when all of them have ended for good.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        started: Callable[[], None],
        gave_up: Callable[[str], None],
        stopped: Callable[[], None],
    ) -> None:
        self.workers = workers
        self.state = GroupState.IDLE
        self._started = started
        self._gave_up = gave_up
        self._stopped = stopped
        self._failed_starts = 0
        # The workers that have accepted clients at some time.
        self._seen: set[int] = set()

    @property
    def _active(self) -> bool:
        return self.state in (GroupState.STARTING, GroupState.RUNNING)

    # What the supervisor wants.

    def start(self) -> None:
        """Run all workers."""
        if self.state is GroupState.IDLE:
            self.state = GroupState.STARTING
            for worker in self.workers:
                worker.start()

    def reload(self) -> None:
        """Have all workers put the current configuration in force."""
        if self._active:
            for worker in self.workers:
                worker.reload()

    def drain(self) -> None:
        """End each worker when its sessions have ended."""
        if self.state is GroupState.IDLE:
            self._stop()
        elif self._active:
            self.state = GroupState.DRAINING
            for worker in self.workers:
                worker.drain()

    def end(self) -> None:
        """End all workers at once."""
        if self.state is GroupState.IDLE:
            self._stop()
        elif self.state is not GroupState.STOPPED:
            self.state = GroupState.DRAINING
            for worker in self.workers:
                worker.end()

    # What the workers tell.

    def one_ready(self) -> None:
        """A worker accepts clients."""
        if not self._active:
            return
        self._failed_starts = 0
        self._seen.update(worker.number for worker in self.workers if worker.serves)
        if self.state is GroupState.STARTING and len(self._seen) == len(self.workers):
            self.state = GroupState.RUNNING
            self._started()

    def one_failed(self, ending: Ending) -> None:
        """A worker ended before it was ready."""
        if not self._active:
            return
        self._failed_starts += 1
        if self._failed_starts >= FAILED_STARTS and not any(worker.serves for worker in self.workers):
            self.end()
            self._gave_up(f"no worker becomes ready; the last one ended with {ending.how}")

    def one_stopped(self) -> None:
        """A worker has ended, and is not started again."""
        if self.state is GroupState.DRAINING and all(
            one.state is WorkerState.STOPPED for one in self.workers
        ):
            self._stop()

    def _stop(self) -> None:
        self.state = GroupState.STOPPED
        self._stopped()
