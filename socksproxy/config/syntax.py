"""
The text of a configuration file as TOML: what it holds, on which lines, and why it is not TOML.

It needs tomli on Python 3.10 (``twisted-socksproxy[config]``).
"""

from __future__ import annotations

import re
import sys
from typing import Any

from ..runtime.text import NotUTF8, without_mark
from ..values.errors import ConfigError, Path
from .lines import Twice, first_twice, lines_of, tokens_of, too_deep
from .words import BARE_KEY, MOST_BYTES, OTHERS, named

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Tables and lists in one another.
_DEEPEST = 64
#: Bits of a number that Python still writes in decimal digits.
_MOST_BITS = 14_000
_TOO_DEEP = "tables or lists are nested too deeply"
_TOO_LONG = "there is a number of too many digits"

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
#: How the parser begins to say that something is there already.
_SAID_TWICE = ("cannot declare ", "cannot overwrite ", "cannot mutate ", "duplicate inline table key")
#: A line that begins a table, whatever its name is made of, if not of quotes.
_HEADER = re.compile(r"\s*(\[\[?)([^\[\]\"'#]+)(\]\]?)\s*(?:#.*)?")
#: A line that gives a key, whatever the key is made of, a value.
_PAIR = re.compile(r"\s*([^=\[\]{}\"'#]*[^=\[\]{}\"'#\s])\s*=(?!=)")
_IN_QUOTES = "a name with other characters than letters, digits, - and _ stands in quotes"


def parsed(data: bytes) -> tuple[dict[str, Any], dict[Path, int]]:
    """
    What the text *data* holds, and the line of each key.

    :raises ConfigError: when it is not TOML, or more than a configuration.
    """
    if len(data) > MOST_BYTES:
        raise ConfigError(f"more than {MOST_BYTES >> 20} MiB are no configuration")
    try:
        text = without_mark(data).decode("utf-8").replace("\r\n", "\n")
    except NotUTF8 as problem:
        raise ConfigError(str(problem)) from None
    except UnicodeDecodeError as problem:
        line, column = _place(data[: problem.start].decode("utf-8", "replace"))
        raise ConfigError("not UTF-8", line=line, column=column) from None
    line_too_deep = too_deep(tokens_of(text), _DEEPEST)
    if line_too_deep is not None:
        # Here, because tomllib takes time by the square of a key's length.
        raise ConfigError(_TOO_DEEP, line=line_too_deep)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise _syntax(str(problem), text) from None
    except RecursionError:
        raise ConfigError(_TOO_DEEP) from None
    except ValueError:
        raise ConfigError(_TOO_LONG) from None
    monster = _monster(document)
    if monster is not None:
        raise ConfigError(monster)
    return document, lines_of(tokens_of(text))


def _monster(document: dict[str, Any]) -> str | None:
    """What in *document* is too deep or too large to be shown or walked through; None: nothing."""
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


def _syntax(problem: str, text: str) -> ConfigError:
    match = _POSITION.search(problem)
    reason = _POSITION.sub("", problem)
    reason = reason[:1].lower() + reason[1:]
    if match is None:
        return ConfigError(reason)
    line, column = _place(text) if match[1] is None else (int(match[1]), int(match[2]))
    twice = first_twice(tokens_of(text)) if reason.startswith(_SAID_TWICE) else None
    if twice is not None and twice.line <= line:
        return ConfigError(
            f"{_told_twice(reason, twice)} is on line {twice.first} already", line=line, column=column
        )
    return ConfigError(
        f"{reason}{_quotes_missing(text.splitlines()[line - 1 : line])}", line=line, column=column
    )


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
