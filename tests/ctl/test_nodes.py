"""The subcommand ``nodes``."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ..support.ctl import Operator, answer, scripted
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
        "n5: has told nothing of itself: it has just started, or is of an older version",
        "n6: gone, last seen 1m30s ago",
    ]
    assert max(map(len, lines[:7])) <= 80


OTHER = {"hash": "cd" * 32, "in_step": False}


@pytest.mark.parametrize(
    ("rows", "remarks"),
    [
        ([row("n1"), row("n2"), row("n3", **OTHER)], ["n3: has another configuration than most nodes"]),
        ([row("n1"), row("n2", **OTHER)], ["n2: has another configuration than n1"]),
        # A node that is gone, or of which no configuration is known, counts for nothing.
        (
            [row("n1"), row("n2", **OTHER), row("n3", alive=False), nothing("n5")],
            ["n2: has another configuration than n1"],
        ),
        (
            [
                *(row(f"n{number}") for number in range(5)),
                *(row(f"o{number}", **OTHER) for number in range(5)),
            ],
            [f"o{number}: has another configuration than n0, n1, n2 and 2 more" for number in range(5)],
        ),
    ],
)
def test_no_majority(
    rows: list[dict[str, object]], remarks: list[str], ctl: Operator, tmp_path: Path
) -> None:
    """Of a majority is spoken where there is one."""
    with scripted(tmp_path / "admin", [listing(*rows)]):
        told = ctl("nodes")[1].splitlines()
    assert [line for line in told if "another configuration" in line] == remarks


RELOADED = answer('{"changes": ["the rules"], "nodes": "all"}')


def test_reload(ctl: Operator, tmp_path: Path) -> None:
    """The nodes are waited for; each has a line with what has become of it."""
    before = [
        row("n1"),
        row("n2", loaded=10.0),
        row("n3", loaded=10.0),
        row("n4", loaded=10.0),
        row("n5", alive=False, seen=12.0),
        nothing("n6"),
        row("n7", loaded=10.0, failed=9.0, error="a: old"),
    ]
    after = [
        row("n1", loaded=99.0),
        row("n2", loaded=20.0),
        row("n3", loaded=10.0, failed=21.0, error="socks.toml:1: \x1b[2J"),
        row("n4", loaded=5.0, hash="cd" * 32),
        row("n5", alive=False, seen=13.0),
        nothing("n6"),
        row("n7", loaded=10.0, failed=22.0, error="a: new"),
        row("n8"),
    ]
    script = [listing(*before), RELOADED, listing(*before), listing(*after)]
    with scripted(tmp_path / "admin", script * 2) as requests:
        status, told, complaints = ctl("reload", "--all-nodes")
        body = json.loads(ctl("reload", "--all-nodes", "--json")[1])
    assert (status, complaints) == (5, "")
    assert told.splitlines() == [
        "n1: the rules",
        "n2: abababab is in force",
        r"n3: refuses the new configuration: socks.toml:1: \x1b[2J",
        "n4: cdcdcdcd is in force, another configuration than that of this node",
        "n5: gone, last seen 13s ago",
        "n6: has told nothing of itself: it has just started, or is of an older version",
        "n7: refuses the new configuration: a: new",
        "n8: abababab is in force",
    ]
    assert (body["node"], body["changes"], body["nodes"]) == ("n1", ["the rules"], "all")
    assert body["others"][0] == {"node": "n2", "done": True, "words": "abababab is in force"}
    assert requests[1].endswith(b'{"nodes": "all"}')


def test_reload_of_nodes_that_follow(ctl: Operator, tmp_path: Path) -> None:
    first, then = listing(row("n1"), row("n2", loaded=1.0)), listing(row("n1"), row("n2", loaded=2.0))
    with scripted(tmp_path / "admin", [first, RELOADED, then]):
        assert ctl("reload", "--all-nodes") == (0, "n1: the rules\nn2: abababab is in force\n", "")


def test_reload_without_an_answer(ctl: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has an end."""
    rests: list[float] = []
    monkeypatch.setattr("socksproxy.ctl.nodes.monotonic", lambda: sum(rests))
    monkeypatch.setattr("socksproxy.ctl.nodes.sleep", rests.append)
    nodes = listing(row("n1"), row("n2", waiting="ef" * 32), row("n3"))
    with scripted(tmp_path / "admin", [nodes, RELOADED, *[nodes] * 61]):
        status, told, _ = ctl("reload", "--all-nodes")
    assert sum(rests) == 30
    assert (status, told.splitlines()[1:]) == (
        5,
        [
            "n2: waits for its turn to go over to the configuration efefefef",
            "n3: has not told that it has read its configuration; abababab is in force",
        ],
    )


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
