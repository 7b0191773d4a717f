"""
The client's side of SOCKS4, SOCKS4a, SOCKS5 and HTTP CONNECT.

The names in ``__all__`` are the public interface. Each name is imported when it is first used: a program
without Twisted uses :class:`Handshake` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .endpoints import HTTPConnectClientEndpoint, SOCKS4ClientEndpoint, SOCKS5ClientEndpoint
    from .errors import (
        AddressTypeNotSupported,
        CommandNotSupported,
        DestinationError,
        DestinationNameNotFound,
        DestinationRefused,
        DestinationTimedOut,
        DestinationUnreachable,
        GeneralFailure,
        InvalidDestination,
        NoAcceptableMethod,
        NotAllowed,
        ProxiedConnectError,
        ProxyClosed,
        ProxyError,
        ProxyProtocolError,
        ProxyRefusedLogin,
        ProxyTimedOut,
        ProxyUnreachable,
        ReplyTimedOut,
    )
    from .handshake import Handshake, HandshakeFailed, Problem, UsernamePassword

__all__ = [
    "AddressTypeNotSupported",
    "CommandNotSupported",
    "DestinationError",
    "DestinationNameNotFound",
    "DestinationRefused",
    "DestinationTimedOut",
    "DestinationUnreachable",
    "GeneralFailure",
    "HTTPConnectClientEndpoint",
    "Handshake",
    "HandshakeFailed",
    "InvalidDestination",
    "NoAcceptableMethod",
    "NotAllowed",
    "Problem",
    "ProxiedConnectError",
    "ProxyClosed",
    "ProxyError",
    "ProxyProtocolError",
    "ProxyRefusedLogin",
    "ProxyTimedOut",
    "ProxyUnreachable",
    "ReplyTimedOut",
    "SOCKS4ClientEndpoint",
    "SOCKS5ClientEndpoint",
    "UsernamePassword",
]

_MODULES = {
    "endpoints": (
        "HTTPConnectClientEndpoint",
        "SOCKS4ClientEndpoint",
        "SOCKS5ClientEndpoint",
    ),
    "errors": (
        "AddressTypeNotSupported",
        "CommandNotSupported",
        "DestinationError",
        "DestinationNameNotFound",
        "DestinationRefused",
        "DestinationTimedOut",
        "DestinationUnreachable",
        "GeneralFailure",
        "InvalidDestination",
        "NoAcceptableMethod",
        "NotAllowed",
        "ProxiedConnectError",
        "ProxyClosed",
        "ProxyError",
        "ProxyProtocolError",
        "ProxyRefusedLogin",
        "ProxyTimedOut",
        "ProxyUnreachable",
        "ReplyTimedOut",
    ),
    "handshake": (
        "Handshake",
        "HandshakeFailed",
        "Problem",
        "UsernamePassword",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
