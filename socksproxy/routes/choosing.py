"""
The ways to choose among the members of a pool. Each choice takes a few microseconds, whatever their number.

A chooser gets the members among which it may choose once, and again when one of them goes down or comes back.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Container, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate, count
from math import gcd
from random import Random
from typing import Protocol

from ..values.outgoing import Asker
from ..values.pools import Choose
from ..values.rendezvous import Rendezvous, key_of

#: The key of choices that take none.
NO_KEY = key_of()


def key_for(choose: Choose, asker: Asker, host: str) -> bytes:
    """
    The key by which *choose*, a hash, decides.

    :param asker: the client and the user.
    :param host: of the destination.
    """
    if choose is Choose.HASH_DESTINATION:
        return key_of("destination", host)
    if choose is Choose.HASH_USER and asker.user is not None:
        return key_of("user", asker.user)
    return key_of("client", asker.client)


class Choosable(Protocol):
    """
    A member, as choosers see it.

    :ivar entry: the number that a chooser has given it.
    :ivar sessions: its sessions.
    :ivar living: whether it may be chosen.
    :ivar full: whether it has as many sessions as it may have.
    """

    entry: int

    @property
    def living(self) -> bool: ...

    @property
    def sessions(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> int: ...

    @property
    def full(self) -> bool: ...


class Chooser(Protocol):
    """Chooses among members."""

    def set(self, members: Sequence[Choosable]) -> None:
        """Choose among *members* from now on, which are in the order of the configuration."""

    def next(self, tried: Container[Choosable], key: bytes) -> Choosable | None:
        """
        One of the members; None: there is none left.

        :param tried: members that are not chosen again.
        :param key: by which hashes choose.
        """

    def changed(self, member: Choosable) -> None:
        """*member*, which may be chosen, has more or fewer sessions."""


class InOrder:
    """Chooses the first member."""

    def __init__(self) -> None:
        self._members: Sequence[Choosable] = ()

    def set(self, members: Sequence[Choosable]) -> None:
        """See :meth:`Chooser.set`."""
        self._members = members

    def next(self, tried: Container[Choosable], key: bytes) -> Choosable | None:
        """See :meth:`Chooser.next`."""
        for member in self._members:
            if member not in tried and not member.full:
                return member
        return None

    def changed(self, member: Choosable) -> None:
        """See :meth:`Chooser.changed`."""


class InTurn(InOrder):
    """
    Chooses each member in turn, one of twice the weight twice as often.

    :param chance: gives the start, so that workers do not all begin with the same member.
    """

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._next = chance.randrange(1 << 16)

    def set(self, members: Sequence[Choosable]) -> None:
        """See :meth:`Chooser.set`."""
        least = gcd(*(member.weight for member in members)) or 1
        if all(member.weight == least for member in members):
            self._members = members
            return
        # The turns of a member are spread evenly over the round.
        turns = [
            ((turn + 0.5) * least / member.weight, number)
            for number, member in enumerate(members)
            for turn in range(member.weight // least)
        ]
        self._members = [members[number] for _, number in sorted(turns)]

    def next(self, tried: Container[Choosable], key: bytes) -> Choosable | None:
        """See :meth:`Chooser.next`."""
        members = self._members
        for _ in range(len(members)):
            self._next += 1
            member = members[self._next % len(members)]
            if member not in tried and not member.full:
                return member
        return None


class ByChance(InOrder):
    """
    Chooses by chance, a member of twice the weight twice as often.

    :param chance: draws.
    """

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance
        self._weights: Sequence[int] = ()

    def set(self, members: Sequence[Choosable]) -> None:
        """See :meth:`Chooser.set`."""
        super().set(members)
        self._weights = list(accumulate(member.weight for member in members))

    def next(self, tried: Container[Choosable], key: bytes) -> Choosable | None:
        """See :meth:`Chooser.next`."""
        if not self._members:
            return None
        member = self._members[self._drawn(self._weights)]
        if member not in tried and not member.full:
            return member
        left = [each for each in self._members if each not in tried and not each.full]
        return left[self._drawn(list(accumulate(each.weight for each in left)))] if left else None

    def _drawn(self, weights: Sequence[int]) -> int:
        return bisect(weights, self._chance.randrange(weights[-1]))


class ByLoad(InOrder):
    """
    Chooses the member with the fewest sessions for its weight; of several, the one that waits longest.

    Strategy: a heap has an entry for each change; an entry that is not the last one of its member is stale.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[tuple[float, int, Choosable]] = []
        self._numbers = count()

    def set(self, members: Sequence[Choosable]) -> None:
        """See :meth:`Chooser.set`."""
        super().set(members)
        self._heap = [self._entry(member) for member in members]
        heapify(self._heap)

    def changed(self, member: Choosable) -> None:
        """See :meth:`Chooser.changed`."""
        if len(self._heap) > 2 * len(self._members) + 64:
            self.set(self._members)
        else:
            heappush(self._heap, self._entry(member))

    def next(self, tried: Container[Choosable], key: bytes) -> Choosable | None:
        """See :meth:`Chooser.next`."""
        heap, aside, found = self._heap, [], None
        while heap:
            _, number, member = entry = heap[0]
            if number == member.entry and member not in tried and not member.full:
                found = member
                break
            heappop(heap)
            if number == member.entry:
                aside.append(entry)
        for entry in aside:
            heappush(heap, entry)
        return found

    def _entry(self, member: Choosable) -> tuple[float, int, Choosable]:
        member.entry = number = next(self._numbers)
        return member.sessions / member.weight, number, member


class ByHash(InOrder):
    """
    Chooses by the rendezvous hash of a key.

    Members that are down keep their places, so that a key comes back to its member.

    :param members: all members, living or not.
    """

    def __init__(self, members: Sequence[Choosable]) -> None:
        super().__init__()
        self._hash = Rendezvous((member.name, member.weight, member) for member in members)
        self._count = len(members)

    def own(self, key: bytes) -> Choosable | None:
        """The first member of *key*, living or not; None: there is no member."""
        return next(iter(self._hash.first(key)), None)

    def next(self, tried: Container[Choosable], key: bytes) -> Choosable | None:
        """See :meth:`Chooser.next`."""
        if not self._members:
            return None
        for member in self._hash.first(key):
            if _free(member, tried):
                return member
        for member in self._hash.order(key, self._count):
            if _free(member, tried):
                return member
        return None


def _free(member: Choosable, tried: Container[Choosable]) -> bool:
    return member.living and member not in tried and not member.full


def chooser_of(choose: Choose, members: Sequence[Choosable], chance: Random) -> Chooser:
    """
    What chooses among *members*.

    :param chance: draws.
    """
    if choose.hashes:
        return ByHash(members)
    if choose is Choose.ROUND_ROBIN:
        return InTurn(chance)
    if choose is Choose.RANDOM:
        return ByChance(chance)
    return ByLoad() if choose is Choose.LEAST_SESSIONS else InOrder()
