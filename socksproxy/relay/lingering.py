"""
Waiting in the reactor's place, for a moment.

A turn of the reactor costs more than what a small message costs the engine.
Where the next one comes within that moment, the engine need not go back
to the reactor for it: it waits by itself, for its own events and for the reactor's.

Only the epoll reactor can be waited for (:func:`~socksproxy.twisted_internals.epoll_of`). With every
other reactor there is no lingering.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import Any

from ..twisted_internals import epoll_of

#: Seconds that the reactor's other descriptors wait at the most. Epoll counts in milliseconds.
LONGEST = 0.002


class Lingering:
    """
    Waits for an engine's epoll and for its reactor's.

    :param reactor: the reactor.
    :param theirs: its epoll.
    :param ours: the engine's.
    """

    __slots__ = ("_both", "_ours", "_reactor", "_until")

    def __init__(self, reactor: Any, theirs: select.epoll, ours: select.epoll) -> None:
        self._reactor = reactor
        self._ours = ours.fileno()
        self._until = 0.0
        self._both = select.epoll()
        self._both.register(self._ours, select.EPOLLIN)
        self._both.register(theirs.fileno(), select.EPOLLIN)

    def begin(self) -> None:
        """The reactor has handed over to the engine."""
        self._until = monotonic() + LONGEST

    def goes_on(self) -> bool:
        """
        Wait for an event; whether the engine has one.

        Whether the reactor has another event then cannot be told, because its epoll holds the engine's.
        """
        reactor = self._reactor
        if not reactor.running:
            return False
        wait = self._until - monotonic()
        later = reactor.timeout()
        if later is not None and later < wait:
            wait = later
        if wait <= 0:
            return False
        return self._ours in dict(self._both.poll(wait))

    def close(self) -> None:
        """Forget both."""
        self._both.close()


def lingering_for(reactor: Any, ours: select.epoll) -> Lingering | None:
    """
    What an engine waits with.

    :param ours: the engine's epoll.
    :returns: None where it must leave the waiting to the reactor.
    """
    theirs = epoll_of(reactor)
    return None if theirs is None else Lingering(reactor, theirs, ours)
