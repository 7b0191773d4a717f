"""
Warnings about entries of a configuration file that are valid, but hardly meant.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import attrs

from ..net.own_listeners import UNIX
from ..net.sockets import namespace_path
from ..policy.rules import COMMANDS, DAYS, VERSIONS, Rule
from ..policy.sets import Sets
from ..values.errors import ConfigError
from ..values.logs import log_place
from ..values.pools import UpstreamPool, commands_by
from ..values.upstreams import Upstream
from ..wire.words import AddressType, Command
from .upstreams import names_resolved_by
from .words import RULE, UPSTREAMS

#: The fields of a rule that are no conditions.
_EFFECTS = frozenset(
    {
        "name",
        "allow",
        "ends_sessions",
        "outgoing",
        "via",
        "limits",
        "user_limits",
        "quota",
        "timeouts",
        "log",
    }
)
_CONDITIONS = tuple(field.name for field in attrs.fields(Rule) if field.name not in _EFFECTS)
_EVERYWHERE = frozenset({"0.0.0.0/0", "::/0"})
_EVERY_COMMAND = frozenset(command for commands in COMMANDS.values() for command in commands)
#: Words that mean something else than a file in other programs.
_NO_FILES = re.compile(r"-|stdout|stderr|journal|console|none|off|no|null|true|false", re.I)


def of_log(path: str) -> str | None:
    """The warning about the *path* of a log; None: there is none."""
    try:
        place = log_place(path)
    except ValueError:
        return None  # it is a mistake
    if not place.is_file and place.path and not os.path.exists(place.path):
        return "there is no such socket now: lines are lost until there is"
    if not _NO_FILES.fullmatch(path):
        return None
    if path.lower() in ("stdout", "stderr"):
        return f"a file of this name is written; /dev/{path.lower()} is the stream"
    return (
        "a file of this name is written; a log may go to a file, journald, syslog, /dev/stdout or /dev/stderr"
    )


def of_rules(
    rules: Sequence[Rule], tables: Sequence[Mapping[str, Any]], sets: Sets, users: Collection[str]
) -> Iterator[ConfigError]:
    """
    The warnings about *rules*.

    :param tables: the tables of the file from which the rules were read.
    :param sets: the sets that the rules name.
    :param users: the names of all users with a record.
    """
    yield from _behind(rules)
    for number, rule in enumerate(rules):
        if rule.ends_sessions and not rule.timed:
            yield ConfigError("says nothing without days or hours", path=(RULE, number, "ends-sessions"))
    for number, table in enumerate(tables):
        for at, user in enumerate(table.get("users", ())):
            if set(user) & set("*?") and user not in users:
                right = (
                    "no pattern: only a user of exactly this name is meant; patterns stand in user-patterns"
                )
                yield ConfigError(right, path=(RULE, number, "users", at))
        for at, name in enumerate(table.get("names", ())):
            if name in sets.names:
                yield ConfigError(
                    f'a host of this name is meant; the set is "@{name}"', path=(RULE, number, "names", at)
                )
            elif name in sets.networks:
                right = "a host of this name is meant; the set of networks of this name stands in networks"
                yield ConfigError(right, path=(RULE, number, "names", at))


def of_ways(
    rules: Sequence[Rule],
    others: Sequence[str],
    upstreams: Mapping[str, Upstream],
    pools: Mapping[str, UpstreamPool],
) -> Iterator[ConfigError]:
    """
    The warnings about rules by network where an upstream looks names up, so that no address is known here.

    :param others: the ways out of the server, of users and of groups.
    """
    behind: tuple[Rule, str] | None = None
    found = []
    for number, rule in reversed(list(enumerate(rules))):
        ways = others if rule.via is None else [rule.via]
        resolvers = (names_resolved_by(way, upstreams, pools) for way in ways)
        resolver = next((each for each in resolvers if each is not None), None)
        if resolver is not None and rule.allow and Command.CONNECT in (rule.commands or _EVERY_COMMAND):
            behind = rule, resolver
        if rule.networks is None or behind is None:
            continue
        if set(rule.networks) >= _EVERYWHERE or Command.CONNECT not in (rule.commands or _EVERY_COMMAND):
            continue
        by = "this rule" if behind[0] is rule else f'the rule "{behind[0].name}"'
        right = f"names are not compared with networks where {by} has the upstream {behind[1]} look them up"
        found.append(ConfigError(right, path=(RULE, number, "networks"), shown=False))
    yield from reversed(found)


def of_commands(
    rules: Sequence[Rule], upstreams: Mapping[str, Upstream], pools: Mapping[str, UpstreamPool]
) -> Iterator[ConfigError]:
    """The warnings about rules whose way out carries none of their commands."""
    for number, rule in enumerate(rules):
        if not rule.allow or rule.commands is None or rule.via is None:
            continue
        if commands_by(rule.via, pools, upstreams).isdisjoint(rule.commands):
            right = f"the way out {rule.via} carries none of these commands: clients get reply 7"
            yield ConfigError(right, path=(RULE, number, "commands"), shown=False)


def of_upstreams(upstreams: Mapping[str, Upstream], resolver: str) -> Iterator[ConfigError]:
    """
    The warnings about sockets that cannot leave as an upstream says, and about look-ups that do not.

    :param resolver: the option of this name.
    """
    for name, upstream in upstreams.items():
        if upstream.interface is not None and upstream.netns is None and not _is_there(upstream.interface):
            right = "there is no such interface now: connections fail until there is one"
            yield ConfigError(right, path=(UPSTREAMS, name, "interface"))
        if upstream.netns is not None and not os.path.exists(namespace_path(upstream.netns)):
            right = "there is no such namespace now: connections fail until there is one"
            yield ConfigError(right, path=(UPSTREAMS, name, "netns"))
        keys = [key for key in ("interface", "mark", "netns") if getattr(upstream, key) is not None]
        if keys and resolver == "system" and _has_names(upstream):
            right = 'names are looked up by the C library, which leaves otherwise; "dns:HOST" does not'
            yield ConfigError(right, path=(UPSTREAMS, name, keys[0]), shown=False)


def _is_there(interface: str) -> bool:
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def _has_names(upstream: Upstream) -> bool:
    """Whether names are looked up here for *upstream*: those of destinations, or its own."""
    address = upstream.address
    return not upstream.takes_names or address is None or address.type is AddressType.DOMAIN_NAME


def _behind(rules: Sequence[Rule]) -> Iterator[ConfigError]:
    """The warnings about rules that never decide, because a rule before them always does."""
    seen: dict[tuple[Any, ...], str] = {}
    nothing = (None,) * len(_CONDITIONS)
    for number, rule in enumerate(rules):
        conditions = _essential(rule)
        if nothing in seen:
            right = f'never decides: the rule "{seen[nothing]}" before it matches everything'
            yield ConfigError(right, path=(RULE, number), shown=False)
        elif conditions in seen:
            right = f'never decides: the rule "{seen[conditions]}" before it has the same conditions'
            yield ConfigError(right, path=(RULE, number), shown=False)
        seen.setdefault(conditions, rule.name)


def _essential(rule: Rule) -> tuple[Any, ...]:
    """The conditions of *rule* in a form for comparison; None stands for a condition that always holds."""
    values = {name: getattr(rule, name) for name in _CONDITIONS}
    found = {name: frozenset(value) if isinstance(value, tuple) else value for name, value in values.items()}
    for name, all_of_it in (
        ("versions", frozenset(VERSIONS.values())),
        ("commands", _EVERY_COMMAND),
        ("days", frozenset(DAYS)),
        ("hours", frozenset({"00:00-24:00"})),
        ("networks", _EVERYWHERE),
        ("clients", _EVERYWHERE | {UNIX}),
    ):
        if found[name] is not None and found[name] >= all_of_it:
            found[name] = None
            if name == "networks":
                found["names"] = None
    if found["days"] is None and found["hours"] is None:
        found["zone"] = None
    return tuple(found[name] for name in _CONDITIONS)
