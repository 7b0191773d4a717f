"""
The interface of our resolvers, what a look-up finds, and how a resolver of ours serves Twisted's interface.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from ..wire.words import AddressType

#: How many addresses of a name count: the owner of a name decides how many there are.
MOST_ADDRESSES = 64

#: What a look-up finds: hosts and their types, in the order of preference.
Found = tuple[tuple[str, AddressType], ...]

#: Looks up the addresses of some types.
LookUp = Callable[[Sequence[AddressType]], "Deferred[Found]"]

# IPv6 first, as RFC 6724 has it for two addresses that are otherwise equal.
_CLASSES: dict[AddressType, type[Any]] = {AddressType.IPV6: IPv6Address, AddressType.IPV4: IPv4Address}
#: Both types of addresses, the preferred one first.
BOTH_TYPES = tuple(_CLASSES)


class IAddressLookup(Interface):
    """A resolver that is fair to its clients."""

    def lookup_addresses(name: str, share: Hashable) -> Deferred[Found]:
        """
        Look up the addresses of *name*.

        :param name: a name in lower case and ASCII, which no C library reads as an address.
        :param share: the client who asks; the look-ups of one client take turns with those of the others.
        :returns: fires with the addresses, if any. Cancelling it frees all that the look-up has.
        :raises TooManyLookups: (by the Deferred) when too many look-ups wait.
        """


def resolve_for(
    receiver: IResolutionReceiver,
    name: str,
    port: int,
    address_types: Sequence[type[IAddress]] | None,
    semantics: str,
    look_up: LookUp,
) -> IHostResolution:
    """
    Serve :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`.

    A look-up that fails has found no address. A look-up that is cancelled tells *receiver* nothing more.

    :param look_up: makes the look-up.
    """
    wanted = [kind for kind, klass in _CLASSES.items() if address_types is None or klass in address_types]
    answer: Deferred[Any] = look_up(wanted)
    resolution = _Resolution(name, answer)
    receiver.resolutionBegan(resolution)

    def report(found: Found) -> None:
        for host, kind in found:
            if kind in wanted:
                receiver.addressResolved(_CLASSES[kind](semantics, host, port))
        receiver.resolutionComplete()

    answer.addErrback(_nothing_unless_cancelled).addCallback(report).addErrback(_cancelled)
    return resolution


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
