"""``socksproxy sign``: a signature for a configuration, which nodes check before they use it."""

from __future__ import annotations

import os
from argparse import Namespace
from datetime import datetime, timezone
from typing import Any

from ..config.words import MOST_BYTES
from ..errors import describe
from ..extras import missing
from ..runtime.files import read_regular_file
from ..sources.found import SourceProblem
from ..sources.last_good import replace_file
from .failure import CommandFailed, shown, tell

_DESCRIPTION = """
Signs a configuration file (Ed25519), so that twistd socks --config-key PUBLIC-KEY uses it. The
signature becomes the last line of the file, in place of an older signature. It holds the time: a node refuses
a file that was signed before the one that it uses. To go back to an older file, sign it again. A key is made
with: openssl genpkey -algorithm ed25519 -out KEY; openssl pkey -in KEY -pubout -out PUBLIC-KEY
"""


def add_to(commands: Any) -> None:
    """Add this one to argparse's subparsers *commands*."""
    parser = commands.add_parser("sign", help="sign a configuration file", description=_DESCRIPTION)
    parser.add_argument("key", metavar="KEY", help="the private key (PEM, without a password)")
    parser.add_argument("file", metavar="FILE", help="the configuration file, which is changed")
    parser.set_defaults(run=run)


def run(options: Namespace) -> None:
    """
    Sign a file.

    :raises CommandFailed: when it cannot be signed.
    """
    try:
        from ..sources.signing import private_key, signed
    except ImportError as problem:
        raise CommandFailed(missing("tls", problem)) from None
    pem = _read(options.key)
    content = _read(options.file, MOST_BYTES)
    try:
        key = private_key(pem)
    except SourceProblem as problem:
        raise CommandFailed(f"{shown(options.key)}: {problem}") from None
    result = signed(content, key, datetime.now(timezone.utc))
    path = os.path.realpath(options.file)
    try:
        replace_file(path, result, os.stat(path).st_mode & 0o777)
    except OSError as problem:
        raise CommandFailed(f"{shown(options.file)}: {describe(problem)}") from None
    tell(f"{shown(options.file)}: signed")


def _read(path: str, most: int = 1 << 16) -> bytes:
    try:
        return read_regular_file(path, most).data
    except OSError as problem:
        raise CommandFailed(f"{shown(path)}: {describe(problem)}") from None
    except ValueError:
        raise CommandFailed(f"{shown(path)}: not a path") from None
