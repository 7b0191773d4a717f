"""
From a name to addresses.

:func:`make_resolver` builds one of the two resolvers that the command line
knows; :class:`Names` is what the commands ask: it shares look-ups that are
under way, remembers answers for a moment, and can be waited for with a Deferred
that a client's going away cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.logger import Logger
from twisted.names.client import Resolver
from twisted.names.dns import Record_A, Record_AAAA, Record_PTR
from zope.interface import implementer

from .errors import NameNotFound
from .names import unmapped
from .reverse import IReverseResolver, ReverseLookups
from .wire.words import Address, AddressType

_log = Logger(namespace="socksproxy")

_DNS_PORT = 53
#: How many addresses of a name count: whoever owns it decides how many there are.
_MOST_ADDRESSES = 64

#: What a look-up gives: hosts and their types, in the resolver's order.
Found = tuple[tuple[str, AddressType], ...]


def make_resolver(spec: str, reactor: Any) -> IHostnameResolver:
    """
    The resolver that *spec* describes.

    :param spec: ``system`` (the C library's, in threads), or ``dns:HOST`` or
        ``dns:HOST:PORT`` (a DNS server, asked directly; an IPv6 host in brackets).
    :raises ValueError: with one line that says what is wrong with *spec*.
    """
    if spec == "system":
        resolver: IHostnameResolver = reactor.nameResolver
        return resolver
    kind, separator, server = spec.partition(":")
    if kind != "dns" or not separator:
        raise ValueError(f"{spec!r} is neither 'system' nor 'dns:HOST' nor 'dns:HOST:PORT'")
    return DNSResolver(reactor, [_server(spec, server)])


def _server(spec: str, text: str) -> tuple[str, int]:
    host, bracket, rest = text[1:].partition("]") if text.startswith("[") else ("", "", "")
    if not bracket:
        host, colon, digits = text.partition(":")
        rest = colon + digits
    for family in (AF_INET, AF_INET6):
        try:
            inet_pton(family, host)
            break
        except (OSError, ValueError):
            continue
    else:
        raise ValueError(f"{spec!r}: the DNS server must be a literal address (IPv6 in brackets)")
    if not rest:
        return host, _DNS_PORT
    if not (rest[0] == ":" and rest[1:].isascii() and rest[1:].isdecimal() and 0 < int(rest[1:]) < 65536):
        raise ValueError(f"{spec!r}: the port must be a number from 1 to 65535")
    return host, int(rest[1:])


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """The look-up goes on; nobody waits for it."""


class _Resolver(Resolver):
    def queryUDP(self, queries: Any, timeout: Any = None) -> Deferred[Any]:
        """
        Fail by the Deferred.

        What :class:`Resolver` raises when descriptors are short would leave the name as one that
        is being asked for, and everybody who asks for it from then on would wait for ever.
        """
        return maybeDeferred(super().queryUDP, queries, timeout)


@implementer(IHostnameResolver, IReverseResolver)
class DNSResolver:
    """
    Asks DNS servers directly, by :mod:`twisted.names`: A and AAAA at once, or PTR.

    :param reactor: for sockets and timeouts.
    :param servers: pairs of a literal address and a port.
    """

    def __init__(self, reactor: Any, servers: Sequence[tuple[str, int]]) -> None:
        self._resolver: Any = _Resolver(servers=list(servers), timeout=(1, 3, 5), reactor=reactor)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def tell(found: list[list[str]]) -> None:
            for kind, hosts in zip(kinds, found, strict=True):
                for host in hosts:
                    resolutionReceiver.addressResolved(kind("TCP", host, portNumber))
            resolutionReceiver.resolutionComplete()

        kinds = [kind for kind in _LOOKUPS if addressTypes is None or kind in addressTypes]
        lookups: list[Deferred[list[str]]] = [self._lookup(kind, hostName) for kind in kinds]
        gatherResults(lookups).addCallback(tell)
        return resolution

    def resolveAddress(self, host: str) -> Deferred[str]:
        """See :meth:`socksproxy.reverse.IReverseResolver.resolveAddress`."""
        asked: Deferred[Any] = self._resolver.lookupPointer(ip_address(host).reverse_pointer.encode("ascii"))
        return asked.addCallback(_pointer)

    def _lookup(self, kind: type[IPv4Address | IPv6Address], name: str) -> Deferred[list[str]]:
        lookup, record_type = _LOOKUPS[kind]
        asked: Deferred[Any] = getattr(self._resolver, lookup)(name.encode("ascii"))
        # One family may fail alone; that there is no address at all is told by there being none.
        return asked.addCallbacks(_hosts, lambda _: [], callbackArgs=(record_type,))


#: IPv6 first, as RFC 6724 has it for two addresses that are otherwise equal.
_LOOKUPS: dict[type[IPv4Address | IPv6Address], tuple[str, type[Any]]] = {
    IPv6Address: ("lookupIPV6Address", Record_AAAA),
    IPv4Address: ("lookupAddress", Record_A),
}


def _hosts(answer: Any, record_type: type[Any]) -> list[str]:
    payloads = [record.payload for record in answer[0]]
    family = AF_INET if record_type is Record_A else AF_INET6
    return [inet_ntop(family, payload.address) for payload in payloads if isinstance(payload, record_type)]


def _pointer(answer: Any) -> str:
    for record in answer[0]:
        if isinstance(record.payload, Record_PTR) and record.payload.name is not None:
            name: bytes = record.payload.name.name
            return name.decode("ascii", "backslashreplace")
    raise NameNotFound("name not found")


@implementer(IResolutionReceiver)
class _Collector:
    """Gathers one look-up's addresses in the resolver's order, without repeats."""

    def __init__(self, complete: Callable[[Found], None]) -> None:
        self._complete = complete
        self._found: dict[tuple[str, AddressType], None] = {}

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do: answers that nobody waits for any more are still worth remembering."""

    def addressResolved(self, address: Any) -> None:
        if len(self._found) >= _MOST_ADDRESSES:
            return
        if isinstance(address, IPv4Address):
            self._found[(address.host, AddressType.IPV4)] = None
        elif isinstance(address, IPv6Address):
            # A scoped address ("fe80::1%eth0") has no form on the wire.
            host, _, kind = unmapped(address.host.partition("%")[0], 0)
            self._found[(host, kind)] = None

    def resolutionComplete(self) -> None:
        self._complete(tuple(self._found))


class Names:
    """
    Looks names up through *resolver*.

    Look-ups of a name that is being looked up wait for the same answer;
    an answer is remembered for *keep* seconds, because a browser opens many
    connections to one host at once. What is dialed is checked anew each time.

    :param resolver: asked for what is not remembered.
    :param clock: for the age of answers.
    :param keep: seconds; 0 remembers nothing.
    :param most: how many names are remembered at the most.
    :param reverse: finds the names of addresses.
    """

    def __init__(
        self,
        resolver: IHostnameResolver,
        clock: IReactorTime,
        keep: float = 2.0,
        most: int = 4096,
        reverse: ReverseLookups = ReverseLookups(),
    ) -> None:
        self._resolver = resolver
        self._reverse = reverse
        self._clock = clock
        self._keep = keep
        self._most = most
        self._known: dict[str, tuple[float, Found]] = {}
        self._waiting: dict[str, list[Deferred[Found]]] = {}

    def lookup(self, name: str, port: int) -> Deferred[list[Address]]:
        """
        Every address of *name*, in the resolver's order, with *port*.

        :returns: fires with at least one address; cancelling it leaves others who wait alone.
        :raises NameNotFound: (by the Deferred) when there is none.
        """
        remembered = self.remembered(name, port)
        if remembered is not None:
            return succeed(remembered)
        return self._ask(name).addCallback(_with_port, name, port)

    def remembered(self, name: str, port: int) -> list[Address] | None:
        """What :meth:`lookup` gives, if it is known already."""
        known = self._known.get(name)
        if known is None or known[0] <= self._clock.seconds():
            return None
        return _with_port(known[1], name, port)

    def reverse(self, host: str) -> Deferred[str]:
        """
        The name of the literal address *host*.

        :returns: fires with a name that the DNS allows; it can be cancelled.
        :raises NameNotFound: (by the Deferred) when there is none.
        """
        return self._reverse.lookup(host)

    def _ask(self, name: str) -> Deferred[Found]:
        answer: Deferred[Found] = Deferred(lambda gone: self._forget(name, gone))
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.append(answer)
            return answer
        self._waiting[name] = [answer]
        try:
            self._resolver.resolveHostName(_Collector(lambda found: self._answered(name, found)), name)
        except Exception:
            # An embedder's resolver may raise anything; whatever it is, there is no address.
            _log.failure("the resolver failed")
            self._answered(name, ())
        return answer

    def _forget(self, name: str, gone: Deferred[Found]) -> None:
        waiting = self._waiting.get(name)
        if waiting is not None and gone in waiting:
            waiting.remove(gone)

    def _answered(self, name: str, found: Found) -> None:
        if found and self._keep:
            self._known.pop(name, None)
            if len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[name] = (self._clock.seconds() + self._keep, found)
        for answer in self._waiting.pop(name, ()):
            if not answer.called:  # it may have been cancelled by what an earlier one has led to
                answer.callback(found)


def _with_port(found: Found, name: str, port: int) -> list[Address]:
    if not found:
        raise NameNotFound("name not found")
    return [Address(host, port, kind) for host, kind in found]
