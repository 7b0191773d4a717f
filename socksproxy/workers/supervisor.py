"""
The supervisor: a service that opens the listeners, and has workers serve their clients.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from ..listening import CannotStart, ListeningService
from .handover import SharedOpening, file_of
from .machine import Crew, CrewCore, Ending, Worker, WorkerCore, make_crew, make_worker
from .process import REOPEN, Orders, WorkerProcess, spawn
from .table import SharedTable, new_table

if TYPE_CHECKING:
    from ..options import Options

_log = Logger(namespace="socksproxy")

#: Seconds between looks at what has ended, as long as the reactor does not run and is not told.
_LOOK_EVERY = 0.05


class Supervisor(Factory):
    """For ports that accept nobody; its name is what Twisted logs."""

    noisy = False


class SupervisorService(ListeningService):
    """
    Opens the listeners, starts the workers, and replaces those that die.

    :param options: parsed, with more than one worker.
    :ivar cores: what is known of each worker.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(
            options.reactor,
            Supervisor(),
            options["listeners"],
            open=bool(options["open"]),
            guarded=bool(options["guarded"]),
            access_log=options["access_log"],
        )
        assert isinstance(options.opening, SharedOpening)
        self._options = options
        self._opening = options.opening
        self._config: int | None = None
        self._announcements: list[tuple[str, bool, str]] = []
        self._table: SharedTable | None = None
        self._secret = os.urandom(16)
        self._hire()

    def _hire(self) -> None:
        """Have workers, none of which has been started yet."""
        self._gave_up: str | None = None
        self._stopped: Deferred[None] = Deferred()
        self.cores = [
            WorkerCore(number, self.reactor, self._spawn, self, self._options["drain_seconds"])
            for number in range(1, self._options["worker_count"] + 1)
        ]
        self._core = CrewCore(
            self._all_started,
            self._give_up,
            self._all_stopped,
            self.cores,
            [make_worker(core) for core in self.cores],
        )
        self._crew: Crew = make_crew(self._core)

    # The life of a service.

    def startService(self) -> None:
        """
        Start the workers; where the reactor does not run yet, wait until all of them are ready.

        :raises CannotStart: when a listener cannot open, or the workers end before they are ready.
        """
        super().startService()
        if not sys.executable or not os.access(sys.executable, os.X_OK):
            raise self._cannot_start(f"no Python can be started as {sys.executable!r} here")
        count = len(self.cores)
        self._table = SharedTable(new_table(count), count, self._secret)
        if self._options.config is not None:
            self._config = file_of(self._options.config)
        if self._waiting:
            # An endpoint that takes its time: workers are given all ports at their start.
            DeferredList(list(self._waiting)).addCallback(self._start)
            return
        self._start(None)
        if not self.reactor.running:
            self._wait_for_workers()

    def _wait_for_workers(self) -> None:
        signals: list[int] = []
        # Without handlers of our own, an interrupt would be an exception in whatever the reactor is at.
        before = {
            number: signal.signal(number, lambda number, frame: signals.append(number))
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            while self._core.state == "starting" and not signals:
                self.reactor.iterate(_LOOK_EVERY)
                reapAllProcesses()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._gave_up is not None:
            raise CannotStart(self._gave_up)
        if signals and self._core.state == "starting":
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
        self._crew.drain()
        closed = self.close_ports()
        return closed.addCallback(lambda _: self._stopped).addCallback(lambda _: self._clear())

    def end_now(self) -> None:
        """See :meth:`ListeningService.end_now`."""
        self._crew.end()

    def reopen_log(self) -> None:
        """See :meth:`ListeningService.reopen_log`."""
        super().reopen_log()
        for core in self.cores:
            if isinstance(core.process, WorkerProcess):
                core.process.send(REOPEN)

    def announce(self, where: str, local: bool, by: str) -> None:
        """See :meth:`ListeningService.announce`; it is told when somebody accepts there."""
        self._announcements.append((where, local, by))

    def _start(self, _: object) -> None:
        if self._listening:
            self._crew.start()

    def _clear(self) -> None:
        self.finish()
        self._hire()
        self._opening.forget_ports()
        if self._table is not None:
            self._table.close()
            self._table = None
        if self._config is not None:
            os.close(self._config)
            self._config = None

    def _cannot_start(self, reason: str) -> CannotStart:
        problem = CannotStart(reason)
        _log.critical("cannot start: {problem}", problem=problem)
        return problem

    # What the workers' machines tell.

    def worker_ready(self, worker: WorkerCore) -> None:
        """See :class:`~socksproxy.workers.machine.Owner`."""
        pid = None if worker.process is None else worker.process.pid
        _log.info("worker {number} (process {pid}) accepts clients", number=worker.number, pid=pid)
        self._crew.one_ready()

    def worker_failed(self, worker: WorkerCore, ending: Ending) -> None:
        """See :class:`~socksproxy.workers.machine.Owner`."""
        self._crew.one_failed(ending)

    def worker_died(self, worker: WorkerCore, ending: Ending) -> None:
        """See :class:`~socksproxy.workers.machine.Owner`."""
        if self._table is not None:
            self._table.clear(worker.number - 1)

    def worker_stopped(self, worker: WorkerCore) -> None:
        """See :class:`~socksproxy.workers.machine.Owner`."""
        self._crew.one_stopped()

    def _all_started(self) -> None:
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

    def _spawn(self, worker: Worker, number: int) -> WorkerProcess:
        descriptors: dict[int, int] = {}
        log, table = self.access_log, self._table
        kept = [n for ports in self._opening.ports.values() for _, n in ports if n is not None]
        free = max([2, *kept]) + 1
        control, status = free, free + 1

        def inherit(descriptor: int) -> int:
            place = status + 1 + len(descriptors)
            descriptors[place] = descriptor
            return place

        listeners = []
        for listener in range(len(self.listeners)):
            ports = self._opening.ports.get(listener, [])
            listeners.append([inherit(port.fileno()) for port, fixed in ports if fixed is None])
        orders = Orders(
            number=number,
            reactor=type(self.reactor).__module__,
            arguments=self._options.arguments,
            listeners=listeners,
            files={name: inherit(file) for name, file in self._opening.files.items()},
            log=None if log is None else (inherit(log.fileno()), log.path),
            counts=None if table is None else (inherit(table.fileno()), table.columns, self._secret.hex()),
            status=status,
            config=None if self._config is None else inherit(self._config),
        )
        for ports in self._opening.ports.values():
            descriptors.update({fixed: port.fileno() for port, fixed in ports if fixed is not None})
        process = WorkerProcess(number, worker, control, status)
        spawn(self.reactor, process, orders, control, descriptors)
        return process
