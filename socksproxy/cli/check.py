"""``socksproxy check``: is this configuration file right?"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from .failure import CommandFailed, Once, both, complain, tell, with_mistakes

_DESCRIPTION = """
Checks a configuration file for twistd socks --config FILE, or whatever --config can name.
It names every mistake in it, a line each, and ends with status 1 if there is one. Lines that begin with
"warning:" are about what is no mistake, and hardly what was meant. Entries of set files
that can never match are warnings, and so are lines of files of passwords that do not
count. Nothing is started, opened or written. What the file names, such as certificates,
files of passwords and local addresses, is looked at as it is here and for this user.
"""


def add_to(commands: Any) -> None:
    """Add this one to argparse's subparsers *commands*."""
    parser = commands.add_parser("check", help="check a configuration file", description=_DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="the configuration file (TOML)")
    parser.add_argument(
        "--node", metavar="FILE", action=Once, help="a node's own file, as for twistd socks --node"
    )
    parser.add_argument("--config-key", metavar="FILE", help="a public key, as for twistd socks --config-key")
    parser.add_argument("--config-ca", metavar="FILE", help="certificates, as for twistd socks --config-ca")
    parser.set_defaults(run=run)


def run(options: Namespace) -> None:
    """
    Check a file.

    :raises CommandFailed: when there is a mistake in it.
    """
    from twisted.python.usage import UsageError

    from ..config.command_line import Mistakes, NothingRuns, SOCKSOptions
    from ..net.resources import CheckedResources

    reactor = NothingRuns()
    parsed = SOCKSOptions(reactor, CheckedResources(reactor))
    try:
        node = [] if options.node is None else [f"--node={options.node}"]
        given = {"key": options.config_key, "ca": options.config_ca}
        more = [f"--config-{name}={file}" for name, file in given.items() if file is not None]
        parsed.parseOptions([f"--config={options.file}", *node, *more])
    except Mistakes as problem:
        raise with_mistakes(options.file, problem.lines, options.node) from None
    except UsageError as problem:
        raise CommandFailed(str(problem).removeprefix("--config ").removeprefix("--node ")) from None
    ignored = [entry for file in parsed.plan.set_files for entry in file.ignored]
    warnings = [*parsed.warnings, *(f"an entry of a file does not count: {entry}" for entry in ignored)]
    for checker in parsed["credCheckers"]:
        warnings += getattr(checker, "warnings", ())
    if warnings:
        complain(*(f"warning: {warning}" for warning in warnings))
    tell(f"{both(options.file, options.node)}: no mistakes")
