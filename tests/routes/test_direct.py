"""The direct route: what dials, and from where."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectBindError, ConnectError
from twisted.internet.testing import MemoryReactorClock

from socksproxy.errors import CannotLeave, ConnectedToItself
from socksproxy.net.dial import as_deferred
from socksproxy.routes.counters import UpstreamCounters
from socksproxy.routes.direct import Direct, DirectUpstream
from socksproxy.routes.members import Member, is_its_own
from socksproxy.values.outgoing import Outgoing
from socksproxy.values.upstreams import Upstream
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


def test_identity() -> None:
    """An upstream is the same after a reload; another one that leaves so has its own sessions."""

    def made(name: str, host: str) -> DirectUpstream:
        direct = Direct(MemoryReactorClock(), lambda: None, Outgoing(host), ())
        names: Any = None
        return DirectUpstream(UpstreamCounters(name), direct, names)

    home = made("home", "192.0.2.7").identity
    assert home == made("home", "192.0.2.7").identity
    assert home != made("work", "192.0.2.7").identity
    assert home != made("home", "192.0.2.8").identity


@pytest.mark.parametrize(
    ("problem", "own"),
    [
        (OSError(errno.EADDRNOTAVAIL, "no such address"), True),
        (CannotLeave("the interface lost0 cannot be used"), True),
        (ConnectBindError(errno.EADDRNOTAVAIL, "no such address"), True),
        (OSError(errno.ECONNRESET, "reset"), False),
        (ConnectError(errno.ECONNRESET, "reset"), False),
        (OSError(errno.ECONNREFUSED, "refused"), False),
        (OSError(errno.ENETUNREACH, "unreachable"), False),
        (ConnectedToItself("nothing listens"), False),
        (OSError(errno.EMFILE, "no descriptor"), None),
    ],
)
def test_who_is_to_blame(problem: Exception, own: bool | None) -> None:
    """What the destination does, also by a reset, is not the failure of a direct way or member."""
    told: list[Any] = []
    counters = UpstreamCounters("here", lambda *event: told.append(event))
    direct: Any = Direct(MemoryReactorClock(), lambda: None, Outgoing(), ())
    direct.dial = lambda *_: fail(problem)
    way = DirectUpstream(counters, direct, lambda: None)  # type: ignore[arg-type, return-value]
    failed: list[Any] = []
    as_deferred(way.dial(IPV4, False)).addErrback(failed.append)
    assert [event[2] for event in told if event[0] == "upstream_failed"] == ([] if own is None else [own])
    assert counters.sessions == 0
    member = Member("here", Upstream(type="direct"), counters)
    assert own is None or is_its_own(failed[0].value, member) is own
