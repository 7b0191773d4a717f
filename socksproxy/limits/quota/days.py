"""
Days and months of quotas, by the wall clock of this machine.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple

_DAY = timedelta(days=1)


class Day(NamedTuple):
    """
    A day from midnight to midnight. A day on which summer time begins or ends has 23 or 25 hours.

    :ivar name: the date, such as ``2026-11-24``.
    :ivar begins: the first moment of the day, in seconds since the epoch.
    :ivar ends: the first moment of the next day, in seconds since the epoch.
    """

    name: str
    begins: float
    ends: float

    @property
    def month(self) -> str:
        """The month of the day, such as ``2026-11``."""
        return self.name[:7]

    def before(self, days: int) -> str:
        """The name of the day *days* earlier."""
        return str(datetime.fromisoformat(self.name).date() - days * _DAY)


def day_at(now: float, zone: tzinfo | None = None) -> Day:
    """
    The day at *now*, in seconds since the epoch.

    :param zone: the time zone whose midnights count; None: the machine's own.
    """
    midnight = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    # Where the clock skips midnight, the day begins at the moment of the skip.
    return Day(str(midnight.date()), midnight.timestamp(), (midnight + _DAY).timestamp())
