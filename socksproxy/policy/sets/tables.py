"""
Tables of networks and of names that hold a million entries.

Strategy: a table is a few sorted arrays of machine words, searched by bisection, so that a million entries
take some megabytes. A thread that makes a table pauses every millisecond or so (:func:`paced`), and does
nothing in one step that takes longer: the thread of the event loop would have to wait for the interpreter's
lock.
"""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from heapq import merge
from threading import current_thread, main_thread
from time import sleep
from typing import Protocol as Shape, TypeVar

#: Entries that are sorted in one step, while other threads wait.
_AT_ONCE = 2000
#: Entries between two pauses.
_BETWEEN_PAUSES = 256
#: Seconds of a pause: long enough for another thread to wake up and take the interpreter's lock.
_PAUSE = 0.0001
_LOW = (1 << 64) - 1


class HoldsNetworks(Shape):
    """A set of networks whose content may change."""

    def range_of(self, number: int, ipv6: bool) -> tuple[int, int] | None:
        """The first and the last address of the range in the set that holds *number*, if there is one."""


class HoldsNames(Shape):
    """A set of names whose content may change."""

    def holds(self, name: str) -> bool:
        """Whether *name*, in lower case, ASCII and without a dot at its end, is in the set."""


T = TypeVar("T")


def paced(items: Iterable[T]) -> Iterator[T]:
    """*items*, with pauses in which other threads run; in the main thread there are no pauses."""
    if current_thread() is main_thread():
        yield from items  # the server starts, and nothing else runs
        return
    for number, item in enumerate(items):
        if not number % _BETWEEN_PAUSES:
            sleep(_PAUSE)
        yield item


class NetworkTable:
    """
    A table of networks, as ranges of addresses that do not touch.

    :param ranges4: the first and the last address of each IPv4 range, in any order.
    :param ranges6: the same for IPv6.
    """

    __slots__ = ("_begins4", "_first4", "_first6", "_last4", "_last6")

    def __init__(
        self, ranges4: Iterable[tuple[int, int]] = (), ranges6: Iterable[tuple[int, int]] = ()
    ) -> None:
        self._first4, self._last4 = array("I"), array("I")
        for first, last in paced(_joined(_in_order(first << 32 | last for first, last in ranges4), 32)):
            self._first4.append(first)
            self._last4.append(last)
        # The first index of each /16: a search within one is short.
        self._begins4 = array("I", (bisect_left(self._first4, high << 16) for high in paced(range(0x10000))))
        self._begins4.append(len(self._first4))
        # An IPv6 address takes two machine words.
        self._first6, self._last6 = (array("Q"), array("Q")), (array("Q"), array("Q"))
        for first, last in paced(_joined(_in_order(first << 128 | last for first, last in ranges6), 128)):
            for halves, number in ((self._first6, first), (self._last6, last)):
                halves[0].append(number >> 64)
                halves[1].append(number & _LOW)

    def __len__(self) -> int:
        return len(self._first4) + len(self._first6[0])

    def range_of(self, number: int, ipv6: bool) -> tuple[int, int] | None:
        if not ipv6:
            high = number >> 16
            begin, end = self._begins4[high], self._begins4[high + 1]
            index = bisect_right(self._first4, number, begin, end) - 1
            if index < 0 or number > self._last4[index]:
                return None
            return self._first4[index], self._last4[index]
        high, low = number >> 64, number & _LOW
        highs, lows = self._first6
        index = bisect_right(highs, high) - 1
        if index >= 0 and highs[index] == high:
            index = bisect_right(lows, low, bisect_left(highs, high, 0, index), index + 1) - 1
        if index < 0:
            return None
        last = self._last6[0][index] << 64 | self._last6[1][index]
        return None if number > last else (highs[index] << 64 | lows[index], last)


def _in_order(numbers: Iterable[int]) -> Iterator[int]:
    """*numbers* in order, sorted in short steps, so that other threads do not wait for long."""
    pieces: list[list[int]] = []
    piece: list[int] = []
    for number in paced(numbers):
        piece.append(number)
        if len(piece) == _AT_ONCE:
            piece.sort(reverse=True)
            pieces.append(piece)
            piece = []
    piece.sort(reverse=True)
    return merge(*map(_emptied, pieces), _emptied(piece))


def _emptied(piece: list[int]) -> Iterator[int]:
    """The numbers of *piece*, from its end on. Each is freed at once: freeing all together is a long step."""
    while piece:
        yield piece.pop()


def _joined(ranges: Iterable[int], bits: int) -> Iterator[tuple[int, int]]:
    """*ranges*, with those that touch joined; one number of *ranges* is two addresses of *bits* each."""
    mask = (1 << bits) - 1
    begin = end = -2
    for packed in ranges:
        first, last = packed >> bits, packed & mask
        if first <= end + 1:
            end = max(end, last)
            continue
        if begin >= 0:
            yield begin, end
        begin, end = first, last
    if begin >= 0:
        yield begin, end


#: The piece by which a table of names grows.
_EMPTY_SLOTS = array("q", bytes(8 << 5))


class NameTable:
    """
    A table of names, which keeps only their hashes: CPython's own, with 64 bits and a secret of the process.

    The hashes are in an open hash table. Bisection would read twenty places of the memory for each part of a
    name.

    :param patterns: ``a.example`` is one name, ``*.example`` is every name below it, ``.example`` is both.
    """

    __slots__ = ("_length", "_mask", "_slots")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        hashes = array("q", (number for text in patterns for number in _hashes_of(text)))
        size = 2 << max(4, len(hashes).bit_length())
        self._mask = mask = size - 1
        self._slots = slots = array("q")
        for _ in paced(range(size >> 5)):
            slots.extend(_EMPTY_SLOTS)
        self._length = 0
        for number in paced(hashes):
            place = number & mask
            while slots[place] not in (0, number):
                place = place + 1 & mask
            self._length += not slots[place]
            slots[place] = number

    def __len__(self) -> int:
        return self._length

    def holds(self, name: str) -> bool:
        if self._has(hash(name)):
            return True
        dot = name.find(".")
        while dot >= 0:
            if self._has(hash(name[dot:])):
                return True
            dot = name.find(".", dot + 1)
        return False

    def _has(self, number: int) -> bool:
        slots, mask = self._slots, self._mask
        place = number & mask
        while slots[place]:
            if slots[place] == number:
                return True
            place = place + 1 & mask
        return False


def _hashes_of(pattern: str) -> tuple[int, ...]:
    # 0 is an empty slot. So a name with the hash 0, one in 2**64, is in no set.
    if pattern.startswith("*."):
        return (hash(pattern[1:]),)
    return (hash(pattern), hash(pattern[1:])) if pattern.startswith(".") else (hash(pattern),)


@lru_cache(maxsize=4096)
def glob(pattern: str) -> re.Pattern[str]:
    """The regular expression for *pattern*: ``*`` is any text, ``?`` is any character but a dot."""
    return re.compile("".join({"*": ".*", "?": "[^.]"}.get(c) or re.escape(c) for c in pattern))


# With shorter hashes, two names would have the same hash now and then.
assert sys.hash_info.width >= 64, "sets of names need hashes of 64 bits"
