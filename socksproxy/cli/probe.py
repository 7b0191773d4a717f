"""``socksproxy probe``: what a SOCKS server does rightly, and what not."""

from __future__ import annotations

from argparse import Namespace
from ipaddress import ip_address
from typing import Any

from ..logs.printable import in_one_line
from ..probe import report
from ..probe.checks import ALL
from ..probe.outcome import Check, Result, Verdict
from ..probe.running import run as run_checks
from ..probe.speed import measure
from ..probe.subject import Subject, Where
from ..wire.password import Credentials
from .failure import CommandFailed, tell
from .login_file import read_login

_DESCRIPTION = """
Checks any SOCKS server: versions, methods, the reply to every failure, half-close, BIND, UDP, RESOLVE, timeouts,
and then how fast it is. The checks need no service elsewhere: the server is asked for ports of this machine, which
the probe opens. Where the server runs on another machine, --target says how it reaches this one.
Each line says pass, fail, not served (the server says that it does not do it) or not run (something is missing for
the check); what failed is followed by what was found and by the document that the check rests on.
The exit status is 0 when nothing failed, 1 when a check failed, and 3 when the server cannot be reached or does
not speak SOCKS.
"""
_UNREACHABLE = 3


def add_to(commands: Any) -> None:
    """Add this one to argparse's subparsers *commands*."""
    parser = commands.add_parser("probe", help="check any SOCKS server", description=_DESCRIPTION)
    parser.add_argument("server", metavar="HOST:PORT", nargs="?", help="the server; IPv6 in brackets")
    parser.add_argument("--login-file", metavar="FILE", help="a file with the login: one line, USER:PASSWORD")
    parser.add_argument(
        "--target",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="an address of this machine that the server reaches [127.0.0.1]",
    )
    parser.add_argument(
        "--target-name",
        metavar="NAME",
        help="a name that the server resolves to it [localhost for 127.0.0.1; otherwise none]",
    )
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=3.0, help="for each answer [3]")
    parser.add_argument(
        "--patience", metavar="SECONDS", type=float, default=35.0, help="that a silent client may stay [35]"
    )
    parser.add_argument("--only", metavar="CHECK", action="append", help="a check, or a group such as udp; repeatable")
    parser.add_argument("--no-figures", action="store_true", help="do not measure how fast the server is")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--list", action="store_true", help="print the checks and what each rests on")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """
    Check the server.

    :returns: the exit status.
    :raises CommandFailed: for options that make no sense, before the server is asked anything.
    """
    checks = _chosen(options.only)
    if options.list:
        tell(*(f"{check.id:<{report.ID_WIDTH}}  {check.expected} [{check.source}]" for check in checks))
        return 0
    if options.server is None:
        raise CommandFailed("probe: no HOST:PORT is given")
    subject = Subject(_where(options))
    results = run_checks(checks, subject, lambda result: None if options.json else _print(result))
    figures = [] if options.no_figures else measure(subject)
    if options.json:
        tell(*report.as_json(options.server, results, figures).splitlines())
    else:
        tell(*report.figures_in_lines(figures), report.summary(results))
    return _status(results)


def _print(result: Result) -> None:
    tell(*report.rows(result))


def _status(results: list[Result]) -> int:
    verdicts = {result.verdict for result in results}
    if Verdict.PASS not in verdicts:
        return _UNREACHABLE
    return int(Verdict.FAIL in verdicts)


def _chosen(only: list[str] | None) -> list[Check]:
    """The checks that *only* names, with those that they need; None: all."""
    if only is None:
        return ALL
    wanted: set[str] = set()
    for name in only:
        found = {check.id for check in ALL if check.id == name or check.id.startswith(f"{name}.")}
        if not found:
            groups = ", ".join(dict.fromkeys(check.id.partition(".")[0] for check in ALL))
            raise CommandFailed(f"--only {in_one_line(name)}: no such check; the groups are {groups}; see --list")
        wanted |= found
    for check in reversed(ALL):
        if check.id in wanted:
            wanted.add(check.needs)
    return [check for check in ALL if check.id in wanted]


def _where(options: Namespace) -> Where:
    host, colon, port = options.server.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise CommandFailed(f"{in_one_line(options.server)}: HOST:PORT is due, such as 127.0.0.1:1080 or [::1]:1080")
    try:
        target = str(ip_address(options.target))
    except ValueError:
        raise CommandFailed(f"--target {in_one_line(options.target)}: an IP address of this machine is due") from None
    for name in ("timeout", "patience"):
        if not 0 < getattr(options, name) < 3600:
            raise CommandFailed(f"--{name} {getattr(options, name):g}: seconds between 0 and 3600 are due")
    name = options.target_name
    if name is None:
        name = "localhost" if target == "127.0.0.1" else ""
    return Where(
        host.removeprefix("[").removesuffix("]"),
        int(port),
        None if options.login_file is None else Credentials(*read_login(options.login_file)),
        target,
        name,
        options.timeout,
        options.patience,
    )
