"""The subcommand ``nodes``."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ..support.ctl import Operator, scripted
from ..support.nodes import listing, row


def nothing(name: str, **more: object) -> dict[str, object]:
    """A node that has told nothing."""
    return {**dict.fromkeys(row(name)), "name": name, "alive": True, "processes": 1, **more}


def nodes() -> list[dict[str, object]]:
    """Nodes, as a server lists them now: the table tells how long ago something was."""
    return [
        row("n1", seen=0.0, loaded=time.time() - 7290),
        row("n2", state="draining", sessions=0, waiting="ef" * 32, namesake="process 7 on web3"),
        row("n3", hash="cd" * 32, in_step=False, error="socks.toml:12: \x1b[2J wrong"),
        row("n4", alive=False, seen=12.0),
        nothing("n5"),
        nothing("n6", alive=False, processes=0, seen=90.0),
    ]


def test_table(ctl: Operator, tmp_path: Path) -> None:
    """Each node has a line, and what is wrong with it another one, in which no name does anything."""
    told_of = nodes()
    with scripted(tmp_path / "admin", [listing(*told_of)] * 2):
        status, told, complaints = ctl("nodes")
        assert json.loads(ctl("nodes", "--json")[1])["nodes"] == told_of
    assert (status, complaints) == (0, "")
    lines = told.splitlines()
    assert lines[0].split() == ["NODE", "STATE", "SESSIONS", "UPTIME", "VERSION", "CONFIG", "LOADED", "SEEN"]
    assert lines[1].split() == ["n1", "running", "5", "1h01m", "0.1.0", "abababab", "2h01m", "0s"]
    assert lines[4].split()[:4] == ["n4", "gone", "-", "-"]
    assert lines[5].split() == ["n5", "-", "-", "-", "-", "-", "-", "-"]
    assert lines[7:] == [
        "",
        'n2: another server has the same name (process 7 on web3): give each its own "name" in [node]',
        "n2: waits for its turn to go over to the configuration efefefef",
        "n3: has another configuration than most nodes",
        r"n3: refuses the new configuration: socks.toml:12: \x1b[2J wrong",
        "n4: gone, last seen 12s ago",
        "n5: tells nothing of itself: it is of an older version",
        "n6: gone, last seen 1m30s ago",
    ]
    assert max(map(len, lines[:7])) <= 80


@pytest.mark.parametrize(
    ("store", "status", "words"),
    [
        ("up", 0, ""),
        ("none", 0, "socksproxy ctl: this node alone: it shares no store with others\n"),
        ("down", 5, "socksproxy ctl: this node alone: the shared store is down\n"),
    ],
)
def test_alone(store: str, status: int, words: str, ctl: Operator, tmp_path: Path) -> None:
    with scripted(tmp_path / "admin", [listing(row("n1"), store=store)]):
        done = ctl("nodes")
    assert (done[0], done[2]) == (status, words)
