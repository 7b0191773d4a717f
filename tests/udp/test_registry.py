"""What associations of a factory have in common: see :mod:`socksproxy.udp.registry`."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock

from socksproxy import Address, Client, UDPSettings
from socksproxy.errors import NoFreePort
from socksproxy.events import Cause
from socksproxy.net.ports import Advertised
from socksproxy.net.resolve import NameLookups
from socksproxy.policy import DefaultPolicy
from socksproxy.policy.asking import DestinationCheck
from socksproxy.udp import registry as module
from socksproxy.udp.association import Association
from socksproxy.udp.registry import Associations
from socksproxy.udp.targets import LIFETIME
from socksproxy.udp.transports import TransportOutlet
from socksproxy.values import Filtering
from socksproxy.values.outgoing import Outgoing
from socksproxy.values.ports import PortRange
from socksproxy.values.timeouts import NEVER
from socksproxy.wire.datagram import build_header
from socksproxy.wire.words import UNSPECIFIED, AddressType

DATAGRAM = build_header(Address.of("198.51.100.1", 53)) + b"x"


@pytest.mark.skipif(sys.platform != "linux", reason="it is so here anyway")
def test_imported_where_there_is_no_engine() -> None:
    """A system without epoll and splice has the transports, which need nothing of the engine."""
    code = (
        "import os, select; del os.splice, os.SPLICE_F_MOVE, os.SPLICE_F_NONBLOCK, select.epoll\n"
        "import socksproxy, socksproxy.udp.transports, sys\n"
        "assert 'socksproxy.udp.sockets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class Reactor(Clock):
    """A clock with UDP ports; those in *taken* are."""

    nameResolver = None

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[int] = set()
        self.opened: list[Port] = []

    def listenUDP(self, port: int, protocol: DatagramProtocol, interface: str, maxPacketSize: int) -> Port:
        if port in self.taken:
            raise CannotListenError(interface, port, OSError(errno.EADDRINUSE, "address already in use"))
        if interface == "192.0.2.99":
            raise CannotListenError(interface, port, OSError(errno.EADDRNOTAVAIL, "not ours"))
        self.opened.append(Port(interface, port or 40000 + len(self.opened)))
        return self.opened[-1]


class Port:
    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.open = True

    def getHost(self) -> Port:
        return self

    def stopListening(self) -> None:
        self.open = False


# All of a factory.


class Factory:
    """Associations on a reactor of the test's."""

    def __init__(self, *advertised: str, **settings: Any) -> None:
        self.reactor = Reactor()
        self.check = DestinationCheck(DefaultPolicy(), NameLookups(None, self.reactor), self.reactor)  # type: ignore[arg-type]
        self.associations = Associations(
            self.reactor, self.check, UDPSettings(**settings), Advertised(advertised), Outgoing()
        )
        self.ended: list[Association] = []

    def open(
        self, client: str | None = "192.0.2.1", local: str | None = "192.0.2.80", hint: Address = UNSPECIFIED
    ) -> tuple[Association, Address]:
        return self.associations.open(Client(client, 1000), local, hint, None, self.ended.append, None)


@pytest.mark.parametrize(
    ("client", "local", "hint", "host", "port", "ours"),
    [
        ("192.0.2.1", "192.0.2.80", "0.0.0.0:0", "192.0.2.1", None, "192.0.2.80"),
        ("192.0.2.1", "192.0.2.80", "0.0.0.0:7", "192.0.2.1", 7, "192.0.2.80"),
        ("192.0.2.1", "192.0.2.80", ":::7", "192.0.2.1", 7, "192.0.2.80"),
        ("192.0.2.1", "192.0.2.80", "192.0.2.1:7", "192.0.2.1", 7, "192.0.2.80"),
        ("192.0.2.1", "192.0.2.80", "::ffff:192.0.2.1:7", "192.0.2.1", 7, "192.0.2.80"),
        # Behind NAT, where the client knows neither of both.
        ("192.0.2.1", "192.0.2.80", "10.0.0.1:7", "192.0.2.1", None, "192.0.2.80"),
        ("192.0.2.1", "192.0.2.80", "client.test:7", "192.0.2.1", None, "192.0.2.80"),
        ("192.0.2.1", "192.0.2.80", "0:7", "192.0.2.1", None, "192.0.2.80"),
        ("2001:db8::1", "2001:db8::80", ":::0", "2001:db8::1", None, "2001:db8::80"),
        # A Unix socket.
        (None, None, "0.0.0.0:7", "127.0.0.1", 7, "127.0.0.1"),
        (None, None, "::1:7", "::1", 7, "::1"),
        # Behind a balancer that changes the family.
        ("2001:db8::1", "192.0.2.80", "0.0.0.0:0", "2001:db8::1", None, "::"),
        ("192.0.2.1", "2001:db8::80", "0.0.0.0:0", "192.0.2.1", None, "0.0.0.0"),
    ],
)
def test_addresses(
    client: str | None, local: str | None, hint: str, host: str, port: int | None, ours: str
) -> None:
    """Whom it listens to, and where."""
    name, _, number = hint.rpartition(":")
    association, bound = Factory().open(client, local, Address.of(name, int(number)))
    assert (association.host, association.port) == (host, port)
    assert bound.host == ours
    assert association.outlet is not None
    assert association.outlet.client == (None if port is None else (host, port))


def test_advertised() -> None:
    factory = Factory("203.0.113.7", "10.0.0.7@192.0.2.0/24", "2001:db8::7")
    assert factory.open()[1].host == "10.0.0.7"
    assert factory.open("198.51.100.1")[1].host == "203.0.113.7"
    address = factory.open("2001:db8::1", "2001:db8::80")[1]
    assert (address.host, address.type) == ("2001:db8::7", AddressType.IPV6)


def test_ports_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = Factory(ports=(5, 7))
    factory.reactor.taken = {6}
    for _ in range(10):
        opened = [factory.open() for _ in range(2)]
        assert {bound.port for _, bound in opened} == {5, 7}
        for association, _ in opened:
            association.abort()
    factory.reactor.taken = {5, 6, 7}
    warnings: list[dict[str, Any]] = []
    monkeypatch.setattr(module._log, "warn", lambda _, **values: warnings.append(values))
    for _ in range(3):
        with pytest.raises(NoFreePort):
            factory.open()
    assert len(warnings) == 1
    factory.reactor.advance(60)
    with pytest.raises(NoFreePort):
        factory.open()
    assert len(warnings) == 2
    factory.reactor.taken = set()
    with pytest.raises(OSError, match="not ours"):
        factory.open(local="192.0.2.99")
    assert not factory.associations.live
    of_all = factory.associations
    assert [*of_all._of_client, *of_all._places, *of_all._taken] == []


def test_the_longest_idle_makes_room() -> None:
    """One of the same client's, and where a port is wanted, one that has a port of the range."""
    factory = Factory(ports=(5, 7))
    other = factory.open("192.0.2.2")[0]
    one, two = factory.open()[0], factory.open()[0]
    factory.reactor.advance(1)
    one.active = factory.reactor.seconds()
    three = factory.open()[0]
    assert factory.ended == [two]
    assert two.how is Cause.ROOM
    assert {port.port for port in factory.reactor.opened if port.open} == {5, 6, 7}
    assert {other, one, three} == factory.associations.live
    # On another address all ports are free.
    assert factory.open(local="192.0.2.81")[1].host == "192.0.2.81"
    assert factory.ended == [two]
    # What has the ports is not ours, so that nobody's end would be of use.
    factory.reactor.taken = {5, 6, 7}
    with pytest.raises(NoFreePort):
        factory.open("192.0.2.3")
    assert factory.ended == [two]


def test_ports_of_another_range_make_no_room() -> None:
    factory = Factory(ports=(5, 7))
    one = factory.open()[0]
    settings = UDPSettings(ports=(8, 9))
    factory.associations.reconfigure(factory.check, settings, Advertised(()), Outgoing())
    factory.reactor.taken = {8, 9}
    with pytest.raises(NoFreePort):
        factory.open()
    assert factory.associations.live == {one}


@pytest.mark.parametrize(
    ("first", "second", "ends"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1", "fe80::1", True),
        ("fe80::1", "fe80::2", False),
        (None, None, True),
        (None, "192.0.2.1", False),
    ],
)
def test_who_makes_room(
    monkeypatch: pytest.MonkeyPatch, first: str | None, second: str | None, ends: bool
) -> None:
    """When descriptors would be short: another one of the address, of the /64, or of the local user."""
    monkeypatch.setattr(module, "most_of_one_client", lambda _: 1)
    factory = Factory()

    def opened(host: str | None) -> Association:
        local = None if host is None else "2001:db8::80" if ":" in host else "192.0.2.80"
        return factory.open(host, local)[0]

    one = opened(first)
    opened(second)
    assert factory.ended == ([one] if ends else [])


def test_most_of_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that one client has leaves a quarter of the descriptors and ports to others."""
    for limit, most in ((64, 9), (1024, 186), (20000, 3633), (1 << 20, 190464)):
        monkeypatch.setattr(module, "current_limit", lambda limit=limit: limit)
        assert module.most_of_one_client(None) == most
        assert module.most_of_one_client(PortRange(1, 65535)) == min(most, 49152)
    for ports, most in ((1, 1), (2, 2), (3, 3), (4, 3), (20, 15), (100, 75)):
        assert module.most_of_one_client(PortRange(1, ports)) == most


def test_one_client_leaves_ports_to_others() -> None:
    factory = Factory(ports=(1, 8))
    greedy = [factory.open()[0] for _ in range(20)]
    others = [factory.open(host)[0] for host in ("192.0.2.2", "192.0.2.3")]
    assert factory.associations.live == {*greedy[-6:], *others}
    with pytest.raises(NoFreePort):
        factory.open("192.0.2.4")
    assert factory.ended == greedy[:-6]


def test_out_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the client's own makes room; of one that has none the system's word is told."""
    factory = Factory()
    one = factory.open()[0]
    failing = [OSError(errno.EMFILE, "too many open files")]
    listen = factory.reactor.listenUDP

    def short(*arguments: Any, **options: Any) -> Port:
        if failing:
            raise CannotListenError("", 0, failing.pop())
        return listen(*arguments, **options)

    monkeypatch.setattr(factory.reactor, "listenUDP", short)
    two = factory.open()[0]
    assert factory.ended == [one]
    failing.append(OSError(errno.EMFILE, "too many open files"))
    with pytest.raises(OSError, match="too many open files"):
        factory.open("192.0.2.2")
    assert factory.associations.live == {two}


def test_one_port_is_opened_and_closed_with_its_associations() -> None:
    factory = Factory(port=7)
    one, two, elsewhere = factory.open()[0], factory.open()[0], factory.open(local="192.0.2.81")[0]
    assert [(port.host, port.port) for port in factory.reactor.opened] == [
        ("192.0.2.80", 7),
        ("192.0.2.81", 7),
    ]
    one.abort()
    assert factory.reactor.opened[0].open
    two.abort()
    assert [port.open for port in factory.reactor.opened] == [False, True]
    factory.open()
    assert len(factory.reactor.opened) == 3
    elsewhere.abort()


def test_idle_ones_end() -> None:
    factory = Factory(idle=100.0)
    one, two = factory.open()[0], factory.open()[0]
    advance(factory.reactor, 60, lambda: None)
    two.active = factory.reactor.seconds()
    advance(factory.reactor, 60, lambda: None)
    assert factory.ended == [one]
    assert one.how is Cause.IDLE
    advance(factory.reactor, 120, lambda: None)
    assert factory.ended == [one, two]
    assert not factory.reactor.getDelayedCalls()


def test_sources_are_looked_at_anew() -> None:
    factory = Factory(idle=NEVER, filtering=Filtering.ENDPOINT_INDEPENDENT)
    association = factory.open()[0]
    association.replies.header_for("key", "198.51.100.1", 53)
    advance(factory.reactor, LIFETIME + 15, lambda: None)
    assert association.replies.headers == {}


def advance(clock: Clock, seconds: float, each: Callable[[], None]) -> None:
    for _ in range(int(seconds)):
        clock.advance(1)
        each()


def test_the_end() -> None:
    factory = Factory()
    live = [factory.open()[0] for _ in range(3)]
    factory.associations.close()
    assert set(factory.ended) == set(live)
    assert not any(port.open for port in factory.reactor.opened)
    assert not factory.reactor.getDelayedCalls()


def test_what_comes_after_the_end() -> None:
    """Twisted closes a port in the next turn: until then it may still bring something."""
    factory = Factory(filtering=Filtering.ENDPOINT_INDEPENDENT)
    association = factory.open()[0]
    outlet = association.outlet
    assert isinstance(outlet, TransportOutlet)
    association.abort()
    outlet.from_destination(b"late", "198.51.100.1", 53)
    assert association.replies.headers == {}
    assert association.dropped == {}
