"""What the operator may say of BIND and of RESOLVE: see :mod:`socksproxy.config.options`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError

from socksproxy import BindSettings, SOCKSFactory
from socksproxy.app import Options, makeService
from socksproxy.config import command_line as module
from socksproxy.service.server import SOCKSService
from socksproxy.settings import ServerSettings
from socksproxy.values.outgoing import Outgoing
from socksproxy.wire.words import AddressType


def parsed(*arguments: str) -> Options:
    options = Options(MemoryReactorClock())
    options.parseOptions(arguments)
    return options


def given(*arguments: str) -> ServerSettings:
    """What the factory is given."""
    service = makeService(parsed(*arguments))
    assert isinstance(service, SOCKSService)
    return service.factory.settings


def test_defaults() -> None:
    """What the documentation says: two minutes, any port, 32 at once, no strangers to clients of others."""
    settings = given()
    assert settings.bind == BindSettings()
    assert settings.bind == BindSettings(
        ports=None, addresses=(), timeout=120, any_peer=None, check_port=False
    )
    assert settings.limits.client.binds == 32
    assert settings.advertise.address("192.0.2.1", AddressType.IPV4) is None
    assert settings.resolve_commands is True


def test_everything_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator says reaches the factory."""
    settings = given(
        *("--bind-ports", "40000-40999", "--bind-timeout", "7.5", "--max-binds-per-client", "3"),
        *("--bind-address", "127.0.0.2", "--bind-address", "::1", "--bind-any-peer", "--bind-check-port"),
        *("--advertise", "203.0.113.5@10.0.0.0/8", "--advertise", "2001:db8::5", "--no-resolve-commands"),
    )
    assert settings.bind == BindSettings(
        ports=(40000, 40999),
        addresses=("127.0.0.2", "::1"),
        timeout=7.5,
        any_peer=True,
        check_port=True,
    )
    assert settings.limits.client.binds == 3
    assert settings.advertise.address("10.0.0.1", AddressType.IPV4) == "203.0.113.5"
    assert settings.advertise.address("10.0.0.1", AddressType.IPV6) == "2001:db8::5"
    assert settings.resolve_commands is False


def test_one_port() -> None:
    """A range may be one port; a listening address may be all of them."""
    options = parsed("--bind-ports", "40000", "--bind-address", "0.0.0.0")
    assert options.plan.settings.bind.ports == (40000, 40000)
    assert options.plan.settings.bind.addresses == Outgoing("0.0.0.0")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--bind-ports", "x"], "--bind-ports 'x' is not a range of ports such as 40000-40999"),
        (["--bind-ports", "2-1"], "--bind-ports '2-1': ports are 1 to 65535, the lower one first"),
        (["--bind-ports", "0-9"], "--bind-ports '0-9': ports are"),
        (["--bind-ports", ""], "--bind-ports '' is not a range"),
        (["--bind-timeout", "0"], "--bind-timeout 0: not a number of seconds above 0"),
        (["--bind-timeout", "soon"], "--bind-timeout soon: not a number"),
        (["--max-binds-per-client", "0"], "--max-binds-per-client 0: not a whole number above 0"),
        (["--max-binds-per-client", "no"], "--max-binds-per-client no: not a whole number"),
        (["--bind-address", "here"], "--bind-address here: not a literal IPv4 or IPv6 address"),
        (["--bind-address", "192.0.2.77"], "--bind-address 192.0.2.77: not an address of this machine"),
        (
            ["--bind-address", "127.0.0.1", "--bind-address", "127.0.0.2"],
            "--bind-address 127.0.0.2: one IPv4 address is enough",
        ),
        (["--advertise", "here"], "--advertise 'here': 'here' is not a literal address"),
        (["--advertise", "0.0.0.0"], "--advertise '0.0.0.0': no client can reach 0.0.0.0"),
        (
            ["--advertise", "192.0.2.1@there"],
            "--advertise '192.0.2.1@there': 'there' is not a network such as 10.0.0.0/8",
        ),
        (["--advertise", "192.0.2.1", "--advertise", ""], "--advertise '': '' is not a literal address"),
    ],
)
def test_wrong(arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is told in one line which option is wrong, and what would be right."""
    monkeypatch.setattr(module, "is_local", lambda host: host != "192.0.2.77")
    with pytest.raises(UsageError) as caught:
        parsed(*arguments)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        {"bind": {"addresses": ("here",)}},
        {"bind": {"addresses": ("127.0.0.1", "127.0.0.2")}},
        {"bind": {"ports": (2, 1)}},
        {"outgoing": ("here",)},
        {"advertise": ("here",)},
        {"advertise": ("192.0.2.1@there",)},
    ],
)
def test_wrong_settings(more: dict[str, Any]) -> None:
    """A program is told at once, too."""
    reasons = r"not a literal|one IPv4 address is enough|not a network|the lower one first"
    with pytest.raises(ValueError, match=reasons):
        SOCKSFactory(MemoryReactorClock(), bind=BindSettings(**more.pop("bind", {})), **more)


def test_completion() -> None:
    """The shell offers an option again that can be given again."""
    assert {"bind-address", "advertise"} <= set(Options.compData.multiUse)
