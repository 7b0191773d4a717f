"""Addresses that connections leave from: see :mod:`socksproxy.values.outgoing`."""

from __future__ import annotations

from typing import Any

import pytest

from socksproxy import Address
from socksproxy.values.errors import ConfigError
from socksproxy.values.outgoing import Outgoing, outgoing_of


def test_one_of_each_family() -> None:
    both = outgoing_of(["2001:db8::7", "192.0.2.7"])
    assert both == Outgoing("192.0.2.7", "2001:db8::7")
    assert outgoing_of(both) is both
    assert both.source(Address.of("198.51.100.1", 80)) == ("192.0.2.7", 0)
    assert both.source(Address.of("2001:db8::1", 80)) == ("2001:db8::7", 0)
    assert Outgoing().source(Address.of("198.51.100.1", 80)) is None


def test_over() -> None:
    """What is not given, another scope decides."""
    ours, others = Outgoing("192.0.2.7"), Outgoing("192.0.2.8", "2001:db8::8")
    assert ours.over(others) == Outgoing("192.0.2.7", "2001:db8::8")


@pytest.mark.parametrize(
    ("hosts", "reason", "path"),
    [
        ("192.0.2.7", "not a list", ()),
        (5, "not a list", ()),
        (["192.0.2.7", "a.example"], "not a literal IPv4 or IPv6 address", (1,)),
        (["fe80::1%eth0"], "not a literal IPv4 or IPv6 address", (0,)),
        ([5], "not a literal IPv4 or IPv6 address", (0,)),
        (["::1", "192.0.2.7", "::2"], "one IPv6 address is enough", (2,)),
    ],
)
def test_wrong(hosts: Any, reason: str, path: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        outgoing_of(hosts)
    assert (caught.value.reason, caught.value.path) == (reason, path)
