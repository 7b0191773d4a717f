"""
The use of quotas on all nodes that share a store.

Strategy: a node tells the store its own totals, which are those in its file, and is told those of the other
nodes. Totals are absolute, so to tell them twice changes nothing, and what was spent while the store was down
is in the next ones. One script at a time is on its way, for some holders; the others wait.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Protocol

from ...shared.asking import Job
from ...shared.scripts import USAGE
from ...shared.store import SharedStore
from .days import Day

#: Holders whose totals one script writes and reads.
_AT_ONCE = 200
_DAY = 86_400_000
#: Milliseconds that the totals of a day, and those of a month, stay after the last node has told its own.
_DAY_STAYS, _MONTH_STAYS = 9 * _DAY, 70 * _DAY


class CountedUse(Protocol):
    """The use of one holder, as a node knows it."""

    name: str
    day: Day

    @property
    def own_of_day(self) -> int: ...

    @property
    def own_of_month(self) -> int: ...

    def learn(self, of_day: int, of_month: int) -> None: ...


class SharedUsage:
    """
    Tells the store the totals of this node, and takes over those of the others.

    :param store: the store.
    """

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self._waiting: dict[CountedUse, None] = {}
        self._asked = False

    def tell(self, used: CountedUse) -> None:
        """Tell the totals of *used*, and learn those of other nodes, soon."""
        self._waiting[used] = None

    def go_on(self) -> None:
        """Send what waits, unless the last answer is still to come."""
        if not self._asked and self._waiting and self.store.up:
            self._send()

    def flush(self) -> None:
        """Send all that waits: this node ends."""
        while self._waiting and self.store.up:
            self._send()

    def _send(self) -> None:
        some = list(islice(self._waiting, _AT_ONCE))
        for used in some:
            del self._waiting[used]
        self._asked = True
        keys: list[str] = []
        arguments: list[Any] = [self.store.settings.node]
        for used in some:
            keys += [f"u:{used.day.name}:{used.name}", f"u:{used.day.month}:{used.name}"]
            arguments += [used.own_of_day, _DAY_STAYS, used.own_of_month, _MONTH_STAYS]

        def done(answer: list[bytes] | None) -> None:
            self._asked = False
            if answer is None:
                self._waiting.update(dict.fromkeys(some))
                return
            for number, used in enumerate(some):
                used.learn(int(answer[2 * number]), int(answer[2 * number + 1]))
            self.go_on()

        self.store.run(Job(USAGE, keys, arguments, done))
