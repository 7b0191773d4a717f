"""
From a name to addresses.

:func:`make_resolver` builds one of the two resolvers that the command line
knows; :class:`Names` is what the commands ask: it shares look-ups that are
under way, remembers answers for a moment, and can be waited for with a Deferred
that a client's going away cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver, IReactorTime
from zope.interface import implementer

from .errors import NameNotFound
from .wire.words import Address, AddressType

_DNS_PORT = 53


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


@implementer(IHostnameResolver)
class DNSResolver:
    """
    Asks DNS servers directly, by :mod:`twisted.names`: A and AAAA at once.

    :param reactor: for sockets and timeouts.
    :param servers: pairs of a literal address and a port.
    """

    def __init__(self, reactor: Any, servers: Sequence[tuple[str, int]]) -> None:
        from twisted.names.client import Resolver

        self._resolver = Resolver(servers=list(servers), timeout=(1, 3, 5), reactor=reactor)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[Any]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`."""
        from twisted.internet.defer import gatherResults

        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        found: dict[type[Any], list[str]] = {}

        def remember(kind: type[Any], answer: Any) -> None:
            found[kind] = [
                record.payload.dottedQuad() if kind is IPv4Address else _ipv6_text(record.payload.address)
                for record in answer[0]
                if record.type == (1 if kind is IPv4Address else 28)
            ]

        def finish(_: object) -> None:
            for kind in (IPv6Address, IPv4Address):
                for host in found.get(kind, ()):
                    resolutionReceiver.addressResolved(kind(transportSemantics, host, portNumber))
            resolutionReceiver.resolutionComplete()

        name = hostName.encode("ascii")
        lookups = []
        for kind, lookup in (
            (IPv4Address, self._resolver.lookupAddress),
            (IPv6Address, self._resolver.lookupIPV6Address),
        ):
            if addressTypes is not None and kind not in addressTypes:
                continue
            asked = lookup(name)
            asked.addCallback(lambda answer, kind=kind: remember(kind, answer))
            # One family may fail alone; no address at all is told by resolutionComplete.
            asked.addErrback(lambda failure: None)
            lookups.append(asked)
        gatherResults(lookups).addCallback(finish)
        return resolution


def _ipv6_text(packed: bytes) -> str:
    from socket import inet_ntop

    return inet_ntop(AF_INET6, packed)


@implementer(IResolutionReceiver)
class _Collector:
    """Gathers one look-up's addresses in the resolver's order, without repeats."""

    def __init__(self, complete: Callable[[tuple[tuple[str, AddressType], ...]], None]) -> None:
        self._complete = complete
        self._found: dict[tuple[str, AddressType], None] = {}

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do: answers that nobody waits for any more are still worth remembering."""

    def addressResolved(self, address: Any) -> None:
        if isinstance(address, IPv4Address):
            self._found[(address.host, AddressType.IPV4)] = None
        elif isinstance(address, IPv6Address):
            # A scoped address ("fe80::1%eth0") has no form on the wire.
            self._found[(address.host.partition("%")[0], AddressType.IPV6)] = None

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
    """

    def __init__(
        self, resolver: IHostnameResolver, clock: IReactorTime, keep: float = 2.0, most: int = 4096
    ) -> None:
        self._resolver = resolver
        self._clock = clock
        self._keep = keep
        self._most = most
        self._known: dict[str, tuple[float, tuple[tuple[str, AddressType], ...]]] = {}
        self._waiting: dict[str, list[Deferred[tuple[tuple[str, AddressType], ...]]]] = {}

    def lookup(self, name: str, port: int) -> Deferred[list[Address]]:
        """
        Every address of *name*, in the resolver's order, with *port*.

        :returns: fires with at least one address; cancelling it leaves others who wait alone.
        :raises NameNotFound: (by the Deferred) when there is none.
        """
        known = self._known.get(name)
        if known is not None and known[0] > self._clock.seconds():
            answer = succeed(known[1])
        else:
            answer = self._ask(name)
        return answer.addCallback(_with_port, name, port)

    def _ask(self, name: str) -> Deferred[tuple[tuple[str, AddressType], ...]]:
        answer: Deferred[tuple[tuple[str, AddressType], ...]] = Deferred(lambda gone: self._forget(name, gone))
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.append(answer)
            return answer
        self._waiting[name] = [answer]
        self._resolver.resolveHostName(_Collector(lambda found: self._answered(name, found)), name)
        return answer

    def _forget(self, name: str, gone: Deferred[tuple[tuple[str, AddressType], ...]]) -> None:
        waiting = self._waiting.get(name)
        if waiting is not None and gone in waiting:
            waiting.remove(gone)

    def _answered(self, name: str, found: tuple[tuple[str, AddressType], ...]) -> None:
        if found and self._keep:
            self._known.pop(name, None)
            if len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[name] = (self._clock.seconds() + self._keep, found)
        for answer in self._waiting.pop(name, ()):
            answer.callback(found)


def _with_port(found: tuple[tuple[str, AddressType], ...], name: str, port: int) -> list[Address]:
    if not found:
        raise NameNotFound("name not found")
    return [Address(host, port, kind) for host, kind in found]
