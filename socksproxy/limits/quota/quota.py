"""
Quotas: how many bytes a holder may move in a day and in a month.
"""

from __future__ import annotations

from typing import Any

from .usage import UsageFile, Used

_NO_END = 1 << 62


class Quota:
    """
    The bytes that a holder has left in a day and in a month: an :class:`~socksproxy.limits.buckets.Budget`.

    A quota has no timer and costs nothing while no bytes move. It notices a new day at the next call.

    :param usage: the file of used quotas.
    :param name: the holder, such as ``user bob``.
    :param daily: bytes in a day, both directions together; None: no limit.
    :param monthly: bytes in a month, both directions together; None: no limit.
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
        # Until the thread has read the file for this holder, the quota seems to have more bytes left than
        # it has. The next bytes correct this, and every byte is counted.
        self._used = usage.of(name)

    def change(self, daily: int | None, monthly: int | None) -> None:
        """Set the bytes of a day and of a month; see the class."""
        self._daily = _NO_END if daily is None else daily
        self._monthly = _NO_END if monthly is None else monthly

    def available(self) -> int:
        """The number of bytes that the holder may move now."""
        used = self._now()
        of_day, of_month = self._daily - used.of_day, self._monthly - used.of_month
        left = of_day if of_day < of_month else of_month
        if left > 0:
            return left
        if used.unsaid:
            self._usage.hurry()
        return 0

    def spend(self, amount: int, waiter: Any = None) -> None:
        """Count *amount* bytes; other processes count them soon. A negative amount takes bytes back."""
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
        """Whether no byte is left until another day or month begins."""
        # The answer admits or refuses a session. Other processes may have used the quota, and the operator
        # may have deleted the file. A holder that moves no bytes learns of this only here.
        self._usage.attend(self._now())
        return not self.available()

    def lend(self, amount: int) -> bool:
        """Refuse: a quota lends no bytes, and counts bytes when a session moves them."""
        return False

    def take_back(self, lent: int, unused: int) -> None:
        """See :meth:`lend`."""

    def wait(self, waiter: Any) -> None:
        """Do nothing: no session waits for another day. A session with an exhausted quota ends."""

    def leave(self, waiter: Any) -> None:
        """See :meth:`wait`."""

    def _now(self) -> Used:
        used = self._used
        if not used.begins <= self._wall() < used.ends:
            used = self._used = self._usage.of(self.name)
        return used
