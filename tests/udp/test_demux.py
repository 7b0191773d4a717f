"""To which association a datagram belongs: see :mod:`socksproxy.udp.demux`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from socksproxy import Address, Client, UDPSettings
from socksproxy.events import Cause
from socksproxy.net.resolve import NameLookups
from socksproxy.policy import DefaultPolicy
from socksproxy.policy.asking import DestinationCheck
from socksproxy.runtime.deadlines import Deadlines
from socksproxy.udp.association import Association, AssociationContext
from socksproxy.udp.demux import PrivateDemux, SharedDemux
from socksproxy.udp.reassembly import Reassembly
from socksproxy.values.timeouts import NEVER
from socksproxy.wire.datagram import build_header

DATAGRAM = build_header(Address.of("198.51.100.1", 53)) + b"x"


def an_association(host: str = "192.0.2.1", port: int | None = None, **settings: Any) -> Association:
    clock = Clock()
    check = DestinationCheck(DefaultPolicy(), NameLookups(None, clock), clock)  # type: ignore[arg-type]
    context = AssociationContext(
        check, UDPSettings(**settings), Deadlines(clock, NEVER, Reassembly.clear), _nobody
    )
    return Association(context, Client(host, 1000), host, port, _nobody)


def _nobody(association: Association) -> None:
    """Whom it tells."""


def served(*associations: Association) -> SharedDemux:
    demux = SharedDemux()
    for association in associations:
        demux.add(association)
    return demux


def test_the_oldest_without_a_port() -> None:
    one, two = an_association(), an_association()
    demux = served(one, two)
    assert demux.find("192.0.2.2", 7, DATAGRAM) is None
    assert demux.find("192.0.2.1", 7, b"rubbish") is None
    assert demux.find("192.0.2.1", 7, DATAGRAM) is one
    assert demux.find("192.0.2.1", 8, DATAGRAM) is two
    assert demux.find("192.0.2.1", 7, b"rubbish") is one, "the association counts it"
    assert demux.find("192.0.2.1", 9, DATAGRAM) is None
    assert demux.foreign == 2
    assert (one.port, two.port) == (7, 8)


def test_a_port_that_two_have_named() -> None:
    """The first has it; a client cannot take another one's datagrams by naming its port."""
    one, two = an_association(port=7), an_association(port=7)
    demux = served(one, two)
    assert two.port is None
    assert demux.find("192.0.2.1", 7, DATAGRAM) is one
    assert demux.find("192.0.2.1", 8, DATAGRAM) is two
    assert demux.remove(one)
    assert demux.find("192.0.2.1", 7, DATAGRAM) is None


def test_who_has_named_no_port_goes_first() -> None:
    """A port that was named is its association's, as long as there is another one for other ports."""
    named, silent, wrong = an_association(port=7), an_association(), an_association(port=53)
    demux = served(named, silent, wrong)
    assert demux.find("192.0.2.1", 7, b"rubbish") is None, "that does not latch"
    assert demux.find("192.0.2.1", 9, DATAGRAM) is silent
    assert demux.find("192.0.2.1", 7, DATAGRAM) is named
    assert demux.find("192.0.2.1", 10, DATAGRAM) is wrong
    assert (named.port, silent.port, wrong.port) == (7, 9, 10)
    assert demux.find("192.0.2.1", 53, DATAGRAM) is None
    for association in (named, silent, wrong):
        demux.remove(association)
    assert [*demux._by_peer, *demux._peers, *demux._by_host, *demux._waiting, *demux._expecting] == []


def test_same_port_of_other_addresses() -> None:
    one, two = an_association("192.0.2.1", 7), an_association("192.0.2.2", 7)
    demux = served(one, two)
    assert demux.find("192.0.2.1", 7, DATAGRAM) is one
    assert demux.find("192.0.2.2", 7, DATAGRAM) is two
    assert (one.port, two.port) == (7, 7)


@pytest.mark.parametrize("relatch", [False, True])
def test_a_port_that_moves(relatch: bool) -> None:
    one = an_association(port=7, relatch=relatch)
    demux = served(one)
    changes: list[None] = []
    demux.changed = lambda: changes.append(None)
    assert demux.find("192.0.2.1", 8, DATAGRAM) is one, "it has named another port, which does not matter"
    assert len(changes) == 1
    assert demux.find("192.0.2.1", 8, b"rubbish") is one, "the association counts it"
    assert demux.find("192.0.2.1", 9, DATAGRAM) is (one if relatch else None)
    assert demux.find("192.0.2.1", 7, DATAGRAM) is (one if relatch else None)
    assert len(changes) == (3 if relatch else 1)
    assert demux.find("192.0.2.1", 7 if relatch else 8, DATAGRAM) is one
    demux.add(an_association(relatch=relatch))
    two = demux.find("192.0.2.1", 10, DATAGRAM)
    assert two is not one
    assert demux.find("192.0.2.1", 11, DATAGRAM) is None, "of two nobody can tell"


def test_nothing_is_kept_of_those_that_are_gone() -> None:
    one, two, three = an_association(), an_association(port=7), an_association("192.0.2.2")
    demux = served(one, two, three)
    assert demux.remove(two)
    assert demux.remove(one)
    assert not demux.remove(three)
    assert [*demux._by_peer, *demux._peers, *demux._by_host, *demux._waiting] == []
    assert demux.find("192.0.2.1", 7, DATAGRAM) is None


def test_an_own_port() -> None:
    demux = PrivateDemux()
    assert demux.find("192.0.2.1", 7, DATAGRAM) is None
    demux.abort()
    one = an_association()
    demux.add(one)
    assert demux.find("192.0.2.1", 7, DATAGRAM) is one
    assert demux.find("192.0.2.1", 8, DATAGRAM) is None
    demux.abort()
    assert one.how is Cause.ABORTED
    assert not demux.remove(one)
