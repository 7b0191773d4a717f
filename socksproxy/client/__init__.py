"""
The client's side of SOCKS4, SOCKS4a, SOCKS5 and HTTP CONNECT.

The names in ``__all__`` are the public interface. Each name is imported when it is first used: a program
without Twisted uses :class:`Handshake` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agent import (
        ProxiedAgent,
    )
    from .associate import (
        AssociationTransport,
    )
    from .bind import (
        BoundPort,
    )
    from .endpoints import (
        HTTPConnectClientEndpoint,
        SOCKS4ClientEndpoint,
        SOCKS5ClientEndpoint,
    )
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
    from .handshake import (
        Handshake,
        HandshakeFailed,
        Problem,
        UsernamePassword,
    )
    from .logins import (
        GSSAPILogin,
    )
    from .no_proxy import (
        NoProxy,
    )
    from .proxy import (
        Kind,
        Proxy,
    )

__all__ = [
    "AddressTypeNotSupported",
    "AssociationTransport",
    "BoundPort",
    "CommandNotSupported",
    "DestinationError",
    "DestinationNameNotFound",
    "DestinationRefused",
    "DestinationTimedOut",
    "DestinationUnreachable",
    "GSSAPILogin",
    "GeneralFailure",
    "HTTPConnectClientEndpoint",
    "Handshake",
    "HandshakeFailed",
    "InvalidDestination",
    "Kind",
    "NoAcceptableMethod",
    "NoProxy",
    "NotAllowed",
    "Problem",
    "ProxiedAgent",
    "ProxiedConnectError",
    "Proxy",
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
    "AddressTypeNotSupported": "errors",
    "AssociationTransport": "associate",
    "BoundPort": "bind",
    "CommandNotSupported": "errors",
    "DestinationError": "errors",
    "DestinationNameNotFound": "errors",
    "DestinationRefused": "errors",
    "DestinationTimedOut": "errors",
    "DestinationUnreachable": "errors",
    "GSSAPILogin": "logins",
    "GeneralFailure": "errors",
    "HTTPConnectClientEndpoint": "endpoints",
    "Handshake": "handshake",
    "HandshakeFailed": "handshake",
    "InvalidDestination": "errors",
    "Kind": "proxy",
    "NoAcceptableMethod": "errors",
    "NoProxy": "no_proxy",
    "NotAllowed": "errors",
    "Problem": "handshake",
    "ProxiedAgent": "agent",
    "ProxiedConnectError": "errors",
    "Proxy": "proxy",
    "ProxyClosed": "errors",
    "ProxyError": "errors",
    "ProxyProtocolError": "errors",
    "ProxyRefusedLogin": "errors",
    "ProxyTimedOut": "errors",
    "ProxyUnreachable": "errors",
    "ReplyTimedOut": "errors",
    "SOCKS4ClientEndpoint": "endpoints",
    "SOCKS5ClientEndpoint": "endpoints",
    "UsernamePassword": "handshake",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
