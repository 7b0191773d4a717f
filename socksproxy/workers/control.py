"""
What the admin API asks of a supervisor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..service.control import ControlledService, ServiceControl
from .process import WorkerProcess
from .questions import Questions, WorkersAsker
from .states import Worker, WorkerState


class ControlledSupervisor(ControlledService, Protocol):
    """What a control uses of a supervisor."""

    @property
    def workers(self) -> Sequence[Worker]: ...


#: Workers in these states may have sessions.
_WITH_SESSIONS = (WorkerState.RUNNING, WorkerState.RELOADING, WorkerState.LEAVING, WorkerState.STOPPING)


def with_sessions(workers: Sequence[Worker]) -> Mapping[int, Questions]:
    """Who asks those of *workers* that may have sessions, by their numbers."""
    return {
        worker.number: worker.process.questions
        for worker in workers
        if worker.state in _WITH_SESSIONS and isinstance(worker.process, WorkerProcess)
    }


class SupervisorControl(ServiceControl):
    """
    A supervisor and its workers.

    :param supervisor: the supervisor.
    :param generation: what the ids of all sessions begin with.
    :param asker: asks the workers.
    """

    def __init__(self, supervisor: ControlledSupervisor, generation: int, asker: WorkersAsker) -> None:
        super().__init__(supervisor, generation, asker)
        self._supervisor = supervisor

    def state(self) -> tuple[str, str | None]:
        """See :meth:`~socksproxy.admin.control.Control.state`."""
        state, why = super().state()
        if why is None and not any(worker.serves for worker in self._supervisor.workers):
            started = any(worker.failures for worker in self._supervisor.workers)
            return ("running", "no worker") if started else ("starting", "starting")
        return state, why

    def processes(self) -> dict[str, int]:
        """See :meth:`~socksproxy.admin.control.Control.processes`."""
        workers = self._supervisor.workers
        return {"running": sum(worker.serves for worker in workers), "configured": len(workers)}

    def workers(self) -> list[dict[str, Any]]:
        """See :meth:`~socksproxy.admin.control.Control.workers`."""
        return [
            {
                "number": worker.number,
                "pid": None if worker.process is None else worker.process.pid,
                "state": worker.state.value,
                "uptime": None if not worker.serves else round(worker.uptime, 3),
                "failures": worker.failures,
            }
            for worker in self._supervisor.workers
        ]
