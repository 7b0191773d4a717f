"""What our resolvers have in common: see :mod:`socksproxy.net.lookups`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksproxy.errors import TooManyLookups
from socksproxy.net.lookups import (
    BOTH_TYPES,
    MOST_ADDRESSES,
    AddressLookups,
    Found,
    IAddressLookup,
    found_of,
    not_made,
)
from socksproxy.runtime.pool import QueueFull
from socksproxy.wire.words import AddressType

IPV4, IPV6 = ("192.0.2.1", AddressType.IPV4), ("2001:db8::1", AddressType.IPV6)


class Lookups(AddressLookups):
    """Answers by hand."""

    def __init__(self) -> None:
        self.asked: list[tuple[AddressType, ...]] = []
        self.answer: Deferred[Found] = Deferred()

    def lookup_addresses(
        self, name: str, share: Hashable = None, types: Sequence[AddressType] = BOTH_TYPES
    ) -> Deferred[Found]:
        self.asked.append(tuple(types))
        return self.answer


@implementer(IResolutionReceiver)
class Receiver:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        self.resolution = resolutionInProgress

    def addressResolved(self, address: Any) -> None:
        self.told.append(address)

    def resolutionComplete(self) -> None:
        self.told.append("complete")


def test_interfaces() -> None:
    assert verifyObject(IAddressLookup, Lookups())
    assert verifyObject(IHostnameResolver, Lookups())


@pytest.mark.parametrize(
    ("wanted", "types", "addresses"),
    [
        (None, BOTH_TYPES, [IPv6Address("TCP", IPV6[0], 80), IPv4Address("TCP", IPV4[0], 80)]),
        ([IPv4Address], (AddressType.IPV4,), [IPv4Address("TCP", IPV4[0], 80)]),
    ],
)
def test_twisteds_interface(wanted: Any, types: Any, addresses: list[Any]) -> None:
    """Addresses of a type that was not asked for are left out."""
    lookups, receiver = Lookups(), Receiver()
    lookups.resolveHostName(receiver, "host.test", 80, wanted)
    assert lookups.asked == [types]
    assert receiver.resolution.name == "host.test"
    lookups.answer.callback((IPV6, IPV4))
    assert receiver.told == [*addresses, "complete"]


def test_a_failure_finds_nothing() -> None:
    lookups, receiver = Lookups(), Receiver()
    lookups.resolveHostName(receiver, "host.test")
    lookups.answer.errback(ZeroDivisionError())
    assert receiver.told == ["complete"]


def test_cancelled() -> None:
    lookups, receiver = Lookups(), Receiver()
    lookups.resolveHostName(receiver, "host.test")
    receiver.resolution.cancel()
    assert receiver.told == []


def test_found() -> None:
    """An address counts once, whatever its form, and without a zone."""
    assert found_of(["192.0.2.1", "fe80::1%2", "::ffff:192.0.2.1", "fe80::1"]) == (
        IPV4,
        ("fe80::1", AddressType.IPV6),
    )
    assert found_of([]) == ()
    assert len(found_of(f"192.0.2.{number}" for number in range(200))) == MOST_ADDRESSES


def test_not_made() -> None:
    assert not_made(Failure(QueueFull("full"))).check(TooManyLookups)
    other = Failure(ValueError())
    assert not_made(other) is other
