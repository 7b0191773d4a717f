"""
The supervisor: a service that opens the listeners, and has workers serve their clients.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack
from functools import partial
from socket import socketpair
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..events import SessionIds
from ..limits.quota.database import Database, UsageFileError
from ..limits.quota.records import check_records
from ..logs.debug import TOPICS
from ..logs.throttle import complain
from ..metrics.table import LIMIT_ROWS, LIMIT_ROWS_MAX
from ..runtime.pool import NotRun
from ..service.base import ListeningService, Prepared
from ..service.metrics import ServerMetrics
from ..service.opening import CannotStart
from ..service.reload import CannotReload
from ..service.server import make_factory
from ..shared.asking import StoreProblem
from ..shared.store import check_store
from ..udp.routing import Router
from .control import SupervisorControl, with_sessions
from .datagrams import go
from .descriptor_passing import SupervisorResources
from .fill_level import FillLevel
from .orders import Inherited, columns_for, counts_for, orders_for, resources_of, way_to
from .process import DUMP, REOPEN, WorkerProcess, pass_on, spawn
from .questions import Questions, WorkersAsker
from .shared_table import SharedTable, new_table
from .states import Ending, GroupState, Worker, WorkerGroup, WorkerState

if TYPE_CHECKING:
    from ..config.command_line import SOCKSOptions

_log = Logger(namespace="socksproxy")

#: Seconds between looks at what has ended, as long as the reactor does not run and is not told.
_LOOK_EVERY = 0.05


#: Seconds without a sign of life after which a worker is replaced.
SILENCE = 30.0
#: So many of the service manager's beats may pass without one, where the service manager has a watchdog.
_PATIENCE = 2


#: Workers in these states have, or are about to have, an old configuration when there is a new one.
_TO_BE_TOLD = (WorkerState.STARTING, WorkerState.RUNNING, WorkerState.RELOADING)


class Supervisor(Factory):
    """For ports that accept no client. Twisted logs the name of this class."""

    noisy = False


class SupervisorService(ListeningService):
    """
    Opens the listeners, starts the workers, and replaces those that die.

    :param options: parsed, with more than one worker.
    :ivar workers: the workers.
    """

    def __init__(self, options: SOCKSOptions) -> None:
        super().__init__(options, Supervisor())
        self._announcements: list[tuple[str, bool, str]] = []
        self._table: SharedTable | None = None
        self._level: FillLevel | None = None
        self._router = Router(options.reactor)
        self._asker = WorkersAsker(lambda: with_sessions(self.workers))
        self._secret = os.urandom(16)
        #: Gives each process that is started its serial number.
        self._ids = SessionIds()
        self._looked = 0.0
        #: Looks for workers that hang, where no watchdog asks for that.
        self._vigil = LoopingCall(self._watch)
        self._vigil.clock = self.reactor
        #: The last command of another node to read the configuration again: each worker tells it.
        self._last_command = b""
        #: The workers whose process has accepted clients.
        self._ready: set[int] = set()
        #: The workers that have yet to go over to another configuration, and what happens then.
        self._unsettled: set[int] = set()
        self._settled_all: Deferred[None] | None = None
        self._hire()

    def control(self) -> SupervisorControl:
        """See :meth:`ListeningService.control`."""
        return SupervisorControl(self, self._ids.generation, self._asker)

    def rest(self) -> None:
        """See :meth:`ListeningService.rest`: the workers accept, and have the upstreams."""
        self._asker.ask("rest", self.upkeep.resting.as_json())

    def end_sessions(self) -> None:
        """See :meth:`ListeningService.end_sessions`."""
        self._asker.ask("end all", {})

    def _reload_commanded(self, number: bytes) -> None:
        if number != self._last_command:
            self._last_command = number
            self.reloading.want()

    @property
    def _resources(self) -> SupervisorResources:
        return resources_of(self.options)

    def _hire(self) -> None:
        """Have workers, none of which has been started yet."""
        self._gave_up: str | None = None
        self._stopped: Deferred[None] = Deferred()
        self.workers = [
            Worker(number, self.reactor, self._spawn, self, self.plan.drain)
            for number in range(1, self.plan.workers + 1)
        ]
        self.processes = len(self.workers)
        self._group = WorkerGroup(self.workers, self._all_started, self._give_up, self._all_stopped)

    # The life of a service.

    def startService(self) -> None:
        """
        Start the workers; where the reactor does not run yet, wait until all of them are ready.

        :raises CannotStart: when a listener cannot open, or the workers end before they are ready.
        """
        super().startService()
        if not sys.executable or not os.access(sys.executable, os.X_OK):
            raise self._cannot_start(f"no Python can be started as {sys.executable!r} here")
        try:
            _check_usage(self.options)
            _check_store(self.options)
        except (UsageFileError, StoreProblem) as problem:
            raise self._cannot_start(str(problem)) from None
        count = len(self.workers)
        self._table = SharedTable(new_table(count), count, self._secret)
        self._watch_table(self._table)
        self.begin_metrics(self._ids.generation)
        if self._opening.unfinished:
            # An endpoint that takes its time: workers are given all ports at their start.
            self._opening.finished().addCallback(self._start)
            return
        self._start(None)
        if not self.reactor.running:
            self._wait_for_workers()

    def begin_metrics(self, generation: int) -> ServerMetrics:
        """See :meth:`ListeningService.begin_metrics`."""
        metrics = super().begin_metrics(generation)
        metrics.show_workers(
            lambda: [worker.state.value for worker in self.workers], [state.value for state in WorkerState]
        )
        level = self._level
        if level is not None:
            metrics.register(LIMIT_ROWS, level.rows)
            metrics.register(LIMIT_ROWS_MAX, level.most)
        return metrics

    def _watch_table(self, table: SharedTable) -> None:
        self._level = FillLevel(self.reactor, table)
        self._level.start()

    def _wait_for_workers(self) -> None:
        signals = _iterate(self.reactor, lambda: self._group.state is GroupState.STARTING)
        if self._gave_up is not None:
            raise CannotStart(self._gave_up)
        if signals and self._group.state is GroupState.STARTING:
            raise self._cannot_start(f"{signal.Signals(signals[0]).name} came before the workers were ready")
        for received in signals:
            # It came with the last of them: the reactor knows what to do.
            self.reactor.callWhenRunning(signal.raise_signal, received)

    def stopService(self) -> Deferred[None]:
        """
        Close the listeners, and end the workers when their sessions have.

        :returns: fires when no worker is left.
        """
        super().stopService()
        # First, so that they close their ends before ours goes.
        self._group.drain()
        closed = self.close_ports()
        return closed.addCallback(lambda _: self._stopped).addCallback(lambda _: self._clear())

    def end_now(self) -> None:
        """See :meth:`ListeningService.end_now`."""
        self._group.end()

    def status(self) -> str:
        """See :meth:`ListeningService.status`."""
        serving = sum(worker.serves for worker in self.workers)
        return f"{sum(worker.sessions for worker in self.workers)} sessions, {serving} workers"

    def sound(self) -> bool:
        """See :meth:`ListeningService.sound`; a worker that has shown no sign of life is replaced."""
        now, before = self.reactor.seconds(), self._looked
        self._looked = now
        limit = SILENCE if self.notifier.watchdog is None else _PATIENCE * self.notifier.beat
        if now - before > limit:
            # This process has not run itself, and has yet to read what the workers said meanwhile.
            for worker in self.workers:
                worker.beat(worker.sessions)
        silent = [worker for worker in self.workers if not worker.check(limit)]
        return not silent

    def _watch(self) -> None:
        try:
            self.sound()
        except Exception:
            complain(_log, "the workers cannot be watched now")

    def dump_sessions(self) -> None:
        """Each worker writes its live sessions to the log."""
        self._send(DUMP)

    def _send(self, command: bytes) -> None:
        for worker in self.workers:
            if isinstance(worker.process, WorkerProcess):
                worker.process.send(command)

    def reopen_log(self) -> list[str]:
        """See :meth:`ListeningService.reopen_log`; the workers do the same as they hear of it."""
        self._send(REOPEN)
        return super().reopen_log()

    def announce(self, where: str, local: bool, by: str) -> None:
        """See :meth:`ListeningService.announce`; the operator hears of it when a worker accepts there."""
        self._announcements.append((where, local, by))

    # Another configuration.

    @inlineCallbacks
    def reload(self, options: SOCKSOptions) -> Generator[Any, Any, list[str]]:
        """See :meth:`ListeningService.reload`; it is in force when all workers have gone over to it."""
        prepared = yield self.prepare(options)
        yield self._check(prepared)
        changes = self.enter(prepared)
        settled: Deferred[None] = Deferred()
        self._settled_all = settled
        self._unsettled = {worker.number for worker in self.workers if worker.state in _TO_BE_TOLD}
        self._group.reload()
        self._see_whether_settled()
        yield settled
        if self._group.state is GroupState.RUNNING:
            self._all_started()
        return changes

    @inlineCallbacks
    def _check(self, prepared: Prepared) -> Generator[Any, Any, None]:
        """
        See what workers would find wrong: they all would, and none would be left.

        :raises CannotReload: (by the Deferred) when there is something; all stays as it was.
        """
        try:
            make_factory(prepared.options)
            _check_passed(prepared.options)
            yield self.reloading.pool.run(_check_usage, prepared.options)
            yield self.reloading.pool.run(_check_store, prepared.options, self.options)
        except (ValueError, UsageFileError, StoreProblem, NotRun) as problem:
            self.abandon(prepared)
            raise CannotReload([str(problem)]) from None

    def enter(self, prepared: Prepared) -> list[str]:
        """See :meth:`ListeningService.enter`; this process accepts no client."""
        changes = super().enter(prepared)
        ports: list[Any] = list(self.ports)
        for port in ports:
            port.stopReading()
        for worker in self.workers:
            worker.drain_seconds = self.plan.drain
        return changes

    def _settle(self, worker: Worker) -> None:
        self._unsettled.discard(worker.number)
        self._see_whether_settled()

    def _see_whether_settled(self) -> None:
        settled = self._settled_all
        if settled is not None and not self._unsettled:
            self._settled_all = None
            settled.callback(None)

    def _start(self, _: object) -> None:
        if self._listening:
            self._group.start()
            if self.notifier.watchdog is None:
                self._vigil.start(self.notifier.beat)

    def _clear(self) -> Deferred[Any]:
        finished = self.finish()
        self._hire()
        if self._vigil.running:
            self._vigil.stop()
        self._resources.forget_ports()
        if self._level is not None:
            self._level.stop()
            self._level = None
        if self._table is not None:
            self._table.close()
            self._table = None
        return finished

    def _cannot_start(self, reason: str) -> CannotStart:
        problem = CannotStart(reason)
        _log.critical("cannot start: {problem}", problem=problem)
        return problem

    # What the workers' machines tell.

    def worker_ready(self, worker: Worker) -> None:
        """See :class:`~socksproxy.workers.states.WorkerOwner`."""
        self._asker.ask_each("rest", {worker.number: self.upkeep.resting.as_json()})
        for user, limits in self.upkeep.user_limits.items():
            self._asker.ask_each("limit user", {worker.number: {"user": user, "limits": limits}})
        for topic in TOPICS.values():
            if topic.on:
                arguments = {"logger": topic.name, "seconds": topic.left}
                self._asker.ask_each("log level", {worker.number: arguments})
        pid = None if worker.process is None else worker.process.pid
        _log.info("worker {number} (process {pid}) accepts clients", number=worker.number, pid=pid)
        self._ready.add(worker.number)
        self._group.one_ready()

    def worker_settled(self, worker: Worker) -> None:
        """See :class:`~socksproxy.workers.states.WorkerOwner`."""
        self._settle(worker)

    def worker_failed(self, worker: Worker, ending: Ending) -> None:
        """See :class:`~socksproxy.workers.states.WorkerOwner`."""
        self._group.one_failed(ending)

    def worker_died(self, worker: Worker, ending: Ending) -> None:
        """See :class:`~socksproxy.workers.states.WorkerOwner`."""
        if self._table is not None:
            self._table.clear(worker.number - 1)
        if self.metrics is not None:
            self.metrics.worker_died(worker.number, _how_died(worker, ending, worker.number in self._ready))
        self._ready.discard(worker.number)
        self._settle(worker)

    def worker_stopped(self, worker: Worker) -> None:
        """See :class:`~socksproxy.workers.states.WorkerOwner`."""
        self._group.one_stopped()

    def listening(self) -> None:
        """See :meth:`ListeningService.listening`; the workers accept, not this process."""

    def _all_started(self) -> None:
        self.following.keep()
        self.notifier.ready()
        announcements, self._announcements = self._announcements, []
        for where, local, by in announcements:
            super().announce(where, local, by)

    def _give_up(self, reason: str) -> None:
        problem = self._cannot_start(reason)
        self._gave_up = str(problem)
        if self.reactor.running:
            self.end_process()

    def _all_stopped(self) -> None:
        if not self._stopped.called:
            self._stopped.callback(None)

    # Processes.

    def _spawn(self, worker: Worker) -> WorkerProcess:
        number = worker.number
        ports = [entry for ports in self._resources.ports.values() for entry in ports]
        control = max([2, *(fixed for _, fixed in ports if fixed is not None)]) + 1
        status, channel = control + 1, control + 2
        questions = Questions(self.reactor)
        hand_over = partial(self._hand_over, number)
        process = WorkerProcess(number, worker, control, status, hand_over, questions, self._reload_commanded)
        with ExitStack() as stack:
            our_way, its_way = socketpair()
            our_end, its_end = socketpair()
            for end in (our_way, its_way, our_end, its_end):
                stack.callback(end.close)
            inherited = Inherited(channel + 1)
            orders = orders_for(self, number, inherited, stack)._replace(
                counts=counts_for(self._table, self._secret, inherited),
                metrics=columns_for(self.metrics, inherited),
                status=status,
                channel=channel,
                ids=(self._ids.generation, self._ids.next()),
                datagrams=inherited(its_way.fileno()),
                beat=self.notifier.beat / 2,
                questions=inherited(its_end.fileno()),
            )
            inherited.descriptors[channel] = process.its_channel.fileno()
            inherited.descriptors.update({fixed: port.fileno() for port, fixed in ports if fixed is not None})
            spawn(self.reactor, process, orders, control, inherited.descriptors)
            go(self.reactor, our_way.detach(), way_to(self._router))
            go(self.reactor, our_end.detach(), questions)
        return process

    def _hand_over(self, number: int, process: WorkerProcess) -> None:
        with ExitStack() as stack:
            inherited = Inherited(0)
            orders = orders_for(self, number, inherited, stack)
            pass_on(process.channel, orders, list(inherited.descriptors.values()))


def _iterate(reactor: Any, more: Callable[[], bool]) -> list[int]:
    """
    Do the work of *reactor*, which does not run yet, as long as there is *more* to wait for.

    :returns: the signals that have come and that end the process; the first one ends the wait.
    """
    signals: list[int] = []
    # Without handlers of our own, an interrupt would be an exception in whatever the reactor is at.
    before = {
        number: signal.signal(number, lambda number, frame: signals.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        while more() and not signals:
            reactor.iterate(_LOOK_EVERY)
            reapAllProcesses()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return signals


def _how_died(worker: Worker, ending: Ending, was_ready: bool) -> str | None:
    """The word for the metric; None: the worker was told to end."""
    if worker.state is WorkerState.STOPPING:
        return None
    if not was_ready:
        return "start"
    return "signal" if ending.killed else "status"


def _check_usage(options: SOCKSOptions) -> None:
    """
    See whether the files of quotas and of usage records can be used. Workers keep them, and not this process.

    :raises UsageFileError: when one cannot.
    """
    if options.plan.settings.usage is not None:
        database = Database(options.plan.settings.usage.path)
        database.open()
        database.close()
    check_records(options.plan.records)


def _check_store(options: SOCKSOptions, present: SOCKSOptions | None = None) -> None:
    """
    See whether the store that nodes share can be used. Workers use it; this process does not.

    :param present: the options in force; the store that they name may be down.
    :raises StoreProblem: when it cannot.
    """
    store = options.plan.settings.shared
    before = None if present is None else present.plan.settings.shared
    if store is not None and (before is None or store.settings != before.settings):
        check_store(store.settings)


def _check_passed(options: SOCKSOptions) -> None:
    """
    A worker that runs cannot be given a socket under the number that it has here.

    :raises ValueError: when there is a new one.
    """
    resources = resources_of(options)
    for ports in resources.ports.values():
        if any(fixed is not None and port in resources.keeper.fresh for port, fixed in ports):
            raise ValueError("restart the server to use another socket of systemd")
