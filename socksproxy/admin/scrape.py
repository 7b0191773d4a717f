"""
``GET /metrics``: what Prometheus reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..extras import missing
from ..metrics.snapshot import Metrics
from ..runtime.pool import NotRun
from ..runtime.slices import in_slices
from ..runtime.turns import Turns
from .errors import RequestRefused
from .routes import Asked
from .site import Response

if TYPE_CHECKING:
    from ..metrics.exposition import Exposition

#: Scrapes that wait while one is formatted; more are refused.
_WAITING = 8


class MetricsRoute:
    """
    Answers scrapes, one after the other.

    :param reactor: runs the steps of the work.
    :param metrics: gives the metrics; None: nothing counts here.
    """

    def __init__(self, reactor: Any, metrics: Callable[[], Metrics | None]) -> None:
        self._reactor = reactor
        self._metrics = metrics
        self._turns = Turns(at_once=1, waiting=_WAITING, per_share=1)
        self._problem = ""
        self._exposition: Exposition | None = None
        try:
            # Now: an upgrade of the package must not mix versions.
            from ..metrics.exposition import Exposition

            self._exposition = Exposition()
        except ImportError as problem:
            self._problem = missing("metrics", problem)

    def scrape(self, asked: Asked) -> Any:
        """The metrics, in the format that the request accepts."""
        metrics, exposition = self._metrics(), self._exposition
        if metrics is None:
            raise RequestRefused(404, "this server has no metrics")
        if exposition is None:
            raise RequestRefused(501, self._problem)
        made = self._turns.run(
            lambda: in_slices(self._reactor, exposition.text(metrics.snapshot(), asked.accept))
        )
        return made.addCallbacks(lambda pair: Response(pair[1], kind=pair[0]), _busy)


def _busy(failure: Any) -> Any:
    failure.trap(NotRun)
    raise RequestRefused(503, "too many scrapes at once")
