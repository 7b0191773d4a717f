"""
Hosts whose addresses change, as those with dynamic DNS do: their names are looked up again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_address
from typing import Any
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import NameNotFound, TooManyLookups
from ...logs.throttle import LogThrottle
from ...net.resolve import NameLookups
from ...wire.words import Address
from ..rules import BadValue, name_pattern

_log = Logger(namespace="socksproxy")

#: Seconds between two look-ups of a name.
LOOK_EVERY = 60.0
#: Seconds for which the last addresses count while a name cannot be looked up.
KEPT = 3600.0


class Host:
    """
    One host and its addresses. It has none until its name has been looked up.

    :ivar name: in lower case and ASCII.
    :ivar addresses: the addresses as numbers, and whether each is IPv6.
    :ivar known: when they were looked up, in the clock's seconds; None: never.
    """

    __slots__ = ("__weakref__", "addresses", "known", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.addresses: frozenset[tuple[int, bool]] = frozenset()
        self.known: float | None = None


#: The hosts of all sets, so that the addresses are known at once when a configuration is read again.
_hosts: WeakValueDictionary[str, Host] = WeakValueDictionary()


def host_called(name: Any) -> Host:
    """
    The host *name*; all sets share it.

    :raises BadValue: when no host has such a name.
    """
    if not isinstance(name, str) or set(name) & set("@*?"):
        raise BadValue(name, "must be the name of one host, such as home.example")
    pattern = name_pattern(name)
    return _hosts.setdefault(pattern, Host(pattern))


class HostSet:
    """
    A set of hosts, for ``networks`` of :class:`~socksproxy.policy.sets.Sets`. A server that has it in its
    rules looks the names up.

    :param names: their names.
    :raises BadValue: for a name that no host has.
    """

    def __init__(self, names: Iterable[Any]) -> None:
        self.hosts = tuple(map(host_called, names))

    def range_of(self, number: int, ipv6: bool) -> tuple[int, int] | None:
        """See :meth:`.HoldsNetworks.range_of`."""
        address = number, ipv6
        return (number, number) if any(address in host.addresses for host in self.hosts) else None


class HostWatch:
    """
    Looks hosts up, again and again.

    :param reactor: gives the time.
    :param names: gives what looks names up.
    :param hosts: the hosts.
    """

    def __init__(self, reactor: Any, names: Callable[[], NameLookups], hosts: Iterable[Host]) -> None:
        self._reactor = reactor
        self._names = names
        self._hosts = list(dict.fromkeys(hosts))
        self._pending: dict[Host, Deferred[Any]] = {}
        self._timer: Any = None
        self._failures = {host: LogThrottle(reactor) for host in self._hosts}

    def start(self) -> None:
        """Look the names up now, and from now on."""
        self._timer = self._reactor.callLater(LOOK_EVERY, self.start)
        for host in self._hosts:
            if host not in self._pending:
                pending = self._pending[host] = self._names().lookup(host.name, 0)
                pending.addBoth(partial(self._answered, host))

    def stop(self) -> None:
        """Look no name up any more."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        pending, self._pending = self._pending, {}
        for each in pending.values():
            each.cancel()

    def _answered(self, host: Host, result: list[Address] | Failure) -> None:
        if self._pending.pop(host, None) is None and self._timer is None:
            return  # the watch has stopped
        now = self._reactor.seconds()
        if not isinstance(result, Failure):
            found = map(ip_address, (address.host for address in result))
            host.addresses = frozenset((int(address), address.version == 6) for address in found)
            host.known = now
            return
        if not result.check(NameNotFound, TooManyLookups):
            _log.failure("{name}: the look-up failed", result, name=host.name)
        if host.known is not None and now - host.known >= KEPT:
            host.addresses = frozenset()
        if self._failures[host].due():
            _log.warn(
                "{name}, a host of a set, is not found; {addresses}",
                name=host.name,
                addresses="its last addresses count" if host.addresses else "no client or destination is it",
            )
