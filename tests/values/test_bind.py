"""How BIND is served: see :mod:`socksproxy.values.bind`."""

from __future__ import annotations

import pytest

from socksproxy import BindSettings
from socksproxy.values.errors import ConfigError
from socksproxy.values.outgoing import Outgoing
from socksproxy.values.ports import PortRange


def test_settings() -> None:
    """Python's plain values do."""
    settings = BindSettings(ports="40000-40999", addresses=["192.0.2.7"])
    assert settings.ports == PortRange(40000, 40999)
    assert settings.addresses == Outgoing("192.0.2.7")
    assert BindSettings().any_peer is None


@pytest.mark.parametrize("wrong", [{"ports": "9-7"}, {"addresses": ["a.example"]}, {"timeout": 0}])
def test_wrong(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        BindSettings(**wrong)  # type: ignore[arg-type]
