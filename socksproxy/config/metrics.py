"""
The table ``[metrics]``: its presence has the server count.
"""

from __future__ import annotations

from typing import Any

from ..values.errors import ConfigError
from ..values.metrics import MetricsSettings
from .readers import Key, plain, read_table, typed
from .words import METRICS

#: The examples and units of the keys; the docstring of the class describes them.
METRIC_KEYS = {"users": Key("50", "users")}


def metrics_of(table: Any, errors: list[ConfigError]) -> MetricsSettings | None:
    """
    Read what is to be counted.

    :param table: the value of the key ``metrics``; None: the file does not have it.
    :param errors: receives every mistake.
    :returns: None: nothing is to be counted, or there are mistakes.
    """
    if table is None:
        return None
    known = len(errors)
    try:
        found = read_table(table, (METRICS,), {"users": plain(_users)}, errors)
    except ConfigError as problem:
        errors.append(problem.within((METRICS,)))
    return MetricsSettings(**found) if len(errors) == known else None


def _users(value: Any) -> int:
    return MetricsSettings(users=typed(int)(value)).users
