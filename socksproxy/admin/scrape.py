"""
``GET /metrics``: what Prometheus reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..extras import missing
from ..metrics.snapshot import Metrics, Snapshot
from ..runtime.pool import NotRun, Pool
from .errors import RequestRefused
from .routes import Asked
from .site import Response

#: Scrapes that wait while one is formatted; more are refused.
_WAITING = 8


class MetricsRoute:
    """
    Answers scrapes. A thread of its own formats, which takes milliseconds.

    :param reactor: has threads.
    :param metrics: gives the metrics; None: nothing counts here.
    """

    def __init__(self, reactor: Any, metrics: Callable[[], Metrics | None]) -> None:
        self._metrics = metrics
        self._pool = Pool(reactor, name="metrics", threads=1, waiting=_WAITING)
        self._problem = ""
        self._format: Callable[[Snapshot, str], tuple[str, bytes]] | None = None
        try:
            # Now: an upgrade of the package must not mix versions.
            from ..metrics.exposition import exposition

            self._format = exposition
        except ImportError as problem:
            self._problem = missing("metrics", problem)

    def scrape(self, asked: Asked) -> Any:
        """The metrics, in the format that the request accepts."""
        metrics = self._metrics()
        if metrics is None:
            raise RequestRefused(404, "this server has no metrics")
        if self._format is None:
            raise RequestRefused(501, self._problem)
        made = self._pool.run(self._format, metrics.snapshot(), asked.accept)
        return made.addCallbacks(lambda pair: Response(pair[1], kind=pair[0]), _busy)


def _busy(failure: Any) -> Any:
    failure.trap(NotRun)
    raise RequestRefused(503, "too many scrapes at once")
