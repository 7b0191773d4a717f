"""The direct route: what dials, and from where."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from socksproxy.routes.direct import Direct
from socksproxy.values.outgoing import Outgoing
from socksproxy.wire.words import Address

IPV4, IPV6 = Address.of("192.0.2.1", 80), Address.of("2001:db8::1", 80)


class Engine:
    """An engine that is only asked to connect."""

    def __init__(self) -> None:
        self.sources: list[Any] = []

    def connect(
        self,
        sockaddr: Any,
        family: int,
        source: Any = None,
        options: Any = (),
        made: Any = None,
        new: Any = None,
    ) -> Deferred[Any]:
        self.sources.append(source)
        return Deferred()


def test_what_dials() -> None:
    """A plain socket only where the client's end can be one, and by the engine that is there now."""
    first, second = Engine(), Engine()
    present: list[Engine | None] = [first]
    reactor: Any = MemoryReactorClock()
    route = Direct(reactor, lambda: present[0], Outgoing(), ())
    assert route.resolves is False
    route.dial(IPV4, True)
    route.dial(IPV4, False)
    assert (len(first.sources), len(reactor.tcpClients)) == (1, 1)
    present[0] = second
    route.dial(IPV4, True)
    assert (len(first.sources), len(second.sources)) == (1, 1)
    present[0] = None
    route.dial(IPV4, True)
    assert len(reactor.tcpClients) == 2


@pytest.mark.parametrize("engine", [True, False])
def test_where_from(engine: bool) -> None:
    """Where a rule has no address of a family, connections leave from the server's; the rule's is told."""
    there = Engine()
    reactor: Any = MemoryReactorClock()
    route = Direct(reactor, lambda: there, Outgoing("192.0.2.7"), (), Outgoing("192.0.2.8", "2001:db8::8"))
    assert (route.source(IPV4), route.source(IPV6)) == ("192.0.2.7", None)
    for address in (IPV4, IPV6):
        route.dial(address, engine)
    bound = there.sources if engine else [client[4] for client in reactor.tcpClients]
    assert bound == [("192.0.2.7", 0), ("2001:db8::8", 0)]
