"""The ways that clients' connections have taken: see :mod:`socksproxy.session.connected_ways`."""

from __future__ import annotations

from twisted.internet.task import Clock

from socksproxy.session.connected_ways import LIFETIME, MOST, ConnectedWays


def test_remembers_for_a_while() -> None:
    """By client and host; the last way of a client where no host is asked for."""
    clock = Clock()
    clock.advance(1)
    ways = ConnectedWays(clock)
    ways.note("ann", "ftp.example", "one")
    clock.advance(1)
    ways.note("ann", "192.0.2.1", "one>two")
    assert ways.find("ann", "ftp.example") == "one"
    assert ways.find("ann", "192.0.2.1") == ways.find("ann", None) == "one>two"
    assert ways.find("bob", "ftp.example") is ways.find("bob", None) is ways.find("ann", "x") is None
    clock.advance(LIFETIME - 1)
    assert ways.find("ann", "ftp.example") is None
    assert ways.find("ann", "192.0.2.1") == "one>two"
    clock.advance(1)
    assert ways.find("ann", None) is None


def test_has_a_bound() -> None:
    """The oldest ones go."""
    ways = ConnectedWays(Clock())
    for number in range(MOST):
        ways.note("ann", str(number), "one")
    assert len(ways) == MOST
    assert ways.find("ann", "0") is None
    assert ways.find("ann", str(MOST - 1)) == ways.find("ann", None) == "one"
