"""``socksproxy run``: a program whose connections go through a proxy."""

from __future__ import annotations

import socket
from argparse import REMAINDER, Namespace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from ..socksify import run as processes
from ..socksify.upstream import RunProxy, RunSettings
from . import proxy_options
from .failure import CommandFailed

_DESCRIPTION = """
Runs a program whose TCP connections, names and datagrams go through a proxy, with all programs that it
starts. The program needs no support for it: its system calls are answered. Nothing leaves the machine
beside the proxy, but what --direct and --udp direct allow. Needs Linux on x86-64 or aarch64; needs no root.
Programs with set-uid bits (sudo, ping) do not gain their rights. The exit status is the program's.
"""


def add_to(commands: Any) -> None:
    """Add this one to argparse's subparsers *commands*."""
    parser = commands.add_parser(
        "run",
        help="run a program through a proxy",
        description=_DESCRIPTION,
        usage="socksproxy run [options] [--] COMMAND [ARGUMENT ...]",
    )
    proxy_options.add_to(parser)
    parser.add_argument(
        "--direct",
        metavar="NETWORK",
        action="append",
        default=[],
        help="a network that is reached without the proxy, such as 10.0.0.0/8; repeatable",
    )
    parser.add_argument(
        "--udp",
        choices=("proxy", "direct"),
        default="proxy",
        help="how datagrams to addresses go; direct: around the proxy [proxy]",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="for a connection through the proxy [60]",
    )
    parser.add_argument("command", metavar="COMMAND", nargs=REMAINDER, help="the program and its arguments")
    parser.set_defaults(run=run)


def run(options: Namespace) -> None:
    """
    Run the program; this process ends as the program ends.

    :raises CommandFailed: before anything is started.
    """
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise CommandFailed("run: no COMMAND is given")
    if not options.timeout > 0:
        raise CommandFailed(f"--timeout {options.timeout:g}: a number over 0 is due")
    direct = [_network(text) for text in options.direct]
    proxy = proxy_options.proxy_of(options, options.timeout)
    try:
        found = socket.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
        upstream = RunProxy(proxy, list(dict.fromkeys(str(entry[4][0]) for entry in found)))
    except (socket.gaierror, UnicodeError):
        raise CommandFailed(f"the proxy's name {proxy.host} has no address") from None
    except (ImportError, ValueError) as problem:
        raise CommandFailed(f"the proxy cannot be used: {problem}") from None
    try:
        processes.run(command, RunSettings(upstream, direct, options.udp == "direct", options.timeout))
    except processes.Unsupported as problem:
        raise CommandFailed(str(problem)) from None


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise CommandFailed(f"--direct {text}: a network such as 10.0.0.0/8 is due") from None
