"""Ranges of ports: see :mod:`socksproxy.values.ports`."""

from __future__ import annotations

import pytest

from socksproxy.values.errors import ConfigError
from socksproxy.values.ports import PortRange, port_range


@pytest.mark.parametrize("ports", ["7-9", " 7 - 9 ", (7, 9), [7, 9]])
def test_range(ports: str | tuple[int, int]) -> None:
    assert port_range(ports) == PortRange(7, 9)


def test_one_port() -> None:
    assert PortRange.parse("1080") == (1080, 1080)


@pytest.mark.parametrize("text", ["", "-", "7-", "a-b", "7-9-11", "٣-٤"])
def test_no_range(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a range of ports such as 40000-40999"):
        PortRange.parse(text)


@pytest.mark.parametrize("text", ["0-7", "9-7", "7-65536"])
def test_no_ports(text: str) -> None:
    with pytest.raises(ConfigError, match="ports are 1 to 65535, the lower one first"):
        PortRange.parse(text)
