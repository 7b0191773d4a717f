"""The options of commands that use a proxy: where it is, and who logs in."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from urllib.parse import urlsplit

from attr import evolve

from ..client.handshake import UsernamePassword
from ..client.no_proxy import NoProxy
from ..client.proxy import Proxy
from ..errors import describe
from .failure import CommandFailed, complain, shown

#: Bytes of a file with a login.
_LONGEST = 1024


def add_to(parser: ArgumentParser) -> None:
    """Add the options to *parser*."""
    parser.add_argument(
        "--proxy",
        metavar="URL",
        help="the proxy: [SCHEME://][USER@]HOST[:PORT], with the scheme socks5, socks4a, http and others "
        "[the environment's ALL_PROXY]",
    )
    parser.add_argument(
        "--login-file", metavar="FILE", help="a file with the login for the proxy: one line, USER:PASSWORD"
    )


def proxy_of(options: Namespace, timeout: float) -> Proxy:
    """
    The proxy that *options* or the environment name. ``NO_PROXY`` does not count: nothing goes around the
    proxy.

    :param timeout: seconds for a connection through it.
    :raises CommandFailed: where there is none, it is wrong, or its password would show in a list of
        processes.
    """
    try:
        proxy = (
            Proxy.from_environment() if options.proxy is None else Proxy.from_url(_with_scheme(options.proxy))
        )
    except ValueError as problem:
        raise CommandFailed(str(problem) if options.proxy is None else f"--proxy: {problem}") from None
    if proxy is None:
        raise CommandFailed("there is no proxy: use --proxy URL, or set ALL_PROXY in the environment")
    if options.proxy is not None and urlsplit(_with_scheme(options.proxy)).password is not None:
        raise CommandFailed(
            "--proxy: every user of this machine sees the password of a command line: write USER:PASSWORD "
            "into a file for --login-file, or the URL into the variable ALL_PROXY"
        )
    if options.login_file is not None:
        proxy = proxy.with_login(read_login(options.login_file))
    return evolve(proxy, no_proxy=NoProxy(), timeout=timeout)


def _with_scheme(url: str) -> str:
    return url if "://" in url else f"socks5://{url}"


def read_login(path: str) -> UsernamePassword:
    """
    The login that the file *path* holds.

    :raises CommandFailed: when it holds none.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o044:
                complain(f"socksproxy: warning: {shown(path)}: other users may read the password: chmod 600")
            line = file.read(_LONGEST).removesuffix(b"\n").removesuffix(b"\r")
    except OSError as problem:
        raise CommandFailed(f"--login-file {shown(path)}: {describe(problem)}") from None
    user, colon, password = line.partition(b":")
    if not colon or not user or b"\n" in line:
        raise CommandFailed(f"--login-file {shown(path)}: one line of the form USER:PASSWORD is due")
    try:
        return UsernamePassword(user, password)
    except ValueError as problem:
        raise CommandFailed(f"--login-file {shown(path)}: {problem}") from None
