"""
The sets of networks and of names that rules use: built-in sets, and sets of the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ...net.own_listeners import UNIX
from ...net.special_addresses import Special, special_network, special_networks
from ..rules import (
    BadValue,
    BadValues,
    Network,
    Problem,
    Rule,
    RuleError,
    entries_of,
    is_set,
    name_patterns,
    parse_network,
    problem_of,
)
from .files import SetFile
from .hosts import Host, HostSet
from .tables import HoldsNames, HoldsNetworks, glob

_KINDS = {
    "loopback": Special.LOOPBACK,
    "unspecified": Special.UNSPECIFIED,
    "link-local": Special.LINK_LOCAL,
    "metadata": Special.METADATA,
    "multicast": Special.MULTICAST,
    "broadcast": Special.BROADCAST,
    "reserved": Special.RESERVED,
}


def _built_in() -> dict[str, tuple[Network, ...]]:
    named: dict[str, tuple[Network, ...]] = {name: special_networks(kind) for name, kind in _KINDS.items()}
    named["special"] = tuple(network for networks in named.values() for network in networks)
    for name, texts in {
        "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
        "shared": ("100.64.0.0/10",),
        "documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"),
    }.items():
        named[name] = tuple(map(parse_network, texts))
    return named


#: The built-in sets of networks.
BUILT_IN: Mapping[str, tuple[Network, ...]] = _built_in()

#: The built-in set to which the operator may add networks, and the built-in set that contains it.
METADATA, _SPECIAL = "metadata", "special"
#: Names that no other set may have.
_TAKEN = tuple(name for name in (*BUILT_IN, UNIX) if name != METADATA)


class _JoinedNetworks:
    """
    A set of a few networks and other sets.

    :param networks: the networks.
    :param others: the other sets; a look-up asks each of them.
    """

    def __init__(self, networks: Iterable[Network], others: Iterable[HoldsNetworks]) -> None:
        self._ends = [
            (network.version == 6, int(network.network_address), int(network.broadcast_address))
            for network in networks
        ]
        self._others = tuple(others)

    def range_of(self, number: int, ipv6: bool) -> tuple[int, int] | None:
        """The smallest range that holds *number*: see :meth:`HoldsNetworks.range_of`."""
        found = [(first, last) for six, first, last in self._ends if six is ipv6 and first <= number <= last]
        found += [
            held for held in (other.range_of(number, ipv6) for other in self._others) if held is not None
        ]
        return min(found, key=lambda ends: ends[1] - ends[0], default=None)


class _JoinedNames:
    """
    A set of a few patterns of names and other sets.

    :param patterns: the patterns.
    :param others: the other sets; a look-up asks each of them.
    """

    def __init__(self, patterns: Iterable[str], others: Iterable[HoldsNames]) -> None:
        self._globs = [glob(pattern) for pattern in patterns]
        self._others = tuple(others)

    def holds(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self._globs) or any(
            other.holds(name) for other in self._others
        )


class Sets:
    """
    The sets that rules may name, beside :data:`BUILT_IN`.

    :param networks: sets of networks, by name. A set is a :class:`HoldsNetworks`, such as a file, or a list
        whose entries are networks, as rules write them, and objects of that kind.
    :param names: sets of names, by name. A set is a :class:`HoldsNames`, or a list of patterns and objects of
        that kind.
    :raises RuleError: with all mistakes.
    :ivar files: the files in the sets.
    :ivar hosts: the hosts in the sets.
    :ivar metadata: the special addresses that *networks* adds to the built-in set ``metadata``.
    """

    def __init__(
        self,
        networks: Mapping[str, Iterable[str | HoldsNetworks] | HoldsNetworks] | None = None,
        names: Mapping[str, Iterable[str | HoldsNames] | HoldsNames] | None = None,
    ) -> None:
        self.files: list[SetFile] = []
        self.hosts: list[Host] = []
        self._of_hosts: set[str] = set()
        problems: list[Problem] = []
        self.networks: dict[str, tuple[Network, ...] | HoldsNetworks] = dict(BUILT_IN)
        self.names: dict[str, tuple[str, ...] | HoldsNames] = {}
        self.metadata: tuple[Network, ...] = ()
        for name, content in (networks or {}).items():
            if not is_set(name) or name in _TAKEN:
                right = "must be a word in lower case, and none of " + ", ".join(_TAKEN)
                problems.append(Problem(name, "name", name, right, "set"))
                continue
            texts, others = self._parts(content, "range_of")
            if any(isinstance(other, HostSet) for other in others):
                self._of_hosts.add(name)
            fixed = _checked(name, "networks", texts, lambda text: (parse_network(text),), problems)
            if name == METADATA:
                if others:
                    right = "takes networks only, and no file"
                    problems.append(Problem(name, "name", name, right, "set"))
                self._add_metadata(fixed)
                continue
            several = bool(texts) or len(others) > 1
            self.networks[name] = (
                (_JoinedNetworks(fixed, others) if several else others[0]) if others else fixed
            )
        for name, patterns in (names or {}).items():
            if not is_set(name):
                problems.append(Problem(name, "name", name, "must be a word in lower case", "set"))
                continue
            texts, others = self._parts(patterns, "holds")
            fixed = _checked(name, "names", texts, _patterns, problems)
            self.names[name] = _joined(fixed, others, _JoinedNames)
        if problems:
            raise RuleError(problems)

    def special_network(self, address: IPv4Address | IPv6Address) -> Network | None:
        """The network that makes *address* itself special; None: the address is ordinary."""
        for network in self.metadata:
            if address in network:
                return network
        found = special_network(address)
        return None if found is None else found[1]

    def _add_metadata(self, networks: tuple[Network, ...]) -> None:
        self.metadata = networks
        for name in (METADATA, _SPECIAL):
            self.networks[name] = BUILT_IN[name] + networks

    def _parts(self, content: Any, asked: str) -> tuple[list[Any], list[Any]]:
        """The entries of *content*, and its objects with a method *asked*; files go to :attr:`files`."""
        parts = [content] if hasattr(content, asked) else list(content)
        others = [part for part in parts if hasattr(part, asked)]
        for part in others:
            if isinstance(part, SetFile) and not any(part is file for file in self.files):
                self.files.append(part)
            if isinstance(part, HostSet):
                self.hosts += part.hosts
        return [part for part in parts if not hasattr(part, asked)], others

    def problems(self, rule: Rule) -> list[Problem]:
        """A problem for each unknown set that *rule* names."""
        found = []
        for field in ("clients", "networks", "names"):
            known: Mapping[str, object] = self.names if field == "names" else self.networks
            for text in getattr(rule, field) or ():
                name = text[1:] if field == "names" else text
                if field == "networks" and name in self._of_hosts:
                    # Who has the name could lead the rule to any address.
                    right = "has hosts, which are for clients"
                    found.append(Problem(rule.name, field, text, right))
                named = text.startswith("@") if field == "names" else is_set(text)
                if not named or name in known or (field == "clients" and name == UNIX):
                    continue
                near = get_close_matches(name, known, 1)
                mark = "@" if field == "names" else ""
                right = f"there is no such set; {mark}{near[0]}?" if near else "there is no such set"
                found.append(Problem(rule.name, field, text, right))
        return found


def _joined(fixed: tuple[Any, ...], others: list[Any], join: Callable[[Any, Any], Any]) -> Any:
    """One set of the *fixed* entries and the *others*, made by *join* only if neither is enough alone."""
    if not others:
        return fixed
    return join(fixed, others) if fixed or len(others) > 1 else others[0]


def _patterns(value: Any) -> tuple[str, ...]:
    patterns = name_patterns(value)
    if patterns[0].startswith("@"):
        raise BadValue(value, "must be a name; sets have no sets in them")
    return patterns


def _checked(
    name: str,
    field: str,
    content: Iterable[str],
    parse: Callable[[Any], Iterable[Any]],
    problems: list[Problem],
) -> tuple[Any, ...]:
    try:
        return entries_of(content, parse)
    except BadValues as wrong:
        problems += [problem_of(entry, name, field, "set") for entry in wrong.entries]
        return ()
