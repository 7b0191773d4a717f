"""``socksproxy connect``: standard input and output through a proxy."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from attr import evolve

from ..client.proxy import Kind
from ..errors import describe
from ..socksify.connect import NotConnected, Unwritten, connect
from . import proxy_options
from .failure import CommandFailed, complain

_DESCRIPTION = """
Joins standard input and output to a connection through a proxy, as the ProxyCommand of ssh and git for
example. Ends when both directions are closed. The exit status is 0, or says what failed: 3 the proxy cannot
be reached, 4 the login is refused, 5 the proxy breaks the protocol or closes, 6 no reply in time, 7 the
connection was reset, 11 to 18 the reply of the proxy (10 and its number), 1 all else.
"""


def add_to(commands: Any) -> None:
    """Add this one to argparse's subparsers *commands*."""
    parser = commands.add_parser(
        "connect", help="join standard input and output to a connection", description=_DESCRIPTION
    )
    parser.add_argument("host", metavar="HOST", help="a name, which the proxy looks up, or an address")
    parser.add_argument("port", metavar="PORT", type=int, help="its port")
    proxy_options.add_to(parser)
    version = parser.add_mutually_exclusive_group()
    for option, kind in (("-4", Kind.SOCKS4), ("-4a", Kind.SOCKS4A), ("-5", Kind.SOCKS5)):
        version.add_argument(
            option,
            dest="kind",
            action="store_const",
            const=kind,
            help=f"speak {kind.value}, whatever the URL says",
        )
    parser.add_argument(
        "--listen",
        action="store_true",
        help="have the proxy wait for one connection from HOST (BIND); standard error tells where",
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=30.0, help="until there is a connection [30]"
    )
    parser.set_defaults(run=run)


def run(options: Namespace) -> None:
    """
    Join them until both directions are closed.

    :raises CommandFailed: with the status that says what failed.
    """
    if not options.timeout > 0:
        raise CommandFailed(f"--timeout {options.timeout:g}: a number over 0 is due")
    proxy = proxy_options.proxy_of(options, options.timeout)
    if options.kind is not None:
        proxy = evolve(proxy, kind=options.kind)
    listening = (lambda where: complain(f"socksproxy: listening on {where}")) if options.listen else None
    try:
        status = connect(proxy, options.host, options.port, listening)
    except NotConnected as problem:
        raise CommandFailed(str(problem), problem.status) from None
    except Unwritten as problem:
        raise CommandFailed(f"standard output: {describe(problem)}") from None
    except ImportError as problem:
        raise CommandFailed(str(problem)) from None
    if status:
        raise CommandFailed("the connection was reset", status)
