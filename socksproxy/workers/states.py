"""
What the supervisor does, as state machines: one for each worker, one for all of them.

They know no process and no clock of their own: what starts a process, what
stops it and what tells the time is passed in. An input that makes no difference in a
state is written down there as well, so that every input has its answer in
every state (``tests/test_workers.py`` tries them all).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_log = Logger(namespace="socksproxy")

#: Seconds before the second restart in a row; the first is at once, and each further one waits twice as long.
FIRST_DELAY = 0.25
#: Seconds that a restart waits at the most.
LONGEST_DELAY = 30.0
#: Seconds after which a worker has proved itself: when it dies then, counting begins anew.
PROVED = 10.0
#: Seconds in which a worker must be ready.
START_TIMEOUT = 60.0
#: Seconds in which a worker must have gone over to another configuration.
RELOAD_TIMEOUT = 120.0
#: Seconds beyond those that its sessions have, in which a worker must have ended. The whole is to end in one.
STOP_TIMEOUT = 0.9
#: Seconds in which a worker that is to end at once must have ended.
KILL_TIMEOUT = 2.0
#: Starts in a row that may fail, all workers together, while none runs.
FAILED_STARTS = 5


class State(Enum):
    """What a worker is at."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    RELOADING = "reloading"
    LEAVING = "leaving"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Ending:
    """
    How a process ended.

    :ivar how: in words.
    :ivar orderly: whether it meant to.
    """

    how: str
    orderly: bool = False


class Process(Protocol):
    """A worker's process."""

    @property
    def pid(self) -> int | None:
        """Its number."""

    def reload(self) -> bool:
        """Tell it to go over to the configuration that is in force; returned is whether it can be told."""

    def drain(self) -> None:
        """Tell it to accept nobody any more, to let its sessions finish, and to end."""

    def end(self) -> None:
        """Tell it to end its sessions and itself."""

    def kill(self) -> None:
        """End it."""


class Owner(Protocol):
    """Who is told what becomes of a worker."""

    def worker_ready(self, worker: WorkerCore) -> None:
        """It accepts clients."""

    def worker_settled(self, worker: WorkerCore) -> None:
        """It has gone over to the configuration that is in force, or accepts nobody any more."""

    def worker_failed(self, worker: WorkerCore, ending: Ending) -> None:
        """It ended before it was ready."""

    def worker_died(self, worker: WorkerCore, ending: Ending) -> None:
        """It has ended, and nobody had asked it to."""

    def worker_stopped(self, worker: WorkerCore) -> None:
        """It has ended, and starts no more."""


class Worker(Protocol):
    """One worker: what may happen to it."""

    def start(self) -> None:
        """It is to run."""

    def ready(self) -> None:
        """It says that it accepts clients."""

    def reload(self) -> None:
        """It is to go over to another configuration."""

    def reloaded(self) -> None:
        """It says that it has."""

    def not_reloaded(self) -> None:
        """It says that it cannot."""

    def ended(self, ending: Ending) -> None:
        """Its process has ended."""

    def late(self) -> None:
        """It has taken too long for what it is at."""

    def retry(self) -> None:
        """It may be started again."""

    def drain(self) -> None:
        """It is to end when its sessions have."""

    def end(self) -> None:
        """It is to end at once."""


@dataclass
class WorkerCore:
    """
    What a worker's machine works with.

    :ivar number: from 1 on.
    :ivar clock: for its timers.
    :ivar spawn: starts a process that tells this machine what becomes of it.
    :ivar owner: is told.
    :ivar drain_seconds: how long its sessions may go on at the end.
    :ivar process: what runs, if anything does.
    :ivar state: what it is at.
    :ivar failures: how often in a row it has died.
    :ivar outdated: whether the configuration has changed since it was started, and it does not know.
    """

    number: int
    clock: IReactorTime
    spawn: Callable[[Worker, int], Process]
    owner: Owner
    drain_seconds: float = 0.0
    process: Process | None = None
    state: State = State.IDLE
    failures: int = 0
    since: float = 0.0
    outdated: bool = False
    timer: IDelayedCall | None = None

    @property
    def serves(self) -> bool:
        """Whether it accepts clients."""
        return self.state in (State.RUNNING, State.RELOADING)

    def wait(self, seconds: float, call: Callable[[], None]) -> None:
        """Make *call* in so many *seconds*, and no other that was to be made."""
        self.stop_waiting()
        self.timer = self.clock.callLater(seconds, call)

    def stop_waiting(self) -> None:
        """Make no call."""
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def delay(self) -> float:
        """Seconds before the next start."""
        if self.failures < 2:
            return 0.0
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.failures - 2, 20))


def _worker_machine() -> Callable[[WorkerCore], Worker]:
    builder = TypeMachineBuilder(Worker, WorkerCore)
    idle = builder.state("Idle")
    starting = builder.state("Starting")
    running = builder.state("Running")
    reloading = builder.state("Reloading")
    leaving = builder.state("Leaving")
    backing_off = builder.state("BackingOff")
    stopping = builder.state("Stopping")
    stopped = builder.state("Stopped")

    # What makes no difference.
    told = (Worker.reloaded, Worker.not_reloaded)
    changes = (Worker.reload, *told)
    for state, inputs in (
        (idle, (Worker.ready, Worker.ended, Worker.late, Worker.retry, *changes)),
        (starting, (Worker.start, Worker.retry, *told)),
        (running, (Worker.start, Worker.ready, Worker.late, Worker.retry, *told)),
        (reloading, (Worker.start, Worker.ready, Worker.retry)),
        # Its replacement is told at its start.
        (leaving, (Worker.start, Worker.ready, Worker.retry, *changes)),
        (backing_off, (Worker.start, Worker.ready, Worker.ended, Worker.late, *changes)),
        (stopping, (Worker.start, Worker.ready, Worker.retry, Worker.drain, *changes)),
        (
            stopped,
            (
                *(Worker.start, Worker.ready, Worker.ended, Worker.late, Worker.retry),
                *(Worker.drain, Worker.end, *changes),
            ),
        ),
    ):
        for input in inputs:
            state.upon(input).loop().returns(None)

    @idle.upon(Worker.start).to(starting)
    def begin(worker: Worker, core: WorkerCore) -> None:
        core.state, core.outdated = State.STARTING, False
        core.wait(START_TIMEOUT, worker.late)
        try:
            core.process = core.spawn(worker, core.number)
        except OSError as problem:
            # No process, no memory or no descriptor is left; that may be another way in a moment.
            worker.ended(Ending(problem.strerror or str(problem)))

    @starting.upon(Worker.ready).to(running)
    def is_ready(worker: Worker, core: WorkerCore) -> None:
        core.state = State.RUNNING
        core.stop_waiting()
        core.since = core.clock.seconds()
        core.owner.worker_ready(core)
        if core.outdated:
            worker.reload()

    @starting.upon(Worker.reload).loop()
    def later(worker: Worker, core: WorkerCore) -> None:
        core.outdated = True

    @running.upon(Worker.reload).to(reloading)
    def go_over(worker: Worker, core: WorkerCore) -> None:
        core.state, core.outdated = State.RELOADING, False
        core.wait(RELOAD_TIMEOUT, worker.late)
        if core.process is None or not core.process.reload():
            worker.not_reloaded()

    @reloading.upon(Worker.reload).loop()
    def once_more(worker: Worker, core: WorkerCore) -> None:
        core.outdated = True

    @reloading.upon(Worker.reloaded).to(running)
    def has_gone_over(worker: Worker, core: WorkerCore) -> None:
        core.state = State.RUNNING
        core.stop_waiting()
        if core.outdated:
            worker.reload()
        else:
            core.owner.worker_settled(core)

    @reloading.upon(Worker.not_reloaded).to(leaving)
    def cannot(worker: Worker, core: WorkerCore) -> None:
        leave_to_another(worker, core, "cannot go over to the new configuration")

    @reloading.upon(Worker.late).to(leaving)
    def goes_not(worker: Worker, core: WorkerCore) -> None:
        leave_to_another(
            worker, core, f"has not gone over to the new configuration in {RELOAD_TIMEOUT:g} seconds"
        )

    def leave_to_another(worker: Worker, core: WorkerCore, why: str) -> None:
        _log.error(
            "worker {number} {why}: it accepts nobody any more, and another takes its place",
            number=core.number,
            why=why,
        )
        drain(worker, core)
        core.state = State.LEAVING
        core.owner.worker_settled(core)

    @leaving.upon(Worker.ended).to(backing_off)
    def has_left(worker: Worker, core: WorkerCore, ending: Ending) -> None:
        back_off(worker, core, ending, 0 if ending.orderly else 1)

    @starting.upon(Worker.late).loop()
    def too_slow(worker: Worker, core: WorkerCore) -> None:
        _log.error(
            "worker {number} is not ready after {seconds:g} seconds",
            number=core.number,
            seconds=START_TIMEOUT,
        )
        _kill(core)

    @starting.upon(Worker.ended).to(backing_off)
    def failed(worker: Worker, core: WorkerCore, ending: Ending) -> None:
        back_off(worker, core, ending, 1)
        core.owner.worker_failed(core, ending)

    def died(worker: Worker, core: WorkerCore, ending: Ending) -> None:
        if ending.orderly or core.clock.seconds() - core.since >= PROVED:
            core.failures = 0
        back_off(worker, core, ending, 0 if ending.orderly else 1)

    def back_off(worker: Worker, core: WorkerCore, ending: Ending, failures: int) -> None:
        pid = None if core.process is None else core.process.pid
        core.state, core.process = State.BACKING_OFF, None
        core.failures += failures
        core.owner.worker_died(core, ending)
        delay = core.delay()
        (_log.info if ending.orderly else _log.error)(
            "worker {number} (process {pid}) has ended: {how}; another starts {when}",
            number=core.number,
            pid=pid,
            how=ending.how,
            when=f"in {delay:g} seconds" if delay else "at once",
        )
        core.wait(delay, worker.retry)

    @backing_off.upon(Worker.retry).to(starting)
    def again(worker: Worker, core: WorkerCore) -> None:
        begin(worker, core)

    def leave(worker: Worker, core: WorkerCore) -> None:
        core.state = State.STOPPED
        core.stop_waiting()
        core.owner.worker_stopped(core)

    def drain(worker: Worker, core: WorkerCore) -> None:
        core.state = State.STOPPING
        core.wait(core.drain_seconds + STOP_TIMEOUT, worker.late)
        if core.process is not None:
            core.process.drain()

    def end(worker: Worker, core: WorkerCore) -> None:
        core.state = State.STOPPING
        core.wait(KILL_TIMEOUT, worker.late)
        if core.process is not None:
            core.process.end()

    for state in (idle, backing_off):
        for input in (Worker.drain, Worker.end):
            state.upon(input).to(stopped)(leave)
    for state in (running, reloading):
        state.upon(Worker.ended).to(backing_off)(died)
    for state in (starting, running, reloading, leaving):
        state.upon(Worker.drain).to(stopping)(drain)
        state.upon(Worker.end).to(stopping)(end)
    stopping.upon(Worker.end).loop()(end)

    def too_long(worker: Worker, core: WorkerCore) -> None:
        _log.error("worker {number} does not end, and is killed", number=core.number)
        _kill(core)

    for state in (leaving, stopping):
        state.upon(Worker.late).loop()(too_long)

    @stopping.upon(Worker.ended).to(stopped)
    def gone(worker: Worker, core: WorkerCore, ending: Ending) -> None:
        core.process = None
        core.owner.worker_died(core, ending)
        leave(worker, core)

    return builder.build()


def _kill(core: WorkerCore) -> None:
    if core.process is not None:
        core.process.kill()


#: Makes a :class:`Worker` of a :class:`WorkerCore`.
make_worker = _worker_machine()


class Crew(Protocol):
    """All workers: what may happen to them together."""

    def start(self) -> None:
        """They are to run."""

    def one_ready(self) -> None:
        """One of them accepts clients."""

    def all_ready(self) -> None:
        """Each of them has come to accept clients."""

    def one_failed(self, ending: Ending) -> None:
        """One of them ended before it was ready."""

    def hopeless(self, ending: Ending) -> None:
        """They end before they are ready, one after the other."""

    def one_stopped(self) -> None:
        """One of them has ended, and starts no more."""

    def all_stopped(self) -> None:
        """All of them have."""

    def reload(self) -> None:
        """They are to go over to another configuration."""

    def drain(self) -> None:
        """They are to end when their sessions have."""

    def end(self) -> None:
        """They are to end at once."""


@dataclass
class CrewCore:
    """
    What the machine of all workers works with.

    :ivar cores: the workers'.
    :ivar workers: their machines.
    :ivar started: called when each of them has come to accept clients.
    :ivar gave_up: called with a reason when they cannot.
    :ivar stopped: called when all of them have ended for good.
    :ivar failed_starts: how many have failed in a row.
    :ivar unready: the numbers of those that have not been ready yet.
    :ivar state: "idle", "starting", "running", "draining" or "stopped".
    """

    started: Callable[[], None]
    gave_up: Callable[[str], None]
    stopped: Callable[[], None]
    cores: Sequence[WorkerCore] = ()
    workers: Sequence[Worker] = ()
    failed_starts: int = 0
    state: str = "idle"
    seen: set[int] = field(default_factory=set)


def _crew_machine() -> Callable[[CrewCore], Crew]:
    builder = TypeMachineBuilder(Crew, CrewCore)
    idle = builder.state("Idle")
    starting = builder.state("Starting")
    running = builder.state("Running")
    draining = builder.state("Draining")
    stopped = builder.state("Stopped")

    ready = (Crew.one_ready, Crew.all_ready)
    failed = (Crew.one_failed, Crew.hopeless)
    for state, inputs in (
        (idle, (*ready, *failed, Crew.one_stopped, Crew.all_stopped, Crew.reload)),
        (starting, (Crew.start, Crew.one_stopped, Crew.all_stopped)),
        (running, (Crew.start, Crew.all_ready, Crew.one_stopped, Crew.all_stopped)),
        (draining, (Crew.start, *ready, *failed, Crew.drain, Crew.reload)),
        (
            stopped,
            (
                *(Crew.start, *ready, *failed, Crew.one_stopped, Crew.all_stopped),
                *(Crew.drain, Crew.end, Crew.reload),
            ),
        ),
    ):
        for input in inputs:
            state.upon(input).loop().returns(None)

    @idle.upon(Crew.start).to(starting)
    def start(crew: Crew, core: CrewCore) -> None:
        core.state = "starting"
        for worker in core.workers:
            worker.start()

    @starting.upon(Crew.one_ready).loop()
    def one_ready(crew: Crew, core: CrewCore) -> None:
        core.failed_starts = 0
        core.seen.update(worker.number for worker in core.cores if worker.serves)
        if len(core.seen) == len(core.cores):
            crew.all_ready()

    @starting.upon(Crew.all_ready).to(running)
    def all_ready(crew: Crew, core: CrewCore) -> None:
        core.state = "running"
        core.started()

    @running.upon(Crew.one_ready).loop()
    def ready_again(crew: Crew, core: CrewCore) -> None:
        core.failed_starts = 0

    def one_failed(crew: Crew, core: CrewCore, ending: Ending) -> None:
        core.failed_starts += 1
        if core.failed_starts >= FAILED_STARTS and not any(one.serves for one in core.cores):
            crew.hopeless(ending)

    def hopeless(crew: Crew, core: CrewCore, ending: Ending) -> None:
        end(crew, core)
        core.gave_up(f"the workers end before they can serve, the last one with {ending.how}")

    def drain(crew: Crew, core: CrewCore) -> None:
        core.state = "draining"
        for worker in core.workers:
            worker.drain()

    def end(crew: Crew, core: CrewCore) -> None:
        core.state = "draining"
        for worker in core.workers:
            worker.end()

    def is_over(crew: Crew, core: CrewCore) -> None:
        core.state = "stopped"
        core.stopped()

    def reload(crew: Crew, core: CrewCore) -> None:
        for worker in core.workers:
            worker.reload()

    for state in (starting, running):
        state.upon(Crew.reload).loop()(reload)
        state.upon(Crew.one_failed).loop()(one_failed)
        state.upon(Crew.hopeless).to(draining)(hopeless)
        state.upon(Crew.drain).to(draining)(drain)
        state.upon(Crew.end).to(draining)(end)
    draining.upon(Crew.end).loop()(end)
    for input in (Crew.drain, Crew.end):
        idle.upon(input).to(stopped)(is_over)

    @draining.upon(Crew.one_stopped).loop()
    def one_stopped(crew: Crew, core: CrewCore) -> None:
        if all(one.state is State.STOPPED for one in core.cores):
            crew.all_stopped()

    draining.upon(Crew.all_stopped).to(stopped)(is_over)
    return builder.build()


#: Makes a :class:`Crew` of a :class:`CrewCore`.
make_crew = _crew_machine()
