"""
The service that opens listeners, closes them, and handles the signals of the process.

A mistake that shows only when the listeners open is :class:`~socksproxy.service.opening.CannotStart`. It ends
the process with one line and a status that is not 0.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Generator
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..admin.control import Control
from ..admin.settings import AdminSettings
from ..admin.upkeep import Upkeep
from ..config.command_line import SOCKSOptions
from ..config.endpoints import CLAIMABLE, OPEN_TO_ALL
from ..config.plan import Listener, Plan
from ..metrics.table import CONFIG_PROBLEM
from ..net.descriptors import raise_limit
from .administration import Administration, CannotAdminister
from .announcing import Announcing
from .following import Following
from .log_files import abandon_logs, close_access_log, close_logs, reopen_logs, use_server_log
from .metrics import ServerMetrics
from .notify import Notifier
from .opening import CannotStart, Opening, cannot_start, check_place, close, where_listens
from .privileges import NEEDLESS_ROOT, is_root_without_need
from .reload import CannotReload, Reloading
from .signals import Signals

_log = Logger(namespace="socksproxy")


class Prepared(NamedTuple):
    """
    A configuration that is about to come into force.

    :ivar options: the options that describe it.
    :ivar ports: each listener with its port.
    """

    options: SOCKSOptions
    ports: list[tuple[IListeningPort, Listener]]


class ListeningService(Service):
    """
    Opens listeners, and closes them. A subclass serves the clients.

    Ports are opened before ``twistd --uid`` gives up its privileges.

    :param options: parsed; what they describe is served, and they are read again when SIGHUP comes.
    :param factory: is given the listeners' clients.
    :ivar options: those that are in force.
    :ivar processes: how many processes serve clients.
    """

    processes = 1

    def __init__(self, options: SOCKSOptions, factory: Any) -> None:
        self.options = options
        self.reactor = reactor = options.reactor
        self.factory = factory
        #: The ports that listen now, with what the configuration says of each.
        self.open_listeners: list[tuple[IListeningPort, Listener]] = []
        self._opening = Opening(factory)
        self._problem: CannotStart | None = None
        self._listening = False
        self._starting = False
        self._signals = Signals(reactor, lambda: bool(self.running), lambda: self.end_now())
        #: What is counted; None: the service does not run.
        self.metrics: ServerMetrics | None = None
        self.notifier = Notifier(reactor, self.status, self.sound)
        self.reloading = Reloading(reactor, lambda: self.options, self.reload, self.notifier, self._reloaded)
        self.following = Following(reactor, lambda: self.options, self.reloading)
        self.stopping = False
        #: When the configuration in force was read, in seconds since the epoch.
        self.loaded = time.time()
        self.administration = Administration(self)
        self.upkeep = Upkeep(reactor, self.rest, self.end_sessions)
        self.announcing = Announcing(reactor, lambda: self.control())

    @property
    def plan(self) -> Plan:
        """What the options in force mean."""
        return self.options.plan

    @property
    def ports(self) -> list[IListeningPort]:
        """The ports that listen now."""
        return [port for port, _ in self.open_listeners]

    def begin_metrics(self, generation: int) -> ServerMetrics:
        """
        Have metrics from now on.

        :param generation: what the ids of sessions begin with.
        """
        self.metrics = ServerMetrics(
            self.processes, generation, lambda: self.options, lambda: self.upkeep.draining or self.stopping
        )
        self.metrics.register(CONFIG_PROBLEM, lambda: [((), bool(self.following.problem))])
        return self.metrics

    def _end_metrics(self) -> None:
        metrics, self.metrics = self.metrics, None
        if metrics is not None:
            metrics.columns.close()

    def _reloaded(self, done: bool) -> None:
        if self.metrics is not None:
            self.metrics.reloaded(done)
        self.following.reloaded(done)

    # A subclass overrides these.

    def control(self) -> Control:
        """What the admin API asks."""
        raise NotImplementedError

    def rest(self) -> None:
        """Other parts than before get no new sessions: see :attr:`upkeep`."""
        raise NotImplementedError

    def end_sessions(self) -> None:
        """The time of the sessions is over in a drain, and the server continues to run."""
        raise NotImplementedError

    def admin_of(self, plan: Plan) -> AdminSettings | None:
        """The admin sockets of *plan* that this process opens."""
        return plan.admin

    def announces(self, plan: Plan) -> bool:
        """Whether this process tells the nodes with which *plan* shares a store about this one."""
        return plan.settings.shared is not None

    def admin_places_changed(self) -> None:
        """The admin listeners are at other addresses than before, or are there for the first time."""

    def opened(self, port: IListeningPort, name: str | None) -> None:
        """
        *port* listens, and has not accepted a client yet.

        :param name: its name in rules, beside its address.
        """

    def closed(self, port: IListeningPort) -> None:
        """*port* accepts no client any more, and is about to close."""

    def reload(self, options: SOCKSOptions) -> Deferred[list[str]]:
        """
        Have *options* in force instead of those that were.

        :param options: parsed, and made by :meth:`~socksproxy.config.command_line.SOCKSOptions.again`.
        :returns: fires with what has changed, in a few words each.
        :raises CannotReload: (by the Deferred) when it cannot be; then nothing has changed.
        """
        raise NotImplementedError

    def announce(self, where: str, local: bool, by: str) -> None:
        """
        Tell the operator that clients are accepted.

        :param where: the address.
        :param local: whether only this machine reaches it.
        :param by: what listens there, if that is not plain from the address.
        """
        if not (local or self.plan.guarded):
            _log.warn(f"{{where}}: {OPEN_TO_ALL}", where=where)
        _log.info("listening on {where}{by}", where=where, by=by)

    def dump_sessions(self) -> None:
        """Write the live sessions to the log."""
        raise NotImplementedError

    def status(self) -> str:
        """What the service is at, in one line for people."""
        raise NotImplementedError

    def sound(self) -> bool:
        """Whether all processes of the service live."""
        return True

    def reopen_log(self) -> list[str]:
        """The files of the logs have been moved away; returned is which cannot be opened again, and why."""
        return reopen_logs(self.plan)

    def hung_up(self) -> None:
        """SIGHUP has come: read the configuration again."""
        self.reloading.want()

    def end_now(self) -> None:
        """End what :meth:`stopService` waits for."""
        raise NotImplementedError

    # The life of a service.

    def privilegedStartService(self) -> None:
        """
        Open the listeners.

        :raises CannotStart: when one of them cannot.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        Open the listeners, if :meth:`privilegedStartService` has not (``twist`` does not call it).

        :raises CannotStart: when one of them cannot.
        """
        super().startService()
        if not self._listening:
            self._listen()
        self.reloading.start()
        self.following.start()
        self.announcing.follow(self.announces(self.plan))
        self._signals.start(
            {"SIGUSR1": self.reopen_log, "SIGUSR2": self.dump_sessions, "SIGHUP": self.hung_up}
        )
        self.warn_of_root()
        self._opening.finished().addCallback(lambda _: self.reactor.callWhenRunning(self._all_open))

    def stopService(self) -> Any:
        """The service ends; a subclass closes the listeners, and lets sessions finish."""
        super().stopService()
        self.notifier.stopping(self.plan.drain)

    def _all_open(self) -> None:
        if self._listening and len(self.ports) == len(self.plan.listeners):
            self.listening()

    def listening(self) -> None:
        """All listeners are open, and the reactor runs."""
        self.following.keep()
        self.notifier.ready()

    def warn_of_root(self) -> None:
        """Say so where the process is still root, after ``twistd --uid``, and has no need to be."""
        if is_root_without_need(self.options):
            _log.warn(NEEDLESS_ROOT)

    def close_ports(self) -> Deferred[Any]:
        """
        Accept no client any more.

        :returns: fires when all ports are closed.
        """
        self._listening = False
        self.stopping = True
        self.upkeep.stop()
        self.following.stop()
        self.reloading.stop()
        self._opening.cancel()
        ports, self.open_listeners = self.ports, []
        self.options.resources.keeper.forget()
        return DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)

    def finish(self) -> Deferred[Any]:
        """
        The service has ended: signals are handled as before it, and the access log is closed.

        :returns: fires when the last lines of the logs have been sent.
        """
        self.administration.close()
        self.announcing.stop()
        self.notifier.stopped()
        self._end_metrics()
        self._signals.stop()
        return close_logs(self.plan)

    def _listen(self) -> None:
        self._listening = self._starting = True
        use_server_log(self.plan)
        self.stopping = False
        self.raise_descriptor_limit()
        try:
            self.administration.open(self.admin_of(self.plan))
        except CannotAdminister as problem:
            _log.critical("cannot listen: {problem}", problem=problem)
            raise CannotStart(str(problem)) from None
        for listener in self.plan.listeners:
            opening = self._opening.open(listener).addCallback(self._opened, listener)
            opening.addErrback(self._failed, listener)
            if self._problem is not None:
                raise self._problem
        self._starting = False

    def raise_descriptor_limit(self) -> None:
        """A session takes two descriptors, and the usual soft limit is 1024."""
        try:
            limit = raise_limit()
        except (OSError, ValueError) as problem:
            _log.warn("cannot raise the limit of descriptors: {problem}", problem=problem)
        else:
            _log.info("descriptors: {limit} at the most", limit=limit if limit >= 0 else "any number")

    @inlineCallbacks
    def prepare(self, options: SOCKSOptions) -> Generator[Any, Any, Prepared]:
        """
        Open the listeners of *options* that are not open yet. They accept no client so far.

        :returns: fires with what :meth:`enter` or :meth:`abandon` is to be given next.
        :raises CannotReload: (by the Deferred) when one cannot be opened; those that could are closed again.
        """
        prepared = Prepared(options, [])
        problems = []
        for listener in options.plan.listeners:
            try:
                port = yield self._opening.open(listener)
                prepared.ports.append((port, listener))
                check_place(port, options.plan)
            except CannotStart as problem:
                problems.append(f"cannot listen: {problem}")
        try:
            self.administration.prepare(self.admin_of(options.plan))
        except CannotAdminister as problem:
            problems.append(str(problem))
        if not self._listening:
            problems = ["the service has stopped meanwhile"]
        if problems:
            self.abandon(prepared)
            raise CannotReload(problems)
        return prepared

    def abandon(self, prepared: Prepared) -> None:
        """Close what was opened for *prepared*; all stays as it was."""
        for port in prepared.options.resources.keeper.fresh:
            close(port)
        self.administration.abandon()
        abandon_logs(prepared.options.plan, self.plan)

    def enter(self, prepared: Prepared) -> list[str]:
        """
        Accept clients where *prepared* says, and nowhere else.

        :returns: what has changed, in a few words each.
        """
        before, self.options = self.plan, prepared.options
        use_server_log(self.plan)
        keeper = self.options.resources.keeper
        left = keeper.enter()
        self.open_listeners = list(prepared.ports)
        self.loaded = time.time()
        changes = self.administration.enter()
        for port, listener in prepared.ports:
            self.opened(port, listener.name)
            if port in keeper.fresh:
                self._announce(port, listener)
                changes.append(f"opened {where_listens(port)[0]}")
        for port in left:
            changes.append(f"closed {where_listens(port)[0]}")
            self.closed(port)
            close(port)
        close_access_log(before, self.plan)
        changes += _left_for_a_restart(before, self.plan, self.processes)
        self.announcing.follow(self.announces(self.plan))
        self.upkeep.keep([each.description for each in self.plan.listeners], self.plan.upstream_names)
        return changes

    def _opened(self, port: IListeningPort, listener: Listener) -> None:
        try:
            check_place(port, self.plan)
        except CannotStart:
            port.stopListening()
            raise
        self.open_listeners.append((port, listener))
        self.opened(port, listener.name)
        self._announce(port, listener)

    def _announce(self, port: IListeningPort, listener: Listener) -> None:
        where, local = where_listens(port)
        kind = listener.description.partition(":")[0]
        if listener.balanced and not (local or self.plan.settings.proxy_from.networks):
            _log.warn(f"{{where}}: {CLAIMABLE}", where=where)
        self.announce(where, local, "" if kind in ("tcp", "tcp6", "unix") else f" ({listener.description})")

    def _failed(self, failure: Failure, listener: Listener) -> None:
        if not self._listening:
            return  # stopped meanwhile
        problem = cannot_start(failure, listener)
        _log.critical("cannot listen: {problem}", problem=problem)
        if self._starting:
            self._problem = problem
            return
        self.end_process()

    def end_process(self) -> None:
        """Something failed while the reactor runs: so its process ends with a status that is not 0."""
        signal.raise_signal(signal.SIGTERM)


def _left_for_a_restart(before: Plan, plan: Plan, processes: int) -> list[str]:
    """What a reload cannot change, as messages for the operator."""
    left = []
    if before.server_log is not None and plan.server_log is None:
        left.append("restart the server to have its own log where the program sends it")
    if processes != plan.workers:
        left.append("restart the server for another number of workers")
    return left
