"""The answers of all nodes in one: see :mod:`socksproxy.ctl.merged`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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


def test_many_users(ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    """All users of a node count, page by page; the list says where it ends."""
    names = [f"u{number:04d}" for number in range(1500)]
    path = "/v1/users?sort=name&limit=1000"
    for query, some in ((path, names[:1000]), (f"{path}&beyond=u0999", names[1000:])):
        two.answers[query] = {"users": [user(name, 1) for name in some], "total": 1500, "missing": []}
    here = {"users": [user("u1400", 9)], "total": 1, "missing": []}
    with scripted(
        tmp_path / "admin", [listing(row("n1"), row("n2", admin=two.url)), answer(json.dumps(here))]
    ):
        status, told, complaints = ctl("users", "--all-nodes", "--limit", "1")
    assert told.splitlines()[1].split()[:2] == ["u1400", "10"]
    assert (status, complaints) == (0, "socksproxy ctl: 1 of 1500 users; --limit 0 shows all\n")


def test_all_users_of_one(ctl: Operator, two: FakeNode) -> None:
    """One server tells all of its users, too, in any order."""
    names = [f"u{number:04d}" for number in range(1001)]
    path = "/v1/users?sort=name&limit=1000"
    for query, some in ((path, names[:1000]), (f"{path}&beyond=u0999", names[1000:])):
        two.answers[query] = {"users": [user(name, int(name[1:])) for name in some], "missing": []}
    two.answers["/v1/users"] = {"users": [user("u1000", 1000)], "total": 1001, "missing": []}
    ctl.path = two.url
    body = json.loads(ctl("users", "--limit", "0", "--json")[1])
    assert (len(body["users"]), body["total"], body["users"][0]["user"]) == (1001, 1001, "u1000")
    assert ctl("users")[2] == "socksproxy ctl: 1 of 1001 users; --limit 0 shows all\n"
    assert two.queries[-1] == "/v1/users"


@pytest.mark.parametrize(("command", "words"), [("limits", "holders"), ("lockouts", "addresses")])
def test_more_than_is_told(command: str, words: str, ctl: Operator, tmp_path: Path) -> None:
    """A list that has an end before the last row says so."""
    with scripted(tmp_path / "admin", [answer(json.dumps({command: [], "total": 5, "missing": []}))]):
        assert ctl(command)[2].startswith(f"socksproxy ctl: 0 of 5 {words}")


def test_much_usage(ctl: Operator, tmp_path: Path) -> None:
    """Usage has no end where an answer has one."""
    rows = [{"period": "2026-11", "holder": f"user u{number:05d}", "bytes": 1} for number in range(8001)]
    first, second = (
        "\n".join(json.dumps(each) for each in some) + "\n" for some in (rows[:8000], rows[8000:])
    )
    with scripted(tmp_path / "admin", [answer(first), answer(second)]) as requests:
        found = json.loads(ctl("usage", "--from", "2026-10", "--to", "2026-12", "--json")[1])
    assert found == rows
    assert requests[1].startswith(b"GET /v1/usage?from=2026-11&to=2026-12&beyond=user%20u07999 ")


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
