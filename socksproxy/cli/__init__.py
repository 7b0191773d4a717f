"""
The command ``socksproxy``: what an operator does besides running the server.

Each subcommand is a module with ``add_to``, which describes its arguments, and a
function for what it does, which returns nothing or raises :class:`CommandFailed`.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from .. import __version__
from ..logs.printable import escape_unknown
from . import check, connect, explain, forward, passwd, probe, run
from .failure import CommandFailed, complain

__all__ = ["CommandFailed", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Do what *arguments* say; None: the process's own.

    :returns: the exit status: 0, or another one where the command failed.
    :raises SystemExit: (with status 2) when the arguments make no sense.
    """
    _hold_standard_files()
    escape_unknown(sys.stdout, sys.stderr)
    parser = ArgumentParser("socksproxy", description="Tools for the SOCKS proxy. It runs as: twistd socks")
    parser.add_argument("--version", action="version", version=f"twisted-socksproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    passwd.add_to(commands)
    check.add_to(commands)
    explain.add_to(commands)
    run.add_to(commands)
    connect.add_to(commands)
    forward.add_to(commands)
    probe.add_to(commands)
    parsed = parser.parse_args(arguments)
    try:
        status: int | None = parsed.run(parsed)
    except CommandFailed as problem:
        complain(f"socksproxy: {problem}")
        return problem.status
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return status or 0


def _hold_standard_files() -> None:
    """
    See that the descriptors 0, 1 and 2 are open, so that no socket gets one of them where the caller has
    closed it. A program that this process becomes finds it closed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
