"""
Telling the nodes that share a store about this one, again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..admin.announcements import ANNOUNCE
from ..admin.control import Control, Gathered
from ..admin.nodes import Row, text_of, told_of
from ..logs.throttle import complain
from ..shared.nodes import BEAT

_log = Logger(namespace="socksproxy")

#: Seconds until the next attempt, where the store has not been told.
_AGAIN = 1.0


class Announcing:
    """
    Tells the store about this node.

    :param reactor: keeps time.
    :param control: makes what knows this node, and has a process that talks to the store.
    """

    def __init__(self, reactor: Any, control: Callable[[], Control]) -> None:
        self._reactor = reactor
        self._make = control
        self._control: Control | None = None
        self._timer: IDelayedCall | None = None

    def follow(self, wanted: bool) -> None:
        """Tell from now on, or no more."""
        if not wanted:
            self.stop()
        elif self._timer is None:
            self._timer = self._reactor.callLater(0, self._tick)

    def stop(self) -> None:
        """Tell no more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _tick(self) -> None:
        # Whatever becomes of the answer, which a store that is left never gives.
        self._timer = self._reactor.callLater(BEAT, self._tick)
        if self._control is None:
            self._control = self._make()
        told = told_of(self._control).addCallback(self._tell, self._control)
        told.addErrback(lambda _: complain(_log, "the other nodes are not told about this one"))

    def _tell(self, row: Row, control: Control) -> Any:
        process = control.teller()
        each = {} if process is None else {process: {"text": text_of(row)}}
        return control.ask_each(ANNOUNCE, each).addCallback(self._told)

    def _told(self, gathered: Gathered) -> None:
        timer = self._timer
        if timer is not None and not any(value["told"] for value in gathered.values):
            timer.reset(min(_AGAIN, max(0.0, timer.getTime() - self._reactor.seconds())))
