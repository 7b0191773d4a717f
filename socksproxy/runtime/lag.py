"""
How late the event loop is.
"""

from __future__ import annotations

from collections import deque
from typing import Any

#: Seconds between two looks, and looks that count.
EVERY, LOOKS = 0.5, 10
#: Seconds without a question after which nothing looks any more.
_UNASKED = 60.0


class Lag:
    """
    Looks twice a second how late it is called, from the first question on.

    :param reactor: calls.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._late: deque[float] = deque(maxlen=LOOKS)
        self._asked = 0.0
        self._looks = False

    def seconds(self) -> float:
        """By how many seconds the event loop was late at the most, in the last seconds."""
        self._asked = now = self._reactor.seconds()
        if not self._looks:
            self._looks = True
            self._late.clear()
            self._reactor.callLater(EVERY, self._look, now + EVERY)
        return max(self._late, default=0.0)

    def _look(self, due: float) -> None:
        now = self._reactor.seconds()
        self._late.append(max(0.0, now - due))
        self._looks = now - self._asked < _UNASKED
        if self._looks:
            self._reactor.callLater(EVERY, self._look, now + EVERY)
