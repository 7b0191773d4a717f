"""Who a client is: see :mod:`socksproxy.identity`."""

from __future__ import annotations

import pytest

from socksproxy.identity import Client, share_of


@pytest.mark.parametrize(
    ("host", "network"),
    [
        (None, None),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("uid 1000", "uid 1000"),
    ],
)
def test_share_of(host: str | None, network: str | None) -> None:
    assert share_of(host) == network


def test_share() -> None:
    """Clients of one IPv6 network share, and so do the programs of one local user."""
    assert Client("2001:db8::1", 1).share == Client("2001:db8::2", 2).share
    assert Client(None, uid=1000).share == "uid 1000"
    assert Client(None).share is None
