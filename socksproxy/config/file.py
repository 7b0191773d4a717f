"""
The configuration file: TOML that says what the options say, and in time more.

It needs attrs and cattrs, and on Python 3.10 tomli (``twisted-socksproxy[config]``): whoever imports it
must be ready to do without. What a value means, and whether it is right, is for
:class:`~socksproxy.config.options.Options`, as if it had been on the command line.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..logs.printable import in_one_line
from ..runtime.text import NotUTF8, without_mark
from ..values.errors import ConfigError
from .faults import BARE_KEY, GROUPS, OTHERS, RULE, SETS, USERS, Fault, named, place
from .limits import SCOPES, check_quota_file, server_limits
from .lines import Path, Twice, first_twice, lines_of, tokens_of, too_deep
from .listeners import Listening, listeners_of, problem_with
from .mistakes import MOST_TOLD, Mistake, in_option, in_order, listed, nearest, shown
from .rules import policy_of
from .structure import Misfit, structured
from .tables import Configuration, about, keys_of, places, said, table_classes
from .users import check_groups, directory_of
from .warnings import of_log, of_rules

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from ..auth.directory import Directory
    from ..policy.compiled import RulePolicy

__all__ = ["Configured", "Mistake", "read"]

#: Bytes of a file; nobody writes more by hand, and some files never end.
MOST_BYTES = 16 << 20
#: Tables and lists in one another.
_DEEPEST = 64
#: Bits of a number that Python still writes in decimal digits.
_MOST_BITS = 14_000
_TOO_DEEP = "tables or lists are nested too deeply"
_TOO_LONG = "there is a number of too many digits"

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_OPTION = re.compile(r"--([a-z][a-z0-9-]*)")
#: How the parser begins to say that something is there already.
_SAID_TWICE = ("cannot declare ", "cannot overwrite ", "cannot mutate ", "duplicate inline table key")
#: A line that begins a table, whatever its name is made of, if not of quotes.
_HEADER = re.compile(r"\s*(\[\[?)([^\[\]\"'#]+)(\]\]?)\s*(?:#.*)?")
#: A line that gives a key, whatever the key is made of, a value.
_PAIR = re.compile(r"\s*([^=\[\]{}\"'#]*[^=\[\]{}\"'#\s])\s*=(?!=)")
_IN_QUOTES = "a name with other characters than letters, digits, - and _ stands in quotes"
_PLACES = places()


class Configured:
    """
    What a file says.

    :param file: its name.
    :param document: what is in it.
    :param lines: where each thing stands.
    :param mistakes: what is wrong already.
    :param directory: from where it names files.
    :ivar said: what it says for each option, as the command line would: text, texts, or True.
    :ivar limits: what it says of limits that no option says.
    :ivar quota_file: what keeps how much of the daily and monthly ones is used; None: there are none.
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
        lines: dict[Path, int],
        mistakes: Iterable[Mistake] = (),
        directory: str = "",
    ) -> None:
        self.file = file
        self.mistakes = list(mistakes)
        self.used: set[str] = set()
        self.unused: list[ConfigError] = []
        self.wrong: set[str] = set()
        self._document = document
        self._lines = lines
        options, scopes = _parts(document)
        self.configuration, misfits = structured(options, Configuration)
        self.said = {key: _as_option(value) for key, value in said(self.configuration) if value is not False}
        self._left_out = {misfit.path for misfit in misfits if isinstance(misfit.path[-1], int)}
        misfits.sort(key=lambda misfit: self._line(misfit.path) or 0)
        self.mistakes += [self._misfit(misfit) for misfit in misfits[:MOST_TOLD]]
        if len(misfits) > MOST_TOLD:
            line = self._line(misfits[MOST_TOLD].path)
            self.mistakes.append(Mistake(line, None, f"and {len(misfits) - MOST_TOLD} more such mistakes"))
        self.quota_file = self.configuration.limits.quota_file
        self._check_quota_file(directory)
        counted = self.quota_file is not None or "quota-file" in self.wrong
        faults: list[Fault] = []
        self.limits = server_limits(scopes, counted, faults)
        self.directory = self._read_users(counted, faults)
        self.policy = self._read_rules(counted, directory, faults)
        self._faulty = {fault.path for fault in faults}
        self.mistakes += [self._fault(fault) for fault in faults]

    def _check_quota_file(self, directory: str) -> None:
        if self.quota_file is None:
            return
        try:
            check_quota_file(os.path.join(directory, self.quota_file))
        except ConfigError as problem:
            self.mistakes.append(self._about(("limits", "quota-file"), problem.reason))

    def _read_users(self, counted: bool, faults: list[Fault]) -> Directory | None:
        known = len(faults)
        directory = directory_of(self._document.get(USERS), self._document.get(GROUPS), counted, faults)
        if len(faults) > known:
            self.wrong.add(USERS)
        return directory

    def _read_rules(self, counted: bool, directory: str, faults: list[Fault]) -> RulePolicy | None:
        known = len(faults)
        rules, groups = self._document.get(RULE), self._document.get(GROUPS)
        policy = policy_of(rules, self._document.get(SETS), counted, directory, faults)
        for number, table in enumerate(rules if isinstance(rules, list) else ()):
            if isinstance(table, dict):
                check_groups(table.get("groups"), (RULE, number, "groups"), groups, faults)
        if len(faults) > known:
            self.wrong.add(RULE)
        return policy

    def check_listeners(self, listeners: Collection[Listening]) -> None:
        """
        Note words of rules by which no client comes.

        :param listeners: those that are going to be opened; empty: the default one, of which nothing is said.
        """
        known = [*listeners, *listeners_of(self.configuration)]
        names = {each.name for each in known if each.name is not None}
        for path, word in self._entries("listeners", RULE):
            problem = problem_with(word, known, names)
            if problem is not None:
                self.mistakes.append(self._fault(Fault(path, problem)))

    def check_outgoing(self, is_ours: Callable[[str], bool]) -> None:
        """
        Note addresses of users, groups and rules from which nothing can leave.

        :param is_ours: tells whether a literal address is one of this machine.
        """
        for path, host in self._entries("outgoing", USERS, GROUPS, RULE):
            if not is_ours(host):
                self.mistakes.append(self._fault(Fault(path, "not an address of this machine")))

    def _entries(self, key: str, *kinds: str) -> Iterator[tuple[Path, str]]:
        """What is right in the lists *key* in all tables of *kinds*, and where."""
        for kind in kinds:
            tables = self._document.get(kind)
            by_name = dict(enumerate(tables)) if isinstance(tables, list) else tables
            for name, table in by_name.items() if isinstance(by_name, dict) else ():
                path: Path = (kind, name, key)
                entries = table.get(key) if isinstance(table, dict) else None
                for number, entry in enumerate(entries if isinstance(entries, list) else ()):
                    if isinstance(entry, str) and not {path, (*path, number)} & self._faulty:
                        yield (*path, number), entry

    def warnings(self) -> list[str]:
        """A line for each thing that is no mistake, and hardly what was meant."""
        found = []
        log = self.configuration.log.log
        if log is not None and (doubt := of_log(log)):
            found.append(self._about(("log", "log"), doubt))
        if self.policy is not None:
            rules = self._document.get(RULE, [])  # [sets.metadata] alone makes a policy, too
            faults = of_rules(self.policy.rules, rules, self.policy.sets, self._document.get(USERS, ()))
            found += map(self._fault, faults)
        return [mistake.told(self.file) for mistake in in_order(found)]

    @property
    def is_wrong(self) -> bool:
        """Whether there is a mistake in it, as far as is known."""
        return bool(self.mistakes or self.unused)

    def report(self, problems: Iterable[ConfigError]) -> list[str]:
        """
        A line for each mistake; those on the command line first.

        :param problems: what is wrong with the values that count.
        """
        ours: list[ConfigError] = [*self.unused]
        lines = []
        for problem in problems:
            if problem.path[0] in self.used:
                ours.append(problem)
            else:
                lines.append(in_one_line(in_option(problem)))
        mistakes = in_order([*self.mistakes, *map(self._mistake, ours)])
        return [*lines, *(mistake.told(self.file) for mistake in mistakes)]

    def _mistake(self, problem: ConfigError) -> Mistake:
        name, *number = problem.path
        path: Path = (_PLACES[str(name)], name)
        if number:
            path = (*path, self._number(path, int(number[0])))
        return self._about(path, _OPTION.sub(_as_key, problem.reason))

    def _number(self, path: Path, number: int) -> int:
        """Where in the list at *path* the value stands that is *number* of those that fit."""
        fitting = [at for at in range(number + 1 + len(self._left_out)) if (*path, at) not in self._left_out]
        return fitting[number]

    def _misfit(self, misfit: Misfit) -> Mistake:
        path = misfit.path
        if misfit.reason is None:
            return Mistake(self._line(path), None, self._unknown(path))
        if len(path) == 1:
            return Mistake(self._line(path), None, self._no_table(str(path[0])))
        if len(path) == 2:
            self.wrong.add(str(path[1]))
        return self._about(path, misfit.reason)

    def _fault(self, fault: Fault) -> Mistake:
        value = f" = {shown(self._value(fault.path))}" if fault.shown else ""
        text = f"{place(fault.path, self._document)}{value}: {fault.reason}"
        number = fault.path[-1]
        return Mistake(self._line(fault.path), None, text, number if isinstance(number, int) else 0)

    def _about(self, path: Path, reason: str) -> Mistake:
        table, key, *numbers = path
        number = numbers[0] if numbers else 0
        where = f"[{table}] {key}[{number}]" if numbers else f"[{table}] {key}"
        text = f"{where} = {self._shown(path)}: {reason.removeprefix(f'{self._value(path)!r}').lstrip(': ')}"
        return Mistake(self._line(path), None, text, int(number))

    def _value(self, path: Path) -> Any:
        value: Any = self._document
        for step in path:
            value = value[step]
        return value

    def _shown(self, path: Path) -> str:
        value = self._value(path)
        if not about(keys_of(table_classes()[str(path[0])])[str(path[1])]).secret:
            return shown(value)
        if not isinstance(value, str) or len(path) == 2:
            return "(not shown)"
        kind, colon, _ = value.partition(":")
        return shown(f"{kind}:...") if colon else "(not shown)"

    def _unknown(self, path: Path) -> str:
        """What to say of a key or a table that there is not. Its value may be a secret."""
        name = str(path[-1])
        if len(path) == 1:
            return self._unknown_table(name)
        table = str(path[0])
        keys = [*keys_of(table_classes()[table]), *(SCOPES if table == "limits" else ())]
        here = nearest(name, keys)
        if name in _PLACES:
            self.wrong.add(name)
            return f"[{table}] {name}: this key belongs in [{_PLACES[name]}]"
        anywhere = here or nearest(name, _PLACES)
        if anywhere is None:
            return f"[{table}] {name}: no such key; there are {listed(keys)}"
        self.wrong.add(anywhere)
        there = "" if here else f" in [{_PLACES[anywhere]}]"
        return f"[{table}] {name}: no such key; did you mean {anywhere}{there}?"

    def _unknown_table(self, name: str) -> str:
        value = self._document[name]
        if not (isinstance(value, dict) or _has_tables(value)):
            key = name if name in _PLACES else nearest(name, _PLACES)
            if key is None:
                return f"{name}: keys stand in tables, and there is no key of this name"
            self.wrong.add(key)
            meant = "" if key == name else f"; did you mean {key}?"
            there = f"[{_PLACES[key]}]"
            return f"{name}: this key belongs in {there}" if not meant else f"{name}: no such key{meant}"
        table = nearest(name, [*table_classes(), *OTHERS])
        for inside in value if isinstance(value, list) else [value]:
            self.wrong.update(inside)
        if table in OTHERS:
            self.wrong.add(str(table))
        if table is None:
            return f"[{name}]: no such table; there are {listed([*table_classes(), *OTHERS])}"
        return f"[{name}]: no such table; did you mean {'[[rule]]' if table == RULE else f'[{table}]'}?"

    def _no_table(self, name: str) -> str:
        if _has_tables(self._document[name]):
            return f"[{name}]: there is one such table, so its name stands in single brackets"
        self.wrong.update(keys_of(table_classes()[name]))
        return f"{name}: not a table; its keys stand below a line [{name}]"

    def _line(self, path: Path) -> int | None:
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return None


def read(data: bytes, file: str, directory: str = "") -> Configured:
    """
    What the configuration file says that holds *data*. Files of sets that it names are loaded.

    :param file: its name.
    :param directory: from where it names files; empty: from where the process is.
    """
    if len(data) > MOST_BYTES:
        return _nothing(file, Mistake(None, None, f"more than {MOST_BYTES >> 20} MiB are no configuration"))
    try:
        text = without_mark(data).decode("utf-8").replace("\r\n", "\n")
    except NotUTF8 as problem:
        return _nothing(file, Mistake(None, None, str(problem)))
    except UnicodeDecodeError as problem:
        line, column = _place(data[: problem.start].decode("utf-8", "replace"))
        return _nothing(file, Mistake(line, column, "not UTF-8"))
    line_too_deep = too_deep(tokens_of(text), _DEEPEST)
    if line_too_deep is not None:
        # Here, because tomllib takes time by the square of a key's length.
        return _nothing(file, Mistake(line_too_deep, None, _TOO_DEEP))
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        return _nothing(file, _syntax(str(problem), text))
    except RecursionError:
        return _nothing(file, Mistake(None, None, _TOO_DEEP))
    except ValueError:
        return _nothing(file, Mistake(None, None, _TOO_LONG))
    monster = _monster(document)
    if monster is not None:
        return _nothing(file, Mistake(None, None, monster))
    return Configured(file, document, lines_of(tokens_of(text)), directory=directory)


def _monster(document: dict[str, Any]) -> str | None:
    """What in *document* nobody could show or walk through; None: nothing."""
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        inside: list[Any] = []
        for value in level:
            if isinstance(value, (dict, list)):
                inside += value.values() if isinstance(value, dict) else value
            elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
                return _TOO_LONG
        level = inside
    return _TOO_DEEP if level else None


def _parts(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables that say what options say, and those within ``[limits]``."""
    options = {name: value for name, value in document.items() if name not in OTHERS}
    limits = options.get("limits")
    if not isinstance(limits, dict):
        return options, {}
    options["limits"] = {key: value for key, value in limits.items() if key not in SCOPES}
    return options, {key: value for key, value in limits.items() if key in SCOPES}


def _nothing(file: str, mistake: Mistake) -> Configured:
    return Configured(file, {}, {}, [mistake])


def _syntax(problem: str, text: str) -> Mistake:
    match = _POSITION.search(problem)
    reason = _POSITION.sub("", problem)
    reason = reason[:1].lower() + reason[1:]
    if match is None:
        return Mistake(None, None, reason)
    line, column = _place(text) if match[1] is None else (int(match[1]), int(match[2]))
    twice = first_twice(tokens_of(text)) if reason.startswith(_SAID_TWICE) else None
    if twice is not None and twice.line <= line:
        return Mistake(line, column, f"{_told_twice(reason, twice)} is on line {twice.first} already")
    return Mistake(line, column, f"{reason}{_quotes_missing(text.splitlines()[line - 1 : line])}")


def _told_twice(reason: str, twice: Twice) -> str:
    if not twice.table:
        return f"{reason.partition(' (')[0]}: {named(twice.path[-1])}"
    name = ".".join(named(step) for step in twice.path if isinstance(step, str))
    return f"cannot declare [{name}] twice: it"


def _quotes_missing(lines: list[str]) -> str:
    """What to say besides, where *lines* are one that begins a table whose name has to be in quotes."""
    header = _HEADER.fullmatch(lines[0]) if lines else None
    if header is None:
        pair = _PAIR.match(lines[0]) if lines else None
        if pair is None or all(BARE_KEY.fullmatch(part.strip()) for part in pair[1].split(".")):
            return ""
        return f"; {_IN_QUOTES}: {named(pair[1])} ="
    table, dot, name = header[2].partition(".")
    if not dot or table.strip() not in OTHERS or BARE_KEY.fullmatch(name.strip()):
        return ""
    right = f"{header[1]}{table.strip()}.{named(name.strip())}{header[3]}"
    return f"; {_IN_QUOTES}: {right}"


def _place(before: str) -> tuple[int, int]:
    """Line and column of what follows *before*."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _has_tables(value: Any) -> bool:
    """Whether *value* comes from tables with double brackets."""
    return isinstance(value, list) and value != [] and all(isinstance(entry, dict) for entry in value)


def _as_option(value: Any) -> Any:
    """A *value* as the command line has it."""
    if isinstance(value, tuple):
        return [str(entry) for entry in value]
    return value if isinstance(value, bool) else str(value)


def _as_key(match: re.Match[str]) -> str:
    return match[1] if match[1] in _PLACES else match[0]
