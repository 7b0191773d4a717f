"""
Where usage records are kept.
"""

from __future__ import annotations

import attrs

from .errors import ConfigError
from .shared import own_name

#: Days that records may be kept: ten years.
MOST_DAYS = 3660


def _in_range(instance: object, attribute: object, value: int) -> None:
    if not 1 <= value <= MOST_DAYS:
        raise ConfigError(f"not a number from 1 to {MOST_DAYS}")


@attrs.frozen(kw_only=True)
class RecordSettings:
    """
    The file of usage records.

    :ivar file: The SQLite file of the records; it is made if it is missing, and its directory is not.
    :ivar days: Records are deleted after so many days.
    :ivar node: the name of this node in the records.
    :raises ConfigError: for a number of days that is out of range.
    """

    file: str
    days: int = attrs.field(default=90, validator=_in_range)
    node: str = attrs.field(factory=own_name)
