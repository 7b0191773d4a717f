"""
From a name to addresses.

:func:`make_resolver` makes the resolver that an option names. Commands ask :class:`NameLookups`, in which
    clients share the look-ups that run, and which remembers answers for a moment. A client that goes away
    cancels its Deferred.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import NameNotFound, TooManyLookups
from ..extras import missing
from ..logs.debug import NAMES as DEBUG
from ..runtime.recent import Recent
from ..wire.words import Address, AddressType
from .hosts_file import HostsFile
from .lookups import MOST_ADDRESSES, Found, IAddressLookup, ILeavingLookup, TimedFound, found_of
from .names import literal, reads_as_address, unmapped
from .reverse import ReverseLookups, reverse_lookups
from .sockets import NewSocket
from .system_resolver import system_resolver

_log = Logger(namespace="socksproxy")

#: Seconds for which the addresses of a proxy hold where the resolver does not tell, and at the most.
UNKNOWN_TTL, LONGEST_TTL = 30.0, 86400.0
_DNS_PORT = 53
_MOST_SERVERS = 6


def make_resolver(spec: str, reactor: Any) -> IHostnameResolver:
    """
    The resolver that *spec* describes.

    :param spec: ``system`` (the C library's resolver, in threads), or ``dns:`` and DNS servers, which are
        tried in turn: ``HOST`` or ``HOST:PORT`` (an IPv6 host in brackets), with commas between.
    :raises ValueError: with one line that says what is wrong with *spec*.
    """
    if spec == "system":
        return system_resolver(reactor)
    kind, separator, servers = spec.partition(":")
    if kind != "dns" or not separator:
        raise ValueError(f"{spec!r} is neither 'system' nor 'dns:HOST' nor 'dns:HOST:PORT'")
    found = list(
        dict.fromkeys(_server(spec, server.strip().removeprefix("dns:")) for server in servers.split(","))
    )
    if len(found) > _MOST_SERVERS:
        raise ValueError(f"{spec!r}: {_MOST_SERVERS} DNS servers are the most")
    try:
        from .dns_resolver import DNSResolver
    except ImportError as problem:
        raise ValueError(f"{spec!r}: {missing('dns', problem)}") from None
    return DNSResolver(reactor, found)


def _server(spec: str, text: str) -> tuple[str, int]:
    host, bracket, rest = text[1:].partition("]") if text.startswith("[") else ("", "", "")
    if not bracket:
        host, colon, digits = text.partition(":")
        rest = colon + digits
    address = None if host.startswith("[") else literal(host)
    if address is None or (":" in address) is not bool(bracket):
        raise ValueError(f"{spec!r}: the DNS server must be a literal address (IPv6 in brackets)")
    if not rest:
        return address, _DNS_PORT
    if not (rest[0] == ":" and rest[1:].isascii() and rest[1:].isdecimal() and 0 < int(rest[1:]) < 65536):
        raise ValueError(f"{spec!r}: the port must be a number from 1 to 65535")
    return address, int(rest[1:])


@implementer(IResolutionReceiver)
class _Collector:
    """Gathers one look-up's addresses in the resolver's order, without repeats."""

    def __init__(self) -> None:
        self.found: Deferred[Found] = Deferred()
        self._hosts: dict[str, None] = {}

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Do nothing: an answer is worth remembering though no client may wait for it any more."""

    def addressResolved(self, address: Any) -> None:
        if len(self._hosts) < MOST_ADDRESSES and isinstance(address, (IPv4Address, IPv6Address)):
            self._hosts[address.host] = None

    def resolutionComplete(self) -> None:
        if not self.found.called:
            self.found.callback(found_of(self._hosts))


class _Lookup:
    """
    A look-up that runs.

    :ivar waiting: the Deferreds that wait for it.
    """

    __slots__ = ("pending", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Deferred[Found]] = []
        self.pending: Deferred[Any] | None = None


class NameLookups:
    """
    Looks names up by *resolver*.

    Clients that ask for a name which is being looked up wait for the same answer. An answer is remembered for
    *keep* seconds, because a browser opens many connections to one host at once. The policy checks addresses
    each time.

    A resolver in which clients take turns gets one look-up for each client, so that no client waits behind
    another client's queue. The first answer is for all of them.

    :param resolver: is asked for names that are not remembered.
    :param clock: for the age of answers.
    :param keep: seconds for which an answer is remembered; 0: not at all.
    :param most: the greatest number of names that are remembered.
    :param reverse: looks up the names of addresses.
    :param hosts: answers at once, before the resolver; None: the resolver is asked for every name.
    :param prefer: the type of addresses that comes first; None: the resolver's order stays.
    """

    def __init__(
        self,
        resolver: IHostnameResolver,
        clock: IReactorTime,
        keep: float = 2.0,
        most: int = 4096,
        reverse: ReverseLookups = ReverseLookups(),
        hosts: HostsFile | None = None,
        prefer: AddressType | None = None,
    ) -> None:
        self._prefer = prefer
        self._resolver = resolver
        self._clock = clock
        self._fair = IAddressLookup(resolver) if IAddressLookup.providedBy(resolver) else None
        self._reverse = reverse
        self._hosts = hosts
        self._keep = keep
        self._known: Recent[str, Found] = Recent(clock, most)
        self._lasting: Recent[str, Found] = Recent(clock, most)
        self._waiting: dict[str, dict[Hashable, _Lookup]] = {}

    def defines(self, name: str) -> bool:
        """Whether the hosts file has *name*, a name in lower case and ASCII."""
        return self._hosts is not None and self._hosts.defines(name)

    def lookup(self, name: str, port: int, share: Hashable = None) -> Deferred[list[Address]]:
        """
        Look up every address of *name*, in the order of preference, with *port*.

        :param share: the client; its look-ups take turns with those of other clients.
        :returns: fires with at least one address. It can be cancelled; other clients still get the answer.
        :raises NameNotFound: (by the Deferred) when there is no address.
        :raises TooManyLookups: (by the Deferred) when too many look-ups wait.
        """
        remembered = self.remembered(name, port)
        if remembered is not None:
            return succeed(remembered)
        if ":" in name or reads_as_address(name):
            address = literal(name)
            return (
                fail(NameNotFound("name not found"))
                if address is None
                else succeed([unmapped(address, port)])
            )
        return self._ask(name, share).addCallback(self._with_port, port)

    def leaving_by(self, new_socket: NewSocket) -> NameLookups:
        """
        Names that are looked up by sockets that *new_socket* makes.

        Where the resolver cannot do that (the C library's cannot), the names are looked up as by this object.
        """
        if not ILeavingLookup.providedBy(self._resolver):
            return self
        resolver: Any = self._resolver
        leaving = resolver.leaving_by(new_socket)
        return NameLookups(
            leaving, self._clock, self._keep, reverse=reverse_lookups(leaving), hosts=self._hosts
        )

    def lookup_lasting(self, name: str, port: int) -> Deferred[list[Address]]:
        """
        As :meth:`lookup`, for a name of the configuration, such as a proxy's: its addresses are kept for
        their TTL.

        A resolver that tells no TTL has :data:`UNKNOWN_TTL`.
        """
        known = self._lasting.get(name)
        if known is not None:
            return succeed(self._with_port(known, port))
        if self.defines(name) or ":" in name or reads_as_address(name):
            return self.lookup(name, port)
        return self._ask(name, None).addCallback(self._last, name, port)

    def _last(self, found: Found, name: str, port: int) -> list[Address]:
        if found:
            ttl = found.ttl if isinstance(found, TimedFound) else UNKNOWN_TTL
            self._lasting.put(name, found, min(max(ttl, self._keep), LONGEST_TTL))
        return self._with_port(found, port)

    def remembered(self, name: str, port: int) -> list[Address] | None:
        """The addresses that :meth:`lookup` would give, if they are known already."""
        defined = None if self._hosts is None else self._hosts.addresses(name)
        if defined is not None:
            return self._with_port(defined, port)
        known = self._known.get(name)
        return None if known is None else self._with_port(known, port)

    def reverse(self, host: str, share: Hashable = None) -> Deferred[str]:
        """
        Look up the name of the literal address *host*.

        :param share: as for :meth:`lookup`.
        :returns: fires with a name that the DNS allows; it can be cancelled.
        :raises NameNotFound: (by the Deferred) when the address has no name.
        """
        name = None if self._hosts is None else self._hosts.name(host)
        return self._reverse.lookup(host, share) if name is None else succeed(name)

    def _ask(self, name: str, share: Hashable) -> Deferred[Found]:
        share = None if self._fair is None else share
        lookups = self._waiting.setdefault(name, {})
        lookup = lookups.get(share)
        answer: Deferred[Found] = Deferred(lambda gone: self._forget(name, share, gone))
        if lookup is not None:
            lookup.waiting.append(answer)
            return answer
        if DEBUG.on:
            DEBUG("looks up {name!r}", name=name)
        lookup = lookups[share] = _Lookup()
        lookup.waiting.append(answer)
        lookup.pending = maybeDeferred(self._resolve, name, share)
        lookup.pending.addBoth(self._answered, name, share, lookup)
        return answer

    def _resolve(self, name: str, share: Hashable) -> Deferred[Found]:
        if self._fair is not None:
            return self._fair.lookup_addresses(name, share)
        collector = _Collector()
        self._resolver.resolveHostName(collector, name)
        return collector.found

    def _forget(self, name: str, share: Hashable, gone: Deferred[Found]) -> None:
        lookups = self._waiting.get(name, {})
        lookup = lookups.get(share)
        if lookup is None or gone not in lookup.waiting:
            return
        lookup.waiting.remove(gone)
        # Only a resolver with turns frees what a look-up holds. The answers of others are worth remembering.
        if not lookup.waiting and self._fair is not None and lookup.pending is not None:
            self._remove(name, share)
            lookup.pending.cancel()

    def _remove(self, name: str, share: Hashable) -> None:
        del self._waiting[name][share]
        if not self._waiting[name]:
            del self._waiting[name]

    def _answered(self, result: Found | Failure, name: str, share: Hashable, lookup: _Lookup) -> None:
        if self._waiting.get(name, {}).get(share) is not lookup:
            return  # it was cancelled
        if DEBUG.on:
            what = result.value if isinstance(result, Failure) else [host for host, _ in result]
            DEBUG("{name!r}: {what}", name=name, what=what)
        if not isinstance(result, Failure):
            over = list(self._waiting.pop(name).values())
            if result and self._keep:
                self._known.put(name, result, self._keep)
        elif result.check(TooManyLookups):
            over = [lookup]
            self._remove(name, share)
        else:
            # An embedder's resolver may raise anything, which means that there is no address.
            _log.failure("the resolver failed", result)
            self._answered((), name, share, lookup)
            return
        for each in over:
            if each is not lookup and each.pending is not None:
                each.pending.cancel()
            for answer in each.waiting:
                if not answer.called:  # a callback of an earlier one may have cancelled it
                    answer.callback(result)

    def _with_port(self, found: Found, port: int) -> list[Address]:
        if not found:
            raise NameNotFound("name not found")
        if self._prefer is not None:
            found = tuple(sorted(found, key=lambda each: each[1] is not self._prefer))
        return [Address(host, port, kind) for host, kind in found]
