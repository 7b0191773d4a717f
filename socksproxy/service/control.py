"""
What the admin API asks of a service: one process with its listeners and its configuration.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from ..admin.control import Control, ProcessAsker
from ..admin.errors import RequestRefused
from ..admin.holders import limits_told, lines_told
from ..admin.settings import NOTICE
from ..admin.upkeep import DrainStage, PartState, Upkeep
from ..config.limits import limits_reader
from ..config.plan import Listener, Plan
from ..config.redacted import arguments_without_secrets
from ..limits.quota.database import Database, UsageFileError
from ..limits.quota.records import SPAN, RecordFile, UsageRecord
from ..runtime.pool import NotRun, Pool
from ..values.errors import ConfigError
from ..values.limits import Limits
from ..values.shared import NodeSettings
from .following import Following
from .metrics import ServerMetrics
from .opening import where_listens
from .reload import CannotReload, Reloading, ReloadUnderway

#: Bytes of the configuration in one answer.
_MOST_DOCUMENT = 1 << 19
#: Upstreams that are told; the files of pools may have more.
_MOST_UPSTREAMS = 1000
#: Rows of usage in one answer, and seconds that a question to the file of quotas may take.
MOST_ROWS, _WITHIN = 8000, 10.0
#: Usage records in one answer.
_MOST_RECORDS = 2000


class ControlledService(Protocol):
    """What a control uses of its service."""

    reactor: Any
    options: Any
    reloading: Reloading
    following: Following
    running: Any
    stopping: bool
    loaded: float

    @property
    def metrics(self) -> ServerMetrics | None: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def upkeep(self) -> Upkeep: ...

    @property
    def open_listeners(self) -> Sequence[tuple[IListeningPort, Listener]]: ...

    def reopen_log(self) -> list[str]: ...


class ServiceControl(Control):
    """
    A service.

    :param service: the service.
    :param generation: what the ids of all sessions begin with.
    :param asker: asks the processes that have sessions.
    """

    def __init__(self, service: ControlledService, generation: int, asker: ProcessAsker) -> None:
        super().__init__(service.reactor, generation, asker)
        self._service = service
        self._pool = Pool(service.reactor, name="admin", threads=1, waiting=64, deadline=_WITHIN)

    def metrics(self) -> ServerMetrics | None:
        """See :meth:`Control.metrics`."""
        return self._service.metrics

    def state(self) -> tuple[str, str | None]:
        """See :meth:`Control.state`."""
        if self._service.stopping:
            return "stopping", "stopping"
        if not self._service.running:
            return "starting", "starting"
        return ("draining", "draining") if self._service.upkeep.draining else ("running", None)

    def node(self) -> NodeSettings:
        """See :meth:`Control.node`."""
        return self._service.plan.node

    def drain_stage(self) -> DrainStage:
        """See :meth:`Control.drain_stage`."""
        return self._service.upkeep.stage

    @property
    def closed(self) -> bool:
        """See :attr:`Control.closed`."""
        return self._service.upkeep.resting.everything

    def config(self) -> dict[str, Any]:
        """See :meth:`Control.config`."""
        failed = self._service.reloading.failed
        options = self._service.options
        data = options.config
        return {
            "file": options["config"],
            "hash": None if data is None else sha256(data).hexdigest(),
            "loaded": round(self._service.loaded, 3),
            "failed": None if failed is None else {"time": round(failed[0], 3), "mistakes": failed[1]},
            **self._service.following.told(),
        }

    def listeners(self) -> Sequence[dict[str, Any]]:
        """See :meth:`Control.listeners`."""
        states = self._service.upkeep.listeners
        return [
            {
                "name": listener.name,
                "endpoint": listener.description,
                "address": where_listens(port)[0],
                "state": states.get(listener.description, PartState.ENABLED).value,
            }
            for port, listener in self._service.open_listeners
        ]

    def set_listener(self, name: str, state: PartState) -> tuple[str, ...]:
        """See :meth:`Control.set_listener`."""
        for told in self.listeners():
            kind, _, place = told["address"].partition(":")
            if name in (told["name"], told["address"], told["endpoint"], place):
                self._service.upkeep.set(self._service.upkeep.listeners, told["endpoint"], state)
                return tuple(filter(None, (told["name"], told["address"] if kind == "unix" else place)))
        raise RequestRefused(404, "there is no such listener")

    def upstreams(self) -> Mapping[str, dict[str, Any]]:
        """See :meth:`Control.upstreams`."""
        settings, states = self._service.plan.settings, self._service.upkeep.upstreams
        told = {}
        for name in islice(self._service.plan.upstream_names, _MOST_UPSTREAMS):
            upstream = settings.upstreams.get(name)
            told[name] = {
                "name": name,
                "type": None if upstream is None else upstream.type.value,
                "address": None if upstream is None or upstream.address is None else str(upstream.address),
                "via": None if upstream is None else upstream.via,
                "state": states.get(name, PartState.ENABLED).value,
            }
        return told

    def pools(self) -> Mapping[str, dict[str, Any]]:
        """See :meth:`Control.pools`."""
        return {
            name: {"name": name, "choose": pool.choose.value, "otherwise": pool.otherwise}
            for name, pool in self._service.plan.settings.pools.items()
        }

    def set_upstream(self, name: str, state: PartState) -> None:
        """See :meth:`Control.set_upstream`."""
        if name not in self._service.plan.upstream_names:
            raise RequestRefused(404, "there is no such upstream")
        self._service.upkeep.set(self._service.upkeep.upstreams, name, state)

    def drain(self, seconds: float | None, notice: float | None) -> dict[str, Any]:
        """See :meth:`Control.drain`."""
        plan = self._service.plan
        if seconds is None:
            seconds = plan.drain
        if notice is None:
            notice = NOTICE if plan.admin is None else plan.admin.notice
        self._service.upkeep.drain(seconds, notice)
        return {"stage": self._service.upkeep.stage.value, "seconds": seconds, "notice": notice}

    def undrain(self) -> None:
        """See :meth:`Control.undrain`."""
        self._service.upkeep.undrain()

    def document(self) -> Deferred[bytes]:
        """See :meth:`Control.document`."""
        options, config = self._service.options, self.config()

        def make() -> bytes:
            arguments = arguments_without_secrets(options.arguments)
            return document_told({**config, "arguments": arguments}, options.shown)

        return self._pool.run(make).addErrback(_not_run)

    def user(self, name: str) -> dict[str, Any]:
        """See :meth:`Control.user`."""
        options = self._service.options
        record = None if options["users"] is None else options["users"].find(name)
        limits = self._service.plan.settings.limits.user
        if record is not None:
            limits = record.limits.over_all(limits)
        return {
            "known": record is not None,
            "groups": [] if record is None else list(record.groups),
            "limits": limits_told(limits),
            "until_reload": self._service.upkeep.user_limits.get(name, {}),
        }

    def limit_user(self, name: str, limits: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        """See :meth:`Control.limit_user`."""
        user_limits_of(limits, self._service.plan.settings.usage is not None)
        if limits:
            self._service.upkeep.user_limits[name] = dict(limits)
        else:
            self._service.upkeep.user_limits.pop(name, None)
        told = self.ask("limit user", {"user": name, "limits": dict(limits)})
        return told.addCallback(lambda gathered: {**self.user(name), "missing": gathered.missing})

    def _database(self) -> Database:
        usage = self._service.plan.settings.usage
        if usage is None:
            raise RequestRefused(404, "this server has no quotas: [limits] quota-file")
        return Database(usage.path)

    def usage_of(self, name: str) -> Deferred[dict[str, Any] | None]:
        """See :meth:`Control.usage_of`."""
        usage = self._service.plan.settings.usage
        if usage is None:
            return succeed(None)
        limits = self._service.plan.settings.limits.user
        record = None if self._service.options["users"] is None else self._service.options["users"].find(name)
        if record is not None:
            limits = record.limits.over_all(limits)
        database, day = self._database(), usage.today()

        def read() -> dict[str, Any]:
            totals = database.used(f"user {name}", day)
            database.close()
            return {
                "day": {"bytes": totals.of_day, "limit": limits.daily},
                "month": {"bytes": totals.of_month, "limit": limits.monthly},
            }

        return self._pool.run(read).addErrback(_no_usage)

    def usage(self, first: str, last: str, beyond: str | None) -> Deferred[bytes]:
        """See :meth:`Control.usage`."""
        database = self._database()

        def read() -> bytes:
            rows = database.rows(first, last, MOST_ROWS, beyond)
            database.close()
            return lines_told(rows)

        return self._pool.run(read).addErrback(_no_usage)

    def usage_records(self, after: int) -> Deferred[bytes]:
        """See :meth:`Control.usage_records`."""
        settings = self._service.plan.records
        if settings is None:
            raise RequestRefused(404, "this server keeps no usage records: [usage] file")
        file, node = RecordFile(settings.file, settings.days), settings.node

        def read() -> bytes:
            rows = file.after(after, _MOST_RECORDS, time.time())
            file.close()
            return records_told(rows, node)

        return self._pool.run(read).addErrback(_no_usage)

    def forget_usage(self, name: str, period: str) -> Deferred[int]:
        """See :meth:`Control.forget_usage`."""
        database = self._database()

        def forget() -> int:
            amount = database.forget(f"user {name}", period)
            database.close()
            return amount

        return self._pool.run(forget).addErrback(_no_usage)

    def reload(self) -> Deferred[list[str]]:
        """See :meth:`Control.reload`."""
        return self._service.reloading.now().addErrback(_not_reloaded)

    def reopen_log(self) -> None:
        """See :meth:`Control.reopen_log`."""
        problems = self._service.reopen_log()
        if problems:
            raise RequestRefused(409, "; ".join(problems))


def document_told(head: Mapping[str, Any], document: Mapping[str, Any]) -> bytes:
    """*head*, and *document* as far as there is room: of its longest tables the number of entries alone."""
    shown = dict(document)
    while True:
        told = json.dumps({**head, "document": shown}, ensure_ascii=False)
        data = told.encode("utf-8", "backslashreplace") + b"\n"
        if len(data) <= _MOST_DOCUMENT or not shown:
            return data
        longest = max(shown, key=lambda key: len(json.dumps(shown[key])))
        value = shown.pop(longest)
        head = {**head, "omitted": {**head.get("omitted", {}), longest: len(value) if value else 0}}


def records_told(records: Sequence[UsageRecord], node: str) -> bytes:
    """Usage records as lines of JSON."""
    lines = [
        {
            "seq": record.number,
            "node": node,
            "from": record.began,
            "to": record.began + SPAN,
            "user": record.user or None,
            "rule": record.rule or None,
            "sent": record.sent,
            "received": record.received,
            "sessions": record.sessions,
        }
        for record in records
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def _not_run(failure: Failure) -> Any:
    failure.trap(NotRun)
    raise RequestRefused(503, "too many such questions at once")


def _no_usage(failure: Failure) -> Any:
    failure.trap(UsageFileError, NotRun)
    raise RequestRefused(409, str(failure.value))


def user_limits_of(limits: Mapping[str, Any], counted: bool) -> Limits:
    """
    The limits that an operator sets for a user.

    :param limits: as the file has them.
    :param counted: whether there is a file of quotas.
    :raises RequestRefused: when they make no sense.
    """
    errors: list[ConfigError] = []
    found: Any = None
    try:
        found = limits_reader(counted, lifts=True)(dict(limits), ("limits",), errors)
    except ConfigError as problem:
        errors.append(problem)
    if errors:
        words = "; ".join(f"{'.'.join(map(str, each.path[1:]))}: {each.reason}" for each in errors)
        raise RequestRefused(400, words)
    assert isinstance(found, Limits)
    return found


def _not_reloaded(failure: Failure) -> Any:
    problem = failure.value
    if isinstance(problem, ReloadUnderway):
        raise RequestRefused(409, "another reload runs")
    if isinstance(problem, (CannotReload, UsageError, NotRun)):
        mistakes = str(problem).splitlines()
        raise RequestRefused(422, "not reloaded, the old configuration stays in force", mistakes=mistakes)
    return failure
