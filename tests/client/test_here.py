"""Names that are looked up here. Numbers such as "e 13" are those of known faults of other clients."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock

from socksproxy.client import SOCKS4ClientEndpoint, SOCKS5ClientEndpoint, errors

from ..support.hosts import Hosts
from ..support.scripted_proxy import SUCCESS4, SUCCESS5, MemoryProxy, Recorders

BOTH = {"both.test": ["2001:db8::1", "192.0.2.1"], "six.test": ["2001:db8::1"], "waits.test": None}


class Reactor(Clock):
    """A clock with a resolver."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = Hosts(dict(BOTH))


def connecting(
    name: str, endpoint: Any = SOCKS5ClientEndpoint, **more: Any
) -> tuple[Reactor, MemoryProxy, Recorders, list[Any], Any]:
    clock, proxy, factory = Reactor(), MemoryProxy(), Recorders()
    results: list[Any] = []
    made = endpoint(proxy, name, 80, resolve="here", reactor=clock, **more).connect(factory)
    made.addBoth(results.append)
    return clock, proxy, factory, results, made


@pytest.mark.parametrize("reply", [3, 4, 5, 6, 8])
def test_next_address(reply: int) -> None:
    """e 13: a proxy without IPv6 (reply 8) is asked for the IPv4 address, on a connection of its own."""
    clock, proxy, factory, results, _ = connecting("both.test")
    proxy.say(b"\x05\x00")
    assert proxy.sent[3:] == b"\x05\x01\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x00\x50"
    proxy.say(bytes((5, reply)))
    assert len(proxy.transports) == 2
    proxy.say(b"\x05\x00")
    assert proxy.sent[3:] == b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"
    proxy.say(SUCCESS5)
    assert results == factory.built
    assert factory.addresses == [IPv4Address("TCP", "192.0.2.1", 80)]
    assert proxy.transports[0].aborted
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("reply", [1, 2, 7, 9])
def test_other_replies_are_final(reply: int) -> None:
    """e 13: what another address cannot mend is told at once."""
    clock, proxy, factory, results, _ = connecting("both.test")
    proxy.say(b"\x05\x00")
    proxy.say(bytes((5, reply)))
    assert results[0].value.reply == reply
    assert len(proxy.transports) == 1
    assert factory.built == []
    assert clock.getDelayedCalls() == []


def test_all_addresses_fail() -> None:
    """The most telling failure is told."""
    clock, proxy, _, results, _ = connecting("both.test")
    proxy.say(b"\x05\x00")
    proxy.say(b"\x05\x05")
    proxy.say(b"\x05\x00")
    proxy.say(b"\x05\x03")
    assert type(results[0].value) is errors.DestinationRefused
    assert clock.getDelayedCalls() == []


def test_race() -> None:
    """A silent address holds the next one up for 250 ms; the loser's connection closes."""
    clock, proxy, factory, results, _ = connecting("both.test")
    proxy.say(b"\x05\x00")
    clock.advance(0.24)
    assert len(proxy.transports) == 1
    clock.advance(0.02)
    assert len(proxy.transports) == 2
    proxy.protocols[0].dataReceived(SUCCESS5)
    assert results == factory.built
    assert factory.addresses == [IPv6Address("TCP", "2001:db8::1", 80)]
    assert [transport.aborted for transport in proxy.transports] == [False, True]
    proxy.say(b"\x05\x00" + SUCCESS5)
    assert len(factory.built) == 1


@pytest.mark.parametrize("name", ["both.test", "waits.test"])
@pytest.mark.parametrize("cancel", [True, False])
def test_time_and_cancelling(name: str, cancel: bool) -> None:
    """e 7, 8: one limit for the look-up and all attempts; cancelling ends all."""
    clock, proxy, factory, results, made = connecting(name, timeout=10)
    clock.advance(1)
    if cancel:
        made.cancel()
        assert [type(result.value) for result in results] == [error.ConnectingCancelledError]
    else:
        clock.advance(9)
        assert isinstance(results[0].value, error.TimeoutError)
    assert all(transport.aborted for transport in proxy.transports)
    assert factory.built == []
    assert clock.getDelayedCalls() == []


def test_names_without_an_address() -> None:
    """They fail before anything connects, and SOCKS4 counts IPv4 alone."""
    for name, endpoint, kind in (
        ("none.test", SOCKS5ClientEndpoint, errors.DestinationNameNotFound),
        ("none.test", SOCKS4ClientEndpoint, errors.DestinationNameNotFound),
        ("six.test", SOCKS4ClientEndpoint, errors.AddressTypeNotSupported),
    ):
        _, proxy, _, results, _ = connecting(name, endpoint)
        assert type(results[0].value) is kind
        assert proxy.transports == []


def test_socks4_takes_the_ipv4_address() -> None:
    """Plain SOCKS4: an address, and no name behind it."""
    _, proxy, factory, results, _ = connecting("both.test", SOCKS4ClientEndpoint)
    assert proxy.sent == b"\x04\x01\x00\x50\xc0\x00\x02\x01\x00"
    proxy.say(SUCCESS4)
    assert results == factory.built


@pytest.mark.parametrize(
    ("says", "kind"),
    [
        ([], errors.ProxyTimedOut),
        ([b"\x05\x00"], errors.ReplyTimedOut),
        ([b"\x05\x00", b"\x05\x05"], errors.ProxyTimedOut),
        ([b"\x05\x00", b"\x05\x05", b"\x05\x00"], errors.ReplyTimedOut),
    ],
)
def test_who_is_silent(says: list[bytes], kind: type[Exception]) -> None:
    """A proxy that has taken a request has not failed by that; an attempt that is over does not count."""
    clock, proxy, _, results, _ = connecting("both.test", timeout=10)
    for say in says:
        proxy.say(say)
    clock.advance(0.3)  # the other address has its turn, too
    clock.advance(9.7)
    assert type(results[0].value) is kind
    assert "10 seconds" in str(results[0].value)
    assert clock.getDelayedCalls() == []
