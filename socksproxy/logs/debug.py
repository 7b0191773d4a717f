"""
Lines of the server's own log at level debug: on a topic, for a while.

Strategy: each topic has a :class:`DebugTopic` in this process. A place that has something to say looks at
its :attr:`~DebugTopic.on` first, so a topic that is off costs a look at an attribute. An operator asks for a
topic for so many seconds, and it falls silent by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: What the names of all loggers of this package begin with, and what stands for all topics.
ALL = "socksproxy"


class DebugTopic:
    """
    A topic of debug lines.

    :param name: its name.
    :ivar on: whether lines are wanted.
    """

    __slots__ = ("_clock", "_log", "_timer", "name", "on")

    def __init__(self, name: str) -> None:
        self.name = name
        self.on = False
        self._log = Logger(namespace=f"{ALL}.{name}")
        self._clock: IReactorTime | None = None
        self._timer: IDelayedCall | None = None

    def __call__(self, format: str, **values: Any) -> None:
        """Write a line; *format* and *values* are as for :meth:`twisted.logger.Logger.debug`."""
        self._log.debug(format, **values)

    def speak(self, clock: IReactorTime, seconds: float) -> None:
        """Be on for so many *seconds* from now; 0: be off."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self.on = seconds > 0
        if self.on:
            self._clock = clock
            self._timer = clock.callLater(seconds, self._fall_silent)

    def _fall_silent(self) -> None:
        self._timer = None
        self.on = False

    @property
    def left(self) -> float:
        """For how many seconds it stays on; 0: it is off."""
        if self._timer is None or self._clock is None:
            return 0.0
        return max(0.0, self._timer.getTime() - self._clock.seconds())


#: Why sessions are refused.
SESSIONS = DebugTopic("sessions")
#: Which names are looked up, and what is found.
NAMES = DebugTopic("names")
#: Tries of upstreams, and how they end.
UPSTREAMS = DebugTopic("upstreams")
#: The members that pools choose, and how that ends.
POOLS = DebugTopic("pools")
#: The steps of a reload.
RELOAD = DebugTopic("reload")

#: All topics, by their names.
TOPICS = {topic.name: topic for topic in (SESSIONS, NAMES, UPSTREAMS, POOLS, RELOAD)}


def topics_of(logger: str) -> Iterator[DebugTopic]:
    """
    The topics of *logger*: the name of one, with or without ``socksproxy.``; or ``socksproxy``, for all.

    :raises KeyError: when there is no such topic.
    """
    if logger == ALL:
        return iter(TOPICS.values())
    return iter([TOPICS[logger.removeprefix(f"{ALL}.")]])
