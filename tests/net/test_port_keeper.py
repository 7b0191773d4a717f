"""The ports that stay open over a reload: see :mod:`socksproxy.net.port_keeper`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from socksproxy.net.listening_reactor import PortKind, PortRequest
from socksproxy.net.port_keeper import PortKeeper


class FakePort:
    """A port that notes whether it accepts."""

    def __init__(self, request: PortRequest) -> None:
        self.factory = request.factory
        self.kind = request.kind
        self.accepts = True

    def stopReading(self) -> None:
        self.accepts = False

    def startReading(self) -> None:
        self.accepts = True


def tcp(number: int, host: str = "127.0.0.1") -> PortRequest:
    return PortRequest(PortKind.TCP, (host, number), Factory())


def test_first_configuration() -> None:
    """Its ports accept at once."""
    keeper = PortKeeper()
    port = keeper.open(tcp(1), FakePort)
    assert port.accepts
    assert keeper.fresh == [port]
    assert keeper.enter() == []


def test_following_configuration() -> None:
    """A port stays with another factory, a new one waits, and one that is not asked for is returned."""
    before = PortKeeper()
    stays, goes = before.open(tcp(1), FakePort), before.open(tcp(2), FakePort)
    before.enter()
    keeper = PortKeeper(before)
    request = tcp(1)
    assert keeper.open(request, FakePort) is stays
    new = keeper.open(tcp(3), FakePort)
    assert not new.accepts
    assert stays.factory is not request.factory
    assert keeper.fresh == [new]
    assert keeper.enter() == [goes]
    assert new.accepts
    assert stays.factory is request.factory


def test_nothing_has_changed_before_it_is_in_force() -> None:
    """A configuration that is abandoned leaves the ports of the one before for the next."""
    before = PortKeeper()
    port = before.open(tcp(1), FakePort)
    PortKeeper(before).open(tcp(1), FakePort)
    assert PortKeeper(before).open(tcp(1), FakePort) is port


def test_ipv6_only() -> None:
    """A port on ``::`` leaves IPv4 clients to another port of the same number, and to no other."""
    keeper = PortKeeper()
    keeper.ipv4_ports = frozenset({1})
    kinds = [
        keeper.open(tcp(number, host), FakePort).kind for number, host in ((1, "::"), (2, "::"), (1, "::1"))
    ]
    assert kinds == [PortKind.TCP_IPV6_ONLY, PortKind.TCP, PortKind.TCP]


def test_mode_of_a_port_that_stays(tmp_path: Path) -> None:
    """The file of a Unix port gets its new permissions with the configuration, and a missing file none."""
    path = tmp_path / "s"
    path.touch()
    path.chmod(0o600)

    def request(where: Any, mode: int) -> PortRequest:
        return PortRequest(PortKind.UNIX, (str(where), None), Factory(), mode=mode)

    before = PortKeeper()
    for where in (path, tmp_path / "gone"):
        before.open(request(where, 0o600), FakePort)
    keeper = PortKeeper(before)
    for where in (path, tmp_path / "gone"):
        keeper.open(request(where, 0o640), FakePort)
    assert path.stat().st_mode & 0o777 == 0o600
    keeper.enter()
    assert path.stat().st_mode & 0o777 == 0o640


def test_adopted_once() -> None:
    """A descriptor that was closed since cannot be adopted again."""
    request = PortRequest(PortKind.ADOPTED, (5, 2), Factory())
    first = PortKeeper()
    port = first.open(request, FakePort)
    second = PortKeeper(first)
    assert second.open(request, FakePort) is port
    third = PortKeeper(PortKeeper(second))
    with pytest.raises(CannotListenError, match="only a restart"):
        third.open(request, FakePort)
