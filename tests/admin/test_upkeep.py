"""What is out of service, and the drain of a server: see :mod:`socksproxy.admin.upkeep`."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from socksproxy.admin.errors import RequestRefused
from socksproxy.admin.upkeep import DrainStage, PartState, Resting, Upkeep


class Server:
    """What an :class:`Upkeep` has done."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.rested: list[Resting] = []
        self.ended = 0
        self.upkeep = Upkeep(self.clock, self._rest, self._end)

    def _rest(self) -> None:
        self.rested.append(self.upkeep.resting)

    def _end(self) -> None:
        self.ended += 1

    @property
    def closed(self) -> bool:
        return bool(self.rested) and self.rested[-1].everything


@pytest.fixture
def server() -> Server:
    return Server()


def test_two_steps(server: Server) -> None:
    """Balancers hear of a drain at once; clients are accepted until the notice is over, then sessions end."""
    server.upkeep.drain(60, 10)
    assert (server.upkeep.draining, server.closed) == (True, False)
    server.clock.advance(9)
    assert not server.closed
    server.clock.advance(2)
    assert server.upkeep.stage is DrainStage.CLOSED
    assert (server.closed, server.ended) == (True, 0)
    server.clock.advance(60)
    assert (server.upkeep.stage, server.ended) == (DrainStage.ENDED, 1)
    server.upkeep.undrain()
    assert (server.upkeep.draining, server.closed) == (False, False)
    assert not server.clock.getDelayedCalls()


@pytest.mark.parametrize("seconds", [1, 11, 80])
def test_undrain(seconds: float, server: Server) -> None:
    """A drain can be taken back in each stage."""
    server.upkeep.drain(60, 10)
    server.clock.advance(seconds)
    server.upkeep.undrain()
    ended = server.ended
    server.clock.advance(100)
    assert (server.upkeep.stage, server.closed, server.ended) == (DrainStage.NONE, False, ended)
    with pytest.raises(RequestRefused):
        server.upkeep.undrain()


def test_again(server: Server) -> None:
    """The last drain counts; none opens again what another one has closed."""
    server.upkeep.drain(60, 10)
    server.upkeep.drain(5, 0)
    assert server.closed
    server.upkeep.drain(20, 10)
    assert server.closed
    server.clock.advance(19)
    assert server.ended == 0
    server.clock.advance(2)
    assert server.ended == 1
    with pytest.raises(RequestRefused):
        server.upkeep.drain(1, 1)


def test_parts(server: Server) -> None:
    """Parts that a reload has taken away are forgotten, others stay out of service."""
    upkeep = server.upkeep
    upkeep.set(upkeep.listeners, "tcp:1", PartState.DRAINING)
    upkeep.set(upkeep.upstreams, "one", PartState.DISABLED)
    upkeep.set(upkeep.upstreams, "two", PartState.DISABLED)
    assert upkeep.resting == Resting(frozenset({"tcp:1"}), frozenset({"one", "two"}))
    upkeep.keep([], ["one", "three"])
    assert server.rested[-1] == Resting(frozenset(), frozenset({"one"}))
    upkeep.set(upkeep.upstreams, "one", PartState.ENABLED)
    assert server.rested[-1] == Resting(frozenset(), frozenset())
    assert Resting(**Resting({"b", "a"}, ["c"], True).as_json()) == Resting(["a", "b"], ["c"], True)
