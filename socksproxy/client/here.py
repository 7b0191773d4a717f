"""
Names that this machine looks up itself, and the addresses that are tried in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import HostnameAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.python.failure import Failure

from ..errors import ConnectFailed, NameNotFound, most_telling, reply_for
from ..net.dial import Race
from ..net.resolve import NameLookups
from ..wire.words import Address, AddressType
from .errors import (
    AddressTypeNotSupported,
    DestinationNameNotFound,
    DestinationRefused,
    DestinationTimedOut,
    DestinationUnreachable,
)

#: What is said of one address alone, by replies 3, 4, 5, 6 and 8: another address may do.
NEXT = (AddressTypeNotSupported, DestinationRefused, DestinationTimedOut, DestinationUnreachable)


def connect_here(
    reactor: Any, destination: Address, ipv4_only: bool, connect: Callable[[Address], Deferred[Any]]
) -> Deferred[Any]:
    """
    Look the name *destination* up, and connect to the first address that a proxy reaches (RFC 8305).

    :param reactor: its resolver is asked.
    :param ipv4_only: whether other addresses do not count.
    :param connect: makes one attempt, on a connection to the proxy of its own.
    :raises ConnectingCancelledError: (by the Deferred) when it is cancelled.
    :raises DestinationNameNotFound: (by the Deferred) when there is no address.
    :raises ProxiedConnectError: (by the Deferred) what the most telling attempt has met.
    """
    lookups = NameLookups(reactor.nameResolver, reactor, keep=0)
    found = lookups.lookup(destination.host, destination.port)
    tried: Deferred[Any] = found.addCallback(_try, reactor, ipv4_only, connect)
    return tried.addErrback(_translated, destination)


def _translated(failure: Failure, destination: Address) -> Any:
    """The errors of the look-up and of cancelling, as callers of endpoints know them."""
    if failure.check(NameNotFound):
        raise DestinationNameNotFound(f"{destination.host} has no address here") from failure.value
    if failure.check(CancelledError):
        raise ConnectingCancelledError(HostnameAddress(destination.host.encode("ascii"), destination.port))
    return failure


def _try(
    addresses: list[Address], reactor: Any, ipv4_only: bool, connect: Callable[[Address], Deferred[Any]]
) -> Deferred[Any]:
    if ipv4_only:
        addresses = [address for address in addresses if address.type is AddressType.IPV4]
        if not addresses:
            raise AddressTypeNotSupported("the name has no IPv4 address, and SOCKS4 carries no other")
    problems: list[BaseException] = []

    def attempt(address: Address) -> Deferred[Any]:
        return connect(address).addErrback(note)

    def note(failure: Failure) -> Failure:
        problem = failure.value
        if problem is not None and not isinstance(problem, ConnectingCancelledError):
            problems.append(problem)
            if not isinstance(problem, NEXT):
                race.result.cancel()
        return failure

    def over(failure: Failure) -> Any:
        if isinstance(failure.value, ConnectFailed):
            best = most_telling(map(reply_for, problems))
            raise next(problem for problem in problems if reply_for(problem) is best)
        if problems and not isinstance(problems[-1], NEXT):
            raise problems[-1]
        return failure

    race = Race(addresses, attempt, reactor)
    return race.start().addErrback(over)
