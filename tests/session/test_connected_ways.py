"""The ways that clients' connections have taken: see :mod:`socksproxy.session.connected_ways`."""

from __future__ import annotations

from twisted.internet.task import Clock

from socksproxy.session.connected_ways import LIFETIME, MOST, ConnectedWays, Whose

ANN, BOB = Whose("192.0.2.1", "ann", ""), Whose("192.0.2.1", "bob", "")


def test_remembers_for_a_while() -> None:
    """By client and host; the last way of a client where no host is asked for."""
    clock = Clock()
    clock.advance(1)
    ways = ConnectedWays(clock)
    ways.note(ANN, "ftp.example", "one")
    clock.advance(1)
    ways.note(ANN, "192.0.2.1", "one>two")
    assert ways.find(ANN, "ftp.example") == "one"
    assert ways.find(ANN, "192.0.2.1") == ways.find(ANN, None) == "one>two"
    assert ways.find(BOB, "ftp.example") is ways.find(BOB, None) is ways.find(ANN, "x") is None
    assert ways.find(ANN._replace(word="abc"), None) is None
    clock.advance(LIFETIME - 1)
    assert ways.find(ANN, "ftp.example") is None
    assert ways.find(ANN, "192.0.2.1") == "one>two"
    clock.advance(1)
    assert ways.find(ANN, None) is None


def test_has_a_bound() -> None:
    """The oldest ones go."""
    ways = ConnectedWays(Clock())
    for number in range(MOST):
        ways.note(ANN, str(number), "one")
    assert len(ways) == MOST
    assert ways.find(ANN, "0") is None
    assert ways.find(ANN, str(MOST - 1)) == ways.find(ANN, None) == "one"
