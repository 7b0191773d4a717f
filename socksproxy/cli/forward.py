"""``socksproxy forward``: local ports that lead through a proxy."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.logger import globalLogBeginner, textFileLogObserver

from ..errors import describe
from ..socksify.forward import ForwardService
from . import proxy_options
from .failure import CommandFailed, tell

_DESCRIPTION = """
Opens local ports that lead through a proxy, and stays until a signal ends it. LISTEN is
[tcp:|udp:][ADDRESS:]PORT, without an address on 127.0.0.1. DESTINATION is HOST:PORT; the proxy looks a
name up. With --transparent a port leads to where the packet filter of this machine took the connection
from.
"""


def add_to(commands: Any) -> None:
    """Add this one to argparse's subparsers *commands*."""
    parser = commands.add_parser(
        "forward",
        help="open local ports that lead through a proxy",
        description=_DESCRIPTION,
        usage="socksproxy forward [options] LISTEN DESTINATION [LISTEN DESTINATION ...]\n"
        "       socksproxy forward [options] --transparent LISTEN [LISTEN ...]",
    )
    parser.add_argument("places", metavar="PLACE", nargs="+", help="such as 8080 example.org:80")
    proxy_options.add_to(parser)
    parser.add_argument(
        "--transparent",
        action="store_true",
        help="lead to the original destination (nftables: redirect or tproxy; Linux)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="for a connection through the proxy [30]",
    )
    parser.set_defaults(run=run)


def run(options: Namespace) -> None:
    """
    Forward until a signal comes.

    :raises CommandFailed: when a port cannot be opened.
    """
    if not options.timeout > 0:
        raise CommandFailed(f"--timeout {options.timeout:g}: a number over 0 is due")
    proxy = proxy_options.proxy_of(options, options.timeout)
    places = options.places
    if not options.transparent and len(places) % 2:
        raise CommandFailed(f"{places[-1]}: LISTEN without a DESTINATION")
    listen, destinations = (places, None) if options.transparent else (places[::2], places[1::2])
    try:
        service = ForwardService(proxy, listen, destinations)
        service.privilegedStartService()
    except ValueError as problem:
        raise CommandFailed(str(problem)) from None
    except (CannotListenError, OSError) as problem:
        cause = problem.socketError if isinstance(problem, CannotListenError) else problem
        raise CommandFailed(f"a port cannot be opened: {describe(cause)}") from None
    service.startService()
    for host, port in service.ports:
        tell(f"listening on [{host}]:{port}" if ":" in host else f"listening on {host}:{port}")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    reactor = proxy.reactor
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
