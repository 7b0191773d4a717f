"""Whose PROXY headers count."""

from __future__ import annotations

import pytest

from socksproxy.values.balancers import Balancers, balancers_of
from socksproxy.values.errors import ConfigError


def test_everywhere() -> None:
    """Nothing is said: then every client that reaches the listener may be a balancer."""
    assert Balancers().include("192.0.2.1")
    assert Balancers().include("fe80::1%lo")


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        (["192.0.2.1"], ["192.0.2.1"], ["192.0.2.2", "2001:db8::1"]),
        (["192.0.2.0/24", "::1"], ["192.0.2.255", "::1"], ["192.0.3.0", "::2"]),
        (["0.0.0.0/0"], ["203.0.113.5"], ["::1"]),
        (["fe80::/10"], ["fe80::1%lo"], ["fd00::1"]),
        (["::ffff:192.0.2.0/120"], ["192.0.2.9"], ["192.0.3.9", "::1"]),
    ],
)
def test_networks(networks: list[str], inside: list[str], outside: list[str]) -> None:
    balancers = Balancers(networks)
    assert all(map(balancers.include, inside))
    assert not any(map(balancers.include, outside))


@pytest.mark.parametrize("text", ["", "balancer.example", "192.0.2.1/24", "192.0.2.0/33", "@private", "1"])
def test_mistakes(text: str) -> None:
    """They name what is wrong, and what would be right."""
    with pytest.raises(ConfigError, match=r"not an address or a network such as 10.0.0.0/8"):
        Balancers([text])


def test_parsed_once() -> None:
    balancers = Balancers(["::1"])
    assert balancers_of(balancers) is balancers
    assert balancers_of(["::1"]).networks == balancers.networks
