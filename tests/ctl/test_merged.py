"""The answers of all nodes in one: see :mod:`socksproxy.ctl.merged`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..support.ctl import Operator, answer, scripted
from ..support.nodes import FakeNode, listing, row
from .test_watch import row as session


def page(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"sessions": rows, "total": len(rows), "live": 9, "cursor": None, "missing": [], **more}


def test_sessions(ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    """Sessions are in the order of one list, each with its node: two may have the same id."""
    here = page(session(age=50, rate=1.0, user="a"), session(age=10, rate=9.0, user="b"), total=7)
    two.answers["/v1/sessions"] = page(session(age=30, rate=5.0, sent=9999, user="c"), missing=[2])
    nodes = listing(row("n1"), row("n2", admin=two.url))
    for sort, limit, found in (
        ("age", "100", "acb"),
        ("rate", "2", "bc"),
        ("bytes", "0", "cab"),
    ):
        with scripted(tmp_path / "admin", [nodes, answer(json.dumps(here))]):
            status, told, complaints = ctl(
                "sessions", "--all-nodes", "--json", "--sort", sort, "--limit", limit
            )
        body = json.loads(told)
        assert "".join(each["user"] for each in body["sessions"]) == found
        assert (body["total"], body["live"], body["missing"]) == (8, 18, ["n2/2"])
        assert (status, complaints) == (5, "socksproxy ctl: no answer from the workers n2/2\n")
    with scripted(tmp_path / "admin", [nodes, answer(json.dumps(here))]):
        lines = ctl("sessions", "--all-nodes")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["NODE", "n1", "n2", "n1"]


def user(name: str, sessions: int, **more: Any) -> dict[str, Any]:
    numbers = {"sent": 100, "received": 10, "rate": 1.5, "last_seen": 7.0}
    return {"user": name, "sessions": sessions, **numbers, **more}


def test_users(ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    """A user is there once, with the sums of all nodes."""
    here = {"users": [user("ann", 3), user("bob", 2, last_seen=None)], "total": 2, "missing": []}
    two.answers["/v1/users"] = {"users": [user("bob", 2)], "total": 1, "missing": []}
    nodes = listing(row("n1"), row("n2", admin=two.url))
    with scripted(tmp_path / "admin", [nodes, answer(json.dumps(here))] * 2):
        status, told, complaints = ctl("users", "--all-nodes", "--json")
        assert (status, complaints) == (0, "")
        body = json.loads(told)
        assert body["users"] == [
            {**user("bob", 4, sent=200, received=20, rate=3.0), "nodes": ["n1", "n2"]},
            {**user("ann", 3), "nodes": ["n1"]},
        ]
        assert (body["total"], body["nodes"], body["silent"]) == (2, ["n1", "n2"], {})
        told = ctl("users", "--all-nodes", "--sort", "name", "--limit", "1")[1]
    assert told.splitlines()[1].split()[:2] == ["ann", "3"]


def test_usage(ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    """What a holder has used is there for each node; the last period is that of all nodes."""
    old = {"period": "2026-11", "holder": "user bob", "bytes": 5}
    new = {"period": "2026-12", "holder": "user bob", "bytes": 1000}
    # A line of JSON is an answer of one line.
    two.answers["/v1/usage"] = new
    nodes = listing(row("n1"), row("n2", admin=two.url))
    for here, found in (
        (old, [{**new, "node": "n2"}]),
        (new, [{**new, "node": "n1"}, {**new, "node": "n2"}]),
    ):
        with scripted(tmp_path / "admin", [nodes, answer(json.dumps(here))] * 3):
            assert json.loads(ctl("usage", "--month", "--all-nodes", "--json")[1]) == found
            lines = ctl("usage", "--month", "--all-nodes")[1].splitlines()
            csv = ctl("usage", "--month", "--all-nodes", "--csv")[1].splitlines()
        sums = ["2026-12  user bob  2.0 kB  (all)"] if len(found) > 1 else []
        assert lines[1:] == [f"2026-12  user bob  1.0 kB  {each['node']}" for each in found] + sums
        assert csv[1:] == [f'2026-12,"user bob",1000,{each["node"]}' for each in found]
