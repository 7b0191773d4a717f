"""
What the admin API asks of a service: one process with its listeners and its configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from ..admin.control import Control, ProcessAsker
from ..admin.errors import RequestRefused
from ..admin.settings import NOTICE
from ..admin.upkeep import PartState, Upkeep
from ..config.plan import Plan
from ..runtime.pool import NotRun
from .metrics import ServerMetrics
from .reload import CannotReload, Reloading, ReloadUnderway


class ControlledService(Protocol):
    """What a control uses of its service."""

    reactor: Any
    options: Any
    reloading: Reloading
    running: Any
    metrics: ServerMetrics | None
    stopping: bool
    loaded: float

    @property
    def plan(self) -> Plan: ...

    @property
    def upkeep(self) -> Upkeep: ...

    def upstream_names(self) -> Collection[str]: ...

    def told_listeners(self) -> list[dict[str, Any]]: ...

    def reopen_log(self) -> None: ...


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

    @property
    def closed(self) -> bool:
        """See :attr:`Control.closed`."""
        return self._service.upkeep.resting.everything

    def config(self) -> dict[str, Any]:
        """See :meth:`Control.config`."""
        options = self._service.options
        data = options.config
        return {
            "file": options["config"],
            "hash": None if data is None else sha256(data).hexdigest(),
            "loaded": round(self._service.loaded, 3),
        }

    def listeners(self) -> Sequence[dict[str, Any]]:
        """See :meth:`Control.listeners`."""
        return self._service.told_listeners()

    def set_listener(self, name: str, state: PartState) -> tuple[str, ...]:
        """See :meth:`Control.set_listener`."""
        for told in self._service.told_listeners():
            if name in (told["name"], told["address"], told["endpoint"]):
                self._service.upkeep.set(self._service.upkeep.listeners, told["endpoint"], state)
                kind, _, place = told["address"].partition(":")
                return tuple(filter(None, (told["name"], told["address"] if kind == "unix" else place)))
        raise RequestRefused(404, "there is no such listener")

    def upstreams(self) -> Mapping[str, dict[str, Any]]:
        """See :meth:`Control.upstreams`."""
        settings, states = self._service.plan.settings, self._service.upkeep.upstreams
        told = {}
        for name in self._service.upstream_names():
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
        if name not in self._service.upstream_names():
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

    def reload(self) -> Deferred[list[str]]:
        """See :meth:`Control.reload`."""
        return self._service.reloading.now().addErrback(_not_reloaded)

    def reopen_log(self) -> None:
        """See :meth:`Control.reopen_log`."""
        self._service.reopen_log()


def _not_reloaded(failure: Failure) -> Any:
    problem = failure.value
    if isinstance(problem, ReloadUnderway):
        raise RequestRefused(409, "another reload runs")
    if isinstance(problem, (CannotReload, UsageError, NotRun)):
        mistakes = str(problem).splitlines()
        raise RequestRefused(422, "not reloaded, the old configuration stays in force", mistakes=mistakes)
    return failure
