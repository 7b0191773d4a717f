"""The table ``[usage]`` of a configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from socksproxy.config.records import RECORD_KEYS
from socksproxy.values.errors import ConfigError
from socksproxy.values.records import MOST_DAYS, RecordSettings
from tests.config.test_upstreams import parsed, problems


def test_meaning(tmp_path: Path) -> None:
    """The table's presence has the server keep records, under the name of the node."""
    assert list(RECORD_KEYS) == ["file", "days"]
    assert parsed("", tmp_path).plan.records is None
    plan = parsed('[usage]\nfile = "r.sqlite"\ndays = 5\n[node]\nname = "one"\n', tmp_path).plan
    assert plan.records == RecordSettings(file=str(tmp_path / "r.sqlite"), days=5, node="one")
    other = parsed('[usage]\nfile = "/r.sqlite"\n', tmp_path).plan.records
    assert other == RecordSettings(file="/r.sqlite")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("usage = 5\n", "file:1: [usage] = 5: not a table"),
        ("[usage]\n", "file:1: [usage]: file is missing"),
        ('[usage]\nfile = "x"\ndays = 0\n', f"file:3: [usage] days = 0: not a number from 1 to {MOST_DAYS}"),
        ('[usage]\nfile = "x"\ndays = true\n', "file:3: [usage] days = true: not a whole number"),
        ("[usage]\nfile = 5\n", "file:2: [usage] file = 5: not text in quotes"),
        ('[usage]\nfiles = "x"\n', "file:2: [usage] files: no such key; did you mean file?"),
    ],
)
def test_mistakes(config: str, problem: str, tmp_path: Path) -> None:
    """A mistake is told with its place."""
    assert problem in problems(config, tmp_path)


def test_range() -> None:
    """From Python it is the same."""
    with pytest.raises(ConfigError):
        RecordSettings(file="x", days=MOST_DAYS + 1)
