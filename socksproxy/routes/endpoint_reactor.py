"""
The reactor for endpoints that lead to proxies: names in them are looked up by the server's resolver.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from zope.interface import directlyProvides, implementer, providedBy

from ..net.lookups import BOTH_TYPES, AddressLookups, Found, found_of
from ..net.resolve import NameLookups
from ..values.errors import ConfigError
from ..wire.words import Address, AddressType


class EndpointReactor:
    """
    A reactor for endpoints.

    :param reactor: does everything but look names up.
    :param names: gives what looks names up.
    """

    def __init__(self, reactor: Any, names: Callable[[], NameLookups]) -> None:
        self._reactor = reactor
        self.nameResolver: IHostnameResolver = _Names(names)
        directlyProvides(self, providedBy(reactor), IReactorPluggableNameResolver)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class _Names(AddressLookups):
    def __init__(self, names: Callable[[], NameLookups]) -> None:
        self._names = names

    def lookup_addresses(
        self, name: str, share: Hashable = None, types: Sequence[AddressType] = BOTH_TYPES
    ) -> Deferred[Found]:
        looking: Deferred[list[Address]] = self._names().lookup_lasting(name, 0)
        return looking.addCallback(lambda found: found_of(address.host for address in found))


@implementer(IReactorPluggableNameResolver)
class _NoReactor:
    """Takes the place of a reactor while a description is read."""

    nameResolver = None

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError


def check_endpoint(description: str) -> None:
    """
    See that *description* describes a client endpoint of Twisted. Nothing is connected.

    :raises ConfigError: when it does not. The error does not show the description: it may hold a password.
    """
    try:
        clientFromString(_NoReactor(), description)
    except Exception:  # Twisted and its plugins raise all kinds
        right = "not a client endpoint of Twisted, such as tls:proxy.example.org:443 or unix:/run/proxy"
        raise ConfigError(right, shown=False) from None
