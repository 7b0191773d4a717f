"""The run with nodes that are killed notices what it is there to notice."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fleet
from socksproxy.limits.quota.records import Moved, Part, RecordFile, span_at


@pytest.mark.parametrize(
    ("recorded", "kills", "words"),
    [
        (100, [], []),
        (99, [], ["records have 99 bytes sent, not 100 to 120"]),
        (121, [], ["records have 121 bytes sent, not 100 to 120"]),
        (60, [("n0", 12)], []),
        (60, [("n1", 12), ("n0", 3)], ["records have 60 bytes sent, not 100 to 120"]),
    ],
)
def test_faults(recorded: int, kills: list[tuple[str, int]], words: list[str], tmp_path: Path) -> None:
    """Bytes that are missing, or are too many."""
    file = RecordFile(str(tmp_path / "records"), 3660)
    now = time.time()
    file.add({Part(span_at(now), "u0", "all"): Moved(recorded, 110, 1)}, now)
    file.close()
    node: Any = SimpleNamespace(name="n0", directory=tmp_path)
    load: Any = SimpleNamespace(sent=120, returned=Counter({("n0", 10): 50, ("n0", 20): 50}))
    assert fleet.faults_of([node], load, kills) == words


def crowd(*began: float, node: str = "n0") -> list[fleet.Session]:
    return [fleet.Session(node, at) for at in began]


AFTER = 20.0 + fleet.REST + 1


@pytest.mark.parametrize(
    ("crowds", "words"),
    [
        ([crowd(1, 2, 3, AFTER)], []),
        ([crowd(1, 2, 3, 4, 15)], []),
        ([crowd(1, 2, 3, 4, AFTER)], ["a user had 5 sessions at once, not 4 (trouble: False)"]),
        ([crowd(1, 2, 3, 4, 5)], ["a user had 5 sessions at once, not 4 (trouble: False)"]),
        ([crowd(*range(12), 15)], ["a user had 13 sessions at once, not 12 (trouble: True)"]),
        # The other node was without the store, and this one not.
        ([[*crowd(1, 2, 3, AFTER), *crowd(100, node="n1")]], []),
        ([[*crowd(100), *crowd(1, 2, 3, AFTER)]], ["a user had 5 sessions at once, not 4 (trouble: False)"]),
        (
            [[*crowd(1, 2, 3, 4, node="n1"), *crowd(102, 104, node="n1")]],
            ["a user had 5 sessions at once, not 4 (trouble: False)"],
        ),
    ],
)
def test_crowded(crowds: list[list[fleet.Session]], words: list[str]) -> None:
    """Sessions above the limit, or above what nodes without the store may admit."""
    assert fleet.crowded(crowds, [(10, 20)], {"n0": [], "n1": [(99.5, 101.5)]}) == words


def test_outages(tmp_path: Path) -> None:
    """A worker is without the store until that answers, or until the worker or the node has ended."""
    lines = [
        (1, "worker {number}: {text}", 1, "the shared store X: refused: until it answers, each limit"),
        (2, "worker {number}: {text}", 1, "the shared store X: in time: until it answers, each limit"),
        (3, "worker {number}: {text}", 2, "the shared store X: refused: until it answers, each limit"),
        (4, "worker {number}: {text}", 1, "the shared store X answers again"),
        (5, "worker {number} (process {pid}) has ended: {how}", 2, None),
        (6, "worker {number}: {text}", 2, "the shared store X: refused: until it answers, each limit"),
        (7, fleet.STARTS, None, None),
        (8, "worker {number}: {text}", 1, "the shared store X answers again"),
    ]
    entries = [
        {"log_time": at, "log_format": words, "number": number, "text": text}
        for at, words, number, text in lines
    ]
    (tmp_path / "log").write_text("".join(f"\x1e{json.dumps(entry)}\n" for entry in entries) + "cut")
    node: Any = SimpleNamespace(directory=tmp_path)
    assert list(fleet.FleetNode.outages(node)) == [(1, 4), (3, 5), (6, 7)]


@pytest.mark.parametrize("unread", [b"", b"echo"])
def test_is_closed(unread: bytes) -> None:
    """A connection that the other side has closed is seen, whatever was not read of it."""
    here, there = socket.socketpair()
    with here:
        with there:
            assert not fleet.is_closed(here)
            there.sendall(unread)
            assert not fleet.is_closed(here)
        assert fleet.is_closed(here)
