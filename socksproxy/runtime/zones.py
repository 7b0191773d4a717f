"""
Time zones by their names.

The names are those of the tz database, which a small container does not have. UTC needs no database.
"""

from __future__ import annotations

from datetime import timezone, tzinfo
from zoneinfo import ZoneInfo, available_timezones

#: Names of UTC.
_UTC = frozenset({"UTC", "Etc/UTC", "GMT", "Etc/GMT"})


def zone_called(name: str) -> tzinfo:
    """
    The time zone of that *name*, such as ``Europe/Berlin``.

    :raises ValueError: when this machine knows none of that name, with what would be right.
    """
    try:
        return timezone.utc if name in _UTC else ZoneInfo(name)
    except Exception:  # it raises nearly anything, and what does not matter
        if not available_timezones():
            raise ValueError(
                "is not known, because tzdata is missing, and without it only UTC is: "
                "install the system's package tzdata, or tzdata with pip"
            ) from None
        raise ValueError("must be a time zone that this machine knows, such as Europe/Berlin") from None
