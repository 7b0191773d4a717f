"""The fleet of the documentation, as an operator who is logged in on one of its nodes sees and drains it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest

from socksproxy.ctl.fleet import STORE_DOWN
from tests.support.ctl import Operator
from tests.support.fleet import CLIENTS, NODES, Fleet, until
from tests.support.fleet_load import FleetLoad
from tests.support.origin import Origin


class Ctl:
    """``ctl`` on n1, with the token of all nodes."""

    def __init__(self, fleet: Fleet, capture: pytest.CaptureFixture[str]) -> None:
        self._fleet = fleet
        self._operator = Operator(capture, fleet.nodes["n1"].admin)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """
        The exit status, the output and what is on standard error.

        On a busy machine the store may have been late for a moment; then it is asked again.
        """
        until(lambda: STORE_DOWN not in self._asked(*arguments)[2])
        return self._last

    def _asked(self, *arguments: str) -> tuple[int, str, str]:
        with self._fleet.inside("n1"):
            self._last = self._operator(*arguments, "--token-file", self._fleet.directory / "admin.token")
        return self._last

    def got(self, *arguments: str) -> Any:
        """The JSON of the output."""
        status, told, complaints = self(*arguments, "--json")
        assert (status, complaints) == (0, "")
        return json.loads(told)

    def nodes(self) -> dict[str, Any]:
        """All nodes, by their names."""
        return {row["name"]: row for row in json.loads(self("nodes", "--json")[1])["nodes"]}


@pytest.fixture
def ctl(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> Ctl:
    ctl = Ctl(fleet, capsys)
    until(lambda: [row["state"] for row in ctl.nodes().values()] == ["running"] * len(NODES))
    return ctl


def test_all_nodes(fleet: Fleet, origin: Origin, ctl: Ctl) -> None:
    """All nodes are known, and each session is listed with the node that serves it."""
    assert list(ctl.nodes()) == list(NODES)
    with ExitStack() as stack:
        for client in CLIENTS[:16]:
            stack.enter_context(fleet.session("dave", origin.port, client)[1])
        until(lambda: fleet.sessions_of("dave") == 16)
        answer = ctl.got("sessions", "--all-nodes", "--user", "dave")
        assert (answer["total"], answer["nodes"]) == (16, list(NODES))
        assert {row["node"] for row in answer["sessions"]} == set(NODES)
        (dave,) = ctl.got("users", "--all-nodes")["users"]
        assert (dave["user"], dave["sessions"], dave["nodes"]) == ("dave", 16, list(NODES))
    until(lambda: fleet.sessions_of("dave") == 0)


def test_drain(fleet: Fleet, origin: Origin, ctl: Ctl) -> None:
    """The command of the documentation takes n2 out while sessions begin and end, and none of them fails."""
    with FleetLoad(fleet, origin.port, threads=4) as load:
        until(lambda: load.served > 20)
        assert ctl("drain", "--node", "n2", "10m", "--wait", "--timeout", "60") == (0, "drained\n", "")
        until(lambda: fleet.state_of("n2") == "MAINT")
        until(lambda: ctl.nodes()["n2"]["drain"] == "closed")
        before = load.served
        until(lambda: load.served > before + 20)
        assert ctl("undrain", "--node", "n2")[0] == 0
        until(lambda: fleet.state_of("n2") == "UP")
    assert load.outcomes == {"served": load.served}
    until(lambda: fleet.sessions_of("dave") == 0)
