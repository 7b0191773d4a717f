"""
Days and months, as the people who set quotas count them: by the wall clock of this machine.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple

_DAY = timedelta(days=1)


class Day(NamedTuple):
    """
    A day, from midnight to midnight; it has 23 hours or 25 when summer time begins or ends.

    :ivar name: such as ``2026-11-24``.
    :ivar begins: seconds since the epoch.
    :ivar ends: the first moment of the next day, in seconds since the epoch.
    """

    name: str
    begins: float
    ends: float

    @property
    def month(self) -> str:
        """The month it is in, such as ``2026-11``."""
        return self.name[:7]

    def before(self, days: int) -> str:
        """The name of the day *days* earlier."""
        return str(datetime.fromisoformat(self.name).date() - days * _DAY)


def day_at(now: float, zone: tzinfo | None = None) -> Day:
    """
    The day at *now*, in seconds since the epoch.

    :param zone: whose midnights count; None: the machine's own.
    """
    midnight = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    # A midnight that the clock skips is taken for the moment at which it does.
    return Day(str(midnight.date()), midnight.timestamp(), (midnight + _DAY).timestamp())
