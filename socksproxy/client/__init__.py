"""
The client's side of SOCKS4, SOCKS4a, SOCKS5 and HTTP CONNECT.

The names in ``__all__`` are the public interface. Each name is imported when it is first used: a program
without Twisted uses :class:`Handshake` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .handshake import Handshake, HandshakeFailed, Problem, UsernamePassword

__all__ = ["Handshake", "HandshakeFailed", "Problem", "UsernamePassword"]

_MODULES = {
    "Handshake": "handshake",
    "HandshakeFailed": "handshake",
    "Problem": "handshake",
    "UsernamePassword": "handshake",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
