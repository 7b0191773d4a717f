"""
The tables ``[sets.NAME]``, and the files that they name.

Files are loaded here: an empty set could permit what it is to deny. That takes seconds for a
million entries.
"""

from __future__ import annotations

import os
from typing import Any

from ..policy.rules import BadValue, RuleError
from ..policy.sets import HostSet, NamesFile, NetworksFile, SetFile, SetFileError, Sets
from ..policy.sets.hosts import host_called
from ..values.errors import ConfigError, Path
from .readers import Key, error_of, no_such
from .words import MOST_TOLD, SETS, listed

#: What is to be known of each key.
SET_KEYS = {
    "networks": Key('["198.51.100.0/28", "2001:db8:5::/48"]', meaning="Addresses and networks."),
    "names": Key('["*.games.example", "play.example"]', meaning="Names, as rules have them."),
    "hosts": Key(
        '["home.dyndns.example"]',
        meaning="Names of hosts, for clients: their addresses, which are looked up every minute.",
    ),
    "networks-file": Key(
        '"/etc/socks/bad.txt"',
        meaning="File, or list of files, with an address, a network or a range on each line.",
    ),
    "names-file": Key(
        '["/etc/socks/ads.txt", "/etc/socks/hosts"]',
        meaning="File, or list of files, with a name on each line, or as ``/etc/hosts`` has them.",
    ),
}
#: With which names they are understood, too.
_ALIASES = {key.replace("-", "_"): key for key in SET_KEYS if "-" in key}
_FILES: dict[str, type[SetFile]] = {"networks-file": NetworksFile, "names-file": NamesFile}


def sets_of(sets: Any, directory: str, errors: list[ConfigError]) -> Sets | None:
    """
    The sets, their files loaded, or None where something is wrong.

    :param sets: what stands as ``sets``; None: nothing.
    :param directory: from where files are named.
    :param errors: what is wrong is added to them.
    """
    if sets is None:
        return Sets()
    if not isinstance(sets, dict):
        errors.append(
            ConfigError("each set has a table: it begins with [sets.NAME]", path=(SETS,), shown=False)
        )
        return None
    before = len(errors)
    reading = _Reading(directory, errors)
    contents: dict[str, dict[str, list[Any]]] = {"networks": {}, "names": {}}
    for name, table in sets.items():
        if not isinstance(table, dict):
            errors.append(
                ConfigError(f"not a table: it begins with [sets.{name}]", path=(SETS, name), shown=False)
            )
            continue
        if not table:
            errors.append(
                ConfigError(
                    f"there must be {listed(SET_KEYS)}, or one of them", path=(SETS, name), shown=False
                )
            )
        for key, value in table.items():
            path: Path = (SETS, name, key)
            plain = _ALIASES.get(key, key)
            if plain not in SET_KEYS:
                errors.append(ConfigError(no_such(key, SET_KEYS), path=path, shown=False))
                continue
            entries = reading.files(value, path, plain) if plain in _FILES else reading.entries(value, path)
            if plain == "hosts":
                plain, entries = "networks", reading.hosts(entries, path)
            contents[plain.removesuffix("-file")].setdefault(name, []).extend(entries)
    try:
        known = Sets(contents["networks"], contents["names"])
    except RuleError as problem:
        for each in problem.problems[:MOST_TOLD]:
            path = (SETS, each.rule)
            if each.field == "name":
                errors.append(ConfigError(each.right, path=path, shown=False))
            else:
                errors.append(error_of(each, path, sets[each.rule], each.field))
        return None
    return known if len(errors) == before else None


class _Reading:
    """
    Reads what sets are made of.

    :param directory: from where files are named.
    :param errors: what is wrong is added to them.
    """

    def __init__(self, directory: str, errors: list[ConfigError]) -> None:
        self._directory = directory
        self._faults = errors
        self._loaded: dict[tuple[str, str], SetFile | str] = {}

    def entries(self, value: Any, path: Path) -> list[Any]:
        """The list of entries that *value* should be."""
        if isinstance(value, list):
            return value
        self._faults.append(ConfigError("not a list in brackets", path=path))
        return []

    def hosts(self, names: list[Any], path: Path) -> list[Any]:
        """The set of the hosts *names*, in a list."""
        known = len(self._faults)
        for number, name in enumerate(names):
            try:
                host_called(name)
            except BadValue as problem:
                self._faults.append(ConfigError(problem.right, path=(*path, number)))
        return [HostSet(names)] if len(self._faults) == known else []

    def files(self, value: Any, path: Path, key: str) -> list[SetFile]:
        """The files that *value* names: one, or a list."""
        if isinstance(value, str):
            named: list[tuple[Any, Path]] = [(value, path)]
        elif isinstance(value, list) and value:
            named = [(entry, (*path, number)) for number, entry in enumerate(value)]
        else:
            self._faults.append(ConfigError("not the name of a file, nor a list of some", path=path))
            return []
        found = []
        for entry, where in named:
            file = self._file(entry, key) if isinstance(entry, str) else "not text in quotes"
            if isinstance(file, str):
                self._faults.append(ConfigError(file, path=where))
            else:
                found.append(file)
        return found

    def _file(self, name: str, key: str) -> SetFile | str:
        """The file, loaded once, whichever sets it is in; text: why not."""
        place = key, os.path.join(self._directory, name)
        if place not in self._loaded:
            self._loaded[place] = _loaded(_FILES[key](place[1]))
        return self._loaded[place]


def _loaded(file: SetFile) -> SetFile | str:
    try:
        file.load()
    except SetFileError as problem:
        return str(problem).removeprefix(file.path).lstrip(":, ")
    except ValueError:
        return "not a path"
    return file
