"""
The words for the choice of a pool's member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..values.outgoing import Asker
from ..values.pools import REFUSE, UpstreamPool, commands_of_member, members_of
from ..values.rendezvous import Rendezvous
from ..values.upstreams import DIRECT, Upstream, chain_of
from ..wire.words import Command
from .choosing import key_for

#: The most members that are named.
_MOST = 10


def words_of_choice(
    pool: UpstreamPool,
    upstreams: Mapping[str, Upstream],
    asker: Asker,
    host: str,
    command: Command = Command.CONNECT,
) -> str:
    """
    The members of *pool* in the order in which a connection tries them, as far as the settings tell.

    :param upstreams: the upstreams by name.
    :param asker: the client and the user.
    :param host: of the destination.
    :param command: of the request; members that do not carry it are passed by.
    """
    members = members_of(pool, upstreams)
    known = {**upstreams, **members}
    how, names = pool.choose.value, list(members)
    if pool.choose.hashes:
        ring = Rendezvous((name, upstream.weight, name) for name, upstream in members.items())
        names = ring.order(key_for(pool.choose, asker, host), len(names))

    def carrying(names: Sequence[str]) -> list[str]:
        return [name for name in names if command in commands_of_member(name, known[name], upstreams)]

    names, backup = carrying(names), carrying(pool.backup)
    told = [f"{how}: {_listed(names, known)}"]
    if backup:
        told.append(f"then {_listed(backup, known)}")
    if pool.otherwise == DIRECT and not names and not backup and command is not Command.CONNECT:
        return told[0]  # see socksproxy.routes.pool.PoolRoute.otherwise_for
    last = {REFUSE: "refused", DIRECT: "directly"}.get(pool.otherwise, f"via {pool.otherwise}")
    return "; ".join([*told, f"then {last}"])


def _listed(names: Sequence[str], upstreams: Mapping[str, Upstream]) -> str:
    told = [_way(name, upstreams) for name in names[:_MOST]]
    if len(names) > _MOST:
        return f"{', '.join(told)} and {len(names) - _MOST} more"
    return ", ".join(told) or "no member"


def _way(name: str, upstreams: Mapping[str, Upstream]) -> str:
    """The upstream *name*, behind those through which it is reached."""
    told = " > ".join(chain_of(name, upstreams)) if upstreams[name].via is not None else name
    weight = upstreams[name].weight
    return told if weight == 1 else f"{told} (weight {weight})"
