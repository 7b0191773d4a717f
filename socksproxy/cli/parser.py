"""
The subcommands of ``socksproxy`` that are not for a server that runs.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from .. import __version__
from ..logs.printable import escape_unknown
from . import check, connect, explain, forward, passwd, probe, run, sign
from .failure import CommandFailed, complain


def main(arguments: Sequence[str]) -> int:
    """
    Do what *arguments* say; those of ``ctl`` are for :mod:`socksproxy.ctl`.

    :returns: the exit status: 0, or another one where the command failed.
    :raises SystemExit: (with status 2) when the arguments make no sense.
    """
    escape_unknown(sys.stdout, sys.stderr)
    parser = ArgumentParser("socksproxy", description="Tools for the SOCKS proxy. It runs as: twistd socks")
    parser.add_argument("--version", action="version", version=f"twisted-socksproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    passwd.add_to(commands)
    check.add_to(commands)
    sign.add_to(commands)
    explain.add_to(commands)
    run.add_to(commands)
    connect.add_to(commands)
    forward.add_to(commands)
    probe.add_to(commands)
    commands.add_parser("ctl", help="ask a server that runs, and change what it does")
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
