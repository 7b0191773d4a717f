"""How a subcommand fails."""

from __future__ import annotations

import os
import sys
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import describe
from ..logs.printable import in_one_line


class CommandFailed(Exception):
    """
    What was asked for is not done; its words are for the operator, one line.

    :ivar status: the exit status of the command.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Once(Action):
    """Takes the value of an option that is given once: of two, argparse takes the last one."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """See :class:`argparse.Action`."""
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice")
        setattr(namespace, self.dest, values)


def with_mistakes(file: str, lines: Sequence[str], node: str | None = None) -> CommandFailed:
    """
    What to raise where a configuration file has mistakes, which are printed.

    :param file: its name.
    :param lines: one for each mistake.
    :param node: the name of the file of a node, which was read, too; None: none was.
    """
    complain(*lines)
    count = len(lines)
    return CommandFailed(
        f"{both(file, node)}: {count} mistakes" if count > 1 else f"{both(file, node)}: 1 mistake"
    )


def complain(*lines: str) -> None:
    """Print *lines* on standard error, whatever is in them."""
    with _output(sys.stderr):
        print(*map(in_one_line, lines), sep="\n", file=sys.stderr, flush=True)


def tell(*lines: str) -> None:
    """Print *lines*, whatever is in them."""
    with _output(sys.stdout):
        print(*map(in_one_line, lines), sep="\n", flush=True)


@contextmanager
def _output(stream: Any) -> Iterator[None]:
    """
    Write to *stream*. A reader such as ``head`` may have read enough: what comes then goes nowhere.

    :raises CommandFailed: when it cannot be written for another reason.
    """
    try:
        yield
    except OSError as problem:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if not isinstance(problem, BrokenPipeError):
            raise CommandFailed(f"the output cannot be written: {describe(problem)}") from None


def both(file: str, node: str | None) -> str:
    """The names of a configuration file and of that of a *node*, as they can be printed."""
    return shown(file) if node is None else f"{shown(file)} with {shown(node)}"


def shown(name: str) -> str:
    """A file's *name* as it can be printed."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
