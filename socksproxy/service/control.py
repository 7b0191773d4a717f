"""
What the admin API asks of a service: one process with its listeners and its configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from ..admin.control import Control, ProcessAsker
from ..admin.errors import RequestRefused
from ..runtime.pool import NotRun
from .reload import CannotReload, Reloading, ReloadUnderway


class ControlledService(Protocol):
    """What a control uses of its service."""

    reactor: Any
    options: Any
    reloading: Reloading
    running: Any
    stopping: bool
    loaded: float

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

    def state(self) -> tuple[str, str | None]:
        """See :meth:`Control.state`."""
        if self._service.stopping:
            return "stopping", "stopping"
        if not self._service.running:
            return "starting", "starting"
        return "running", None

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
