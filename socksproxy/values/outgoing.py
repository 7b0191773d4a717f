"""
The addresses of this machine from which connections leave, and on which BIND listens.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import count
from random import SystemRandom
from typing import Any, NamedTuple

from ..wire.words import Address, AddressType
from .errors import ConfigError
from .rendezvous import first_of, key_of

#: The families of addresses, as settings write them.
FAMILIES = ("ipv4", "ipv6")
#: The word for the address that the client has reached.
SAME = "same"
#: The word for the server's address, or the system's choice, where a list has no address of a family.
FALLBACK = "fallback"
#: The ways to choose from a list; the first one counts where a list names none.
ROUND_ROBIN, RANDOM, HASH_CLIENT, HASH_USER, STICKY = CHOICES = (
    "round-robin",
    "random",
    "hash-client",
    "hash-user",
    "sticky",
)

# Python's socket module lacks both numbers of Linux.
_FREEBIND = {
    socket.AF_INET: (socket.IPPROTO_IP, getattr(socket, "IP_FREEBIND", 15)),
    socket.AF_INET6: (socket.IPPROTO_IPV6, getattr(socket, "IPV6_FREEBIND", 78)),
}


class FreeAddress(str):
    """A literal address of a prefix. No interface needs to have it: sockets are bound with IP_FREEBIND."""

    __slots__ = ()


def free_bind(link: socket.SocketType, host: str) -> None:
    """
    Have *link* take *host*, if that is a :class:`FreeAddress`, although no interface has it.

    :raises OSError: where the system cannot.
    """
    if isinstance(host, FreeAddress):
        link.setsockopt(*_FREEBIND[socket.AddressFamily(link.family)], 1)


class Outgoing(NamedTuple):
    """
    The addresses that connections leave from; None: the system's choice.

    :ivar ipv4: a literal address of this machine, for IPv4 destinations.
    :ivar ipv6: a literal address of this machine, for IPv6 destinations.
    :ivar strict: whether destinations of a family without an address are refused.
    """

    ipv4: str | None = None
    ipv6: str | None = None
    strict: bool = False

    def source(self, destination: Address) -> tuple[str, int] | None:
        """
        The address to bind a socket to before it connects to *destination*; None: the system's choice.

        :raises OSError: (EAFNOSUPPORT) where there is no address of the family, and *strict* is set.
        """
        host = self.ipv6 if destination.type is AddressType.IPV6 else self.ipv4
        if host is not None:
            return host, 0
        if self.strict:
            raise OSError(errno.EAFNOSUPPORT, "no outgoing address of this family")
        return None

    def over(self, other: Outgoing) -> Outgoing:
        """These addresses, with *other*'s for a family without an address, unless *strict* is set."""
        if self.strict:
            return self
        return Outgoing(self.ipv4 or other.ipv4, self.ipv6 or other.ipv6, other.strict)


def outgoing_of(hosts: Iterable[Any]) -> Outgoing:
    """
    The addresses in *hosts*.

    :param hosts: at most one literal address of each family; an :class:`Outgoing` stays what it is.
    :raises ConfigError: for anything else; its path has the number of the entry.
    """
    if isinstance(hosts, Outgoing):
        return hosts
    found: dict[int, str] = {}
    for number, host in enumerate(_list(hosts)):
        version = _version(host)
        if version is None:
            raise ConfigError("not a literal IPv4 or IPv6 address", host, path=(number,))
        if version in found:
            raise ConfigError(f"one IPv{version} address is enough", host, path=(number,))
        found[version] = host
    return Outgoing(found.get(4), found.get(6))


class Asker(NamedTuple):
    """
    The client and the user for whom an address is chosen.

    :ivar client: the client's address, or the /64 network of an IPv6 client.
    :ivar user: the user's name; None: the client has not logged in.
    :ivar reached: the literal address that the client has reached; None: there is none, or no list needs it.
    :ivar pin: the key of the sticky session (:mod:`socksproxy.values.rendezvous`); None: it is none.
    """

    client: str = ""
    user: str | None = None
    reached: str | None = None
    pin: bytes | None = None


class Sources(tuple[str, ...]):
    """
    The list of a setting ``outgoing``, in the words of the operator.

    :param words: literal addresses, prefixes, and words: ``same``, ``fallback``, one of :data:`CHOICES`.
    :param chance: gives a random number below its argument.
    :raises ConfigError: for anything else; its path has the number of the entry.
    :ivar same: whether connections leave from the address that the client has reached.
    :ivar fallback: whether the server or the system decides about a family without an address.
    :ivar choice: how one of several addresses is chosen.
    :ivar ipv4: the addresses and prefixes of IPv4.
    :ivar ipv6: the addresses and prefixes of IPv6.
    :ivar fixed: the addresses, where every connection has the same ones; None: each connection chooses.
    """

    def __new__(
        cls, words: Iterable[Any] = (), chance: Callable[[int], int] = SystemRandom().randrange
    ) -> Sources:
        self = super().__new__(cls, _listed(words))
        errors = self._read(chance)
        if errors:
            raise errors[0]
        return self

    def _read(self, chance: Callable[[int], int] = SystemRandom().randrange) -> list[ConfigError]:
        """Set the attributes from the words, and return the mistakes in them."""
        errors: list[ConfigError] = []
        self.same, self.fallback, self.choice = False, False, ""
        found: dict[int, list[str | IPv4Network | IPv6Network]] = {4: [], 6: []}
        for number, word in enumerate(self):
            if word in (SAME, FALLBACK):
                self.same, self.fallback = self.same or word == SAME, self.fallback or word == FALLBACK
            elif word in CHOICES:
                if self.choice:
                    errors.append(ConfigError(f"{self.choice} is said already", word, path=(number,)))
                self.choice = word
            else:
                try:
                    version, entry = _entry(word)
                except ConfigError as problem:
                    errors.append(ConfigError(problem.reason, word, path=(number,)))
                    continue
                if entry in found[version]:
                    errors.append(ConfigError("stands there already", word, path=(number,)))
                found[version].append(entry)
        self.ipv4, self.ipv6 = tuple(found[4]), tuple(found[6])
        if self and not (errors or self.same or self.ipv4 or self.ipv6):
            errors.append(ConfigError("there is no address in the list", self[0], path=(0,)))
        self.choice = self.choice or ROUND_ROBIN
        self.fixed: Outgoing | None = None
        if not self.same and all(len(each) < 2 for each in (self.ipv4, self.ipv6)):
            hosts = [each[0] if each else None for each in (self.ipv4, self.ipv6)]
            if all(host is None or isinstance(host, str) for host in hosts):
                self.fixed = Outgoing(*hosts)  # type: ignore[arg-type]
        self._chance = chance
        if self.fixed is None:
            # A random start, so that workers and reloads do not all begin with the first address.
            self._turns = count(chance(1 << 16))
        return errors

    def __reduce__(self) -> tuple[Any, ...]:
        return Sources, (tuple(self),)

    def pick(self, asker: Asker) -> Outgoing:
        """The addresses for *asker*: one of each family, or None where the list has none."""
        if asker.pin is None:
            number = self._number(asker)
            ipv4, ipv6 = self._nth(self.ipv4, number), self._nth(self.ipv6, number)
        else:
            ipv4, ipv6 = _pinned(self.ipv4, asker.pin), _pinned(self.ipv6, asker.pin)
        if self.same and asker.reached is not None:
            if ":" in asker.reached:
                ipv6 = asker.reached
            else:
                ipv4 = asker.reached
        return Outgoing(ipv4, ipv6)

    def _number(self, asker: Asker) -> int:
        if self.choice == ROUND_ROBIN:
            return next(self._turns)
        if self.choice == RANDOM:
            return self._chance(1 << 128)
        user = None if self.choice == HASH_CLIENT else asker.user
        key = f"client {asker.client}" if user is None else f"user {user}"
        return int.from_bytes(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).digest(), "big")

    def _nth(self, entries: Sequence[str | IPv4Network | IPv6Network], number: int) -> str | None:
        if not entries:
            return None
        number, place = divmod(number, len(entries))
        entry = entries[place]
        if self.choice == ROUND_ROBIN and not isinstance(entry, str):
            number = self._chance(_usable(entry)[1])
        return _address_in(entry, number)

    def told(self, word: str | None = None) -> str:
        """
        The words for the choice of an address; empty: there is no choice.

        :param word: the word of a sticky session; None: it is none.
        """
        said = ["the address that the client has reached"] if self.same else []
        prefix = any(not isinstance(entry, str) for entry in (*self.ipv4, *self.ipv6))
        if prefix or max(len(self.ipv4), len(self.ipv6)) > 1:
            said.append(self.choice if word is None else f"by the session word {word}")
        return ", else ".join(said)


def _pinned(entries: Sequence[str | IPv4Network | IPv6Network], pin: bytes) -> str | None:
    """The address of the sticky session with the key *pin*."""
    if not entries:
        return None
    words = [str(entry) for entry in entries]
    place = first_of(pin, words)
    return _address_in(entries[place], int.from_bytes(key_of(pin.hex(), words[place]), "big"))


def _address_in(entry: str | IPv4Network | IPv6Network, number: int) -> str:
    """The address *entry*, or the one with that *number* of a prefix."""
    if isinstance(entry, str):
        return entry
    first, size = _usable(entry)
    return FreeAddress(entry[first + number % size])


def sources_of(words: Any) -> Sources:
    """*words* as :class:`Sources`; they may be :class:`Sources` or an :class:`Outgoing` already."""
    if not words:
        return UNSAID
    if isinstance(words, Sources):
        return words
    if isinstance(words, Outgoing):
        return Sources(host for host in words[:2] if host is not None)
    return Sources(words)


def leaving(asker: Callable[[], Asker], rule: Sources, user: Sources, server: Sources) -> Outgoing:
    """
    The addresses from which a connection leaves.

    :param asker: gives the client and the user; called only where there is a choice.
    :param rule: the list of the rule, which comes first.
    :param user: the list of the user.
    :param server: the list of the server. It counts where both other lists are empty, or one of them has
        ``fallback``. Where its addresses are fixed, the route adds them.
    """
    found = _picked(asker, rule).over(_picked(asker, user)) if rule and user else _picked(asker, rule or user)
    if not (rule or user or server.fixed is None):
        return found
    if (rule or user) and not (rule.fallback or user.fallback):
        return found._replace(strict=True)
    if server.fixed is not None or (found.ipv4 and found.ipv6):
        return found
    return found.over(_picked(asker, server)._replace(strict=server.same and not server.fallback))


def _picked(asker: Callable[[], Asker], sources: Sources) -> Outgoing:
    return sources.pick(asker()) if sources.fixed is None else sources.fixed


def problems_with(words: Any) -> list[ConfigError]:
    """All mistakes in *words* for :class:`Sources`; each path begins with the number of the entry."""
    try:
        return tuple.__new__(Sources, _listed(words))._read()
    except ConfigError as problem:
        return [problem]


def is_address(word: str) -> bool:
    """Whether *word* is a literal address, and no prefix or other word."""
    return _version(word) is not None


def _listed(words: Any) -> list[Any]:
    return [SAME] if isinstance(words, str) and words == SAME else _list(words)


def _list(hosts: Any) -> list[Any]:
    if isinstance(hosts, (str, bytes)) or not isinstance(hosts, Iterable):
        raise ConfigError("not a list")
    return list(hosts)


def _version(host: Any) -> int | None:
    """The IP version of the literal address *host*; None: *host* is no literal address."""
    try:
        return ip_address(host).version if isinstance(host, str) and "%" not in host else None
    except ValueError:
        return None


def _entry(word: Any) -> tuple[int, Any]:
    """The IP version of *word*, and the address or the prefix in it."""
    version = _version(word)
    if version is not None:
        return version, word
    if not isinstance(word, str) or "/" not in word or "%" in word:
        raise ConfigError(f"not a literal IPv4 or IPv6 address, a prefix, or a word such as {SAME}")
    try:
        network = ip_network(word)
    except ValueError as problem:
        raise ConfigError(f"not a prefix such as 2001:db8:5::/64: {problem}") from None
    return network.version, network


def _usable(network: IPv4Network | IPv6Network) -> tuple[int, int]:
    """
    The first address of *network* that a host may have, and how many such addresses there are.

    The first address of an IPv6 prefix is its routers' anycast address (RFC 4291, section 2.6.1). IPv4
    reserves the first and the last one (RFC 3021 excepts a prefix of 31 bits).
    """
    size = network.num_addresses
    if size <= 2:
        return 0, size
    return 1, size - (2 if network.version == 4 else 1)


#: The empty list, where a setting ``outgoing`` is not given.
UNSAID = Sources()
