"""
Telling the nodes that share a store about this one, again and again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..admin.announcements import ANNOUNCE
from ..admin.control import Control, Gathered
from ..admin.nodes import Row, instance_of, text_of, told_of
from ..logs.printable import printable
from ..logs.throttle import LogThrottle, complain
from ..shared.nodes import BEAT
from ..values.shared import own_name

_log = Logger(namespace="socksproxy")

#: Seconds until the next attempt, where the store has not been told.
_AGAIN = 1.0
#: How many times another server has to be seen under this node's name: the first one may have ended just now.
_SEEN = 2


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
        #: Tells this server from another one of the same name; operators read where it is.
        self._instance = f"process {os.getpid()} on {own_name()}, {secrets.token_hex(6)}"
        self._namesake: str | None = None
        self._seen = 0
        self._complaints = LogThrottle(reactor)

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
        row = {**row, "instance": self._instance, "namesake": self._namesake}
        each = {} if process is None else {process: {"text": text_of(row)}}
        return control.ask_each(ANNOUNCE, each).addCallback(self._told)

    def _told(self, gathered: Gathered) -> None:
        for value in gathered.values:
            if value["told"]:
                self._look_at(value["node"], value["before"])
        timer = self._timer
        if timer is not None and not any(value["told"] for value in gathered.values):
            timer.reset(min(_AGAIN, max(0.0, timer.getTime() - self._reactor.seconds())))

    def _look_at(self, node: str, before: str) -> None:
        """See whether another server has told something under this *node*'s name since this one has."""
        other = instance_of(before)
        self._seen = 0 if other in (None, self._instance) else self._seen + 1
        self._namesake = None
        if other is None or self._seen < _SEEN:
            return
        self._namesake = other.partition(",")[0] or "of an older version"
        if self._complaints.due():
            _log.error(
                "another server ({other}) uses the shared store as node {node}, too: give each node "
                'a "name" of its own in [node]',
                other=printable(self._namesake),
                node=node,
            )
