"""The way to other nodes, with scripted ones: see :mod:`socksproxy.ctl.fleet`."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from ..support.ctl import Operator, answer, scripted
from ..support.nodes import FakeNode, listing, row


def test_by_name(ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    """The node says its name first, and is asked with the same token then."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    two.answers["/readyz"] = {"ready": True}
    with scripted(tmp_path / "admin", [listing(row("n1"), row("n2", admin=two.url))]) as requests:
        done = ctl("health", "--node", "n2", "--token-file", token)
    assert done == (0, "ready\n", "")
    assert requests[0].startswith(b"GET /v1/nodes ")
    assert two.requests == ["/v1/status", "/readyz"]
    assert two.tokens == {"Bearer 0123456789abcdef"}


def test_own_name(ctl: Operator, tmp_path: Path) -> None:
    """The server that is asked needs no address."""
    with scripted(tmp_path / "admin", [listing(row("n1")), answer('{"ready": true}')]):
        assert ctl("health", "--node", "n1") == (0, "ready\n", "")


@pytest.mark.parametrize(
    ("nodes", "store", "words"),
    [
        ([row("n1"), row("n3")], "up", "n2: there is no such node; there are n1, n3"),
        (
            [row("n1")],
            "down",
            "n2: where it is asked is not known; this node alone: the shared store is down",
        ),
        ([row("n1")], "none", "n2: there is no such node; this node alone: it shares no store with others"),
        ([row("n2")], "up", "n2 tells no address of its admin API: its key admin of [node]"),
        ([row("n2", admin="/run/a.sock")], "up", "n2 tells /run/a.sock, which is no address of an admin API"),
        ([row("n2", admin="http://x")], "up", "n2 tells http://x, which is no address of an admin API"),
        ([row("n2", admin="ftp://x:1")], "up", "n2 tells ftp://x:1, which is no address of an admin API"),
    ],
)
def test_no_such_node(nodes: list[object], store: str, words: str, ctl: Operator, tmp_path: Path) -> None:
    with scripted(tmp_path / "admin", [listing(*nodes, store=store)]):
        assert ctl("health", "--node", "n2") == (1, "", f"socksproxy ctl: {words}\n")


def test_another_node(ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    """A node that is not at the address that it tells is not mistaken for the one that is."""
    with scripted(tmp_path / "admin", [listing(row("n1"), row("n3", admin=two.url))]):
        status, _, complaints = ctl("drain", "--node", "n3")
    words = f"n3 is not at the address that it tells: {two.url} is the node n2"
    assert (status, complaints) == (1, f"socksproxy ctl: {words}\n")
    assert two.requests == ["/v1/status"]


def test_dead(ctl: Operator, tmp_path: Path) -> None:
    with socket.socket() as held:  # bound, so no other program listens there
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with scripted(tmp_path / "admin", [listing(row("n1"), row("n2", admin=url))]):
            done = ctl("health", "--node", "n2")
    assert done == (3, "", f"socksproxy ctl: {url}: Connection refused\n")


def test_gone(ctl: Operator, tmp_path: Path) -> None:
    """A node that is gone is asked nevertheless, and the reason for what follows is told."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        nodes = listing(row("n1"), row("n2", admin=url, alive=False, seen=12.0))
        with scripted(tmp_path / "admin", [nodes]):
            status, _, complaints = ctl("health", "--node", "n2")
    words = f"socksproxy ctl: {url}: Connection refused; n2 is gone, last seen 12s ago\n"
    assert (status, complaints) == (3, words)


def test_name_in_one_line(ctl: Operator, tmp_path: Path) -> None:
    """A name makes no line of its own."""
    with scripted(tmp_path / "admin", [listing(row("n1"))]):
        done = ctl("health", "--node", "n\n1")
    assert done == (1, "", "socksproxy ctl: n\\n1: there is no such node; there are n1\n")


def test_other_version(ctl: Operator, tmp_path: Path) -> None:
    """A server that knows no nodes says so."""
    with scripted(
        tmp_path / "admin", [answer('{"error": "there is nothing at this path"}', "404 Not Found")]
    ):
        status, _, complaints = ctl("health", "--node", "n2")
    assert (status, complaints) == (1, "socksproxy ctl: there is nothing at this path\n")


def test_both(ctl: Operator, tmp_path: Path) -> None:
    assert ctl("sessions", "--node", "n1", "--all-nodes")[0] == 2
    assert ctl("sessions", "--watch", "--all-nodes")[0] == 2
    assert ctl("users", "bob", "--all-nodes")[0] == 2
    assert ctl("usage", "--after", "1", "--all-nodes")[0] == 2


def test_all(ctl: Operator, tmp_path: Path) -> None:
    """Each node that does not answer is named with the reason, and the others count."""
    page = {"sessions": [], "total": 0, "live": 0, "cursor": None, "missing": []}
    with FakeNode("n2") as two, FakeNode("n3") as three, FakeNode("n4") as four, FakeNode("n7") as seven:
        two.answers["/v1/sessions"] = page
        four.answers["/v1/sessions"] = {}
        seven.answers["/v1/sessions"] = []
        nodes = [
            row("n1"),
            row("n2", admin=two.url),
            row("n3", admin=three.url),
            row("n4", admin=four.url),
            row("n5"),
            row("n6", alive=False, seen=12.0),
            row("n7", admin=seven.url),
        ]
        with scripted(tmp_path / "admin", [listing(*nodes), answer(json.dumps(page))]):
            status, told, complaints = ctl("sessions", "--all-nodes", "--json")
    assert (status, json.loads(told)["nodes"]) == (5, ["n1", "n2"])
    assert json.loads(told)["silent"] == {
        "n3": "there is nothing here",
        "n4": "the answer has no 'sessions': it is of another version",
        "n5": "n5 tells no address of its admin API: its key admin of [node]",
        "n6": "gone, last seen 12s ago",
        "n7": "the answer makes no sense: it is of another version",
    }
    assert "socksproxy ctl: without n6: gone, last seen 12s ago\n" in complaints


def test_none(ctl: Operator, tmp_path: Path) -> None:
    """Where all nodes refuse, nothing is done; the answer of a node that is gone is unknown."""
    nothing = answer('{"error": "no"}', "409 Conflict")
    with scripted(tmp_path / "admin", [listing(row("n1")), nothing]):
        assert ctl("sessions", "--all-nodes")[0] == 1
    with scripted(tmp_path / "admin", [listing(row("n1"), row("n2", alive=False)), nothing]):
        assert ctl("usage", "--all-nodes")[0] == 5
