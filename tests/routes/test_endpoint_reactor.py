"""Endpoints that lead to proxies: what describes one, and who looks names up."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock

from socksproxy.net.resolve import NameLookups
from socksproxy.routes.endpoint_reactor import EndpointReactor, check_endpoint
from socksproxy.values.errors import ConfigError

from ..support.hosts import Hosts


def test_names() -> None:
    """The server's resolver looks the name up, and the reactor connects."""
    reactor: Any = MemoryReactorClock()
    hosts = Hosts({"proxy.example": ["192.0.2.1"]})
    names = NameLookups(hosts, reactor)
    endpoint = HostnameEndpoint(EndpointReactor(reactor, lambda: names), "proxy.example", 443)
    endpoint.connect(Factory.forProtocol(Protocol))
    reactor.advance(0)
    assert hosts.asked == ["proxy.example"]
    assert reactor.tcpClients[0][:2] == ("192.0.2.1", 443)


@pytest.mark.parametrize("description", ["tls:proxy.example:443", "unix:/run/proxy", "tcp:192.0.2.1:9"])
def test_right(description: str) -> None:
    check_endpoint(description)


@pytest.mark.parametrize("description", ["", "hunter2", "hunter2:a:1", "tcp:a:hunter2", "tls:a", "unix"])
def test_wrong(description: str) -> None:
    """One line, which does not show the description: it may hold a password."""
    with pytest.raises(ConfigError) as caught:
        check_endpoint(description)
    assert "hunter2" not in str(caught.value)
    assert "not a client endpoint of Twisted" in str(caught.value)
