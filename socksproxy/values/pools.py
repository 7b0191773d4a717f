"""
The settings of pools: upstream proxies among which each connection chooses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Protocol

import attrs

from ..wire.words import Address, Command
from .errors import ConfigError
from .upstreams import DIRECT, Upstream, UpstreamType, chain_of, check_upstream_name, commands_of

#: The word for a refusal where no member is left.
REFUSE = "refuse"


class Choose(Enum):
    """How a pool chooses among its members; the value is the word of the configuration."""

    #: The first one that lives, in the order of the list.
    FIRST = "first"
    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    LEAST_SESSIONS = "least-sessions"
    HASH_CLIENT = "hash-client"
    HASH_USER = "hash-user"
    HASH_DESTINATION = "hash-destination"

    @property
    def hashes(self) -> bool:
        """Whether a key decides: the client, the user or the destination."""
        return self in (Choose.HASH_CLIENT, Choose.HASH_USER, Choose.HASH_DESTINATION)


class HoldsMembers(Protocol):
    """
    A file of members.

    :ivar path: the file.
    :ivar table: the members by name; a change puts another table in its place.
    """

    @property
    def path(self) -> str: ...

    @property
    def table(self) -> Mapping[str, Upstream]: ...


@attrs.frozen(kw_only=True)
class PoolCheck:
    """
    How a pool looks whether its members work while no session tells.

    :ivar every: seconds in which each member is checked once.
    :ivar connect: the destination that members are asked for.
    :ivar at_once: most checks at the same time.
    """

    every: float
    connect: Address
    at_once: int = 8

    def __attrs_post_init__(self) -> None:
        if not self.every >= 1:
            raise ConfigError("not a number of seconds from 1 on", path=("every",))
        if not 1 <= self.at_once <= 1024:
            raise ConfigError("not a whole number from 1 to 1024", path=("at-once",))
        if not self.connect.port:
            raise ConfigError("the port is missing", path=("connect",))


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


@attrs.frozen(kw_only=True)
class UpstreamPool:
    """
    A pool: upstreams among which each connection chooses.

    :ivar members: the names of upstreams.
    :ivar members_file: a file with a member on each line: a URL such as socks5://user:password@host:1080, or
        HOST:PORT, which is SOCKS5. The file is read again when it has changed.
    :ivar choose: first, round-robin, random, least-sessions, hash-client, hash-user or hash-destination.
    :ivar backup: the names of upstreams that are asked when no member is left.
    :ivar tries: the most members that one connection tries.
    :ivar down_after: the failures in a row after which a member is down; only its own failures count.
    :ivar retry_after: seconds until one session tries a member that is down; each failure doubles them, up to
        300.
    :ivar check: table with every (seconds), connect (HOST:PORT) and at-once (8): members are checked, in
        each such time once.
    :ivar otherwise: what happens where no member is left: refuse, direct, or the name of an upstream or
        another pool.
    :raises ConfigError: when values do not go together; its path is the key.
    """

    members: Sequence[str] = attrs.field(default=(), converter=_names)
    members_file: HoldsMembers | None = attrs.field(default=None, repr=False)
    choose: Choose = attrs.field(default=Choose.FIRST, converter=Choose)
    backup: Sequence[str] = attrs.field(default=(), converter=_names)
    tries: int = 3
    down_after: int = 3
    retry_after: float = 10.0
    check: PoolCheck | None = None
    otherwise: str = REFUSE

    def __attrs_post_init__(self) -> None:
        if not self.members and self.members_file is None:
            raise ConfigError("there is no member", path=("members",), shown=False)
        for key, value in (("tries", self.tries), ("down-after", self.down_after)):
            if not 1 <= value <= 1000:
                raise ConfigError("not a whole number from 1 to 1000", path=(key,))
        if not 0 < self.retry_after <= MOST_RETRY_AFTER:
            raise ConfigError(f"not a number of seconds up to {MOST_RETRY_AFTER:g}", path=("retry-after",))


#: Most seconds until a member that is down is tried again.
MOST_RETRY_AFTER = 300.0


def members_of(pool: UpstreamPool, upstreams: Mapping[str, Upstream]) -> dict[str, Upstream]:
    """The members of *pool* by name: those of the list first, then those of the file."""
    found = {name: upstreams[name] for name in pool.members}
    if pool.members_file is not None:
        for name, upstream in pool.members_file.table.items():
            found.setdefault(name, upstream)
    return found


def commands_of_pool(
    name: str, pools: Mapping[str, UpstreamPool], upstreams: Mapping[str, Upstream]
) -> frozenset[Command]:
    """The commands that some way through the pool *name* carries."""
    found: frozenset[Command] = frozenset((Command.CONNECT,))
    step, seen = name, set()
    while step in pools and step not in seen:
        seen.add(step)
        pool = pools[step]
        ways = [*members_of(pool, upstreams).items(), *((each, upstreams[each]) for each in pool.backup)]
        for member, upstream in ways:
            found |= commands_of_member(member, upstream, upstreams)
        step = pool.otherwise
    if step in upstreams:
        found |= commands_of_member(step, upstreams[step], upstreams)
    return found


def commands_of_member(
    name: str, upstream: Upstream, upstreams: Mapping[str, Upstream]
) -> frozenset[Command]:
    """
    The commands that the member *name* of a pool carries.

    :param upstream: its settings; a file of members alone may have it.
    """
    chain = chain_of(name, upstreams) if name in upstreams else ()
    direct = upstream.type is UpstreamType.DIRECT
    return commands_of([upstreams[each] for each in chain] or ([] if direct else [upstream]))


def commands_by(
    name: str, pools: Mapping[str, UpstreamPool], upstreams: Mapping[str, Upstream]
) -> frozenset[Command]:
    """The commands that the way out *name* carries."""
    if name in pools:
        return commands_of_pool(name, pools, upstreams)
    return commands_of([upstreams[each] for each in chain_of(name, upstreams)])


def pool_looks_up(name: str, pools: Mapping[str, UpstreamPool], upstreams: Mapping[str, Upstream]) -> bool:
    """
    Whether names of destinations leave through the pool *name* as names.

    They do where every way that it may take looks names up; else they are looked up here.
    """
    pool = pools[name]
    found = [*members_of(pool, upstreams).values(), *(upstreams[each] for each in pool.backup)]
    if not all(map(looks_up, found)):
        return False
    if pool.otherwise == REFUSE:
        return True
    if pool.otherwise in pools:
        return pool_looks_up(pool.otherwise, pools, upstreams)
    return pool.otherwise in upstreams and looks_up(upstreams[pool.otherwise])


def looks_up(upstream: Upstream) -> bool:
    """Whether *upstream* gets names of destinations as they are."""
    return upstream.type is not UpstreamType.DIRECT and upstream.takes_names


def problems_of_pools(
    pools: Mapping[str, UpstreamPool], upstreams: Mapping[str, Upstream]
) -> Iterable[ConfigError]:
    """The mistakes in *pools* together: names that are taken, unknown members, loops."""
    for name, pool in pools.items():
        try:
            check_upstream_name(name)
        except ConfigError as problem:
            yield problem.within((name,))
            continue
        if name in upstreams:
            yield ConfigError("an upstream has this name, too", path=(name,), shown=False)
            continue
        yield from _unknown(name, pool, pools, upstreams)
        yield from _wrong_otherwise(name, pools, upstreams)


def _unknown(
    name: str, pool: UpstreamPool, pools: Mapping[str, UpstreamPool], upstreams: Mapping[str, Upstream]
) -> Iterator[ConfigError]:
    seen: set[str] = set()
    for key, names in (("members", pool.members), ("backup", pool.backup)):
        for number, member in enumerate(names):
            path = (name, key, number)
            if member in seen:
                yield ConfigError("stands there already", path=path)
            elif member in pools and member not in upstreams:
                yield ConfigError("a pool is no member; otherwise leads to another pool", path=path)
            elif member not in upstreams:
                yield ConfigError(f"there is no such upstream{_hint(member)}", path=path)
            seen.add(member)


def _hint(member: str) -> str:
    return "; a member that leaves directly is an upstream of type direct" if member == DIRECT else ""


def _wrong_otherwise(
    name: str, pools: Mapping[str, UpstreamPool], upstreams: Mapping[str, Upstream]
) -> Iterator[ConfigError]:
    steps = [name]
    while (step := pools[steps[-1]].otherwise) in pools:
        if step in steps:
            if step == name:
                loop = " > ".join([*steps, step])
                yield ConfigError(f"the way is a loop: {loop}", path=(name, "otherwise"))
            return
        steps.append(step)
    if len(steps) == 1 and step not in (REFUSE, DIRECT) and step not in upstreams:
        yield ConfigError("not refuse, direct, or an upstream or pool of the file", path=(name, "otherwise"))


def pools_of(pools: Mapping[str, UpstreamPool]) -> dict[str, UpstreamPool]:
    """A copy of *pools*."""
    return dict(pools)


def check_pools(pools: Mapping[str, UpstreamPool], upstreams: Mapping[str, Upstream]) -> None:
    """
    Check *pools*.

    :raises ConfigError: for the first mistake.
    """
    for problem in problems_of_pools(pools, upstreams):
        raise problem


def need_way(via: str, others: Collection[str], upstreams: Mapping[str, Upstream]) -> None:
    """
    See that there is a way out *via*.

    :param others: the names of pools, and of other ways out that are no upstreams.
    :raises ConfigError: when there is none.
    """
    if via not in others:
        chain_of(via, upstreams)
