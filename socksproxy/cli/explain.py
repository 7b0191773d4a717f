"""``socksproxy explain``: what would be decided, and why?"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from ipaddress import ip_address
from typing import Any

from ..errors import NameNotFound
from ..policy import Client
from ..policy.compiled import RulePolicy
from ..policy.listeners import UNIX
from ..wire.words import Address, Command
from .failure import CommandFailed

_DESCRIPTION = """
Explains what the rules of a configuration file decide: which rule does, and why none
before it. Nothing is started, and no name is looked up: the addresses of a name are
given with --address. Only the rules of the file count here. Status 0 says that it is
explained, not that it is allowed.
"""

_COMMANDS = {command.name.lower().replace("udp_", ""): command for command in Command}


def add_to(commands: Any) -> None:
    """Add this one to argparse's subparsers *commands*."""
    parser = commands.add_parser("explain", help="explain what rules decide", description=_DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="the configuration file (TOML)")
    parser.add_argument("command", metavar="COMMAND", choices=_COMMANDS, help=", ".join(_COMMANDS))
    parser.add_argument("destination", metavar="HOST:PORT", help="what is asked for; IPv6 in brackets")
    parser.add_argument("--user", metavar="NAME", help="who asks [nobody in particular]")
    parser.add_argument("--group", metavar="NAME", action="append", default=[], help="repeatable")
    parser.add_argument("--from", metavar="ADDRESS", dest="client", default="127.0.0.1", help="[127.0.0.1]")
    parser.add_argument("--listener", metavar="ADDRESS:PORT", help="the listener that is reached")
    parser.add_argument("--version", type=int, choices=(4, 5), default=5, help="of SOCKS [5]")
    parser.add_argument(
        "--address", metavar="ADDRESS", action="append", default=[], help="of the name; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="as data")
    parser.set_defaults(run=run)


def run(options: Namespace) -> None:
    """
    Explain a decision.

    :raises CommandFailed: when the file has mistakes or no rules, or the question makes no sense.
    """
    from ..policy.explain import explain

    policy = _policy(options.file)
    client = Client(
        None if options.client == "unix" else _literal("--from", options.client),
        0,
        options.user,
        None,
        frozenset(options.group),
        options.listener,
        options.version,
        aliases=(UNIX,) if (options.listener or "").startswith(f"{UNIX}:") else (),
    )
    addresses = [_literal("--address", text) for text in options.address]
    try:
        told = explain(
            policy, client, _COMMANDS[options.command], _destination(options.destination), addresses
        )
    except NameNotFound:
        raise CommandFailed(f"{options.destination}: the host cannot be the name of one") from None
    if options.json:
        print(json.dumps([each.data() for each in told], indent=2))
    else:
        print(*told, sep="\n")


def _policy(file: str) -> RulePolicy:
    try:
        from ..config import MOST_BYTES, read
    except ImportError:
        raise CommandFailed("cattrs is needed: pip install 'twisted-socksproxy[config]' brings it") from None
    try:
        with open(file, "rb") as opened:
            configured = read(opened.read(MOST_BYTES + 1), file)
    except OSError as problem:
        raise CommandFailed(f"{file}: {problem.strerror}") from None
    mistakes = configured.report([])
    if mistakes:
        print(*mistakes, sep="\n", file=sys.stderr)
        raise CommandFailed(f"{file}: it has mistakes")
    if configured.policy is None:
        raise CommandFailed(f"{file}: there are no rules in it")
    return configured.policy


def _destination(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise CommandFailed(f"{text}: not HOST:PORT, such as example.com:443 or [2001:db8::1]:443")
    return Address.of(host.removeprefix("[").removesuffix("]"), int(port))


def _literal(option: str, text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise CommandFailed(f"{option} {text}: not a literal IPv4 or IPv6 address") from None
