"""
What looks names up, and what it finds.
"""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.defer import Deferred
from zope.interface import Interface

from ..wire.words import AddressType

#: How many addresses of a name count: the owner of a name decides how many there are.
MOST_ADDRESSES = 64

#: What a look-up finds: hosts and their types, in the order of preference.
Found = tuple[tuple[str, AddressType], ...]


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
