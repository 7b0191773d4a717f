"""The subcommand ``wait``."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from ..support.ctl import Operator, answer, scripted
from ..support.nodes import FakeNode, listing, row
from .test_command import STATUS


class FastClock:
    """A clock that a sleep moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FastClock:
    made = FastClock()
    for module in ("follow", "connection"):
        monkeypatch.setattr(f"socksproxy.ctl.{module}.monotonic", made.monotonic)
    monkeypatch.setattr("socksproxy.ctl.follow.sleep", made.sleep)
    return made


def test_usual_time(ctl: Operator, clock: FastClock, tmp_path: Path) -> None:
    """Where no server listens at the socket, the wait ends after the time that the help names."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "admin"))
        status, _, complaints = ctl("wait", "ready")
    words = f"not ready within 30 seconds: {tmp_path}/admin: Connection refused"
    assert (status, complaints) == (4, f"socksproxy ctl: {words}\n")
    assert 30 <= clock.now < 31


@pytest.mark.parametrize("node", [(), ("--node", "n2")])
def test_no_answer(node: tuple[str, ...], ctl: Operator, tmp_path: Path) -> None:
    """The time is that of all answers together."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        where = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with scripted(tmp_path / "admin", [listing(row("n1"), row("n2", admin=where))]):
            ctl.path = tmp_path / "admin" if node else where
            status, _, complaints = ctl("wait", "ready", "--timeout", "3", *node)
    assert status == 4
    assert f"socksproxy ctl: not ready within 3 seconds: {where}: no answer within " in complaints


def test_a_node_that_starts(ctl: Operator, two: FakeNode, tmp_path: Path) -> None:
    """A node that stops leaves the list; it is waited for until it is there again, and is asked then."""
    two.answers["/v1/status"] = {**STATUS, "node": "n2"}
    nodes = [listing(row("n1")), listing(row("n1"), row("n2")), listing(row("n1"), row("n2", admin=two.url))]
    with scripted(tmp_path / "admin", nodes):
        assert ctl("wait", "ready", "--node", "n2", "--timeout", "60") == (0, "ready\n", "")


def test_a_node_that_never_comes(ctl: Operator, clock: FastClock, tmp_path: Path) -> None:
    with scripted(tmp_path / "admin", [listing(row("n1"))] * 200):
        status, _, complaints = ctl("wait", "ready", "--node", "n3", "--timeout", "5")
    words = "not ready within 5 seconds: n3: there is no such node; there are n1"
    assert (status, complaints) == (4, f"socksproxy ctl: {words}\n")


def test_no_nodes(ctl: Operator, tmp_path: Path) -> None:
    """A server that shares no store never knows another node."""
    with scripted(tmp_path / "admin", [listing(row("n1"), store="none")]):
        assert ctl("wait", "ready", "--node", "n3")[0] == 1


def test_generation(ctl: Operator, tmp_path: Path) -> None:
    """A server that does not start again tells its number."""
    with scripted(tmp_path / "admin", [answer(json.dumps({**STATUS, "why": None}))] * 40):
        complaints = ctl("wait", "generation:6", "--timeout", "3")[2]
    assert complaints.endswith("it is running, with 7 sessions, of the generation 5\n")


def test_drained(ctl: Operator, tmp_path: Path) -> None:
    """A server that goes away was not drained by this."""
    drained = {**STATUS, "drain": "ended", "sessions": 0}
    with scripted(tmp_path / "admin", [answer(json.dumps(drained))]):
        assert ctl("wait", "drained")[:2] == (0, "drained\n")
    assert ctl("wait", "drained")[0] == 3
