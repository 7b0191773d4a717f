"""``socksproxy probe``: what a SOCKS server does rightly, and what not."""

from __future__ import annotations

from argparse import Namespace
from ipaddress import ip_address
from typing import Any

from ..client.proxy import Kind, Proxy
from ..logs.printable import in_one_line
from ..probe import report
from ..probe.check import Check, Result
from ..probe.checks import ALL
from ..probe.outcome import CheckOutcome, Failed
from ..probe.running import run as run_checks
from ..probe.speed import measure
from ..probe.subject import ProbedServer, Where
from ..wire.password import Credentials
from .failure import CommandFailed, tell
from .proxy_options import read_login

_DESCRIPTION = """
Checks any SOCKS server: versions, methods, the reply to every failure, half-close, BIND, UDP,
RESOLVE, timeouts, and then how fast it is. The checks need no service elsewhere: the probe opens
ports of this machine and asks the server for them. Where the server runs on another machine,
--target says how it reaches this one.
Each line says pass, fail, not served (the server says that it does not do it) or not run
(something is missing for the check). What failed is followed by what was found and by the document
that the check rests on.
The exit status is 0 when nothing failed, 1 when a check failed, 2 for wrong options, and 3 when the
server cannot be reached or does not speak SOCKS.
"""
_USAGE, _UNREACHABLE = 2, 3
#: The first check of each version, and the verdicts with which a server speaks the version.
_FIRST = (
    ("SOCKS5", "socks5.greeting", (CheckOutcome.PASS, CheckOutcome.FAIL)),
    ("SOCKS4", "socks4.connect", (CheckOutcome.PASS,)),
)


def add_to(commands: Any) -> None:
    """Add this one to argparse's subparsers *commands*."""
    parser = commands.add_parser("probe", help="check any SOCKS server", description=_DESCRIPTION)
    parser.add_argument(
        "server",
        metavar="HOST:PORT",
        nargs="?",
        help="the server; IPv6 in brackets [that of the environment's ALL_PROXY, with its login]",
    )
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
    parser.add_argument(
        "--only", metavar="CHECK", action="append", help="a check, or a group such as udp; repeatable"
    )
    parser.add_argument("--no-figures", action="store_true", help="do not measure how fast the server is")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--list", action="store_true", help="print the checks and what each rests on")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """
    Check the server.

    :returns: the exit status.
    :raises CommandFailed: for options that make no sense, before the server is asked anything, and for a
        server that cannot be reached or does not speak SOCKS.
    """
    try:
        checks, where = _chosen(options.only), None if options.list else _where(options)
    except CommandFailed as problem:
        problem.status = _USAGE
        raise
    if where is None:
        tell(*(f"{check.id:<{report.ID_WIDTH}}  {check.expected} [{check.source}]" for check in checks))
        return 0
    subject = ProbedServer(where)
    _reach(subject)
    results = run_checks(checks, subject, lambda result: None if options.json else _print(result))
    figures = [] if options.no_figures else measure(subject)
    if options.json:
        tell(*report.as_json(f"{where.host}:{where.port}", results, figures).splitlines())
    else:
        tell(*report.figures_in_lines(figures), report.summary(results))
    return _status(results)


def _reach(subject: ProbedServer) -> None:
    """
    Find out whether there is a server of SOCKS at all; otherwise no check would say anything.

    :raises CommandFailed: when there is none.
    """
    server = f"{subject.where.host}:{subject.where.port}"
    try:
        subject.connect().socket.close()
    except Failed as problem:
        raise CommandFailed(f"{server}: {problem}", _UNREACHABLE) from None
    found = []
    for version, first, answered in _FIRST:
        [result] = run_checks([check for check in ALL if check.id == first], subject)
        if result.verdict in answered:
            return
        found.append(f"{version}: {result.found}")
    raise CommandFailed(f"{server} does not speak SOCKS ({'; '.join(found)})", _UNREACHABLE)


def _print(result: Result) -> None:
    tell(*report.rows(result))


def _status(results: list[Result]) -> int:
    verdicts = {result.verdict for result in results}
    if CheckOutcome.PASS not in verdicts:
        return _UNREACHABLE
    return int(CheckOutcome.FAIL in verdicts)


def _chosen(only: list[str] | None) -> list[Check]:
    """The checks that *only* names, with those that they need; None: all."""
    if only is None:
        return ALL
    wanted: set[str] = set()
    for name in only:
        found = {check.id for check in ALL if check.id == name or check.id.startswith(f"{name}.")}
        if not found:
            groups = ", ".join(dict.fromkeys(check.id.partition(".")[0] for check in ALL))
            raise CommandFailed(
                f"--only {in_one_line(name)}: no such check; the groups are {groups}; see --list"
            )
        wanted |= found
    for check in reversed(ALL):
        if check.id in wanted:
            wanted.add(check.needs)
    return [check for check in ALL if check.id in wanted]


def _where(options: Namespace) -> Where:
    host, port, login = _server(options.server)
    if options.login_file is not None:
        login = read_login(options.login_file).credentials
    try:
        target = str(ip_address(options.target))
    except ValueError:
        raise CommandFailed(
            f"--target {in_one_line(options.target)}: an IP address of this machine is due"
        ) from None
    for name in ("timeout", "patience"):
        if not 0 < getattr(options, name) < 3600:
            raise CommandFailed(f"--{name} {getattr(options, name):g}: seconds between 0 and 3600 are due")
    named = options.target_name
    if named is None:
        named = "localhost" if target == "127.0.0.1" else ""
    return Where(host, port, login, target, named, options.timeout, options.patience)


def _server(text: str | None) -> tuple[str, int, Credentials | None]:
    """The host, the port and the login that *text* or the environment gives."""
    if text is None:
        try:
            proxy = Proxy.from_environment()
        except ValueError as problem:
            raise CommandFailed(str(problem)) from None
        if proxy is None or proxy.kind in (Kind.HTTP, Kind.HTTPS):
            raise CommandFailed("probe: no server: give HOST:PORT, or the URL of a SOCKS server in ALL_PROXY")
        return proxy.host, proxy.port, None if proxy.login is None else proxy.login.credentials
    if "/" in text or "@" in text:  # it may have a password
        raise CommandFailed("probe: HOST:PORT is due, not a URL; the environment's ALL_PROXY takes one")
    host, colon, port = text.rpartition(":")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        host = ""
    if not colon or not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise CommandFailed(f"{in_one_line(text)}: HOST:PORT is due, such as 127.0.0.1:1080 or [::1]:1080")
    return host.removeprefix("[").removesuffix("]"), int(port), None
