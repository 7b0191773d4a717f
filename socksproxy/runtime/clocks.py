"""
The reactor's clock: durations do not follow the steps of the wall clock.

``reactor.seconds()`` is :func:`time.time` in every reactor of Twisted, and ``callLater`` counts by
it. When the wall clock steps back by an hour, no timer fires for an hour; when it steps
forward, all timers of that hour fire at once. Every part of this project takes its
durations from the reactor that it is given, so the reactor is the one place to mend.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.base import ReactorBase


def use_monotonic_clock(reactor: Any) -> None:
    """
    Let the seconds of *reactor* go on from the present time by the monotonic clock.

    The change holds for all timers of the process. ``twistd socks`` and its workers make it
    themselves. A program that embeds :class:`~socksproxy.SOCKSFactory` calls this function or does not: the
    reactor is the program's own, and so are most of its timers. Calls that the reactor has scheduled
    before keep their times, because both clocks show the same time at the moment of the change.

    A reactor whose ``seconds`` has been replaced before stays as it is, and so does a reactor that is not
    built on Twisted's own, such as a :class:`~twisted.internet.task.Clock`.

    :param reactor: the reactor of this process; it may run already.
    """
    if not isinstance(reactor, ReactorBase) or "seconds" in vars(reactor):
        return

    # Seconds since the epoch still, as IDelayedCall.getTime() promises and twisted.web's log expects.
    def seconds(monotonic: Any = time.monotonic, began: float = time.time() - time.monotonic()) -> float:
        return monotonic() + began  # type: ignore[no-any-return]

    vars(reactor)["seconds"] = seconds
