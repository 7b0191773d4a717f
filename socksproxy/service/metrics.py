"""
The metrics of one server with all its processes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import twisted

from .. import __version__
from ..metrics import table
from ..metrics.columns import Columns, new_columns
from ..metrics.snapshot import Metrics

if TYPE_CHECKING:
    from ..config.command_line import SOCKSOptions


class ServerMetrics(Metrics):
    """
    What a server counts, and what it knows of itself.

    :param workers: how many columns there are for the processes that serve clients.
    :param generation: what the ids of sessions begin with.
    :param options: gives those in force.
    :param draining: tells whether the server accepts no client any more.
    """

    def __init__(
        self,
        workers: int,
        generation: int,
        options: Callable[[], SOCKSOptions],
        draining: Callable[[], bool],
    ) -> None:
        super().__init__(Columns(new_columns(workers + 1), workers + 1))
        self._options = options
        #: Of what this process counts itself.
        self._cells = self.columns.column(workers)
        self._reloads = {done: self.columns.place(table.RELOADS, done) for done in ("done", "failed")}
        self._deaths = {how: self.columns.place(table.WORKER_DEATHS, how) for how in DEATHS}
        build = __version__, ".".join(map(str, sys.version_info[:3])), twisted.__version__
        started = time.time()
        self.register(table.BUILD_INFO, lambda: [(build, 1)])
        self.register(table.START_TIME, lambda: [((), started)])
        self.register(table.GENERATION, lambda: [((), generation)])
        self.register(table.CONFIG_INFO, lambda: [((self.config_hash,), 1)])
        self.register(table.CONFIG_LOADED, lambda: [((), self._loaded)])
        self.register(table.DRAINING, lambda: [((), draining())])
        self.loaded()

    def loaded(self) -> None:
        """A configuration has come into force."""
        self._loaded = time.time()
        self.config_hash = config_hash(self._options())

    def reloaded(self, done: bool) -> None:
        """The configuration was read again; *done*: it is in force."""
        self._cells[self._reloads["done" if done else "failed"]] += 1
        if done:
            self.loaded()

    def worker_died(self, number: int, how: str | None) -> None:
        """
        The process of a worker has ended.

        :param number: the worker's, from 1 on.
        :param how: one of :data:`DEATHS`; None: it was told to end.
        """
        self.columns.retire(number - 1)
        if how is not None:
            self._cells[self._deaths[how]] += 1

    def show_workers(self, states: Callable[[], Iterable[str]], possible: Sequence[str]) -> None:
        """
        Count the workers by their states.

        :param states: gives the state of each worker.
        :param possible: the states that there are.
        """

        def numbers() -> Iterable[tuple[tuple[str, ...], float]]:
            now = list(states())
            return [((state,), now.count(state)) for state in possible]

        self.register(table.WORKERS, numbers)


#: How a worker dies: by itself, by a signal, or before it was ready.
DEATHS = ("status", "signal", "start")


def config_hash(options: SOCKSOptions) -> str:
    """The SHA-256 of the configuration file in force, as ``sha256sum`` shows it; empty: there is no file."""
    return "" if options.config is None else sha256(options.config).hexdigest()
