"""
Which parts of a server are out of service, and the drain of the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .errors import RequestRefused


class PartState(Enum):
    """The state of a listener or an upstream; the value is the word for people."""

    ENABLED = "enabled"
    #: No new sessions.
    DRAINING = "draining"
    #: No sessions.
    DISABLED = "disabled"


#: The words of the API for what is to be done.
DEEDS = {"enable": PartState.ENABLED, "drain": PartState.DRAINING, "disable": PartState.DISABLED}


@attrs.frozen
class Resting:
    """
    The parts of a server that get no new sessions.

    :ivar listeners: descriptions of endpoints.
    :ivar upstreams: names.
    :ivar everything: whether no listener accepts clients.
    """

    listeners: Collection[str] = ()
    upstreams: Collection[str] = ()
    everything: bool = False

    def as_json(self) -> dict[str, Any]:
        """As JSON can carry it, for a worker."""
        return {
            "listeners": sorted(self.listeners),
            "upstreams": sorted(self.upstreams),
            "everything": self.everything,
        }


class DrainStage(Enum):
    """How far the drain of a server is."""

    NONE = "none"
    #: Balancers are told, and clients are still accepted.
    NOTICE = "notice"
    #: No client is accepted.
    CLOSED = "closed"
    #: The sessions that were left have been ended.
    ENDED = "ended"


class Upkeep:
    """
    What an operator has taken out of service.

    :param clock: for the stages of a drain.
    :param changed: called when other parts rest than before.
    :param end_sessions: called when the time of the sessions is over in a drain.
    :ivar stage: of the drain.
    """

    def __init__(
        self, clock: IReactorTime, changed: Callable[[], None], end_sessions: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._changed = changed
        self._end_sessions = end_sessions
        self._timer: IDelayedCall | None = None
        self.stage = DrainStage.NONE
        self.listeners: dict[str, PartState] = {}
        self.upstreams: dict[str, PartState] = {}
        #: What is set for users until the next reload, as the file would have it.
        self.user_limits: dict[str, dict[str, Any]] = {}

    @property
    def resting(self) -> Resting:
        """What gets no new sessions."""
        return Resting(
            frozenset(self.listeners),
            frozenset(self.upstreams),
            self.stage in (DrainStage.CLOSED, DrainStage.ENDED),
        )

    @property
    def draining(self) -> bool:
        """Whether the server is drained."""
        return self.stage is not DrainStage.NONE

    def set(self, parts: dict[str, PartState], name: str, state: PartState) -> None:
        """
        Have the part *name* be in *state*.

        :param parts: :attr:`listeners` or :attr:`upstreams`.
        """
        if state is PartState.ENABLED:
            parts.pop(name, None)
        else:
            parts[name] = state
        self._changed()

    def keep(self, listeners: Collection[str], upstreams: Collection[str]) -> None:
        """After a reload: forget parts that are not there any more, and put others out of service again."""
        self.user_limits.clear()
        for parts, names in ((self.listeners, listeners), (self.upstreams, upstreams)):
            for name in [name for name in parts if name not in names]:
                del parts[name]
        self._changed()

    def drain(self, seconds: float, notice: float) -> None:
        """
        Drain the server.

        :param seconds: that sessions may take, from when no client is accepted any more.
        :param notice: seconds for which clients are still accepted.
        """
        if self.stage is DrainStage.ENDED:
            raise RequestRefused(409, "the server is drained already")
        if self.stage is not DrainStage.CLOSED:
            self.stage = DrainStage.NOTICE
        if self.stage is DrainStage.CLOSED or notice <= 0:
            self._close(seconds)
        else:
            self._wait(notice, self._close, seconds)

    def undrain(self) -> None:
        """Take a drain back."""
        if not self.draining:
            raise RequestRefused(409, "the server is not drained")
        self.stop()
        self._changed()

    def stop(self) -> None:
        """Forget the drain."""
        self.stage = DrainStage.NONE
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _wait(self, seconds: float, call: Callable[..., None], *arguments: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, call, *arguments)

    def _close(self, seconds: float) -> None:
        self.stage = DrainStage.CLOSED
        self._changed()
        self._wait(seconds, self._end)

    def _end(self) -> None:
        self._timer = None
        self.stage = DrainStage.ENDED
        self._end_sessions()
