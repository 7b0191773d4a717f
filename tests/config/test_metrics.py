"""The table ``[metrics]`` of a configuration file."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from socksproxy.config.metrics import METRIC_KEYS
from socksproxy.values.errors import ConfigError
from socksproxy.values.metrics import MOST_USERS, MetricsSettings
from tests.config.test_upstreams import parsed, problems


def test_every_key_is_a_field() -> None:
    """The table says all that there is to say."""
    assert list(METRIC_KEYS) == [field.name for field in attrs.fields(MetricsSettings)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", None),
        ("[metrics]\n", MetricsSettings()),
        ("[metrics]\nusers = 50\n", MetricsSettings(users=50)),
    ],
)
def test_meaning(config: str, expected: MetricsSettings | None, tmp_path: Path) -> None:
    """The table's presence has the server count."""
    assert parsed(config, tmp_path).plan.metrics == expected


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("metrics = 5\n", "file:1: [metrics] = 5: not a table"),
        ("[metrics]\nusers = -1\n", "file:2: [metrics] users = -1: not a number from 0 to 1000"),
        ("[metrics]\nusers = true\n", "file:2: [metrics] users = true: not a whole number"),
        ("[metrics]\nuser = 5\n", "file:2: [metrics] user: no such key; did you mean users?"),
    ],
)
def test_mistakes(config: str, problem: str, tmp_path: Path) -> None:
    """A mistake is told with its place."""
    assert problems(config, tmp_path) == [problem]


def test_range() -> None:
    """From Python it is the same."""
    with pytest.raises(ConfigError):
        MetricsSettings(users=MOST_USERS + 1)
