"""Load on a fleet: sessions one after the other, from many addresses, and how they end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType

from tests.support.fleet import CLIENTS, Fleet
from tests.support.proxy import echoes


class FleetLoad:
    """
    Opens sessions through the balancer in several threads, in a ``with`` statement.

    :param rate: sessions a second, all together; None: as many as there can be.
    :param port: of the origin, which echoes.
    :ivar outcomes: how sessions went: "served", or what went wrong.
    """

    def __init__(self, fleet: Fleet, port: int, *, threads: int = 4, rate: float | None = None) -> None:
        self._fleet = fleet
        self._port = port
        self._pause = 0.0 if rate is None else threads / rate
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[number]) for number in range(threads)]
        self._step = threads
        self.outcomes: Counter[str] = Counter()

    def __enter__(self) -> FleetLoad:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self.seconds = time.monotonic() - self._began

    @property
    def served(self) -> int:
        """How many sessions went well."""
        return self.outcomes["served"]

    def _run(self, number: int) -> None:
        following = time.monotonic()
        while not self._stopping.is_set():
            self.outcomes[self._session(CLIENTS[number % len(CLIENTS)])] += 1
            number += self._step
            if self._pause:
                following = max(following + self._pause, time.monotonic() - self._pause)
                self._stopping.wait(max(0.0, following - time.monotonic()))

    def _session(self, client: str) -> str:
        try:
            reply, sock = self._fleet.session("dave", self._port, client)
            with sock:
                if reply:
                    return f"reply {reply}"
                echoes(sock)
        except Exception as problem:
            return f"{type(problem).__name__}: {problem}"
        return "served"
