"""
A queue that is fair to the clients who share it.

Strategy: each client (a *share*) has a queue of its own, and the shares take turns. So one client
with a thousand items delays another client by one item. When the queue is too long, the newest item of the
longest share makes room (:meth:`FairQueue.shed`). So a flood displaces its own items, and never the item of
a client that has few.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class FairQueue(Generic[T]):
    """Items that wait, in one queue for each share."""

    def __init__(self) -> None:
        self._size = 0
        # The share whose turn comes next is the first. No share in it is empty.
        self._shares: dict[Hashable, dict[T, None]] = {}

    def __len__(self) -> int:
        return self._size

    def put(self, share: Hashable, item: T) -> None:
        """Add *item* to *share*."""
        self._shares.setdefault(share, {})[item] = None
        self._size += 1

    def shed(self, newcomer: Hashable) -> T:
        """
        Remove the newest item of the longest share.

        :param newcomer: the share that has grown last; it loses where several shares are the longest.
        :returns: the item that is not in the queue any more.
        """
        longest = max(self._shares, key=lambda share: (len(self._shares[share]), share == newcomer))
        item = next(reversed(self._shares[longest]))
        self.discard(longest, item)
        return item

    def take(self, may: Callable[[Hashable], bool] = lambda share: True) -> tuple[Hashable, T] | None:
        """
        Remove the oldest item of the share whose turn it is.

        :param may: tells whether a share may have a turn now.
        :returns: the share and its item; None when no share that may have a turn has an item.
        """
        for share, items in self._shares.items():
            if may(share):
                item = next(iter(items))
                del items[item], self._shares[share]
                self._size -= 1
                if items:
                    self._shares[share] = items
                return share, item
        return None

    def discard(self, share: Hashable, item: T) -> bool:
        """Remove *item* from *share*; tells whether it was there."""
        items = self._shares.get(share)
        if items is None or item not in items:
            return False
        del items[item]
        self._size -= 1
        if not items:
            del self._shares[share]
        return True
