"""
Endpoints from strings, for :func:`twisted.internet.endpoints.clientFromString`.

The plugin file ``twisted/plugins/socksproxy_endpoints.py`` leads here.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint

from ..runtime.files import read_regular_file
from .endpoints import HTTPConnectClientEndpoint, SOCKS4ClientEndpoint, SOCKS5ClientEndpoint
from .handshake import UsernamePassword

_OPTIONS = {
    "socks": ("proxy", "user", "password", "password-file", "timeout", "resolve"),
    "socks4": ("proxy", "user", "timeout"),
    "socks4a": ("proxy", "user", "timeout", "resolve"),
}
_OPTIONS |= dict.fromkeys(("socks5", "http-connect"), _OPTIONS["socks"])


def endpoint_from(prefix: str, reactor: Any, *words: str, **options: str) -> IStreamClientEndpoint:
    """
    The endpoint of ``PREFIX:HOST:PORT:proxy=DESCRIPTION``, with ``user=``, ``password=`` or
    ``password-file=``, ``timeout=`` (seconds) and ``resolve=proxy`` or ``resolve=here``.

    :param prefix: ``socks5``, ``socks`` (the same), ``socks4a``, ``socks4`` or ``http-connect``.
    :raises ValueError: for anything else. The message names the option.
    """
    try:
        return _endpoint(prefix, reactor, words, options)
    except (OSError, ValueError) as problem:
        raise ValueError(f"{prefix}: {problem}") from None


def _endpoint(
    prefix: str, reactor: Any, words: tuple[str, ...], options: dict[str, str]
) -> IStreamClientEndpoint:
    if len(words) != 2:
        raise ValueError("HOST:PORT is due, with the colons in it and in proxy= written as '\\:'")
    unknown = sorted(set(options) - set(_OPTIONS[prefix]))
    if unknown:
        raise ValueError(f"{unknown[0]}=: one of {', '.join(_OPTIONS[prefix])} is due")
    if "proxy" not in options:
        raise ValueError(
            "proxy= is due: the endpoint that leads to the proxy, such as 'tcp\\:127.0.0.1\\:1080'"
        )
    host, port = words[0], _number("the port", words[1], 65535)
    try:
        proxy = clientFromString(reactor, options["proxy"])
    except (TypeError, ValueError) as problem:  # TypeError: the description lacks a part
        raise ValueError(f"proxy=: {problem}") from None
    more: dict[str, Any] = {
        "timeout": _number("timeout=", options.get("timeout", "30"), 86400),
        "resolve": "here" if prefix == "socks4" else options.get("resolve", "proxy"),
        "reactor": reactor,
    }
    if prefix in ("socks4", "socks4a"):
        return SOCKS4ClientEndpoint(proxy, host, port, user=options.get("user", ""), **more)
    made = HTTPConnectClientEndpoint if prefix == "http-connect" else SOCKS5ClientEndpoint
    return made(proxy, host, port, login=_login(options), **more)


def _number(what: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= most):
        raise ValueError(f"{what} {text!r}: a number from 1 to {most} is due")
    return int(text)


def _login(options: dict[str, str]) -> UsernamePassword | None:
    secret: str | bytes = options.get("password", "")
    if "password-file" in options:
        if secret:
            raise ValueError("password= and password-file= exclude each other")
        secret = read_regular_file(options["password-file"]).data.rstrip(b"\r\n")
    if "user" in options:
        return UsernamePassword(options["user"], secret)
    if secret:
        raise ValueError("password= is due with user=")
    return None
