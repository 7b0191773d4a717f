"""The run with nodes that are killed notices what it is there to notice."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fleet
from socksproxy.limits.quota.records import Moved, Part, RecordFile, span_at


@pytest.mark.parametrize(
    ("recorded", "calm", "kills", "words"),
    [
        (100, fleet.LIMIT, [], []),
        (99, fleet.LIMIT, [], ["records have 99 bytes sent, not 100 to 120"]),
        (121, fleet.LIMIT, [], ["records have 121 bytes sent, not 100 to 120"]),
        (60, fleet.LIMIT, [("n0", 12)], []),
        (60, fleet.LIMIT, [("n1", 12), ("n0", 3)], ["records have 60 bytes sent, not 100 to 120"]),
        (100, fleet.LIMIT + 1, [], ["a user had 5 sessions at once, not 4 (trouble: False)"]),
    ],
)
def test_faults(
    recorded: int, calm: int, kills: list[tuple[str, int]], words: list[str], tmp_path: Path
) -> None:
    """Bytes that are missing, or are too many, and sessions above the limit."""
    file = RecordFile(str(tmp_path / "records"), 3660)
    now = time.time()
    file.add({Part(span_at(now), "u0", "all"): Moved(recorded, 110, 1)}, now)
    file.close()
    node: Any = SimpleNamespace(name="n0", directory=tmp_path)
    load: Any = SimpleNamespace(
        sent=120,
        returned=Counter({("n0", 10): 50, ("n0", 20): 50}),
        most={False: calm, True: 2 * fleet.LIMIT},
    )
    assert fleet.faults_of([node], load, kills) == words
