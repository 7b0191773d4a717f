"""The subcommand ``kill`` with all nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..support.ctl import Operator, answer, scripted
from ..support.nodes import FakeNode, listing, row

KILL = "/v1/sessions/kill"


def matched(number: int, ended: int = 0) -> dict[str, object]:
    return {"matched": number, "ended": ended, "missing": []}


def test_all(ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    """The sessions that match end on each node."""
    two.answers[KILL] = matched(3, 3)
    nodes = listing(row("n1"), row("n2", admin=two.url), row("n3", alive=False, seen=12.0))
    with scripted(tmp_path / "admin", [nodes, answer(json.dumps(matched(2, 2)))] * 2) as requests:
        status, told, complaints = ctl("kill", "--all-nodes", "--user", "bob", "--yes")
        body = json.loads(ctl("kill", "--all-nodes", "--user", "bob", "--yes", "--json")[1])
    assert (status, told) == (5, "n1: 2\nn2: 3\n5 sessions ended\n")
    assert complaints == "socksproxy ctl: without n3: gone, last seen 12s ago\n"
    assert (body["matched"], body["ended"], list(body["nodes"])) == (5, 5, ["n1", "n2"])
    assert two.bodies[0] == {"filter": {"user": "bob"}, "expect": None}
    assert requests[1].startswith(b"POST /v1/sessions/kill ")


def test_dry_run(ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    two.answers[KILL] = matched(3)
    nodes = listing(row("n1"), row("n2", admin=two.url))
    with scripted(tmp_path / "admin", [nodes, answer(json.dumps(matched(0)))]):
        done = ctl("kill", "--all-nodes", "--user", "bob", "--dry-run")
    assert done == (0, "n2: 3\n3 sessions match\n", "")
    assert two.bodies == [{"filter": {"user": "bob"}, "dry_run": True}]


@pytest.mark.parametrize(("expect", "status"), [("4", 1), ("5", 5)])
def test_expect(expect: str, status: int, ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    """The number is that of all nodes; each then ends as many as it has told of."""
    two.answers[KILL] = matched(3, 3)
    nodes = listing(row("n1"), row("n2", admin=two.url), row("n3", alive=False))
    with scripted(tmp_path / "admin", [nodes, answer(json.dumps(matched(2, 2)))] * 2):
        done = ctl("kill", "--all-nodes", "--user", "bob", "--yes", "--expect", expect)
    assert done[0] == status
    # A node that does not answer is named once.
    assert done[2].count("without n3") == 1
    if status == 1:
        assert done[2].endswith("socksproxy ctl: 5 sessions match, not 4\n")
        assert len(two.bodies) == 1
    else:
        assert two.bodies[1] == {"filter": {"user": "bob"}, "expect": 3}


def test_nothing(ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    two.answers[KILL] = matched(0)
    with scripted(
        tmp_path / "admin", [listing(row("n1"), row("n2", admin=two.url)), answer(json.dumps(matched(0)))]
    ):
        done = ctl("kill", "--all-nodes", "--user", "bob", "--yes")
    assert done == (1, "0 sessions ended\n", "socksproxy ctl: no session matches\n")


def test_ids(ctl: Operator) -> None:
    """An id may be one of several nodes."""
    status, _, complaints = ctl("kill", "--all-nodes", "1.1.1")
    assert status == 2
    assert "give --node, or a filter" in complaints
