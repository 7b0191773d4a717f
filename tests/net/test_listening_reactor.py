"""A reactor that passes on what endpoints ask for: see :mod:`socksproxy.net.listening_reactor`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory

from socksproxy.net.listening_reactor import ListeningReactor, PortKind, PortRequest

from ..support.certificates import self_signed

FACTORY = Factory()


def asked(description: str) -> PortRequest:
    """The request that an endpoint of that *description* makes."""
    requests: list[PortRequest] = []
    reactor: Any = ListeningReactor(MemoryReactorClock(), requests.append)
    serverFromString(reactor, description).listen(FACTORY)
    (request,) = requests
    return request


@pytest.mark.parametrize(
    ("description", "request_"),
    [
        ("tcp:1080", PortRequest(PortKind.TCP, ("", 1080), FACTORY)),
        (
            "tcp:1:interface=127.0.0.1:backlog=7",
            PortRequest(PortKind.TCP, ("127.0.0.1", 1), FACTORY, 7),
        ),
        (
            "unix:/nonexistent/s:mode=600:lockfile=1",
            PortRequest(PortKind.UNIX, ("/nonexistent/s", None), FACTORY, 50, 0o600, True),
        ),
    ],
)
def test_requests(description: str, request_: PortRequest) -> None:
    """What the endpoint asks for comes as it is."""
    assert asked(description) == request_


def test_tls(tmp_path: Path) -> None:
    """TLS is a wrapper around the factory of a TCP port."""
    path = tmp_path / "tls.pem"
    path.write_bytes(self_signed())
    request = asked(f"ssl:443:privateKey={path}")
    assert (request.kind, request.place) == (PortKind.TCP, ("", 443))
    assert isinstance(request.factory, TLSMemoryBIOFactory)
    assert request.factory.wrappedFactory is FACTORY


def test_adopted() -> None:
    requests: list[PortRequest] = []
    reactor: Any = ListeningReactor(MemoryReactorClock(), requests.append)
    with socket.socket() as listening:
        AdoptedStreamServerEndpoint(reactor, listening.detach(), socket.AF_INET).listen(FACTORY)
    (request,) = requests
    assert request.kind is PortKind.ADOPTED
    assert request.place[1] == socket.AF_INET


def test_everything_else_is_the_reactors() -> None:
    """The interfaces, the clock, and what else an endpoint may use."""
    inner = MemoryReactorClock()
    reactor: Any = ListeningReactor(inner, lambda request: None)
    inner.advance(5)
    assert reactor.seconds() == 5
    assert IReactorTCP.providedBy(reactor)


@pytest.mark.parametrize(
    ("one", "other"), [(("", 1), ("0.0.0.0", 1)), (("::1", 1), ("::1", 1))], ids=["wildcard", "same"]
)
def test_key(one: Any, other: Any) -> None:
    """The same port is asked for in two ways, with other factories and backlogs."""
    first, second = PortRequest(PortKind.TCP, one, FACTORY), PortRequest(PortKind.TCP, other, Factory(), 9)
    assert first.key == second.key
    assert first.key != first._replace(kind=PortKind.TCP_IPV6_ONLY).key


def test_opens() -> None:
    """TCP and Unix ports are opened as the endpoint would have opened them."""
    reactor = MemoryReactorClock()
    PortRequest(PortKind.TCP, ("127.0.0.1", 1), FACTORY, 7).open(reactor)
    PortRequest(PortKind.UNIX, ("/nonexistent/s", None), FACTORY, 7, 0o600, True).open(reactor)
    assert reactor.tcpServers == [(1, FACTORY, 7, "127.0.0.1")]
    assert reactor.unixServers == [("/nonexistent/s", FACTORY, 7, 0o600, True)]
