"""
How fast sessions move bytes, as far as anybody has looked.

A session counts bytes and no rates. So a rate is what has moved between two looks, and costs a session
nothing while no look is taken.
"""

from __future__ import annotations

from typing import NamedTuple

#: Seconds that two looks must lie apart.
APART = 0.9


class Look(NamedTuple):
    """
    What a look has seen.

    :ivar when: in seconds of the clock.
    :ivar moved: bytes until then, in both directions.
    :ivar rate: bytes per second until then.
    """

    when: float
    moved: int
    rate: float


class Rates:
    """The last look at each session, by the session's number."""

    def __init__(self) -> None:
        self._looks: dict[int, Look] = {}

    def __len__(self) -> int:
        return len(self._looks)

    def look(self, number: int, now: float, moved: int, since: float) -> float:
        """
        The bytes per second of a session since the last look, or of the whole session at the first look.

        :param number: of the session.
        :param now: seconds of the clock.
        :param moved: bytes that it has moved.
        :param since: when it began.
        """
        before = self._looks.get(number)
        if before is None:
            rate = moved / max(now - since, APART)
        elif now - before.when < APART:
            return before.rate
        else:
            rate = (moved - before.moved) / (now - before.when)
        self._looks[number] = Look(now, moved, rate)
        return rate

    def keep(self, numbers: set[int]) -> None:
        """Forget all sessions but those of *numbers*, if that is worth the time."""
        if len(self._looks) > 2 * len(numbers) + 1000:
            self._looks = {number: look for number, look in self._looks.items() if number in numbers}
