"""Listeners as options describe them, before they open."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from socksproxy import Address
from socksproxy.config.endpoints import check_local, is_claimable, listener_from, listener_on, loops
from socksproxy.config.plan import Listener
from socksproxy.config.words import OpenToAll
from socksproxy.net.resources import CheckedResources
from socksproxy.values.balancers import Balancers
from socksproxy.values.errors import ConfigError
from socksproxy.values.upstreams import Upstream, UpstreamType

REACTOR: Any = Clock()
RESOURCES = CheckedResources(REACTOR)


def described(text: str) -> Listener:
    return listener_from(RESOURCES, 0, text)


@pytest.mark.parametrize(
    ("interface", "description"),
    [
        ("127.0.0.1", "tcp:127.0.0.1:7"),
        ("::1", "tcp6:[::1]:7"),
        ("[::1]", "tcp6:[::1]:7"),
        ("fe80::1%eth0", "tcp6:[fe80::1%eth0]:7"),
    ],
)
def test_interface(interface: str, description: str) -> None:
    assert listener_on(REACTOR, interface, 7).description == description


@pytest.mark.parametrize("interface", ["::x", "[1:2]", "tcp:1080"])
def test_no_interface(interface: str) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        listener_on(REACTOR, interface, 7)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense:7", "not an endpoint such as tcp:1080"),
        ("tcp:nonsense", "not an endpoint such as tcp:1080"),
        ("ssl:7:privateKey=/no/such/key", "/no/such/key"),
    ],
)
def test_no_endpoint(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        described(text)


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("tcp:7:interface=127.0.0.1", True),
        ("tcp:7:interface=localhost", True),
        ("tcp6:7:interface=\\:\\:1", True),
        ("unix:/run/socks", True),
        ("tcp:7", False),
        ("tcp:7:interface=192.0.2.1", False),
        ("tcp6:7", False),
    ],
)
def test_local(text: str, local: bool) -> None:
    """A listener that others reach is refused, and where it takes all PROXY headers, there is a warning."""
    listener, balanced = described(text), described(f"haproxy:{text}")
    if local:
        check_local(listener)
    else:
        with pytest.raises(OpenToAll, match="is not on a loopback address"):
            check_local(listener)
    assert is_claimable(balanced, Balancers()) is not local
    assert not is_claimable(balanced, Balancers(["192.0.2.0/24"]))
    assert not is_claimable(listener, Balancers())


@pytest.mark.parametrize(
    ("host", "listen", "loop"),
    [
        ("127.0.0.1", "tcp:7:interface=127.0.0.1", True),
        ("localhost", "tcp:7:interface=127.0.0.1", True),
        ("127.0.0.1", "tcp:7", True),
        ("127.0.0.1", "tcp:8", False),
        ("192.0.2.77", "tcp:7", False),
        ("proxy.example", "tcp:7", False),
    ],
)
def test_loops(host: str, listen: str, loop: bool) -> None:
    """An upstream must not be this server."""
    upstreams = {
        "one": Upstream(type=UpstreamType.SOCKS5, address=Address.of(host, 7)),
        "out": Upstream(type=UpstreamType.DIRECT),
    }
    found = loops(upstreams, {}, [described(listen)])
    assert [problem.path for problem in found] == ([("upstreams", "one", "address")] if loop else [])
