"""
The command ``socksproxy``: what an operator does besides running the server.

Each subcommand is a module with ``add_to``, which describes its arguments, and a
function for what it does, which returns nothing or raises ``CommandFailed``.
``ctl`` has a package of its own, :mod:`socksproxy.ctl`, and starts without all that the others need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Do what *arguments* say; None: the process's own.

    :returns: the exit status: 0, or another one where the command failed.
    :raises SystemExit: (with status 2) when the arguments make no sense.
    """
    _hold_standard_files()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["ctl"]:
        status: int = import_module("socksproxy.ctl.command").main(given[1:])
    else:
        status = import_module("socksproxy.cli.parser").main(given)
    return status


def _hold_standard_files() -> None:
    """
    See that the descriptors 0, 1 and 2 are open, so that no socket gets one of them where the caller has
    closed it. A program that this process becomes finds it closed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
