"""How a subcommand fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..names import in_one_line


class CommandFailed(Exception):
    """What was asked for is not done; its words are for the operator, one line."""


def with_mistakes(file: str, lines: Sequence[str]) -> CommandFailed:
    """
    What to raise where a configuration file has mistakes, which are printed.

    :param file: its name.
    :param lines: one for each mistake.
    """
    print(*lines, sep="\n", file=sys.stderr)
    count = len(lines)
    return CommandFailed(f"{shown(file)}: {count} mistakes" if count > 1 else f"{shown(file)}: 1 mistake")


def tell(*lines: str) -> None:
    """Print *lines*, whatever is in them, and whatever the terminal knows of it."""
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:
        print(in_one_line(line).encode(encoding, "backslashreplace").decode(encoding))


def shown(name: str) -> str:
    """A file's *name* as it can be printed."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
