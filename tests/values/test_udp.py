"""How UDP ASSOCIATE is served: see :mod:`socksproxy.values.udp`."""

from __future__ import annotations

from typing import Any

import pytest

from socksproxy import UDPSettings
from socksproxy.values import Filtering
from socksproxy.values.ports import PortRange


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"ports": (5, 6), "port": 5}, "not both"),
        ({"port": 0}, "0 is not a UDP port"),
        ({"port": 65536}, "65536 is not a UDP port"),
        ({"ports": (0, 6)}, "ports are 1 to 65535, the lower one first"),
        ({"ports": (7, 6)}, "the lower one first"),
        ({"destinations": 0}, "one destination at the least"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], text: str) -> None:
    """An embedder learns it at once, and not from the first client."""
    with pytest.raises(ValueError, match=text):
        UDPSettings(**settings)


def test_settings() -> None:
    assert UDPSettings(ports=(7, 7)).ports == PortRange(7, 7)
    assert {filtering.value for filtering in Filtering} == {
        "endpoint-independent",
        "address-dependent",
        "address-and-port-dependent",
    }
