"""
What our resolvers have in common: an interface, the type of what they find, and Twisted's interface.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from ..errors import TooManyLookups
from ..runtime.pool import QueueFull
from ..wire.words import AddressType
from .names import unmapped
from .sockets import NewSocket

#: The greatest number of addresses of a name; the owner of the name may have given it any number.
MOST_ADDRESSES = 64

#: The hosts that a look-up finds and their types, in the order of preference.
Found = tuple[tuple[str, AddressType], ...]


class TimedFound(tuple[tuple[str, AddressType], ...]):
    """
    As :data:`Found`, of a resolver that knows for how long it holds.

    :ivar ttl: the seconds.
    """

    ttl = 0


# IPv6 first, as RFC 6724 has it for two addresses that are otherwise equal.
_CLASSES: dict[AddressType, type[Any]] = {AddressType.IPV6: IPv6Address, AddressType.IPV4: IPv4Address}
#: Both types of addresses, the preferred one first.
BOTH_TYPES = tuple(_CLASSES)


class IAddressLookup(Interface):
    """A resolver in which clients take turns."""

    def lookup_addresses(name: str, share: Hashable) -> Deferred[Found]:
        """
        Look up the addresses of *name*.

        :param name: a name in lower case and ASCII, which no C library reads as an address.
        :param share: the client; its look-ups take turns with those of other clients.
        :returns: fires with the addresses, if there are any. Cancelling it frees all that the look-up holds.
        :raises TooManyLookups: (by the Deferred) when too many look-ups wait.
        """


class ILeavingLookup(Interface):
    """A resolver whose sockets can leave by an interface, with a mark, or from a namespace."""

    def leaving_by(new_socket: NewSocket) -> IAddressLookup:
        """The same resolver with sockets that *new_socket* makes."""


@implementer(IAddressLookup, IHostnameResolver)
class AddressLookups:
    """The base of our resolvers, which look up addresses by :meth:`lookup_addresses`."""

    def lookup_addresses(
        self, name: str, share: Hashable = None, types: Sequence[AddressType] = BOTH_TYPES
    ) -> Deferred[Found]:
        """See :meth:`IAddressLookup.lookup_addresses`; only *types* are needed."""
        raise NotImplementedError

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """
        See :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`.

        A look-up that fails has found no address. A look-up that is cancelled calls the receiver no more.
        """
        wanted = [kind for kind, klass in _CLASSES.items() if addressTypes is None or klass in addressTypes]
        answer: Deferred[Any] = self.lookup_addresses(hostName, None, wanted)
        resolution = _Resolution(hostName, answer)
        resolutionReceiver.resolutionBegan(resolution)

        def report(found: Found) -> None:
            for host, kind in found:
                if kind in wanted:
                    resolutionReceiver.addressResolved(_CLASSES[kind](transportSemantics, host, portNumber))
            resolutionReceiver.resolutionComplete()

        answer.addErrback(_nothing_unless_cancelled).addCallback(report).addErrback(_cancelled)
        return resolution


def found_of(hosts: Iterable[str]) -> Found:
    """
    What a look-up finds when it finds *hosts*: each address once, and at most :data:`MOST_ADDRESSES`.

    :param hosts: literal addresses. A zone is left out, because it has no form on the wire.
    """
    addresses = (unmapped(host.partition("%")[0], 0) for host in hosts)
    return tuple(islice(dict.fromkeys((address.host, address.type) for address in addresses), MOST_ADDRESSES))


def not_made(failure: Failure) -> Failure:
    """The error for a look-up that the queue did not take; any other *failure* as it is."""
    return Failure(TooManyLookups("too many look-ups wait")) if failure.check(QueueFull) else failure


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str, answer: Deferred[Found]) -> None:
        self.name = name
        self._answer = answer

    def cancel(self) -> None:
        self._answer.cancel()


def _nothing_unless_cancelled(failure: Failure) -> Any:
    return failure if failure.check(CancelledError) else ()


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
