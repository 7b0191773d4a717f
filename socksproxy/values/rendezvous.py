"""
Rendezvous hashing: each key has its own order of the members of a list.

The order depends on nothing but the key and the names of the members, so that it is the same after a restart
and in every process. When a list gets or loses one of n members, one of n keys gets another first member.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from heapq import nlargest
from math import log
from typing import Generic, TypeVar

_SIZE = 8

#: Keys whose first members are remembered, and how many members of each.
MOST_KEYS, PLACES = 4096, 4

T = TypeVar("T")


def key_of(*parts: str) -> bytes:
    """A key of *parts*: other parts have another key."""
    found = blake2b(digest_size=32)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        found.update(len(data).to_bytes(4, "big") + data)
    return found.digest()


def score(key: bytes, member: str) -> bytes:
    """The score of *member*: of all members, the one with the highest score is the first one of *key*."""
    return blake2b(member.encode("utf-8", "surrogateescape"), digest_size=_SIZE, key=key).digest()


def first_of(key: bytes, members: Sequence[str]) -> int:
    """The number of the first one of *members*, of which there is at least one."""
    scores = [score(key, member) for member in members]
    return scores.index(max(scores))


def order_of(key: bytes, members: Iterable[str]) -> list[str]:
    """All *members*, the first one of *key* first."""
    return sorted(members, key=lambda member: score(key, member), reverse=True)


class Rendezvous(Generic[T]):
    """
    Orders *members* by keys, and remembers the first ones of each key.

    A member of twice the weight is the first one of twice as many keys.

    :param members: for each member its name, its weight, and the member itself.
    """

    def __init__(self, members: Iterable[tuple[str, int, T]]) -> None:
        entries = list(members)
        self._members = [member for _, _, member in entries]
        self._names = [name.encode("utf-8", "surrogateescape") for name, _, _ in entries]
        weights = [weight for _, weight, _ in entries]
        self._weights = weights if len(set(weights)) > 1 else None
        self._known: dict[bytes, tuple[T, ...]] = {}

    def first(self, key: bytes) -> tuple[T, ...]:
        """The first :data:`PLACES` members of *key*."""
        known = self._known
        found = known.pop(key, None)
        if found is None:
            found = tuple(self.order(key, PLACES))
            if len(known) >= MOST_KEYS:
                del known[next(iter(known))]
        known[key] = found  # at the end: the key that was not asked for the longest time is forgotten
        return found

    def order(self, key: bytes, most: int) -> list[T]:
        """The first *most* members of *key*."""
        scores: Sequence[bytes | float] = [
            blake2b(name, digest_size=_SIZE, key=key).digest() for name in self._names
        ]
        if self._weights is not None:
            scores = [_weighed(*each) for each in zip(scores, self._weights, strict=True)]  # type: ignore[arg-type]
        numbers = nlargest(most, range(len(scores)), key=scores.__getitem__)
        return [self._members[number] for number in numbers]


def _weighed(score: bytes, weight: int) -> float:
    """The score of a member; with equal weights, members have the order of :func:`order_of`."""
    # 52 bits, so that the fraction is neither 0 nor 1.
    return -weight / log(((int.from_bytes(score, "big") >> 12) + 0.5) / (1 << 52))
