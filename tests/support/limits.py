"""What a ledger has counted, and bytes that come to an end."""

from __future__ import annotations

from typing import Any

from socksproxy.limits.account import SESSIONS, Scope
from socksproxy.limits.ledger import Ledger


def had(ledger: Ledger, scope: Scope, holder: str = "", kind: str = SESSIONS) -> int:
    """How many of *kind* the holder has, in a process that counts by itself."""
    account = ledger._accounts.get((scope, holder))
    if account is None or kind not in account._counters:
        return 0
    value: int = account._counters[kind].value
    return value


class Purse:
    """A budget that ends."""

    in_turn = False

    def __init__(self, left: int) -> None:
        self.left = left

    @property
    def exhausted(self) -> bool:
        return self.left <= 0

    def available(self) -> int:
        return max(self.left, 0)

    def spend(self, amount: int, waiter: Any = None) -> None:
        self.left -= amount

    def lend(self, amount: int) -> bool:
        return False

    def take_back(self, lent: int, unused: int) -> None:
        raise AssertionError("it lends nothing")

    def wait(self, waiter: Any) -> None:
        """Nobody waits."""

    def leave(self, waiter: Any) -> None:
        """Nobody waits."""
