"""
The configuration file: TOML with what options say, and with users, rules, sets and limits.

What the value of an option means, and whether it is right, is for the parsing of options
(:mod:`~socksproxy.config.command_line`), as if it had been on the command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import tzinfo
from typing import Any

from ..auth.directory import Directory
from ..logs.printable import in_one_line
from ..policy.compiled import RulePolicy
from ..runtime.zones import zone_called
from ..values.errors import ConfigError, Path
from ..values.outgoing import is_address
from .admin import admin_of
from .helpers import check_helper, helpers_in
from .limits import check_quota_file, server_limits
from .listeners import Listening, listeners_of, problem_with
from .metrics import metrics_of
from .options import BY_NAME, PLACES, SCOPES, TABLES, Option, keys_of
from .overlay import Places, Standing, overlaid
from .pools import pools_in
from .readers import Reader, each, plain, read_table, text, typed
from .records import records_of
from .redacted import without_secrets
from .rules import policy_of
from .shared import node_in, shared_in
from .sticky import check_choice, check_names, sticky_of
from .syntax import parsed
from .upstreams import check_way, upstreams_in
from .users import check_groups, directory_of
from .warnings import of_commands, of_log, of_rules, of_upstreams, of_ways
from .words import (
    ADMIN,
    GROUPS,
    HELPERS,
    METRICS,
    MOST_BYTES,
    MOST_TOLD,
    NODE,
    OTHERS,
    POOLS,
    RULE,
    SETS,
    SHARED,
    STICKY,
    UPSTREAMS,
    USAGE,
    USERS,
    in_option,
    listed,
    nearest,
    place,
    shown,
)

__all__ = ["MOST_BYTES", "Configured", "read"]

_OPTION = re.compile(r"--([a-z][a-z0-9-]*)")


class Configured:
    """
    What a file says.

    :param file: its name.
    :param document: what is in it, under what is in the file of the node.
    :param places: where each thing stands.
    :param errors: what is wrong already.
    :param directory: from where it names files.
    :param node: the name of the file of the node, if there is one.
    :ivar errors: all that is wrong, except with the values of options.
    :ivar said: what it says for each option, as the command line would: text, texts, or True.
    :ivar limits: what it says of limits that no option says.
    :ivar quota_file: what keeps how much of the daily and monthly ones is used; None: there are none.
    :ivar time_zone: the time zone whose days and months these are; None: the machine's.
    :ivar upstreams: its upstream proxies; None: they are wrong.
    :ivar pools: its pools of upstreams; None: they, or the upstreams, are wrong.
    :ivar sticky: its names with which users keep one address; None: it has none, or they are wrong.
    :ivar admin: its admin sockets; None: it has none, or they are wrong.
    :ivar helpers: its external helpers; None: they are wrong.
    :ivar node: what it says of this node alone.
    :ivar shared: the store that it names; None: none, or its settings are wrong.
    :ivar metrics: what is counted; None: nothing is.
    :ivar records: where usage records are kept; None: nowhere.
    :ivar directory: its users' records; None: it has none, or they are wrong.
    :ivar policy: what its rules come to; None: it has none, or they are wrong.
    :ivar used: the options for which that is what counts.
    :ivar unused: what is wrong with values that do not count.
    :ivar wrong: the options for which it says something of which nothing can be known.
    """

    def __init__(
        self,
        file: str,
        document: dict[str, Any],
        places: Places,
        errors: Iterable[ConfigError] = (),
        directory: str = "",
        node: str = "",
    ) -> None:
        self.file = file
        self._node = node
        self.errors = list(errors)
        self.used: set[str] = set()
        self.unused: list[ConfigError] = []
        self.wrong: set[str] = set()
        self._document = document
        self._places = places
        options, scopes = _parts(document)
        found = self._read_options(options)
        self.said = {
            name: _as_option(value)
            for name, value in found.items()
            if value is not False and BY_NAME[name].on_command_line
        }
        self.quota_file: str | None = found.get("quota-file")
        self.time_zone = self._zone(found.get("time-zone"))
        self._check_quota_file(directory)
        counted = self.quota_file is not None or "quota-file" in self.wrong
        known = len(self.errors)
        self._faulty: set[Path] = set()
        self.limits = server_limits(scopes, counted, self.errors)
        self.upstreams = upstreams_in(document.get(UPSTREAMS), directory, self.errors)
        if self.upstreams is None:
            self.wrong.add(UPSTREAMS)
        self.pools = pools_in(document.get(POOLS), directory, self.upstreams, self.errors)
        self.sticky = sticky_of(document.get(STICKY), directory, self.errors)
        if self.sticky is None and STICKY in document:
            self.wrong.add(STICKY)
        self.admin = admin_of(document.get(ADMIN), directory, self.errors)
        self.helpers = helpers_in(document.get(HELPERS), self.errors)
        if self.helpers is None:
            self.wrong.add(HELPERS)
        self.node = node_in(document.get(NODE), self._has_admin_address, self.errors)
        self.shared = shared_in(document.get(SHARED), self.node.name, directory, self.errors)
        self.metrics = metrics_of(document.get(METRICS), self.errors)
        self.records = records_of(document.get(USAGE), self.node.name, directory, self.errors)
        self.directory = self._read_users(counted)
        self.policy = self._read_rules(counted, directory)
        self._check_ways()
        self._check_sticky()
        self._faulty = {error.path for error in self.errors[known:]}

    def _read_options(self, tables: dict[str, Any]) -> dict[str, Any]:
        errors: list[ConfigError] = []
        found: dict[str, Any] = {}
        for name, table in tables.items():
            if name not in TABLES:
                errors.append(ConfigError(self._unknown_table(name), path=(name,), shown=False))
                continue
            readers = {key: _reader(option) for key, option in keys_of(name).items()}
            try:
                found |= read_table(table, (name,), readers, errors, unknown=self._unknown)
            except ConfigError:
                errors.append(ConfigError(self._no_table(name), path=(name,), shown=False))
        self._left_out = {error.path for error in errors if isinstance(error.path[-1], int)}
        self.wrong |= {str(error.path[1]) for error in errors if len(error.path) == 2 and error.shown}
        errors.sort(key=lambda error: self._order(self._places.of(error.path)))
        self.errors += errors[:MOST_TOLD]
        if len(errors) > MOST_TOLD:
            node, first = self._places.of(errors[MOST_TOLD].path)
            line = None if node else first
            self.errors.append(ConfigError(f"and {len(errors) - MOST_TOLD} more such mistakes", line=line))
        return found

    @property
    def _has_admin_address(self) -> bool:
        """Whether there is an admin socket at an address, or may be: what is wrong is not read."""
        if self.admin is None:
            return ADMIN in self._document
        return any(not each.is_unix for each in self.admin.listeners)

    def _zone(self, name: str | None) -> tzinfo | None:
        try:
            return None if name is None else zone_called(name)
        except ValueError as problem:
            self.errors.append(ConfigError(str(problem), name, path=("limits", "time-zone")))
            return None

    def _check_quota_file(self, directory: str) -> None:
        if self.quota_file is None:
            return
        try:
            check_quota_file(os.path.join(directory, self.quota_file))
        except ConfigError as problem:
            self.errors.append(problem.within(("limits", "quota-file")))

    def _read_users(self, counted: bool) -> Directory | None:
        known = len(self.errors)
        users, groups = self._document.get(USERS), self._document.get(GROUPS)
        directory = directory_of(users, groups, counted, self.errors)
        if len(self.errors) > known:
            self.wrong.add(USERS)
        return directory

    def _read_rules(self, counted: bool, directory: str) -> RulePolicy | None:
        known = len(self.errors)
        rules, groups = self._document.get(RULE), self._document.get(GROUPS)
        policy = policy_of(rules, self._document.get(SETS), counted, directory, self.errors)
        for number, table in enumerate(rules if isinstance(rules, list) else ()):
            if isinstance(table, dict):
                check_groups(table.get("groups"), (RULE, number, "groups"), groups, self.errors)
        if len(self.errors) > known:
            self.wrong.add(RULE)
        return policy

    def _check_ways(self) -> None:
        """Note ways out of users, groups and rules, and helpers, that there are not."""
        for kind in (USERS, GROUPS, RULE):
            for name, table in self._tables(kind):
                if self.pools is not None and self.upstreams is not None and isinstance(table, dict):
                    ways = {**self.upstreams, **self.pools}
                    check_way(table.get("via"), (kind, name, "via"), ways, self.errors)
        for name, table in self._tables(RULE):
            if self.helpers is not None and isinstance(table, dict):
                check_helper(table.get("ask"), (RULE, name, "ask"), self.helpers, self.errors)

    def _check_sticky(self) -> None:
        """Note names of users that are no names of users, and choices that last for no time."""
        users = self._document.get(USERS)
        if self.sticky is not None and isinstance(users, dict):
            check_names(self.sticky, users, self.errors)
        for path, word in self._entries("outgoing", USERS, GROUPS, RULE):
            problem = check_choice(word, STICKY in self._document)
            if problem is not None:
                self.errors.append(ConfigError(problem, path=path))

    def _tables(self, kind: str) -> Iterable[tuple[str | int, Any]]:
        """The tables of *kind*, by their names or numbers."""
        tables = self._document.get(kind)
        if isinstance(tables, list):
            return enumerate(tables)
        return tables.items() if isinstance(tables, dict) else ()

    def check_listeners(self, listeners: Collection[Listening]) -> None:
        """
        Note words of rules by which no client comes.

        :param listeners: those that are going to be opened; empty: the default one, of which nothing is said.
        """
        known = [*listeners, *listeners_of(self.said)]
        names = {each.name for each in known if each.name is not None}
        for path, word in self._entries("listeners", RULE):
            problem = problem_with(word, known, names)
            if problem is not None:
                self.errors.append(ConfigError(problem, path=path))

    def check_outgoing(self, is_ours: Callable[[str], bool]) -> None:
        """
        Note addresses of users, groups, rules and upstreams from which nothing can leave.

        :param is_ours: tells whether a literal address is one of this machine.
        """
        for path, host in self._entries("outgoing", USERS, GROUPS, RULE, UPSTREAMS):
            if path[0] == UPSTREAMS and "netns" in self._document[UPSTREAMS][path[1]]:
                continue  # a namespace has addresses of its own
            if is_address(host) and not is_ours(host):
                self.errors.append(ConfigError("not an address of this machine", path=path))

    def _entries(self, key: str, *kinds: str) -> Iterator[tuple[Path, str]]:
        """What is right in the lists *key* in all tables of *kinds*, and where."""
        for kind in kinds:
            for name, table in self._tables(kind):
                path: Path = (kind, name, key)
                entries = table.get(key) if isinstance(table, dict) else None
                for number, entry in enumerate(entries if isinstance(entries, list) else ()):
                    if isinstance(entry, str) and not {path, (*path, number)} & self._faulty:
                        yield (*path, number), entry

    def warnings(self) -> list[str]:
        """A line for each thing that is no mistake, and hardly what was meant."""
        found = []
        for name in ("log", "server-log"):
            if name in self.said and (doubt := of_log(self.said[name])):
                found.append(ConfigError(doubt, path=("log", name)))
        if self.policy is not None:
            rules = self._document.get(RULE, [])  # [sets.metadata] alone makes a policy, too
            found += of_rules(self.policy.rules, rules, self.policy.sets, self._document.get(USERS, ()))
            found += of_ways(self.policy.rules, self._other_ways(), self.upstreams or {}, self.pools or {})
            found += of_commands(self.policy.rules, self.upstreams or {}, self.pools or {})
        found += of_upstreams(self.upstreams or {}, self.said.get("resolver", "system"))
        return self._told(found)

    def _other_ways(self) -> list[str]:
        """The ways out of the server, of groups and of users."""
        tables = [table for kind in (GROUPS, USERS) for _, table in self._tables(kind)]
        ways = [self.said.get("via"), *(table.get("via") for table in tables if isinstance(table, dict))]
        return [way for way in ways if isinstance(way, str)]

    @property
    def shown(self) -> dict[str, Any]:
        """What the file says, without secrets."""
        return without_secrets(self._document)

    @property
    def is_wrong(self) -> bool:
        """Whether there is a mistake in it, as far as is known."""
        return bool(self.errors or self.unused)

    def report(self, problems: Iterable[ConfigError]) -> list[str]:
        """
        A line for each mistake; those on the command line first.

        :param problems: what is wrong with the values that count.
        """
        ours, lines = [*self.unused], []
        for problem in problems:
            if problem.path[0] in self.used:
                ours.append(problem)
            else:
                lines.append(in_one_line(in_option(problem)))
        return [*lines, *self._told([*self.errors, *map(self._in_file, ours)])]

    def _in_file(self, problem: ConfigError) -> ConfigError:
        """What is wrong with the value of an option, in the words of the file."""
        name, *number = problem.path
        path: Path = (PLACES[str(name)], name)
        if number:
            path = (*path, self._number(path, int(number[0])))
        reason = _OPTION.sub(_as_key, problem.reason)
        return ConfigError(reason.removeprefix(f"{self._value(path)!r}").lstrip(": "), path=path)

    def _number(self, path: Path, number: int) -> int:
        """Where in the list at *path* the value stands that is *number* of those that fit."""
        fitting = [at for at in range(number + 1 + len(self._left_out)) if (*path, at) not in self._left_out]
        return fitting[number]

    def _told(self, errors: Iterable[ConfigError]) -> list[str]:
        """A line for each of *errors*, in the order in which one finds them in the file."""
        found = []
        for error in errors:
            place = self._places.of(error.path) if error.path else Standing(False, error.line)
            number = error.path[-1] if error.path and isinstance(error.path[-1], int) else 0
            file = self._node if place.node else self.file
            where = [str(each) for each in (place.line, error.column) if each is not None]
            text = in_one_line(f"{':'.join([file, *where])}: {self._text(error)}")
            found.append((self._order(place), number, text))
        return [text for _, _, text in sorted(found, key=lambda each: each[:2])]

    def _text(self, error: ConfigError) -> str:
        if not error.path:
            return error.reason
        value = f" = {self._shown(error.path)}" if error.shown else ""
        return f"{place(error.path, self._document)}{value}: {error.reason}"

    def _value(self, path: Path) -> Any:
        value: Any = self._document
        for step in path:
            value = value[step]
        return value

    def _shown(self, path: Path) -> str:
        value = self._value(path)
        if path[0] not in TABLES or path[1] in SCOPES or not BY_NAME[str(path[1])].secret:
            return shown(value)
        if not isinstance(value, str) or len(path) == 2:
            return "(not shown)"
        kind, colon, _ = value.partition(":")
        return shown(f"{kind}:...") if colon else "(not shown)"

    def _unknown(self, path: Path) -> str:
        """What to say of a key that there is not. Its value may be a secret."""
        table, name = map(str, path)
        keys = [*keys_of(table), *(SCOPES if table == "limits" else ())]
        here = nearest(name, keys)
        if name in PLACES:
            self.wrong.add(name)
            return f"this key belongs in [{PLACES[name]}]"
        anywhere = here or nearest(name, PLACES)
        if anywhere is None:
            return f"no such key; there are {listed(keys)}"
        self.wrong.add(anywhere)
        there = "" if here else f" in [{PLACES[anywhere]}]"
        return f"no such key; did you mean {anywhere}{there}?"

    def _unknown_table(self, name: str) -> str:
        value = self._document[name]
        if not (isinstance(value, dict) or _has_tables(value)):
            key = name if name in PLACES else nearest(name, PLACES)
            if key is None:
                return "keys stand in tables, and there is no key of this name"
            self.wrong.add(key)
            if key == name:
                return f"this key belongs in [{PLACES[key]}]"
            return f"no such key; did you mean {key}?"
        table = nearest(name, [*TABLES, *OTHERS])
        for inside in value if isinstance(value, list) else [value]:
            self.wrong.update(inside)
        if table in OTHERS:
            self.wrong.add(str(table))
        if table is None:
            return f"no such table; there are {listed([*TABLES, *OTHERS])}"
        return f"no such table; did you mean {'[[rule]]' if table == RULE else f'[{table}]'}?"

    def _no_table(self, name: str) -> str:
        if _has_tables(self._document[name]):
            return "there is one such table, so its name stands in single brackets"
        self.wrong.update(keys_of(name))
        return f"not a table; its keys stand below a line [{name}]"

    @staticmethod
    def _order(place: Standing) -> tuple[bool, int]:
        return place.node, place.line or 0


def read(data: bytes, file: str, directory: str = "", node: tuple[bytes, str] | None = None) -> Configured:
    """
    What the configuration file says that holds *data*. Files of sets that it names are loaded.

    :param file: its name.
    :param directory: from where it names files; empty: from where the process is.
    :param node: what the file of the node holds, which lies over that one, and its name; None: there is none.
    """
    at = file
    try:
        document, lines = parsed(data)
        if node is None:
            return Configured(file, document, Places(lines), directory=directory)
        content, at = node
        document, places = overlaid(document, lines, *parsed(content))
    except ConfigError as problem:
        return Configured(at, {}, Places({}), [problem])
    return Configured(file, document, places, directory=directory, node=at)


def _reader(option: Option) -> Reader:
    return each(text, option.alone) if option.repeatable else plain(typed(*option.types))


def _parts(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables that say what options say, and those within ``[limits]``."""
    options = {name: value for name, value in document.items() if name not in OTHERS}
    limits = options.get("limits")
    if not isinstance(limits, dict):
        return options, {}
    options["limits"] = {key: value for key, value in limits.items() if key not in SCOPES}
    return options, {key: value for key, value in limits.items() if key in SCOPES}


def _has_tables(value: Any) -> bool:
    """Whether *value* comes from tables with double brackets."""
    return isinstance(value, list) and value != [] and all(isinstance(entry, dict) for entry in value)


def _as_option(value: Any) -> Any:
    """A *value* as the command line has it."""
    if isinstance(value, tuple):
        return [str(entry) for entry in value]
    return value if isinstance(value, bool) else str(value)


def _as_key(match: re.Match[str]) -> str:
    return match[1] if match[1] in PLACES else match[0]
