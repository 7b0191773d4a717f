"""
A table of values that hold for some seconds, with a maximum size.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """
    Values by keys, each until a time.

    :param clock: tells the time.
    :param most: the greatest number of values; the value that was put first makes room.
    """

    __slots__ = ("_clock", "_most", "_values")

    def __init__(self, clock: IReactorTime, most: int) -> None:
        self._clock = clock
        self._most = most
        self._values: dict[K, tuple[float, V]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value of *key*; None: there is none, or its time is over."""
        found = self._values.get(key)
        return found[1] if found is not None and self._clock.seconds() < found[0] else None

    def put(self, key: K, value: V, seconds: float) -> None:
        """Have *value* for *key*, for *seconds* from now on."""
        self._values.pop(key, None)  # to the end of the queue
        if len(self._values) >= self._most:
            del self._values[next(iter(self._values))]
        self._values[key] = self._clock.seconds() + seconds, value

    def discard(self, key: K) -> None:
        """Have no value for *key*."""
        self._values.pop(key, None)
