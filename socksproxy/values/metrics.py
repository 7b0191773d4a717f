"""
What is counted for the metrics.
"""

from __future__ import annotations

import attrs

from .errors import ConfigError

#: Users with series of their own, at the most: Prometheus keeps each of them.
MOST_USERS = 1000


def _in_range(instance: object, attribute: object, value: int) -> None:
    if not 0 <= value <= MOST_USERS:
        raise ConfigError(f"not a number from 0 to {MOST_USERS}")


@attrs.frozen(kw_only=True)
class MetricsSettings:
    """
    What is counted for the metrics.

    :ivar users: So many users have metrics of their own, the first ones that log in after the start.
    :raises ConfigError: for a number of users that is out of range.
    """

    users: int = attrs.field(default=0, validator=_in_range)
