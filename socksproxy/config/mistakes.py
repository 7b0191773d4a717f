"""How what is wrong in a configuration file is told: one line each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from ..logs.printable import in_one_line
from ..values.errors import ConfigError

#: Mistakes of one kind, or in one table, that are told; a file of them would need minutes to be told in full.
MOST_TOLD = 100

#: Characters of a value that are shown.
MOST_SHOWN = 60

#: How much two words have in common (of 1) when one may be meant by the other.
ALIKE = 0.7


class Mistake(NamedTuple):
    """
    Something that is wrong.

    :ivar line: where, from 1 on; None: unknown.
    :ivar column: likewise, for what is not even TOML.
    :ivar text: the table and key, the value, and what would be right.
    :ivar number: of several values on one line, which one.
    """

    line: int | None
    column: int | None
    text: str
    number: int = 0

    def told(self, file: str) -> str:
        """It as a line about the *file*."""
        numbers = [str(number) for number in (self.line, self.column) if number is not None]
        return in_one_line(f"{':'.join([file, *numbers])}: {self.text}")


class OpenToAll(ConfigError):
    """A listener is where others can reach it; its reason names the listener, whichever option gave it."""


def in_option(problem: ConfigError) -> str:
    """The line about an option of the command line."""
    return str(problem) if isinstance(problem, OpenToAll) else f"--{problem.path[0]} {problem}"


def in_order(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """*mistakes* as one finds them when one goes through the file."""
    return sorted(mistakes, key=lambda mistake: (mistake.line or 0, mistake.number))


def shown(value: Any) -> str:
    """A *value* as the file has it, or the beginning of that."""
    text = _toml(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of *names* that somebody may have meant who wrote *name*."""
    return _nearest(name[:MOST_SHOWN].lower().replace("_", "-"), tuple(names))


@lru_cache(maxsize=1024)  # a file that is wrong is often wrong in the same way many times
def _nearest(name: str, names: tuple[str, ...]) -> str | None:
    found = get_close_matches(name, names, 1, ALIKE)
    return found[0] if found else None


def listed(names: Iterable[str]) -> str:
    """*names* as one would say them."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # More than enough of it to be cut off.
        return json.dumps(value[: 2 * MOST_SHOWN], ensure_ascii=False)
    if isinstance(value, int):
        return str(value) if value.bit_length() < 8 * MOST_SHOWN else "a number of many digits"
    if isinstance(value, list):
        return f"[{', '.join(_toml(entry) for entry in value[:MOST_SHOWN])}]"
    if isinstance(value, dict):
        return "{...}"
    return str(value)
