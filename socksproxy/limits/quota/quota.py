"""
Quotas: how many bytes a holder may move in a day and in a month.
"""

from __future__ import annotations

from typing import Any

from .usage import UsageFile, Used

_NO_END = 1 << 62


class Quota:
    """
    What is left of a day and of a month: an :class:`~socksproxy.limits.buckets.Budget`.

    It costs nothing while no bytes move: a new day shows when the quota is asked.

    :param usage: the file of what has been used.
    :param name: of the holder, such as ``user bob``.
    :param daily: bytes in a day, both directions together; None: any number.
    :param monthly: bytes in a month, both directions together; None: any number.
    """

    __slots__ = ("_daily", "_monthly", "_usage", "_used", "_wall", "name")

    in_turn = False

    def __init__(
        self, usage: UsageFile, name: str, daily: int | None = None, monthly: int | None = None
    ) -> None:
        self._usage = usage
        self._wall = usage.wall
        self.name = name
        self.change(daily, monthly)
        # Where the file has not been read yet for this holder, there seems to be more left than there
        # is, for as long as reading takes; it shows with the next bytes, and none of them goes uncounted.
        self._used = usage.of(name)

    def change(self, daily: int | None, monthly: int | None) -> None:
        """Have these numbers of bytes hold from now on; see the class."""
        self._daily = _NO_END if daily is None else daily
        self._monthly = _NO_END if monthly is None else monthly

    def available(self) -> int:
        """Bytes that may be moved now."""
        used = self._now()
        of_day, of_month = self._daily - used.of_day, self._monthly - used.of_month
        left = of_day if of_day < of_month else of_month
        return left if left > 0 else 0

    def spend(self, amount: int, waiter: Any = None) -> None:
        """Count *amount* bytes, in other processes soon; less than 0: they were not moved after all."""
        used = self._used
        if not used.begins <= self._wall() < used.ends:
            used = self._now()
        used.of_day += amount
        used.of_month += amount
        if not used.unsaid:
            self._usage.attend(used)
        used.unsaid += amount

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left, before another day or month begins."""
        # The answer admits a session or refuses it. Other processes may have used the quota, or the operator
        # may have deleted the file, and a holder that moves no bytes would not learn of it.
        self._usage.attend(self._now())
        return not self.available()

    def lend(self, amount: int) -> bool:
        """Nothing is lent: what is used counts when it is used."""
        return False

    def take_back(self, lent: int, unused: int) -> None:
        """See :meth:`lend`."""

    def wait(self, waiter: Any) -> None:
        """Do nothing: no session waits for another day; one whose quota is exhausted ends."""

    def leave(self, waiter: Any) -> None:
        """See :meth:`wait`."""

    def _now(self) -> Used:
        used = self._used
        if not used.begins <= self._wall() < used.ends:
            used = self._used = self._usage.of(self.name)
        return used
