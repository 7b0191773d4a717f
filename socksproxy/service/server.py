"""
``twistd socks``: the service that its options make.

What is wrong with an option shows while they are parsed
(:mod:`~socksproxy.config.command_line`); what shows only when the listeners open is
:class:`~socksproxy.service.opening.CannotStart`. Both end the process with one line
and a status that is not 0.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..admin.control import LocalAsker
from ..admin.upkeep import Resting
from ..config.command_line import SOCKSOptions
from ..events import Cause
from ..limits.quota.database import UsageFileError
from ..limits.quota.records import check_records
from ..limits.quota.usage import UsageFile
from ..metrics.columns import OwnColumn
from ..net.own_listeners import place_of
from ..policy.sets import SetFiles
from ..server.factory import SOCKSFactory
from ..session.billing import Billing
from ..shared.asking import StoreProblem
from ..shared.commands import Deed, NodeCommand
from ..shared.store import SharedStore, check_store
from ..values.metrics import MetricsSettings
from .base import ListeningService, Prepared
from .control import ServiceControl, user_limits_of
from .opening import CannotStart, where_listens
from .reload import CannotReload

_log = Logger(namespace="socksproxy")


class SOCKSService(ListeningService):
    """
    Accepts clients and serves them while it runs.

    :param options: parsed; see :class:`ListeningService`.
    :param factory: serves the clients.
    :ivar resting: the parts that get no new sessions.
    :ivar withdraws: whether the other nodes forget this one at the end.
    """

    factory: SOCKSFactory
    withdraws = True

    def __init__(self, options: SOCKSOptions, factory: SOCKSFactory) -> None:
        super().__init__(options, factory)
        self._set_files: SetFiles | None = None
        self._usage: UsageFile | None = None
        self._billing: Billing | None = None
        self._store: SharedStore | None = None
        self._at_once = False
        #: What the open ports are called in metrics.
        self._labels: dict[IListeningPort, str] = {}
        self._counted: MetricsSettings | None = None
        self._admin_places: list[tuple[str, int]] = []
        self.resting = Resting()

    def control(self) -> ServiceControl:
        """See :meth:`ListeningService.control`."""
        asker = LocalAsker(self.factory)
        asker.answers.add("limit user", self.limit_user)
        return ServiceControl(self, self.factory.context.ids.generation, asker)

    def limit_user(self, arguments: Mapping[str, Any]) -> None:
        """Limit a user until the next reload: ``user``, and ``limits`` as the file has them."""
        limits = user_limits_of(arguments["limits"], self.plan.settings.usage is not None)
        self.factory.sessions.limit_user(arguments["user"], limits)

    def admin_places_changed(self) -> None:
        """See :meth:`ListeningService.admin_places_changed`; no client may be connected there."""
        self.protect(self.administration.places)

    def rest(self) -> None:
        """See :meth:`ListeningService.rest`."""
        self.let_rest(self.upkeep.resting)

    def let_rest(self, resting: Resting) -> None:
        """Have the parts in *resting* get no new sessions, and all others get them."""
        self.resting = resting
        for port, listener in self.open_listeners:
            self.factory.rest(port, resting.everything or listener.description in resting.listeners)
        self.factory.context.ways.rest(resting.upstreams)

    def end_sessions(self) -> None:
        """See :meth:`ListeningService.end_sessions`."""
        self.factory.sessions.end_all(Cause.DRAINED)

    def protect(self, places: Sequence[tuple[str, int]]) -> None:
        """Have *places* count as the proxy's own, in place of those until now."""
        listeners = self.factory.sessions.context.listeners
        before, self._admin_places = self._admin_places, [(host, port) for host, port in places]
        for host, port in before:
            listeners.discard(host, port)
        for host, port in self._admin_places:
            listeners.add(host, port)

    def opened(self, port: IListeningPort, name: str | None) -> None:
        """See :meth:`ListeningService.opened`."""
        self.factory.opened(port)
        label = self._labels[port] = where_listens(port)[0] if name is None else name
        counters = self.factory.context.counters
        if counters is not None:
            counters.listen(port, label)
        place = place_of(port.getHost())
        listeners = self.factory.sessions.context.listeners
        listeners.call(place, name)
        if not isinstance(place, str):
            # Before the first client asks for it: no client may send the proxy to itself.
            listeners.add(*place)

    def startService(self) -> None:
        """See :meth:`ListeningService.startService`."""
        self._at_once = False
        self.check_store()
        self._store = self.plan.settings.shared
        self._start_store()
        super().startService()
        self.begin_counting()
        self._watch_sets()
        self._usage = self.plan.settings.usage
        if self._usage is not None:
            self._usage.start().addErrback(self._no_usage)
        if self.plan.records is not None:
            self._billing = self.factory.keep_records(self.plan.records)
            self._billing.start().addErrback(self._no_usage)

    def _start_store(self) -> None:
        if self._store is not None:
            self._store.commands.obey[Deed.RELOAD] = self.reload_commanded
            self._store.start()

    def reload_commanded(self, command: NodeCommand) -> None:
        """Another node has all nodes read their configurations again."""
        self.reloading.want()

    def check_store(self) -> None:
        """
        See whether the store that nodes share can be used.

        :raises CannotStart: when it cannot, and the server does not start without it.
        """
        store = self.plan.settings.shared
        try:
            if store is not None:
                check_store(store.settings)
        except StoreProblem as problem:
            _log.critical("cannot start: {problem}", problem=problem)
            raise CannotStart(str(problem)) from None

    def stopService(self) -> Deferred[None]:
        """
        Close the listeners, let sessions finish for as long as ``drain`` says, and end the rest.

        :returns: fires when all is closed.
        """
        super().stopService()
        self._leave_sets()
        closed = self.close_ports().addCallback(self._drain).addCallback(self._leave_usage)
        closed.addCallback(self._leave_records)
        return closed.addCallback(self._leave_store).addCallback(lambda _: self.finish())

    def end_now(self) -> None:
        """See :meth:`ListeningService.end_now`."""
        self._at_once = True
        self.factory.stop_sessions()

    def status(self) -> str:
        """See :meth:`ListeningService.status`."""
        return f"{len(self.factory.sessions)} sessions"

    def dump_sessions(self) -> None:
        """Write the live sessions to the log."""
        self.factory.sessions.dump()

    def closed(self, port: IListeningPort) -> None:
        """See :meth:`ListeningService.closed`."""
        self.factory.closed(port)
        self._labels.pop(port, None)
        counters = self.factory.context.counters
        if counters is not None:
            counters.listeners.pop(port, None)
        place = place_of(port.getHost())
        listeners = self.factory.sessions.context.listeners
        listeners.call(place, None)
        if not isinstance(place, str):
            listeners.discard(*place)

    def reload(self, options: SOCKSOptions) -> Deferred[list[str]]:
        """See :meth:`ListeningService.reload`."""
        return self.prepare(options).addCallback(self.enter)

    @inlineCallbacks
    def prepare(self, options: SOCKSOptions) -> Generator[Any, Any, Prepared]:
        """See :meth:`ListeningService.prepare`."""
        usage, before = options.plan.settings.usage, self._usage
        if usage is not None and before is not None and _same(usage, before):
            usage = before
            settings = attrs.evolve(options.plan.settings, usage=usage)
            options.plan = attrs.evolve(options.plan, settings=settings)
        shared, present = options.plan.settings.shared, self._store
        if shared is not None and present is not None and shared.settings == present.settings:
            shared = present
            settings = attrs.evolve(options.plan.settings, shared=shared)
            options.plan = attrs.evolve(options.plan, settings=settings)
        elif shared is not None:
            try:
                yield self.reloading.pool.run(check_store, shared.settings)
            except StoreProblem as problem:
                raise CannotReload([str(problem)]) from None
        try:
            yield self.reloading.pool.run(check_records, options.plan.records)
        except UsageFileError as problem:
            raise CannotReload([str(problem)]) from None
        prepared: Prepared = yield super().prepare(options)
        if usage is not None and usage is not before:
            try:
                yield usage.start()
            except UsageFileError as problem:
                self.abandon(prepared)
                raise CannotReload([str(problem)]) from None
        return prepared

    def abandon(self, prepared: Prepared) -> None:
        """See :meth:`ListeningService.abandon`."""
        super().abandon(prepared)
        usage = prepared.options.plan.settings.usage
        if usage is not None and usage is not self._usage:
            usage.stop()

    def enter(self, prepared: Prepared) -> list[str]:
        """See :meth:`ListeningService.enter`; what sessions are served by changes first."""
        settings = prepared.options.plan.settings
        if not self._listening:
            self.abandon(prepared)
            raise CannotReload(["the service has stopped meanwhile"])
        listeners = self.factory.sessions.context.listeners
        # First, for sessions are judged by these names.
        names = listeners.call_all({place_of(port.getHost()): each.name for port, each in prepared.ports})
        try:
            self.factory.reconfigure(settings)
        except ValueError as problem:
            listeners.call_all(names)
            self.abandon(prepared)
            raise CannotReload([str(problem)]) from None
        before, self._store = self._store, settings.shared
        if self._store is not before:
            self._start_store()
            if before is not None:
                before.stop(withdraws=not _one_node(before, self._store))
        changes = super().enter(prepared)
        self._count()
        self._leave_sets()
        self._watch_sets()
        if self._usage is not settings.usage:
            self._leave_usage()
            self._usage = settings.usage
        self._follow_records()
        return changes

    def finish(self) -> Deferred[Any]:
        """See :meth:`ListeningService.finish`."""
        self.factory.context.stop_counting()
        self._counted = None
        return super().finish()

    def begin_counting(self) -> None:
        """Count sessions, if that is wanted."""
        if self.metrics is None:
            self.begin_metrics(self.factory.context.ids.generation)
        self._count()

    def own_column(self) -> OwnColumn | None:
        """Where this process counts; None: nowhere."""
        return None if self.metrics is None else OwnColumn(self.metrics.columns, 0)

    def _count(self) -> None:
        """Count as the plan says, from now on."""
        wanted, context = self.plan.metrics, self.factory.context
        if wanted == self._counted:
            return
        self._counted = wanted
        context.stop_counting()
        own = None if wanted is None else self.own_column()
        if wanted is not None and own is not None:
            counters = context.count(own, wanted.users)
            for port, label in self._labels.items():
                counters.listen(port, label)

    def _watch_sets(self) -> None:
        if self.plan.set_files:
            self._set_files = SetFiles(self.reactor, self.plan.set_files)
            self._set_files.watch()

    def _leave_sets(self) -> None:
        if self._set_files is not None:
            self._set_files.stop()
        self._set_files = None

    def _no_usage(self, failure: Failure) -> None:
        failure.trap(UsageFileError)
        _log.critical("{problem}", problem=failure.value)
        self.end_process()

    def _leave_usage(self, _: object = None) -> Deferred[None]:
        usage, self._usage = self._usage, None
        return succeed(None) if usage is None else usage.stop()

    def _follow_records(self) -> None:
        """Keep usage records as the plan says, after a reload."""
        present, wanted = self._billing, self.plan.records
        if wanted == (None if present is None else present.settings):
            return
        self._leave_records()
        if wanted is not None:
            self._billing = self.factory.keep_records(wanted)
            self._billing.start().addErrback(self._no_usage)

    def _leave_records(self, _: object = None) -> Deferred[None]:
        billing, self._billing = self._billing, None
        self.factory.context.billing = None
        return succeed(None) if billing is None else billing.stop()

    def _leave_store(self, _: object = None) -> Deferred[None]:
        store, self._store = self._store, None
        if store is None:
            return succeed(None)
        return store.stop(self.withdraws)

    def _drain(self, _: object) -> Deferred[None]:
        return self.factory.drain(0 if self._at_once else self.plan.drain)


def _same(usage: UsageFile, before: UsageFile) -> bool:
    """Whether these are of one file, and have the same days."""
    return usage.path == before.path and usage.zone == before.zone


def _one_node(store: SharedStore, other: SharedStore | None) -> bool:
    """Whether this node has the same name at both, and they differ in what is needed to reach them."""
    if other is None:
        return False
    names = ((each.settings.store.place, each.settings.site, each.settings.node) for each in (store, other))
    return next(names) == next(names)


def make_factory(options: SOCKSOptions) -> SOCKSFactory:
    """
    The factory that *options* describe.

    :param options: parsed.
    """
    return SOCKSFactory(options.reactor, options.plan.settings)
